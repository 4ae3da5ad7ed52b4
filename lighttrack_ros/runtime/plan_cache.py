"""Compiled plans in the user's cache directory; the key is everything that a plan depends on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.user_folders import cache_folder

_LOOK_EVERY = 0.1  # seconds between two checks whether another process is done

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanKey:
    """Everything that a plan depends on."""

    graph: str  # sha256 of the file
    dimensions: Mapping[str, int]
    precision: str
    builder: int  # build.VERSION
    tensorrt: str  # package and version
    cuda: int  # the driver's, 12060 is 12.6
    gpu: str
    compute_capability: str
    ranges: str = ""  # digest of the int8 ranges

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """One plan in the cache, for people to read."""

    path: Path
    model: str  # folder and file name of the graph
    key: PlanKey
    seconds: float  # compile time
    size: int  # bytes
    checked: str  # result of the comparison with the fp32 graph; empty before the comparison


class PlanCache:
    """A folder of plans; a JSON file beside each one holds its key.

    Files are written atomically, also when several processes write.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "plans"

    def path(self, key: PlanKey) -> Path:
        return self.folder / f"{key.digest}.plan"

    def load(self, key: PlanKey) -> bytes | None:
        with contextlib.suppress(OSError):
            return self.path(key).read_bytes()
        return None

    def store(self, key: PlanKey, plan: bytes, model: str, seconds: float) -> None:
        """Raises OSError if the folder cannot be written."""
        facts = {"model": model, "seconds": round(seconds, 3), "checked": "", "key": asdict(key)}
        write_whole(self.path(key).with_suffix(".json"), json.dumps(facts, indent=1).encode())
        write_whole(self.path(key), plan)

    def is_checked(self, key: PlanKey) -> bool:
        """Whether this plan passed the comparison with the fp32 graph."""
        with contextlib.suppress(OSError, ValueError):
            return bool(_facts(self.path(key)).get("checked"))
        return False

    def check(self, key: PlanKey, result: str) -> None:
        """Note that the plan passed the comparison, with its result. Raises OSError if the folder cannot be written."""
        path = self.path(key).with_suffix(".json")
        with contextlib.suppress(FileNotFoundError, ValueError):  # a plan that could not be stored
            write_whole(path, json.dumps(_facts(path) | {"checked": result}, indent=1).encode())

    def load_timings(self, key: PlanKey) -> bytes:
        with contextlib.suppress(OSError):
            return self._timings(key).read_bytes()
        return b""

    def store_timings(self, key: PlanKey, timings: bytes) -> None:
        """Raises OSError if the folder cannot be written."""
        write_whole(self._timings(key), timings)

    @contextlib.contextmanager
    def building(self, stop: threading.Event | None = None) -> Iterator[None]:
        """Lock held while a plan is built: one build at a time per machine, because the builder times kernels.

        Raises OSError if the folder cannot be written, LightTrackError if `stop` is set while it waits.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "building.lock", "w") as lock:
            told = False
            while not _locked(lock):
                if not told:
                    _logger.info("waiting for another process that is compiling")
                    told = True
                if (stop or threading.Event()).wait(_LOOK_EVERY):
                    raise LightTrackError("told to stop while another process is compiling")
            yield

    def entries(self) -> list[Entry]:
        """All plans, newest first; files that are not the cache's are left out."""
        found = []
        for path in self.folder.glob("*.plan"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                facts = _facts(path)
                stat = path.stat()
                key, seconds = PlanKey(**facts["key"]), float(facts["seconds"])
                entry = Entry(path, facts["model"], key, seconds, stat.st_size, facts.get("checked", ""))
                found.append((stat.st_mtime, entry))
        return [entry for _, entry in sorted(found, key=lambda item: item[0], reverse=True)]

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)

    def _timings(self, key: PlanKey) -> Path:
        on = hashlib.sha256(f"{key.tensorrt} {key.cuda} {key.gpu} {key.compute_capability}".encode()).hexdigest()[:16]
        return self.folder / f"{on}.timings"


def _facts(plan: Path) -> dict[str, Any]:
    """What is noted beside a plan. Raises OSError, or ValueError if it is no such note."""
    facts = json.loads(plan.with_suffix(".json").read_bytes())
    if not isinstance(facts, dict):
        raise ValueError(f"{plan.with_suffix('.json')} holds {type(facts).__name__}")
    return facts


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Write under another name, then rename: no reader sees half a file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise

"""A published checkpoint from its authors' repository, checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.lighttrack import MOBILE

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Published:
    """A checkpoint that its authors publish.

    Attributes:
        url: where it is.
        blob: its git object name: the SHA-1 of "blob <length>\\0" and the content.
        architecture: path string, see `networks.lighttrack`.
        source, licence: for model.yaml.
    """

    url: str
    blob: str
    architecture: str
    source: str
    licence: str


_COMMIT = "39c426f48ee674795cdf0e00301a0b4ad0785d2a"
PUBLISHED = {
    "lighttrack_mobile": Published(
        url=f"https://raw.githubusercontent.com/researchmm/LightTrack/{_COMMIT}/snapshot/LightTrackM/LightTrackM.pth",
        blob="95badd720f00088d0542e821f4d0636c38e9a368",
        architecture=MOBILE,
        source=f"https://github.com/researchmm/LightTrack, commit {_COMMIT}, snapshot/LightTrackM/LightTrackM.pth",
        licence="MIT, Copyright (c) 2021 Multimedia Research",
    )
}


def download(url: str, blob: str, target: Path) -> Path:
    """Fetch a file, going on from where an earlier try was cut; a file that is there and right is not fetched again.

    Args:
        url: http or https.
        blob: git object name that the content must have.
        target: where it goes; `target` with ".part" appended holds what has come so far.

    Raises:
        LightTrackError: no network, an answer other than the file, or a file of another content.
    """
    if target.is_file() and blob_name(target) == blob:
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while not _fetch(url, part):  # cut, but some of it came: go on from there
            pass
        found = blob_name(part)
        if found != blob:
            part.unlink()
            raise LightTrackError(f"{url}: the file's git blob is {found}, expected {blob}; it was thrown away")
        os.replace(part, target)
    except OSError as error:
        raise LightTrackError(f"{target}: cannot be written ({error})") from error
    return target


def blob_name(path: Path) -> str:
    """The name git gives a file of this content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # git's own, not for secrecy


def _fetch(url: str, part: Path) -> bool:
    """One connection, appending to `part`; whether the file is whole now.

    Raises:
        LightTrackError: nothing new came.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    came, resumed = 0, False
    reason: object = "the connection was closed"
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            start = have if resumed else 0  # a server that knows no ranges sends the whole file
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            with (
                part.open("r+b" if start else "wb") as file,
                tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem) as bar,
            ):
                file.seek(start)
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    came += len(chunk)
                    bar.update(len(chunk))
            if total is None or start + came >= total:
                return True
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing beyond what is there: it is whole, or wrong, which the check will tell
            return True
        raise LightTrackError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
    if not came or (have and not resumed):  # a server without ranges would begin anew each time
        raise LightTrackError(f"{url}: no connection, or it was cut ({reason}); run the same command again to go on")
    return False


def checkpoint_cache() -> Path:
    """Where fetched checkpoints are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lighttrack_ros" / "checkpoints"

"""Files that a command writes: looked at before the work, never over an input, and whole or not there at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lighttrack_ros.errors import LightTrackError


def check_writable(path: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Find out now, not after a long run, whether `path` can be written; makes its folder.

    Raises:
        LightTrackError: it cannot, or its suffix is none of `suffixes` (where any are given).
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise LightTrackError(f"{path}: its name must end in one of {', '.join(suffixes)}")
    if path.is_dir():
        raise LightTrackError(f"{path}: cannot be written (it is a folder)")
    try:
        if _is_device(path):
            path.open("ab").close()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not os.access(path, os.W_OK):
            raise LightTrackError(f"{path}: cannot be written (it is write-protected)")
        beside = _beside(path)
        beside.open("ab").close()
        beside.unlink()
    except OSError as error:
        raise LightTrackError(f"{path}: cannot be written ({error.strerror})") from None


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path] = ()) -> None:
    """Find out now whether files can be written; refuse those that are inputs, under whatever name, or each other.

    Args:
        outputs: files that will be written; None for those that were not asked for.
        inputs: files that are read; of a folder, every file in it counts, however deep.

    Raises:
        LightTrackError: an output is an input, or another output, or cannot be written.
    """
    wanted = [path for path in outputs if path is not None]
    for path in wanted:
        check_writable(path)
    for index, path in enumerate(wanted):
        for other in wanted[:index]:
            if _same(path, other):
                raise LightTrackError(f"{path}: is to be written twice; give every output a file of its own")
    existing = {_identity(path): path for path in wanted if path.exists() and not _is_device(path)}
    if not existing:
        return
    for given in inputs:
        for file in _files(given):
            output = existing.get(_identity(file))
            if output is not None:
                same = "" if str(output) == str(file) else f" ({file})"
                raise LightTrackError(f"{output}: is an input{same}, which would be lost; choose another name")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file beside `path` and move it into place at the end; after an error `path` is as it was before.

    Yields:
        The name to write to. A device or a pipe is written as it is.

    Raises:
        LightTrackError: it cannot be written.
    """
    if _is_device(path):
        yield path
        return
    target = Path(os.path.realpath(path))  # a link stays one
    beside = _beside(target)
    try:
        try:
            yield beside
            if target.exists():
                shutil.copymode(target, beside)
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise LightTrackError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, as a whole; see `replacing`."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, document: Any) -> None:
    """Write plain data as JSON, as a whole; what is not finite becomes null, which JSON knows."""
    write_text(path, json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole; see `replacing`."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _beside(path: Path) -> Path:
    """Hidden, and of the same suffix: no folder of frames takes it for one, and writers know the format by it."""
    return path.with_name(f".{path.stem[:100]}.{os.getpid()}.part{path.suffix}")


def _is_device(path: Path) -> bool:
    """Something that is written to and not replaced: /dev/stdout, a named pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return not _is_device(one) and _identity(one) == _identity(other)
    # On file systems that know no case, two names that differ by it are one file.
    return os.path.realpath(one).casefold() == os.path.realpath(other).casefold()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _files(given: Path) -> Iterator[Path]:
    if given.is_dir():
        for folder, _, names in os.walk(given):
            yield from (path for name in names if (path := Path(folder, name)).is_file())
    elif given.is_file():
        yield given

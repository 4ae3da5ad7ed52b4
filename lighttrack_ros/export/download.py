"""Download a published checkpoint from its authors' repository, and check it."""

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
from lighttrack_ros.user_folders import cache_folder

_TIMEOUT = 30.0  # seconds without data
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Published:
    """A checkpoint that its authors publish.

    Attributes:
        url: address of the file.
        blob: git's blob id: the SHA-1 of "blob <length>\\0" and the content.
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
    """Download a file; resumes an interrupted download, and does nothing if the right file is there already.

    Args:
        url: http or https.
        blob: git blob id that the content must have.
        target: the file to write; `target` with ".part" appended holds an incomplete download.

    Raises:
        LightTrackError: no network, an HTTP error, or a file with other content.
    """
    if target.is_file() and blob_name(target) == blob:
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while not _fetch(url, part):  # interrupted after some data: resume
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
    """Git's blob id of a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # git's hash, not for security


def _fetch(url: str, part: Path) -> bool:
    """Append to `part` over one connection; returns whether the file is complete.

    Raises:
        LightTrackError: no new data arrived.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    came, resumed = 0, False
    reason: object = "the connection was closed"
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            start = have if resumed else 0  # a server without range support sends the whole file
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
        if error.code == 416:  # no data beyond ours: the file is complete, or wrong, which the blob id shows
            return True
        raise LightTrackError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
    if not came or (have and not resumed):  # without range support each try starts from 0
        raise LightTrackError(f"{url}: no connection, or it was cut ({reason}); run the same command again to go on")
    return False


def checkpoint_cache() -> Path:
    """The folder of downloaded checkpoints."""
    return cache_folder() / "checkpoints"

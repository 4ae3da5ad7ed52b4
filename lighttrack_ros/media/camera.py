"""Live cameras by OpenCV: an index, a device, a network stream, a GStreamer pipeline."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError

_SECRETS = re.compile(
    r"((?:user-?(?:name|id|pw)?|pass(?:word|wd|phrase)?|pwd|token|key|secret|auth)\s*=\s*)[^\s&!]+", re.I
)


class Camera:
    """A live camera by index or device, a network stream by URL, or a GStreamer pipeline.

    Args:
        source: "0", "/dev/video0", "rtsp://...", or "videotestsrc ! videoconvert ! appsink".

    Attributes:
        name: what to call it, without the password that an address may hold.

    Raises:
        LightTrackError: it cannot be opened.
    """

    live = True
    files: tuple[Path, ...] = ()

    def __init__(self, source: str) -> None:
        device = source.isdigit() or source.startswith("/")
        self.name = f"camera {source}" if device else without_password(source)
        self.count: int | None = None
        self.shortfall: str | None = None
        # FFmpeg would print addresses with their passwords.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        with QuietStderr():
            self._capture = _open(source)
        if not self._capture.isOpened():
            raise LightTrackError(f"{self.name}: cannot be opened ({_hint(source, device)})")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if np.isfinite(fps) and 0.1 <= fps <= 240 else 30.0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (frame for _, frame in self.timed())

    def timed(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        start = None
        while True:
            ok, frame = self._capture.read()
            now = time.monotonic()
            if not ok:
                break
            start = now if start is None else start
            yield now - start, frame.astype(np.uint8, copy=False)
        if start is None:
            raise LightTrackError(f"{self.name}: it opened but gave no frame (is another program using it?)")


class QuietStderr:
    """Keep what OpenCV writes in C code off the terminal: our own error says it, or it is no error."""

    def __enter__(self) -> None:
        self._saved = os.dup(2)
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        os.close(sink)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)


def is_address(source: str) -> bool:
    """Whether this is a stream's URL or a GStreamer pipeline, and no path."""
    return "://" in source or _is_pipeline(source)


def without_password(source: str) -> str:
    """A source as it may be shown and stored: what stands before the host, and values named as secrets, as ***."""
    shown = re.sub(r"(://)\S*@", r"\1***@", source)
    return _SECRETS.sub(r"\1***", shown) if is_address(source) else shown


def _is_pipeline(source: str) -> bool:
    return " ! " in source


def _open(source: str) -> cv2.VideoCapture:
    if source.isdigit():
        return cv2.VideoCapture(int(source))
    if source.startswith("/"):
        # Links such as /dev/v4l/by-id/... lead to a device that OpenCV knows by its name.
        return cv2.VideoCapture(os.path.realpath(source), cv2.CAP_V4L2)
    return cv2.VideoCapture(source, cv2.CAP_GSTREAMER if _is_pipeline(source) else cv2.CAP_ANY)


def _hint(source: str, device: bool) -> str:
    if device:
        found = sorted(str(path) for path in Path("/dev").glob("video*"))
        return f"cameras here: {', '.join(found) or 'none'}"
    if _is_pipeline(source) and cv2.CAP_GSTREAMER not in cv2.videoio_registry.getBackends():
        return "this OpenCV was built without GStreamer, as pip's are; apt's python3-opencv has it"
    return "does the pipeline end in appsink?" if _is_pipeline(source) else "check the address"

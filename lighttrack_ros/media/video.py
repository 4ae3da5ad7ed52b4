"""Frames in and out of files: folders of images, videos and cameras, all read as a stream of BGR frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.scene import DEFAULT_SEED, Scene

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp")
# What the FFmpeg inside the OpenCV wheels can write; avc1 (H.264) is not among it, for its licence.
_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
_DEFAULT_FPS = 30.0


class FrameSource(Protocol):
    """A stream of frames, read lazily; iterating again starts from the beginning (not for live cameras).

    Attributes:
        name: what to call it in messages and reports.
        fps: its own rate, frames a second.
        count: number of frames; None where it is not known before the end.
    """

    name: str
    fps: float
    count: int | None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield (height, width, 3) uint8 BGR frames.

        Raises:
            LightTrackError: a frame cannot be decoded, or there is none.
        """
        ...


def open_source(source: str, size: tuple[int, int] = (640, 480), fps: float = _DEFAULT_FPS) -> FrameSource:
    """Frames of a folder of images, a video file, a camera's index ("0"), a stream's URL, or the generated scene.

    Args:
        source: a path, an index, a URL; "scene" or "scene:SEED" for the generated one.
        size: width, height of the generated scene, pixels.
        fps: of the generated scene and of a folder of images, which have no rate of their own.

    Raises:
        LightTrackError: nothing there, or nothing in it that can be decoded.
    """
    path = Path(source)
    if path.is_dir():
        return ImageFolder(path, fps)
    if path.is_file():
        return VideoFile(path)
    if re.fullmatch(r"\d+", source) or "://" in source:
        return Camera(source)
    generated = re.fullmatch(r"scene(?::(\d+))?", source)
    if generated:
        return GeneratedScene(int(generated[1] or DEFAULT_SEED), size, fps)
    raise LightTrackError(
        f"{source}: no such file or folder (expected a video, a folder of images, a camera's index such as 0, "
        "a URL, or scene[:SEED] for the generated one)"
    )


class ImageFolder:
    """A folder of images in the order of the numbers in their names (`2.jpg` before `10.jpg`)."""

    def __init__(self, folder: Path, fps: float = _DEFAULT_FPS) -> None:
        inner = folder / "img"
        self.name = folder.name
        self.fps = fps
        self.paths = _images(inner if inner.is_dir() else folder)
        self.count: int | None = len(self.paths)
        if not self.paths:
            raise LightTrackError(f"{folder}: no images in it ({', '.join(IMAGE_SUFFIXES)}), nor in its img/ folder")

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return map(read_image, self.paths)


class VideoFile:
    """A video file, decoded by OpenCV's FFmpeg."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.path = path
        capture = self._open()
        self.fps = _rate(capture)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        # A container's count is a hint: damaged files announce more than they hold.
        self.count: int | None = frames if frames > 0 else None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        capture = self._open()
        try:
            yield from _read(capture, f"{self.path}: not one frame of it can be decoded; is the file complete?")
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        with _QuietStderr():
            capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise LightTrackError(f"{self.path}: cannot be opened as a video (try to convert it to H.264 in .mp4)")
        return capture


class Camera:
    """A live camera by index, or a network stream by URL."""

    def __init__(self, source: str) -> None:
        self.name = f"camera {source}" if source.isdigit() else source
        self.count: int | None = None
        with _QuietStderr():
            self._capture = cv2.VideoCapture(int(source)) if source.isdigit() else cv2.VideoCapture(source)
        if not self._capture.isOpened():
            found = sorted(str(device) for device in Path("/dev").glob("video*"))
            hint = f"cameras here: {', '.join(found) or 'none'}" if source.isdigit() else "check the address"
            raise LightTrackError(f"{self.name}: cannot be opened ({hint})")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = _rate(self._capture)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        yield from _read(self._capture, f"{self.name}: it opened but gave no frame (is another program using it?)")


class GeneratedScene:
    """The generated drone scene as a source: ten seconds, the same for the same seed."""

    def __init__(self, seed: int, size: tuple[int, int], fps: float) -> None:
        self.name = f"scene {seed}"
        self.fps = fps
        self.scene = Scene(seed, *size, fps)
        self.count: int | None = len(self.scene)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (frame.image for frame in self.scene)


class VideoWriter:
    """An annotated video, opened before the first frame is tracked so that a bad path costs no run.

    Raises:
        LightTrackError: a suffix other than .mp4, .mkv, .avi, .webm, or a file that cannot be written.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float) -> None:
        check_writable(path, tuple(_CODECS))
        codec = int.from_bytes(_CODECS[path.suffix.lower()].encode(), "little")
        with _QuietStderr():
            self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, fps, (width, height))
        if not self._writer.isOpened():
            raise LightTrackError(f"{path}: this OpenCV cannot write {path.suffix} video (try .avi)")
        self._size = (width, height)

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append one (height, width, 3) uint8 BGR frame; one of another size is scaled to the first's."""
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        self._writer.write(image)

    def close(self) -> None:
        self._writer.release()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse_size(text: str) -> tuple[int, int]:
    """`1280x720` as (width, height).

    Raises:
        LightTrackError: not two whole numbers from 64 to 4096.
    """
    size = re.fullmatch(r"(\d+)x(\d+)", text)
    if not size or not all(64 <= int(side) <= 4096 for side in size.groups()):
        raise LightTrackError(f"--size is {text!r}, expected WIDTHxHEIGHT, 64 to 4096 each, e.g. 1280x720")
    return int(size[1]), int(size[2])


def read_image(path: Path) -> NDArray[np.uint8]:
    """One image file as (height, width, 3) uint8 BGR.

    Raises:
        LightTrackError: it is not there or cannot be decoded.
    """
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise LightTrackError(f"{path}: cannot be read ({error.strerror})") from None
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    if image is None:
        raise LightTrackError(f"{path}: cannot be decoded as an image ({encoded.size} bytes)")
    return image.astype(np.uint8, copy=False)


def check_writable(path: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Find out now, not after a long run, whether `path` can be written; makes its folder.

    Raises:
        LightTrackError: it cannot, or its suffix is none of `suffixes` (where any are given).
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise LightTrackError(f"{path}: its name must end in one of {', '.join(suffixes)}")
    new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise LightTrackError(f"{path}: cannot be written ({error.strerror})") from None


def _images(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.stem)]

    return sorted(found, key=key)


def _rate(capture: cv2.VideoCapture) -> float:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if np.isfinite(fps) and 0.1 <= fps <= 1000 else _DEFAULT_FPS


def _read(capture: cv2.VideoCapture, if_empty: str) -> Iterator[NDArray[np.uint8]]:
    """The frames up to the end; LightTrackError(if_empty) where there is none."""
    ok, frame = capture.read()
    if not ok:
        raise LightTrackError(if_empty)
    while ok:
        yield frame.astype(np.uint8, copy=False)
        ok, frame = capture.read()


class _QuietStderr:
    """Keep what FFmpeg and OpenCV write in C code off the terminal: our own error says it, or it is no error."""

    def __enter__(self) -> None:
        self._saved = os.dup(2)
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        os.close(sink)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)

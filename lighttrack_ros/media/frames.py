"""Where frames come from: a folder of images, a video, a camera or the generated scene, each a stream of BGR frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.bag import is_bag
from lighttrack_ros.media.camera import Camera, is_address, without_password
from lighttrack_ros.media.folder import IMAGE_SUFFIXES, ImageFolder, Images
from lighttrack_ros.media.scene import DEFAULT_SEED, Scene
from lighttrack_ros.media.video import VideoFile

DEFAULT_FPS = 30.0


class FrameSource(Protocol):
    """A stream of frames, read lazily; iterating again starts from the beginning (not for live cameras).

    Attributes:
        name: what to call it in messages and reports.
        fps: its own rate, frames a second; the mean where it varies.
        count: number of frames, as announced; None where nothing is.
        live: whether it is a camera: it has no end, and no second run.
        files: what is read, as far as it is files.
        shortfall: after a run to the end, in words, why there were fewer frames than announced; None if there were not.
    """

    name: str
    fps: float
    count: int | None
    live: bool
    files: tuple[Path, ...]
    shortfall: str | None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield (height, width, 3) uint8 BGR frames.

        Raises:
            LightTrackError: a frame cannot be decoded, or there is none.
        """
        ...

    def timed(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield the frames, each with its own time in seconds since the first one's.

        Raises:
            LightTrackError: a frame cannot be decoded, or there is none.
        """
        ...


def open_source(source: str, size: tuple[int, int] = (640, 480), fps: float = DEFAULT_FPS) -> FrameSource:
    """Frames of a folder of images, an image, a video file, a camera, a stream, or the generated scene.

    Args:
        source: a path; a camera's index ("0") or device (/dev/video0, /dev/v4l/by-id/..), a stream's URL, a GStreamer
            pipeline ("... ! appsink"); "scene" or "scene:SEED" for the generated one.
        size: width, height of the generated scene, pixels.
        fps: of the generated scene and of a folder of images, which have no rate of their own.

    Raises:
        LightTrackError: nothing there, or nothing in it that can be decoded.
    """
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except ValueError:  # a null character
        is_folder = is_file = False
    if (is_folder or is_file) and is_bag(path):
        raise LightTrackError(f"{path}: a bag, whose images go through ROS: lighttrack replay {path}")
    if is_folder:
        return ImageFolder(path, fps)
    if is_file:
        return Images(path.stem, [path], fps) if path.suffix.lower() in IMAGE_SUFFIXES else VideoFile(path)
    if re.fullmatch(r"\d+", source) or is_address(source) or path.is_char_device() or _names_device(source):
        return Camera(source)
    generated = re.fullmatch(r"scene(?::(\d+))?", source)
    if generated:
        return GeneratedScene(int(generated[1] or DEFAULT_SEED), size, fps)
    raise LightTrackError(
        f"{without_password(source)}: no such file or folder (expected a video, a folder of images, a camera such as "
        "0 or /dev/video0, a URL, a GStreamer pipeline, or scene[:SEED] for the generated one)"
    )


class GeneratedScene:
    """The generated drone scene as a source: ten seconds, the same for the same seed."""

    live = False
    files: tuple[Path, ...] = ()

    def __init__(self, seed: int, size: tuple[int, int], fps: float) -> None:
        self.name = f"scene {seed}"
        self.fps = fps
        self.scene = Scene(seed, *size, fps)
        self.count: int | None = len(self.scene)
        self.shortfall: str | None = None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (frame.image for frame in self.scene)

    def timed(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        return ((index / self.fps, frame) for index, frame in enumerate(self))


def parse_size(text: str) -> tuple[int, int]:
    """`1280x720` as (width, height).

    Raises:
        LightTrackError: not two whole numbers from 64 to 4096.
    """
    size = re.fullmatch(r"(\d+)x(\d+)", text)
    if not size or not all(64 <= int(side) <= 4096 for side in size.groups()):
        raise LightTrackError(f"--size is {text!r}, expected WIDTHxHEIGHT, 64 to 4096 each, e.g. 1280x720")
    return int(size[1]), int(size[2])


def _names_device(source: str) -> bool:
    """A camera that is not plugged in is still no file."""
    return os.path.normpath(source).startswith(("/dev/video", "/dev/v4l/"))

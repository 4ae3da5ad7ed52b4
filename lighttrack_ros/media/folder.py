"""Folders of images: which files are frames, and in which order."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import Frame, Intensities, decode_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp")
FRAME_FOLDERS = ("img", "color", "imgs", "frames")  # OTB and LaSOT; VOT; where data sets put the frames
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Images:
    """Image files, one frame each.

    Values of more than 8 bits are stretched by what the first frame holds, see `image.Intensities`.

    Args:
        name: what to call them.
        paths: in order.
        fps: their rate, frames a second.
    """

    live = False

    def __init__(self, name: str, paths: Sequence[Path], fps: float = 30.0) -> None:
        self.name = name
        self.fps = fps
        self.paths = list(paths)
        self.count: int | None = len(self.paths)
        self.files = tuple(self.paths)
        self.shortfall: str | None = None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        intensities = Intensities()
        return (_read(path, intensities).bgr() for path in self.paths)

    def timed(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        return ((index / self.fps, frame) for index, frame in enumerate(self))


class ImageFolder(Images):
    """The frames in a folder, or in its img/, color/, imgs/ or frames/, in the order of the numbers in their names.

    `2.jpg` comes before `10.jpg`, and 0.5 before 1.25. Hidden files are no frames. Of files that are named in
    different ways, those that are not numbered are left out; two numbered series in one folder are an error.

    Raises:
        LightTrackError: no image in it, or more than one series of them.
    """

    def __init__(self, folder: Path, fps: float = 30.0) -> None:
        inner = frame_folder(folder)
        super().__init__(folder.resolve().name, frames_in(inner), fps)
        if not self.paths:
            folders = ", ".join(f"{name}/" for name in FRAME_FOLDERS)
            raise LightTrackError(
                f"{folder}: no images in it ({', '.join(IMAGE_SUFFIXES)}), nor in a folder {folders} of its own"
            )


def frame_folder(folder: Path) -> Path:
    """Where the frames of a sequence's folder are: the folder itself, or one inside it."""
    return next((folder / name for name in FRAME_FOLDERS if (folder / name).is_dir()), folder)


def frames_in(folder: Path) -> list[Path]:
    """The images in a folder that are frames, in order.

    Raises:
        LightTrackError: two numbered series of images, of which either may be meant; or no such folder.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except OSError as error:
        raise LightTrackError(f"{folder}: cannot be read ({error.strerror})") from None
    series: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stem, suffix = os.path.splitext(name)
        if not name.startswith(".") and suffix.lower() in IMAGE_SUFFIXES:
            series[_NUMBER.sub("#", stem).casefold()].append(name)
    numbered = {pattern: found for pattern, found in series.items() if "#" in pattern}
    if len(numbered) > 1:
        kinds = ", ".join(f"{pattern} ({len(found)})" for pattern, found in sorted(numbered.items()))
        raise LightTrackError(
            f"{folder}: images of {len(numbered)} series in one folder: {kinds} (# is a number); "
            "put the one that is meant into a folder of its own"
        )
    found = next(iter(numbered.values())) if numbered else [name for names in series.values() for name in names]
    stems = Counter(os.path.splitext(name)[0] for name in found)
    twice = next((stem for stem, count in stems.items() if count > 1), None)
    if twice is not None:
        both = ", ".join(sorted(name for name in found if os.path.splitext(name)[0] == twice))
        raise LightTrackError(f"{folder}: {both} are one frame twice; which of them is meant?")
    return [folder / name for name in sorted(found, key=_order)]


def read_image(path: Path) -> NDArray[np.uint8]:
    """One image file as (height, width, 3) uint8 BGR, as it is stored: an EXIF orientation is not applied.

    Raises:
        LightTrackError: it is not there or cannot be decoded.
    """
    return _read(path, Intensities()).bgr()


def _read(path: Path, intensities: Intensities) -> Frame:
    try:
        # np.fromfile swallows a Ctrl-C that comes while it asks the path for its name.
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise LightTrackError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return decode_file(encoded, intensities)
    except LightTrackError as error:
        raise LightTrackError(f"{path}: cannot be decoded as an image ({encoded.size} bytes: {error})") from None


def _order(name: str) -> tuple[list[tuple[int, str]], str]:
    """By the numbers in a name, each with its decimals, then by the name."""
    numbers = []
    for number in _NUMBER.findall(os.path.splitext(name)[0]):
        whole, _, decimals = number.partition(".")
        numbers.append((int(whole), decimals.rstrip("0")))
    return numbers, name

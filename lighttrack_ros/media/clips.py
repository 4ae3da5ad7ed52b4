"""Short clips on which two backends are compared: of the generated scene, or of the user's own sequences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame, from_bgr
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.sequences import Sequence, find_sequences


def scene_clip(frames: int) -> Iterator[tuple[Frame, Box]]:
    """The generated scene's first frame and so many more."""
    for scene_frame, _ in zip(Scene(), range(frames + 1), strict=False):
        yield from_bgr(scene_frame.image), scene_frame.box


def scene_clips(frames: int) -> list[Iterable[tuple[Frame, Box]]]:
    """The generated scene, and the same from afar: some trackers take another network for small targets.

    Args:
        frames: in both together, beside each one's first.
    """
    near = list(scene_clip(math.ceil(frames / 2)))
    return [near, (_from_afar(frame, box) for frame, box in near)]


def sequence_clips(folder: Path, frames: int) -> list[Iterator[tuple[Frame, Box]]]:
    """The beginnings of a folder's sequences, together so many frames beside each one's first.

    Raises:
        LightTrackError: see `sequences.find_sequences`.
    """
    sequences = find_sequences(folder)
    return [_beginning(sequence, math.ceil(frames / len(sequences))) for sequence in sequences]


def _from_afar(frame: Frame, box: Box) -> tuple[Frame, Box]:
    """In the middle of nine times the area."""
    width, height = frame.width, frame.height
    fill = frame.mean_colour().tolist()
    image = cv2.copyMakeBorder(frame.bgr(), height, height, width, width, cv2.BORDER_CONSTANT, value=fill)
    return from_bgr(image), Box(box.x + width, box.y + height, box.width, box.height)  # type: ignore[arg-type]


def _beginning(sequence: Sequence, frames: int) -> Iterator[tuple[Frame, Box]]:
    for image, _ in zip(sequence.frames, range(frames + 1), strict=False):
        yield from_bgr(image), sequence.init_box

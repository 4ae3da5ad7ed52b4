"""Short clips on which two backends are compared: of the generated scene, or of the user's own sequences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from lighttrack_ros.evaluation.scene import Scene
from lighttrack_ros.evaluation.sequences import Sequence, find_sequences
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame, from_bgr


def scene_clip(frames: int) -> Iterator[tuple[Frame, Box]]:
    """The generated scene's first frame and so many more."""
    for scene_frame, _ in zip(Scene(), range(frames + 1), strict=False):
        yield from_bgr(scene_frame.image), scene_frame.box


def sequence_clips(folder: Path, frames: int) -> list[Iterator[tuple[Frame, Box]]]:
    """The beginnings of a folder's sequences, together so many frames beside each one's first.

    Raises:
        LightTrackError: see `sequences.find_sequences`.
    """
    sequences = find_sequences(folder)
    return [_beginning(sequence, math.ceil(frames / len(sequences))) for sequence in sequences]


def _beginning(sequence: Sequence, frames: int) -> Iterator[tuple[Frame, Box]]:
    for image, _ in zip(sequence.frames, range(frames + 1), strict=False):
        yield from_bgr(image), sequence.init_box

"""Sequences in which the target goes away for a while, made of sequences in which it is always there.

What a tracker says of a target that is gone can only be judged where one is gone, and sequences that
show that are few. These are staged: the same pictures, with the target taken out of some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.geometry import Box
from lighttrack_ros.media import sequences

GONE = 15  # frames without the target
BEFORE, AFTER = 40, 20  # at most so many frames before them and after
SHORTEST = 6  # frames before them without which there is nothing to lose
_LEAVING = 4  # frames in which the camera turns away from the target, and back
_WINDOW = 0.6  # share of the picture's sides that this camera sees
_RIM = 0.2  # of the target's sides, taken out with it at each side: what a tight box leaves over

Pixels = NDArray[np.uint8]
Staging = Callable[[list[Pixels], NDArray[np.float64], int, sequences.Sequence], list[Pixels] | None]


@dataclass(frozen=True)
class Staged:
    """One sequence in which the target is gone from frame `gone` on, for GONE frames.

    Attributes:
        truth: (frames, 4) float64, nan while the target cannot be seen.
        gone: first frame without the target.
    """

    name: str
    frames: list[Pixels]
    truth: NDArray[np.float64]
    gone: int


def stage(sequence: sequences.Sequence, kind: str, other: sequences.Sequence) -> Staged | None:
    """Take the target out of a sequence for GONE frames after the first third.

    Args:
        sequence: with a truth.
        kind: one of KINDS.
        other: another sequence, for what is seen instead.

    Returns:
        None where that cannot be staged: too few frames, a target that is hidden anyway about then, or one too
        large for the picture to be without it.
    """
    assert sequence.truth is not None
    count = len(sequence.truth)
    gone = min(count // 3, BEFORE)
    truth = sequence.truth[: min(count, gone + GONE + AFTER)].copy()
    if gone < SHORTEST or len(truth) < gone + GONE or not np.isfinite(truth).all():
        return None
    frames = list(islice(sequence.frames, len(truth)))
    staged = KINDS[kind](frames, truth, gone, other)
    return None if staged is None else Staged(sequence.name, staged, truth, gone)


def _painted(
    frames: list[Pixels], truth: NDArray[np.float64], gone: int, other: sequences.Sequence
) -> list[Pixels] | None:
    """A neighbouring piece of the picture is copied over the target."""

    def neighbour(frame: Pixels, hole: tuple[int, int, int, int]) -> Pixels:
        x, y, width, height = hole
        # Of the four neighbours the one of which most lies inside the frame.
        places = [(x + width, y), (x - width, y), (x, y + height), (x, y - height)]
        whole = Box(0, 0, frame.shape[1], frame.shape[0])
        place = max(places, key=lambda place: _overlap(Box(place[0], place[1], width, height), whole))
        # Mirrored where it reaches over the frame's edge.
        rows = _mirrored(np.arange(place[1], place[1] + height), frame.shape[0])
        columns = _mirrored(np.arange(place[0], place[0] + width), frame.shape[1])
        return np.asarray(frame[rows[:, None], columns[None]])

    return _replace(frames, truth, gone, neighbour)


def _covered(
    frames: list[Pixels], truth: NDArray[np.float64], gone: int, other: sequences.Sequence
) -> list[Pixels] | None:
    """Another sequence's target, at this one's size, is where the target was."""
    donor = next(iter(other.frames))
    x, y, width, height = (round(value) for value in other.init_box)
    thing = donor[max(0, y) : y + height, max(0, x) : x + width]
    return _replace(frames, truth, gone, lambda _, hole: np.asarray(cv2.resize(thing, hole[2:]), np.uint8))


def _replace(
    frames: list[Pixels],
    truth: NDArray[np.float64],
    gone: int,
    instead: Callable[[Pixels, tuple[int, int, int, int]], Pixels],
) -> list[Pixels]:
    changed = list(frames)
    for index in range(gone, gone + GONE):
        frame = frames[index].copy()
        x, y, width, height = truth[index]
        left, top = round(x - _RIM * width - 3), round(y - _RIM * height - 3)
        wide, high = round((1 + 2 * _RIM) * width + 6), round((1 + 2 * _RIM) * height + 6)
        piece = instead(frame, (left, top, wide, high)).astype(np.float32)
        # No hard edge, which the eye of a network would see.
        soft = max(1, min(wide, high) // 12)
        mask = np.zeros((high, wide), np.float32)
        mask[soft : high - soft, soft : wide - soft] = 1
        mask = cv2.blur(mask, (2 * soft + 1, 2 * soft + 1))[..., None]
        x0, y0, x1, y1 = max(0, left), max(0, top), min(frame.shape[1], left + wide), min(frame.shape[0], top + high)
        cut = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        frame[y0:y1, x0:x1] = np.round(piece[cut] * mask[cut] + frame[y0:y1, x0:x1] * (1 - mask[cut]))
        changed[index] = frame
        truth[index] = np.nan
    return changed


def _elsewhere(
    frames: list[Pixels], truth: NDArray[np.float64], gone: int, other: sequences.Sequence
) -> list[Pixels] | None:
    """Another sequence is seen altogether."""
    height, width = frames[0].shape[:2]
    shown = [np.asarray(cv2.resize(frame, (width, height)), np.uint8) for frame in islice(other.frames, GONE)]
    truth[gone : gone + GONE] = np.nan
    return [*frames[:gone], *(shown[index % len(shown)] for index in range(GONE)), *frames[gone + GONE :]]


def _left(
    frames: list[Pixels], truth: NDArray[np.float64], gone: int, other: sequences.Sequence
) -> list[Pixels] | None:
    """A camera that sees a part of the picture follows the target, turns away from it, and back."""
    height, width = frames[0].shape[:2]
    wide, high = round(_WINDOW * width), round(_WINDOW * height)
    room = np.array([width - wide, height - high])
    centres = truth[:, :2] + truth[:, 2:] / 2
    with_target = np.clip(centres - (wide / 2, high / 2), 0, room)
    corners = [room * corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))]
    boxes = truth[gone : gone + GONE]
    away = [
        corner
        for corner in corners
        if all(_overlap(Box(corner[0], corner[1], wide, high), Box(*map(float, box))) == 0 for box in boxes)
    ]
    if not away:
        return None
    # The nearest, lest the turn be faster than any camera's.
    goal = min(away, key=lambda corner: float(np.linalg.norm(corner - with_target[gone])))
    index = np.arange(len(truth))
    turned = np.clip(np.minimum(index - gone + _LEAVING, gone + GONE + _LEAVING - 1 - index) / _LEAVING, 0, 1)
    corner = np.round(with_target + turned[:, None] * (goal - with_target)).astype(int)
    truth[:, :2] -= corner
    for row in truth:  # cut at the view's edge, as annotators do
        x0, y0, x1, y1 = max(0, row[0]), max(0, row[1]), min(wide, row[0] + row[2]), min(high, row[1] + row[3])
        row[:] = (x0, y0, x1 - x0, y1 - y0) if x1 - x0 >= 2 and y1 - y0 >= 2 else np.nan
    if not np.isfinite(truth[0]).all():
        return None
    return [
        np.ascontiguousarray(frame[y : y + high, x : x + wide]) for frame, (x, y) in zip(frames, corner, strict=True)
    ]


# How a target can go away.
KINDS: dict[str, Staging] = {"painted over": _painted, "covered": _covered, "elsewhere": _elsewhere, "left": _left}


def others(found: Sequence[sequences.Sequence]) -> Iterator[tuple[sequences.Sequence, sequences.Sequence]]:
    """Every sequence with another one, half the list away: neighbours in the alphabet may be of one place."""
    for index, sequence in enumerate(found):
        yield sequence, found[(index + (len(found) + 1) // 2) % len(found)]


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share, pixels."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(0.0, width) * max(0.0, height)


def _mirrored(index: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Indices past an edge, reflected back inside."""
    folded = np.abs((index + count) % (2 * count) - count) if count else index
    return np.asarray(np.minimum(folded, count - 1), np.int64)

"""What speaks for the box on one frame, as numbers, and how they are smoothed over the frames."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.geometry import Box, context_side, intersection_over_union
from lighttrack_ros.session.start_filter import StartFilter
from lighttrack_ros.trackers.base import Estimate, Sight

NUMBERS = (
    "logit",  # of the cell that the tracker took
    "evidence",  # log odds of the best score anywhere
    "prominence",  # how far the logit lies over the map's mean, in standard deviations
    "mean",  # of the map's logits
    "deviation",
    "margin",  # of the logit over the best candidate beside it
    "rival",  # that one's logit
    "move",  # since the last frame, in the target's context
    "growth",  # log of the size over that at the start
    "size change",  # its absolute value
    "shape change",  # absolute, of the log of width over height
    "agreement",  # overlap of this frame's box with the smoothed one
    "jump in size",  # log of this frame's size over the smoothed one
    "jump in shape",
    "outside",  # share of the box that lies outside the frame
    "edge",  # distance of the centre from the frame's edge, in the target's context
    "share",  # log of the box's share of the frame
    "cells",  # likeness to the start, cell by cell
    "look",  # likeness to the start, means over the cells
    "rival's cells",
    "rival's look",
    "answer",  # of the filter that was learned at the start
    "answer's margin",  # over the best candidate beside it
)
RATES = np.array((0.5, 0.2, 0.07))  # of the running means that go with the newest numbers
SMOOTHED = (1 + len(RATES)) * len(NUMBERS)
RECENT = 2 * len(NUMBERS)  # of those, the first: the frame's own and their fastest means
_NO_RIVAL = -12.0  # logit

Floats = NDArray[np.float64]


class Evidence:
    """Of one target, from the frame of its start on.

    Args:
        estimate, sight: what the tracker says of the very frame and box of the start.
        start_filter: learned there.
    """

    def __init__(self, estimate: Estimate, sight: Sight, start_filter: StartFilter) -> None:
        self._filter = start_filter
        self._cells, self._look = sight.cells[0].ravel() / len(sight.cells[0]), sight.looks[0]
        box = estimate.box
        self._size, self._shape = _log_size(box.width, box.height), _log_shape(box.width, box.height)
        self._centre = box.centre
        self.restart()

    def restart(self) -> None:
        """What comes next is another place: nothing of what was seen before says anything of it."""
        self._frames = 0
        self._means = np.zeros((len(RATES), len(NUMBERS)))

    def add(self, size: tuple[int, int], estimate: Estimate, sight: Sight) -> Floats:
        """Take in the next frame.

        Args:
            size: the frame's width and height, pixels.

        Returns:
            (SMOOTHED,) float64: the frame's NUMBERS, then their running means, one rate after the other.
        """
        numbers = self._numbers(size, estimate, sight)
        self._frames += 1
        rates = np.maximum(RATES, 1 / self._frames)[:, None]
        self._means += rates * (numbers - self._means)
        return np.concatenate((numbers[None], self._means)).ravel()

    def _numbers(self, frame_size: tuple[int, int], estimate: Estimate, sight: Sight) -> Floats:
        frame_width, frame_height = frame_size
        box = estimate.box
        x, y, width, height = box
        context = context_side(width, height)
        centre_x, centre_y = box.centre
        moved = math.dist(box.centre, self._centre) / context if self._frames else 0.0
        self._centre = box.centre
        size, shape = _log_size(width, height), _log_shape(width, height)
        logits = sight.logits.tolist()
        rival = max(logits[1:], default=_NO_RIVAL)
        raw = Box(*sight.boxes[0].tolist())
        score = estimate.confidence if estimate.evidence is None else estimate.evidence
        score = min(max(score, 1e-9), 1 - 1e-9)
        inside_x = max(0.0, min(x + width, frame_width) - max(x, 0.0)) / width
        inside_y = max(0.0, min(y + height, frame_height) - max(y, 0.0)) / height
        edge = min(centre_x, frame_width - centre_x, centre_y, frame_height - centre_y) / context
        cell_likeness = (sight.cells.reshape(len(sight.cells), -1) @ self._cells).tolist()
        look_likeness = (sight.looks @ self._look).tolist()
        answers = self._filter.answers(sight.cells).tolist()
        return np.array(
            (
                logits[0],
                math.log(score / (1 - score)),
                (logits[0] - sight.mean) / max(sight.deviation, 1e-3),
                sight.mean,
                sight.deviation,
                logits[0] - rival,
                rival,
                min(moved, 1.0),
                size - self._size,
                abs(size - self._size),
                abs(shape - self._shape),
                intersection_over_union(raw, box),
                _log_size(max(raw.width, 1.0), max(raw.height, 1.0)) - size,
                abs(_log_shape(max(raw.width, 1.0), max(raw.height, 1.0)) - shape),
                1 - inside_x * inside_y,
                min(max(edge, 0.0), 2.0),
                math.log(width * height / (frame_width * frame_height)),
                cell_likeness[0],
                look_likeness[0],
                max(cell_likeness[1:], default=0.0),
                max(look_likeness[1:], default=0.0),
                answers[0],
                answers[0] - max(answers[1:], default=0.0),
            )
        )


def _log_size(width: float, height: float) -> float:
    return math.log(width * height) / 2


def _log_shape(width: float, height: float) -> float:
    return math.log(width / height)

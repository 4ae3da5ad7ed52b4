"""Compare a compiled model with its fp32 graphs: differences of boxes and scores, and whether they are too large.

On every frame both trackers start from the same box, so that small differences cannot add up to large ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box, intersection_over_union
from lighttrack_ros.image import Frame
from lighttrack_ros.trackers.base import Tracker

# Rounding moves a box by fractions of a pixel, and sometimes decides a near tie between cells the other way. A graph
# that overflows or was translated wrongly is far beyond these bounds. One frame in twenty may overlap by less.
_LEAST_MEDIAN_OVERLAP = 0.9
_LEAST_OVERLAP = 0.7
_LARGEST_MEDIAN_SCORE_DIFFERENCE = 0.05

Clip = Iterable[tuple[Frame, Box]]  # consecutive frames; the first box is the target


@dataclass(frozen=True)
class Parity:
    """Differences on each frame, (frames,) float64 each.

    Attributes:
        overlaps: of the two boxes, intersection over union.
        pixels: largest difference of the boxes' x, y, width and height.
        scores: difference of the confidences.
        milliseconds: duration of the tested tracker's update.
    """

    overlaps: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    milliseconds: npt.NDArray[np.float64]

    def table(self) -> str:
        rows = [f"{'':24}{'median':>9}{'p95':>9}{'worst':>9}"]
        for name, values, worst in (
            ("box, pixels", self.pixels, 100),
            ("score", self.scores, 100),
            ("overlap of the boxes", self.overlaps, 0),
        ):
            percents = np.percentile(values, (50, abs(worst - 5), worst))
            rows.append(f"{name:24}" + "".join(f"{value:9.4f}" for value in percents))
        return "\n".join(rows)

    def summary(self) -> str:
        return (
            f"boxes differ by {np.median(self.pixels):.3f} px (at most {self.pixels.max():.3f}), "
            f"scores by {np.median(self.scores):.5f} (at most {self.scores.max():.5f}) on {len(self.pixels)} frames"
        )

    def problem(self) -> str:
        """Which bound is exceeded, for the user; empty if none is."""
        median, most = np.percentile(self.overlaps, (50, 5))
        score = np.median(self.scores)
        if not median >= _LEAST_MEDIAN_OVERLAP:
            return f"the boxes' median overlap is {median:.3f}, expected {_LEAST_MEDIAN_OVERLAP} or more"
        if not most >= _LEAST_OVERLAP:
            return f"one box in twenty overlaps by {most:.3f} or less, expected {_LEAST_OVERLAP} or more"
        if not score <= _LARGEST_MEDIAN_SCORE_DIFFERENCE:
            return f"scores differ by {score:.3f}, expected {_LARGEST_MEDIAN_SCORE_DIFFERENCE} or less"
        return ""


def compare(tested: Tracker, reference: Tracker, clips: Iterable[Clip]) -> Parity:
    """Run both trackers over the clips.

    Raises:
        LightTrackError: no clip has a second frame, or the tested tracker's result is not finite.
    """
    rows = []
    for clip in clips:
        for index, (frame, box) in enumerate(clip):
            if index == 0:
                reference.init(frame, box)
                tested.init(frame, box)
                continue
            reference.take_turn(index - 1)
            tested.go_on_as(reference)
            expected = reference.update(frame)
            began = time.perf_counter()
            given = tested.update(frame)
            seconds = time.perf_counter() - began
            overlap = intersection_over_union(expected.box, given.box)
            pixels = max(abs(a - b) for a, b in zip(expected.box, given.box, strict=True))
            rows.append((overlap, pixels, abs(expected.confidence - given.confidence), seconds * 1e3))
            if not all(map(math.isfinite, rows[-1])):
                raise LightTrackError(f"the network gave {given}")
    if not rows:
        raise LightTrackError("nothing to compare: no clip has a second frame")
    return Parity(*np.array(rows).T)

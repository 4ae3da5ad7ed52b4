"""Boxes, the context around them, and the Hann window: pure functions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Box(NamedTuple):
    """An axis-aligned box in pixels: top-left corner, width, height; fractions allowed."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def area(self) -> float:
        return self.width * self.height


def intersection_over_union(a: Box, b: Box) -> float:
    """Overlap of two boxes, 0..1; 0 if either is empty."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / (a.area + b.area - intersection)


def clip_box(box: Box, width: float, height: float) -> Box:
    """The part of a box that lies inside a frame; a box that is wholly inside is returned unchanged, bit by bit."""
    x, y = min(max(box.x, 0.0), width), min(max(box.y, 0.0), height)
    return Box(
        x,
        y,
        max(0.0, min(box.width - (x - box.x), width - x)),
        max(0.0, min(box.height - (y - box.y), height - y)),
    )


def context_side(width: float, height: float, context: float = 0.5) -> float:
    """Side of the square with the same area as a box and its context: sqrt((w + c(w+h)) (h + c(w+h)))."""
    margin = context * (width + height)
    return math.sqrt((width + margin) * (height + margin))


def round_half_away(value: float) -> int:
    """Round to the nearest integer, halves away from zero; Python's `round` takes halves to the even integer."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def hann_window(n: int) -> npt.NDArray[np.float64]:
    """(n, n) float64: outer product of two Hann windows with zeros at both ends."""
    return np.outer(np.hanning(n), np.hanning(n))

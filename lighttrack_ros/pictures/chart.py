"""Charts drawn with OpenCV: a panel with two linear axes, and the colours and letters of every picture here."""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]  # BGR

PAPER, PANEL, INK, FAINT = (28, 25, 23), (43, 39, 36), (235, 232, 228), (140, 134, 128)
GRID, MARK = (72, 66, 62), (66, 61, 57)

_FONT = cv2.FONT_HERSHEY_DUPLEX
_SUBPIXEL_BITS = 4


class Chart:
    """A panel; values outside the limits are drawn at the edge.

    Args:
        width, height: pixels, of which the margins below are left for title and ticks.
        x_limits, y_limits: values at the left and right, at the bottom and top.
    """

    left, right, low, high = 62, 14, 26, 30

    def __init__(
        self, width: int, height: int, title: str, x_limits: tuple[float, float], y_limits: tuple[float, float]
    ) -> None:
        self.image: Image = np.full((height, width, 3), PANEL, np.uint8)
        self._x_limits, self._y_limits = x_limits, y_limits
        draw_text(self.image, title, self.left, 20, 0.48, INK)

    def x(self, value: float) -> int:
        return round(float(self._xs([value])[0]))

    def y(self, value: float) -> int:
        return round(float(self._ys([value])[0]))

    def x_ticks(self, values: Iterable[float], unit: str = "", scale: float = 1.0) -> None:
        """Values written below; `scale`: units of the axis in one of them."""
        for value in values:
            text = f"{value:g}{unit}"
            x = self.x(value * scale) - text_width(text, 0.38) // 2
            x = min(x, self.image.shape[1] - 4 - text_width(text, 0.38))
            draw_text(self.image, text, x, self.image.shape[0] - 9, 0.38, FAINT)

    def y_ticks(self, values: Iterable[float], unit: str = "") -> None:
        for value in values:
            y = self.y(value)
            cv2.line(self.image, (self.left, y), (self.image.shape[1] - self.right, y), GRID, 1)
            text = f"{value:g}{unit}"
            draw_text(self.image, text, self.left - 8 - text_width(text, 0.38), y + 4, 0.38, FAINT)

    def vertical(self, value: float, colour: Colour = MARK) -> None:
        """A line from bottom to top."""
        cv2.line(self.image, (self.x(value), self.high), (self.x(value), self.y(self._y_limits[0])), colour, 1)

    def line(self, xs: ArrayLike, ys: ArrayLike, colour: Colour, thickness: int = 2) -> None:
        """Broken where a value is nan."""
        values = np.asarray(ys, np.float64)
        points = np.stack([self._xs(xs), self._ys(values)], axis=1)
        gaps = np.flatnonzero(~np.isfinite(values))
        for piece in np.split(points, gaps):
            piece = piece[np.isfinite(piece).all(axis=1)]
            if len(piece) > 1:
                cv2.polylines(self.image, [_fixed(piece)], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def points(self, xs: ArrayLike, ys: ArrayLike, colour: Colour, radius: float = 2.2) -> None:
        scale = 1 << _SUBPIXEL_BITS
        for x, y in _fixed(np.stack([self._xs(xs), self._ys(ys)], axis=1)).tolist():
            cv2.circle(self.image, (x, y), round(radius * scale), colour, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)

    def band(self, xs: ArrayLike, lows: ArrayLike, highs: ArrayLike, colour: Colour, share: float) -> None:
        """Tint what lies between two lines."""
        there = np.stack([self._xs(xs), self._ys(highs)], axis=1)
        back = np.stack([self._xs(xs), self._ys(lows)], axis=1)[::-1]
        painted = self.image.copy()
        cv2.fillPoly(painted, [_fixed(np.concatenate([there, back]))], colour, cv2.LINE_AA, _SUBPIXEL_BITS)
        self.image[:] = cv2.addWeighted(painted, share, self.image, 1 - share, 0)

    def label(self, text: str, x: int, y: int, colour: Colour = INK, scale: float = 0.42) -> None:
        """Letters on a patch of the panel's colour; (x, y) is the bottom left, pixels, moved inside the panel."""
        width = text_width(text, scale)
        x = min(max(x, 4), self.image.shape[1] - width - 4)
        self.image[max(0, y - 13) : y + 4, x - 4 : x + width + 4] = PANEL
        draw_text(self.image, text, x, y, scale, colour)

    def _xs(self, values: ArrayLike) -> NDArray[np.float64]:
        low, high = self._x_limits
        share = (np.clip(np.asarray(values, np.float64), low, high) - low) / (high - low)
        return np.asarray(self.left + share * (self.image.shape[1] - self.left - self.right), np.float64)

    def _ys(self, values: ArrayLike) -> NDArray[np.float64]:
        low, high = self._y_limits
        share = (np.clip(np.asarray(values, np.float64), low, high) - low) / (high - low)
        height = self.image.shape[0]
        return np.asarray(height - self.low - share * (height - self.low - self.high), np.float64)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most so many: steps of 1, 2 or 5 times a power of ten."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    while (high - low) / step > most:
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def draw_text(image: Image, text: str, x: int, y: int, scale: float, colour: Colour) -> None:
    """(x, y) is the bottom left, pixels; ASCII."""
    cv2.putText(image, text, (x, y), _FONT, scale, colour, 1, cv2.LINE_AA)


def text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, 1)[0][0])


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)

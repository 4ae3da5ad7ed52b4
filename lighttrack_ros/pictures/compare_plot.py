"""The picture of a comparison: accuracy against time a frame, one point a tracker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from lighttrack_ros.pictures.chart import (
    FAINT,
    GRID,
    INK,
    PAPER,
    Chart,
    Colour,
    Image,
    draw_text,
    text_width,
    ticks,
)

_OURS, _OTHERS = (255, 190, 110), (150, 170, 120)
_WIDTH, _HEIGHT, _TOP, _GAP = 1100, 640, 84, 16
_LABEL = 0.5  # size of letters
_ROOM = 8  # pixels between a point and its name


class Point(NamedTuple):
    """One tracker."""

    name: str
    ours: bool
    p50: float  # milliseconds a frame
    p95: float
    auc: float


def draw_comparison(points: Sequence[Point], subtitle: str) -> Image:
    """(height, width, 3) uint8, BGR. Time on a logarithmic axis: trackers differ by powers of ten."""
    known = [point for point in points if math.isfinite(point.p50) and point.p50 > 0]
    sheet: Image = np.full((_TOP + _HEIGHT + _GAP, _WIDTH + 2 * _GAP, 3), PAPER, np.uint8)
    draw_text(sheet, "accuracy against time", _GAP, 40, 0.95, INK)
    draw_text(sheet, subtitle, _GAP, 66, 0.5, FAINT)
    _legend(sheet)
    low, high = _limits([value for point in known for value in (point.p50, point.p95)])
    aucs = [point.auc for point in known]
    bottom = math.floor((min(aucs, default=0) - 0.03) * 10) / 10
    top = math.ceil((max(aucs, default=1) + 0.03) * 10) / 10
    title = "success AUC, mean of the sequences, against milliseconds a frame: a point at p50, a line to p95"
    chart = Chart(_WIDTH, _HEIGHT, title, (math.log10(low), math.log10(high)), (bottom, top))
    chart.y_ticks(ticks(bottom, top, 8))
    for value in _time_ticks(low, high):
        x = chart.x(math.log10(value))
        cv2.line(chart.image, (x, chart.high), (x, chart.y(bottom)), GRID, 1)
        text = f"{value:g} ms"
        x = min(x - text_width(text, 0.38) // 2, _WIDTH - 4 - text_width(text, 0.38))
        draw_text(chart.image, text, x, _HEIGHT - 9, 0.38, FAINT)
    for point in known:
        ends = (
            (chart.x(math.log10(point.p50)), chart.y(point.auc)),
            (chart.x(math.log10(point.p95)), chart.y(point.auc)),
        )
        cv2.line(chart.image, *ends, _colour(point), 1, cv2.LINE_AA)
    for point in known:
        chart.points([math.log10(point.p50)], [point.auc], _colour(point), 6.5)
    _name(chart, known)
    sheet[_TOP : _TOP + _HEIGHT, _GAP : _GAP + _WIDTH] = chart.image
    return sheet


def _name(chart: Chart, points: Sequence[Point]) -> None:
    """Each name where it covers neither a point nor another name: above, else below, right or left."""
    taken = []
    for point in points:
        x, y = chart.x(math.log10(point.p50)), chart.y(point.auc)
        taken.append((x - 7, y - 7, x + 7, y + 7))
    for point in points:
        x, y = chart.x(math.log10(point.p50)), chart.y(point.auc)
        text = f"{point.name}  {point.auc:.3f}, {point.p50:.1f} ms"
        width, height = text_width(text, _LABEL), 14
        places = [
            (x - width // 2, y - _ROOM - 4),
            (x - width // 2, y + _ROOM + height + 2),
            (x + _ROOM + 6, y - 6),
            (x - _ROOM - 6 - width, y - 6),
            *((x - width // 2, y + step * 20) for step in (-2, 2, -3, 3)),
        ]
        inside = [(min(max(left, chart.left + 4), _WIDTH - 8 - width), base) for left, base in places]
        boxes = [(left - 4, base - height, left + width + 4, base + 5) for left, base in inside]
        free = [index for index, box in enumerate(boxes) if not any(_touch(box, other) for other in taken)]
        index = free[0] if free else 0
        taken.append(boxes[index])
        draw_text(chart.image, text, *inside[index], _LABEL, _colour(point) if point.ours else INK)


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(sheet: Image) -> None:
    x = sheet.shape[1] - _GAP
    for text, colour in (("OpenCV", _OTHERS), ("lighttrack_ros", _OURS)):
        x -= text_width(text, 0.5)
        draw_text(sheet, text, x, 40, 0.5, INK)
        x -= 16
        cv2.circle(sheet, (x, 35), 6, colour, cv2.FILLED, cv2.LINE_AA)
        x -= 26


def _colour(point: Point) -> Colour:
    return _OURS if point.ours else _OTHERS


def _limits(times: Sequence[float]) -> tuple[float, float]:
    """Milliseconds at the left and right, with room for the points."""
    return (min(times) / 1.5, max(times) * 1.5) if times else (1.0, 100.0)


def _time_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]

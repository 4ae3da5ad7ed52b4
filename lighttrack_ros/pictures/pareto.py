"""Accuracy against what it costs, a point a tracker, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox, offset_copy

from lighttrack_ros.pictures.figure import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    PANEL,
    PINK,
    RED,
    YELLOW,
    legend,
    look,
    new_figure,
    plain,
)

_PATCH = {"facecolor": PANEL, "edgecolor": "none", "pad": 1}  # keeps the front's line out of the letters
_COLOURS = (BLUE, GREEN, YELLOW, RED, PINK)
# Where a name may stand, in typographic points from its point, and how it is aligned; the first free place is taken.
_PLACES = (
    (0, 8, "center", "bottom"),
    (0, -8, "center", "top"),
    (9, 7, "left", "bottom"),
    (-9, 7, "right", "bottom"),
    (9, -7, "left", "top"),
    (-9, -7, "right", "top"),
    *((0, step, "center", "center") for step in (30, -30, 46, -46, 62, -62)),
)


class Point(NamedTuple):
    """One tracker.

    Attributes:
        name: written beside the point; empty: nothing is, as for the many that a search tried.
        group: points of one group have one colour; it stands in the legend.
        cost: above 0, lower is better; a point whose cost is not finite is left out.
        accuracy: higher is better.
        high_cost: a line is drawn to it, e.g. to the 95th percentile; None: no line.
    """

    name: str
    group: str
    cost: float
    accuracy: float
    high_cost: float | None = None


@look()
def draw_pareto(
    points: Sequence[Point], title: str, subtitle: str, cost_label: str, accuracy_label: str, unit: str = ""
) -> Figure:
    """Cost on a logarithmic axis: trackers differ by powers of ten.

    Args:
        unit: of the cost, written behind each value, e.g. " ms".
    """
    known = [point for point in points if np.isfinite(point.cost) and point.cost > 0]
    figure, body = new_figure(title, subtitle, height=664, width=1132)
    axes = body.subplots()
    axes.set(xscale="log", xlabel=cost_label, ylabel=accuracy_label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}" + unit))
    if not known:
        return figure
    costs = [cost for point in known for cost in (point.cost, point.high_cost or point.cost)]
    accuracies = [point.accuracy for point in known]
    axes.set_xlim(min(costs) / 1.5, max(costs) * 1.5)
    axes.set_ylim(min(accuracies) - 0.06, max(accuracies) + 0.06)
    front = pareto_front(known)
    axes.step(
        [*(point.cost for point in front), axes.get_xlim()[1]],
        [*(point.accuracy for point in front), front[-1].accuracy],
        where="post", color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="Pareto front",
    )  # fmt: skip
    groups = list(dict.fromkeys(point.group for point in known))
    colours = {group: _COLOURS[number % len(_COLOURS)] for number, group in enumerate(groups)}
    for point in known:
        if point.high_cost is not None:
            axes.hlines(point.accuracy, point.cost, point.high_cost, color=colours[point.group], linewidth=1.2)
    for group in groups:
        inside = [point for point in known if point.group == group]
        axes.plot(
            [point.cost for point in inside], [point.accuracy for point in inside],
            "o", color=colours[group], markersize=8, label=plain(group),
        )  # fmt: skip
    legend(axes)
    figure.draw_without_rendering()  # places the axes
    _name(figure, axes, known, [colours[point.group] if point.group == groups[0] else INK for point in known], unit)
    return figure


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that none beats in both cost and accuracy, from the cheapest to the most accurate."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def _name(figure: Figure, axes: Axes, points: Sequence[Point], colours: Sequence[str], unit: str) -> None:
    """Write each point's name where it covers neither a point, nor its line, nor another name."""
    taken = [_extent(axes, point) for point in points]
    for point, colour in zip(points, colours, strict=True):
        if not point.name:
            continue
        words = plain(f"{point.name}  {point.accuracy:.3f}, {point.cost:.1f}{unit}")
        text = axes.text(point.cost, point.accuracy, words, color=colour, bbox=_PATCH)
        for x, y, horizontal, vertical in (*_PLACES, _PLACES[0]):  # the first again where none is free
            beside = offset_copy(axes.transData, figure, x, y, units="points")
            text.set(transform=beside, ha=horizontal, va=vertical)
            box = text.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _extent(axes: Axes, point: Point) -> Bbox:
    """What a point and its line cover, pixels."""
    ends = [(point.cost, point.accuracy), (point.high_cost or point.cost, point.accuracy)]
    (left, y), (right, _) = axes.transData.transform(ends)
    return Bbox([(left - 7, y - 7), (right + 2, y + 7)])

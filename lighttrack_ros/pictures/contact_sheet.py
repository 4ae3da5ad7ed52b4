"""One picture of a whole run: frames at its telling moments, then confidence, overlap and latency over time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lighttrack_ros.evaluation.observed_run import ObservedRun
from lighttrack_ros.media.frames import FrameSource
from lighttrack_ros.pictures.annotated_video import annotated
from lighttrack_ros.pictures.figure import BLUE, FAINT, INK, legend, look, new_figure
from lighttrack_ros.pictures.target import STATE_COLOURS
from lighttrack_ros.session import State

_COLUMNS, _TILE_WIDTH = 4, 380  # pixels
_COLOURS = {state: "#{2:02x}{1:02x}{0:02x}".format(*bgr) for state, bgr in STATE_COLOURS.items()}


@look()
def draw_contact_sheet(source: FrameSource, run: ObservedRun) -> Figure:
    """Goes through `source` once.

    Raises:
        LightTrackError: a frame cannot be decoded.
    """
    chosen = telling_moments(run, 2 * _COLUMNS)
    tiles = _tiles(source, run, chosen)
    rows = -(-len(tiles) // _COLUMNS)
    tile_height = 36 + max(tile.shape[0] for tile in tiles)
    heights = [200] * (3 if run.truth is not None else 2)
    subtitle = run.subtitle if run.truth is None else f"{run.subtitle}; thin white box: the truth"
    figure, body = new_figure(run.title, subtitle, _facts(run), height=rows * tile_height + sum(heights))
    upper, lower = body.subfigures(2, 1, squeeze=False, height_ratios=(rows * tile_height, sum(heights))).ravel()
    grid = upper.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, tile, index in zip(grid, tiles, chosen, strict=False):
        axes.imshow(tile)
        axes.set_title(f"{index / run.fps:.2f} s", size=9.5)
        words, colour = _caption(run, index)
        axes.set_title(words, loc="right", size=9.5, color=colour)
    confidence, *overlap, latency = lower.subplots(len(heights), 1, sharex=True)
    _confidence(confidence, run)
    if overlap:
        _overlap(overlap[0], run)
    _latency(latency, run)
    for axes in (confidence, *overlap, latency):
        for index in chosen:  # the moments shown above
            axes.axvline(index / run.fps, color=FAINT, linewidth=0.6, alpha=0.6)
    latency.locator_params(axis="x", nbins=14)
    latency.set(xlim=(0, max(run.sent - 1, 1) / run.fps), xlabel="seconds; vertical lines: the moments above")
    return figure


def telling_moments(run: ObservedRun, count: int) -> list[int]:
    """Indices worth a picture: start, end, lost, the worst hidden moment, changes of state; then evenly spaced."""
    indices = sorted(run.observations)
    if len(indices) <= count:
        return indices
    lost = [index for index in indices if run.observations[index].state == State.LOST]
    wanted = [indices[0], indices[-1], *lost[len(lost) // 2 :][:1]]
    changes = [
        after for before, after in pairwise(indices) if run.observations[before].state != run.observations[after].state
    ]
    if run.visible is not None:
        visible = run.visible[indices]
        if visible.min() < 1:
            wanted.append(indices[int(np.argmin(visible))])
    room = count - 2
    wanted += changes[:: max(1, -(-len(changes) // max(1, room - 3)))]
    spacing = len(indices) / (4 * count)
    chosen: list[int] = []
    for index in wanted:
        if len(chosen) < count and all(abs(index - other) > spacing for other in chosen):
            chosen.append(index)
    while len(chosen) < count:  # fill the widest gaps
        chosen.sort()
        before, after = max(pairwise(chosen), key=lambda pair: pair[1] - pair[0])
        middle = min(indices, key=lambda index: abs(index - (before + after) / 2))
        if middle in chosen:
            break
        chosen.append(middle)
    return sorted(chosen)


def _tiles(source: FrameSource, run: ObservedRun, chosen: Sequence[int]) -> list[NDArray[np.uint8]]:
    """The chosen frames, annotated, RGB, no larger than they are shown."""
    tiles = []
    for index, image in enumerate(source):
        if index in chosen:
            tile = annotated(image, index, run.observations[index], run)
            size = (_TILE_WIDTH, round(_TILE_WIDTH * tile.shape[0] / tile.shape[1]))
            smooth = cv2.INTER_AREA if size[0] < tile.shape[1] else cv2.INTER_CUBIC
            tiles.append(cv2.resize(tile, size, interpolation=smooth)[..., ::-1].astype(np.uint8, copy=False))
        if len(tiles) == len(chosen):
            break
    return tiles


def _facts(run: ObservedRun) -> list[tuple[str, str]]:
    figures = run.figures()
    latency, frames, score = figures["latency_ms"], figures["frames"], figures["accuracy"]
    facts = []
    if score is not None:
        facts += [("mean overlap", f"{score['iou']:.3f}"), ("success AUC", f"{score['auc']:.3f}")]
    facts += [(f"latency {name}", f"{latency[name]:.1f} ms") for name in ("p50", "p95", "p99")]
    return [*facts, ("frames answered", f"{frames['answered']} / {frames['sent']}")]


def _caption(run: ObservedRun, index: int) -> tuple[str, str]:
    """Words and their colour."""
    observation = run.observations[index]
    words = f"{observation.state.name.lower()} {observation.confidence:.2f}"
    if run.truth is not None:
        overlap = run.overlaps[index]
        words += "   target hidden" if np.isnan(overlap) else f"   overlap {overlap:.2f}"
    return words, _COLOURS[observation.state]


def _confidence(axes: Axes, run: ObservedRun) -> None:
    """Lines between neighbouring frames, each in the colour of its end; tinted while the target is not tracked."""
    seen = [run.observations[index] for index in sorted(run.observations)]
    points = np.array([(one.index / run.fps, one.confidence) for one in seen])
    colours = [_COLOURS[one.state] for one in seen]
    axes.add_collection(LineCollection([*pairwise(points)], colors=colours[1:], linewidths=2))
    for state in (State.TRACKING, State.UNCERTAIN, State.LOST):
        axes.plot([], [], color=_COLOURS[state], label=state.name.lower())
    ends = [*points[1:, 0], run.sent / run.fps]  # what was said holds until the next word
    for state, group in groupby(zip(seen, ends, strict=True), lambda pair: pair[0].state):
        pairs = [*group]
        if state in (State.UNCERTAIN, State.LOST):
            axes.axvspan(pairs[0][0].index / run.fps, pairs[-1][1], color=_COLOURS[state], alpha=0.2, linewidth=0)
    axes.set(ylim=(-0.02, 1.05))
    axes.set_title("confidence, by state")
    legend(axes)


def _overlap(axes: Axes, run: ObservedRun) -> None:
    assert run.visible is not None
    hidden = 1 - run.visible
    axes.fill_between(
        np.arange(len(hidden)) / run.fps, 0, hidden, step="mid", color=FAINT, alpha=0.4, linewidth=0,
        label="share of the target that is hidden",
    )  # fmt: skip
    times = np.array(sorted(run.overlaps)) / run.fps
    axes.plot(times, [run.overlaps[index] for index in sorted(run.overlaps)], color=INK, label="overlap")
    axes.set(ylim=(-0.02, 1.05))
    axes.set_title("overlap with the truth")
    legend(axes)


def _latency(axes: Axes, run: ObservedRun) -> None:
    seen = [run.observations[index] for index in sorted(run.observations)]
    times = [one.index / run.fps for one in seen]
    latency = np.array([one.latency * 1e3 for one in seen])
    median, high = np.percentile(latency, (50, 99))
    axes.plot(times, [one.processing * 1e3 for one in seen], color=BLUE, alpha=0.4, label="the node's own processing")
    axes.plot(times, latency, color=BLUE, label="image's stamp to box received")
    axes.axhline(median, color=INK, linewidth=0.8, label=f"its median, {median:.1f}")
    axes.set(ylim=(0, max(1.0, high * 1.35)))
    axes.set_title(f"latency, ms, up to {latency.max():.0f}")
    legend(axes)

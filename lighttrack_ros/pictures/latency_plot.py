"""Pictures of latency runs: over time, its distribution, where it goes; under overload with the node's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.evaluation.latency import PARTS, Run
from lighttrack_ros.pictures.chart import (
    FAINT,
    INK,
    PANEL,
    PAPER,
    Chart,
    Colour,
    Image,
    draw_text,
    text_width,
    ticks,
)

_WIDTH, _GAP = 1600, 16
_NODE, _ECHO = (255, 190, 110), (150, 170, 120)
_MEMORY = (140, 150, 250)
_PART_COLOURS: dict[str, Colour] = {
    "transport": (150, 170, 120),
    "wait": (90, 200, 240),
    "crop": (200, 150, 230),
    "network": (255, 190, 110),
    "decode": (140, 150, 250),
    "publish": (190, 190, 120),
}


def draw_steady(
    path: Path, title: str, subtitle: str, figures: Mapping[str, Any], node: Sequence[Run], echo: Sequence[Run]
) -> None:
    """Tracker and echo at one rate.

    Args:
        path: PNG to write.
        figures: as concluded from the runs: `node`, `echo`, `added_ms`.
        node, echo: the runs, in pairs.
    """
    latency, frames = figures["node"]["latency_ms"], figures["node"]["frames"]
    facts = [(f"latency {name}", f"{latency[name]:.1f} ms") for name in ("p50", "p95", "p99")]
    facts += [
        ("over the echo", f"+{figures['added_ms']['all']:.1f} ms"),
        ("without the network", f"+{figures['added_ms']['rest']:.1f} ms"),
        ("jitter, mean", f"{figures['node']['jitter_ms']['mean']:.1f} ms"),
        ("frames missed", f"{frames['missed']:.0f} / {frames['sent']:.0f}"),
    ]
    sheet = _sheet(title, subtitle, facts, 1010)
    legend = [("node", _NODE), ("echo: the transport alone", _ECHO)]
    _legend(sheet, legend)
    width = _WIDTH - 2 * _GAP
    _place(sheet, _over_runs(node, echo, width, 360), _GAP, 140)
    half = (width - _GAP) // 2
    _place(sheet, _distribution(node, echo, half, 480), _GAP, 140 + 360 + _GAP)
    _place(sheet, _parts(figures, half, 480), 2 * _GAP + half, 140 + 360 + _GAP)
    cv2.imwrite(str(path), sheet)


def draw_overload(
    path: Path, title: str, subtitle: str, factors: Sequence[float], can: float, runs: Sequence[Run]
) -> None:
    """Cameras faster than the tracker, one a row: latency and the node's memory over time.

    Args:
        can: frames a second that the tracker can do.
    """
    width, height = _WIDTH - 2 * _GAP, 300
    facts = [("the tracker can do", f"{can:.0f} Hz")]
    facts += [
        (f"sent at {factor:g} times", f"{run.camera_rate:.0f} Hz") for factor, run in zip(factors, runs, strict=True)
    ]
    sheet = _sheet(title, subtitle, facts, 140 + len(runs) * (height + _GAP))
    _legend(sheet, [("median", _NODE), ("up to p99", (120, 104, 84)), ("memory", _MEMORY)])
    wide = (width - _GAP) * 2 // 3
    for row, (factor, run) in enumerate(zip(factors, runs, strict=True)):
        y = 140 + row * (height + _GAP)
        name = f"{factor:g} times ({run.camera_rate:.0f} Hz)"
        _place(sheet, _latency_over_time(run, name, wide, height), _GAP, y)
        _place(sheet, _memory_over_time(run, width - _GAP - wide, height), 2 * _GAP + wide, y)
    cv2.imwrite(str(path), sheet)


def _over_runs(node: Sequence[Run], echo: Sequence[Run], width: int, height: int) -> Image:
    """Every frame of every run, one run beside the other."""
    lengths = [(run.sent[-1] - run.sent[0]) / 1e9 for run in node]
    top = _top(node)
    title = "latency of every frame, ms, from the image's stamp to the box received; runs side by side"
    chart = Chart(width, height, title, (0.0, sum(lengths)), (0.0, top))
    chart.y_ticks(ticks(0.0, top, 7))
    start = 0.0
    for pair, length in zip(zip(node, echo, strict=True), lengths, strict=True):
        for run, colour in zip(pair, (_NODE, _ECHO), strict=True):
            seconds = (run.stamps - run.sent[0]) / 1e9
            milliseconds = run.latencies * 1e3
            chart.points(np.minimum(seconds, length) + start, milliseconds, colour)
        start += length
        if start < sum(lengths):
            chart.vertical(start, FAINT)
    chart.x_ticks(ticks(0.0, start, 16), " s")
    beyond = sum(int((run.latencies * 1e3 > top).sum()) for run in node)
    if beyond:
        worst = max(float(run.latencies.max()) for run in node) * 1e3
        chart.label(f"{beyond} beyond, up to {worst:.0f} ms", width, chart.high + 12, FAINT, 0.4)
    return chart.image


def _distribution(node: Sequence[Run], echo: Sequence[Run], width: int, height: int) -> Image:
    """Histograms, and the cumulative share over them."""
    values = [np.concatenate([run.latencies for run in runs]) * 1e3 for runs in (node, echo)]
    high = max(1.0, min(float(values[0].max()) * 1.08, float(np.percentile(values[0], 95)) * 2))
    edges = np.linspace(0.0, high, 121)
    counts = [np.histogram(of, edges)[0] / len(of) for of in values]
    highest = max(float(count.max()) for count in counts)
    title = "all runs together: share of the frames at each latency, and up to it (lines)"
    chart = Chart(width, height, title, (0.0, high), (0.0, 1.0))
    chart.y_ticks([0.0, 0.25, 0.5, 0.75, 1.0])
    for count, colour in zip(counts, (_NODE, _ECHO), strict=True):
        steps = np.repeat(count, 2) / highest * 0.92
        chart.band(np.repeat(edges, 2)[1:-1], np.zeros_like(steps), steps, colour, 0.55)
    for of, colour in zip(values, (_NODE, _ECHO), strict=True):
        inside = np.sort(of)[: int((of <= high).sum())]
        chart.line(inside, np.arange(1, len(inside) + 1) / len(of), colour)
    for percent, y in ((50, 0.5), (95, 0.36), (99, 0.22)):
        value = float(np.percentile(values[0], percent))
        chart.vertical(value, INK)
        chart.label(f"p{percent} {value:.1f}", chart.x(value) + 8, chart.y(y) + 5)
    chart.x_ticks(ticks(0.0, high, 8), " ms")
    return chart.image


def _parts(figures: Mapping[str, Any], width: int, height: int) -> Image:
    """Means as one bar each for node and echo, and a table of the parts."""
    panel: Image = np.full((height, width, 3), PANEL, np.uint8)
    draw_text(panel, "where the time goes, ms", 24, 20, 0.48, INK)
    parts = figures["node"]["parts_ms"]
    means = {name: max(0.0, parts[name]["mean"]) for name in PARTS}
    echo = figures["echo"]["latency_ms"]["mean"]
    scale = (width - 48) / max(sum(means.values()), echo)
    x = 24.0
    for name in PARTS:
        end = x + means[name] * scale
        cv2.rectangle(panel, (round(x), 44), (max(round(x), round(end) - 1), 84), _PART_COLOURS[name], cv2.FILLED)
        x = end
    draw_text(panel, f"node, mean {sum(means.values()):.2f}", 24, 102, 0.42, INK)
    cv2.rectangle(panel, (24, 116), (24 + round(echo * scale), 140), _ECHO, cv2.FILLED)
    draw_text(panel, f"echo, mean {echo:.2f}", 24, 158, 0.42, INK)
    columns = [("mean", width - 330), ("p50", width - 230), ("p95", width - 130), ("p99", width - 30)]
    for column, right in columns:
        draw_text(panel, column, right - text_width(column, 0.46), 200, 0.46, FAINT)
    explained = {
        "transport": "stamp to the node's hands",
        "wait": "until it is taken up",
        "crop": "read, cut and scale",
        "network": "start to outputs",
        "decode": "box, state, message",
        "publish": "to the observer's hands",
    }
    for row, name in enumerate(PARTS):
        y = 232 + 38 * row
        cv2.rectangle(panel, (24, y - 12), (38, y + 2), _PART_COLOURS[name], cv2.FILLED)
        draw_text(panel, name, 50, y, 0.52, INK)
        draw_text(panel, explained[name], 160, y, 0.42, FAINT)
        for column, right in columns:
            text = f"{parts[name][column]:.2f}"
            draw_text(panel, text, right - text_width(text, 0.5), y, 0.5, INK)
    cpu = ", ".join(f"{name} {share:.0f} %" for name, share in figures["node"]["cpu_percent"].items())
    draw_text(panel, f"of a core: {cpu}; node's memory {figures['node']['memory_mb']['node']:.0f} MB",
              24, height - 14, 0.42, FAINT)  # fmt: skip
    return panel


def _latency_over_time(run: Run, name: str, width: int, height: int) -> Image:
    """Median and 99th percentile, piece by piece of the run."""
    seconds = (run.stamps - run.sent[0]) / 1e9
    length = float(run.sent[-1] - run.sent[0]) / 1e9
    edges = np.linspace(0.0, length, min(200, max(10, len(seconds) // 20)) + 1)
    piece = np.searchsorted(edges, seconds, "right")
    rows = []
    for index in range(1, len(edges)):
        inside = run.latencies[piece == index] * 1e3
        if len(inside):
            middle = (edges[index - 1] + edges[index]) / 2
            rows.append((middle, *np.percentile(inside, (50, 99))))
    times, medians, highs = np.array(rows).T
    top = float(np.max(highs)) * 1.2
    chart = Chart(width, height, f"camera at {name}: latency, ms", (0.0, length), (0.0, top))
    chart.y_ticks(ticks(0.0, top, 6))
    chart.band(times, medians, highs, (120, 104, 84), 0.7)
    chart.line(times, medians, _NODE)
    chart.x_ticks(ticks(0.0, length, 12), " s")
    text = f"p50 {np.median(run.latencies) * 1e3:.1f}, p99 {np.percentile(run.latencies, 99) * 1e3:.1f}"
    chart.label(f"{text}, max {run.latencies.max() * 1e3:.1f} ms", width, chart.high + 10)
    return chart.image


def _memory_over_time(run: Run, width: int, height: int) -> Image:
    seconds = np.array([sample.seconds for sample in run.samples])
    seconds -= seconds[0]
    megabytes = np.array([sample.resident_bytes["node"] / 1e6 for sample in run.samples])
    top = float(megabytes.max()) * 1.25
    chart = Chart(width, height, "the node's resident memory, MB", (0.0, float(seconds[-1])), (0.0, top))
    chart.y_ticks(ticks(0.0, top, 6))
    chart.line(seconds, megabytes, _MEMORY)
    chart.x_ticks(ticks(0.0, float(seconds[-1]), 6), " s")
    chart.label(f"{megabytes[0]:.0f} at the start, {megabytes[-1]:.0f} at the end", width, chart.high + 10)
    return chart.image


def _top(runs: Sequence[Run]) -> float:
    """A limit that leaves out only what is far off."""
    latencies: NDArray[np.float64] = np.concatenate([run.latencies for run in runs]) * 1e3
    return max(1.0, min(float(latencies.max()) * 1.08, float(np.percentile(latencies, 99)) * 1.5))


def _sheet(title: str, subtitle: str, facts: Sequence[tuple[str, str]], height: int) -> Image:
    sheet: Image = np.full((height, _WIDTH, 3), PAPER, np.uint8)
    draw_text(sheet, title, _GAP, 40, 1.0, INK)
    draw_text(sheet, subtitle, _GAP, 66, 0.5, FAINT)
    x = _GAP
    for name, value in facts:
        draw_text(sheet, value, x, 104, 0.72, INK)
        draw_text(sheet, name, x, 124, 0.42, FAINT)
        x += max(text_width(value, 0.72), text_width(name, 0.42)) + 46
    return sheet


def _legend(sheet: Image, entries: Sequence[tuple[str, Colour]]) -> None:
    x = _WIDTH - _GAP
    for name, colour in reversed(entries):
        x -= text_width(name, 0.46)
        draw_text(sheet, name, x, 66, 0.46, INK)
        cv2.rectangle(sheet, (x - 20, 56), (x - 8, 66), colour, cv2.FILLED)
        x -= 38


def _place(sheet: Image, panel: Image, x: int, y: int) -> None:
    sheet[y : y + panel.shape[0], x : x + panel.shape[1]] = panel

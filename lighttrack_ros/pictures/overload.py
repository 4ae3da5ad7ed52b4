"""The figure of `bench latency --overload`: latency and the node's memory over time, a row a camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lighttrack_ros.evaluation.latency import Run
from lighttrack_ros.pictures.figure import BLUE, RED, legend, look, new_figure


@look()
def draw_overload(title: str, subtitle: str, factors: Sequence[float], can: float, runs: Sequence[Run]) -> Figure:
    """Cameras faster than the tracker.

    Args:
        factors: by how much, for each of `runs`.
        can: frames a second that the tracker can do.
    """
    facts = [("the tracker can do", f"{can:.0f} Hz")]
    facts += [
        (f"sent at {factor:g} times", f"{run.camera_rate:.0f} Hz") for factor, run in zip(factors, runs, strict=True)
    ]
    figure, body = new_figure(title, subtitle, facts, height=310 * len(runs))
    grid = body.subplots(len(runs), 2, squeeze=False, gridspec_kw={"width_ratios": (2, 1)})
    for (latency, memory), factor, run in zip(grid, factors, runs, strict=True):
        _latency(latency, run, f"camera at {factor:g} times ({run.camera_rate:.0f} Hz)")
        _memory(memory, run)
    return figure


def _latency(axes: Axes, run: Run, camera: str) -> None:
    """Median and 99th percentile, piece by piece of the run."""
    seconds = (run.stamps - run.sent[0]) / 1e9
    length = (run.sent[-1] - run.sent[0]) / 1e9
    edges = np.linspace(0, length, min(200, max(10, len(seconds) // 20)) + 1)
    piece = np.searchsorted(edges, seconds, "right") - 1
    pieces = [index for index in range(len(edges) - 1) if (piece == index).any()]
    times = ((edges[:-1] + edges[1:]) / 2)[pieces]
    milliseconds = run.latencies * 1e3
    medians, highs = np.array([np.percentile(milliseconds[piece == index], (50, 99)) for index in pieces]).T
    axes.fill_between(times, medians, highs, color=BLUE, alpha=0.25, linewidth=0, label="up to p99")
    axes.plot(times, medians, color=BLUE, label="median")
    p50, p99 = np.percentile(milliseconds, (50, 99))
    axes.set(xlim=(0, length), ylim=(0, highs.max() * 1.1), xlabel="seconds", ylabel="latency, ms")
    axes.set_title(f"{camera}: p50 {p50:.1f}, p99 {p99:.1f}, max {milliseconds.max():.1f} ms")
    legend(axes)


def _memory(axes: Axes, run: Run) -> None:
    seconds = np.array([sample.seconds for sample in run.samples])
    megabytes = np.array([sample.resident_bytes["node"] / 1e6 for sample in run.samples])
    axes.plot(seconds - seconds[0], megabytes, color=RED)
    axes.set(ylim=(0, megabytes.max() * 1.2), xlabel="seconds", ylabel="resident memory, MB")
    axes.set_title(f"the node's memory: {megabytes[0]:.0f} MB, at the end {megabytes[-1]:.0f}")

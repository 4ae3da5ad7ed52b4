"""The figure of `bench latency`: the latency of every frame, its distribution, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lighttrack_ros.evaluation.latency import PARTS, Run
from lighttrack_ros.pictures.figure import BLUE, FAINT, GREEN, INK, PINK, RED, TEAL, YELLOW, legend, look, new_figure

_COLOURS = (("node", BLUE), ("echo: the transport alone", GREEN))
_COLUMNS = ("mean", "p50", "p95", "p99")
_PARTS = {  # colour, and what the part is
    "transport": (GREEN, "stamp to the node's callback"),
    "wait": (YELLOW, "until the frame is taken up"),
    "crop": (PINK, "read, cut and scale"),
    "network": (BLUE, "start to outputs"),
    "decode": (RED, "box, state, message"),
    "publish": (TEAL, "to the observer's callback"),
}


@look()
def draw_latency(
    title: str, subtitle: str, figures: Mapping[str, Any], node: Sequence[Run], echo: Sequence[Run]
) -> Figure:
    """Tracker and echo at one rate.

    Args:
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
    figure, body = new_figure(title, subtitle, facts, height=900)
    upper, lower = body.subfigures(2, 1, squeeze=False, height_ratios=(2, 3)).ravel()
    left, right = lower.subfigures(1, 2, squeeze=False).ravel()
    histogram, share = left.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 3)})
    bars, table = right.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (8, 7)})
    _every_frame(upper.subplots(), node, echo)
    _distribution(histogram, share, node, echo)
    _parts(bars, table, figures)
    cpu = ", ".join(f"{name} {percent:.0f} %" for name, percent in figures["node"]["cpu_percent"].items())
    memory = figures["node"]["memory_mb"]["node"]
    right.supxlabel(f"of a core: {cpu}; the node's memory {memory:.0f} MB", size=9.5, color=FAINT)
    return figure


def _every_frame(axes: Axes, node: Sequence[Run], echo: Sequence[Run]) -> None:
    """One run beside the other."""
    start = 0.0
    for beside, run in zip(echo, node, strict=True):
        for of, (name, colour) in zip((run, beside), _COLOURS, strict=True):
            seconds = start + (of.stamps - of.sent[0]) / 1e9
            label = name if start == 0 else None
            axes.plot(seconds, of.latencies * 1e3, ".", color=colour, markersize=4.5, label=label)
        start += (run.sent[-1] - run.sent[0]) / 1e9
        axes.axvline(start, color=FAINT, linewidth=0.8)
    latencies = np.concatenate([run.latencies for run in node]) * 1e3
    top = max(1.0, min(latencies.max() * 1.08, np.percentile(latencies, 99) * 1.5))  # without what is far off
    beyond = int((latencies > top).sum())
    words = f" ({beyond} beyond, up to {latencies.max():.0f} ms)" if beyond else ""
    axes.set(xlim=(0, start), ylim=(0, top), xlabel="seconds, runs side by side", ylabel="ms")
    axes.set_title(f"latency of every frame, from the image's stamp to the box received{words}")
    legend(axes, markerscale=2.5)


def _distribution(upper: Axes, lower: Axes, node: Sequence[Run], echo: Sequence[Run]) -> None:
    """Histograms, and below them the share of the frames up to each latency."""
    of_node, of_echo = (np.concatenate([run.latencies for run in runs]) * 1e3 for runs in (node, echo))
    high = max(1.0, min(of_node.max() * 1.08, np.percentile(of_node, 95) * 2))
    edges = np.linspace(0, high, 101).tolist()
    for of, (_, colour) in zip((of_node, of_echo), _COLOURS, strict=True):
        upper.hist(of, edges, weights=np.full(len(of), 1 / len(of)), color=colour, alpha=0.75)
        lower.step(np.append(0, np.sort(of)), np.linspace(0, 1, len(of) + 1), where="post", color=colour)
    for percent in (50, 95, 99):
        value = float(np.percentile(of_node, percent))
        lower.axvline(value, color=INK, linewidth=0.8)
        lower.annotate(f" p{percent} {value:.1f}", (value, {50: 0.34, 95: 0.2, 99: 0.06}[percent]))
    upper.set_title("share of the frames at each latency, and up to it; all runs together")
    lower.set(xlim=(0, high), ylim=(0, 1.02), xlabel="ms")
    for axes in (upper, lower):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, 0))


def _parts(bars: Axes, table: Axes, figures: Mapping[str, Any]) -> None:
    """Each part's mean as a bar that begins where the one before ends; the percentiles beside them."""
    parts = figures["node"]["parts_ms"]
    rows = [(name, *_PARTS[name], parts[name]) for name in PARTS]
    rows.append(("node", INK, "stamp to box received", figures["node"]["latency_ms"]))
    rows.append(("echo", GREEN, "the transport alone", figures["echo"]["latency_ms"]))
    end = 0.0
    for row, (name, colour, _, spread) in enumerate(rows):
        start = end if name in PARTS else 0.0
        end = start + max(0.0, spread["mean"])
        bars.barh(row, end - start, 0.6, start, color=colour)
        for column, figure in enumerate(_COLUMNS):
            table.text(column, row, f"{spread[figure]:.2f}", ha="right", va="center")
    for column, figure in enumerate(_COLUMNS):
        table.text(column, -0.75, figure, color=FAINT, ha="right", va="center")
    bars.set_yticks(range(len(rows)), [f"{name}\n{what}" for name, _, what, _ in rows])
    bars.margins(x=0.03)
    bars.set(ylim=(len(rows) - 0.4, -1.1), xlabel="ms, each part's mean after the one before")
    bars.grid(axis="y", visible=False)
    bars.set_title("where the time goes, ms")
    table.set(xlim=(-0.6, len(_COLUMNS) - 1))
    table.set_axis_off()

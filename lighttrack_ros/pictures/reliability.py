"""Whether a confidence can be believed: stated confidence against the share of frames that were right."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from lighttrack_ros.pictures.figure import BLUE, FAINT, RED, look, new_figure


@look()
def draw_reliability(counts: ArrayLike, confidences: ArrayLike, shares: ArrayLike, title: str, subtitle: str) -> Figure:
    """Below the diagonal the confidence is too high, above it too low; their histogram says how often each is stated.

    The calibration error in the title is the mean distance from the diagonal, weighted by `counts`.

    Args:
        counts: (bins,) frames in each of equal bins of confidence from 0 to 1.
        confidences: (bins,) mean confidence of these frames; not looked at where the bin is empty.
        shares: (bins,) share of these frames that were right; likewise.
    """
    of, stated, right = (np.asarray(values, np.float64) for values in (counts, confidences, shares))
    figure, body = new_figure(title, subtitle, height=724, width=800)
    upper, lower = body.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    filled = of > 0
    upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="as stated")
    upper.vlines(stated[filled], stated[filled], right[filled], color=RED, linewidth=5, alpha=0.55, label="gap")
    upper.plot(stated[filled], right[filled], "o-", color=BLUE, markersize=6, label="share that was right")
    upper.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.04), ylabel="share of the frames that were right")
    error = float(np.average(np.abs(stated - right)[filled], weights=of[filled])) if filled.any() else 0.0
    upper.set_title(f"calibration error (ECE) {error:.3f}")
    upper.legend(loc="upper left")
    edges = np.linspace(0, 1, len(of) + 1)
    lower.bar(edges[:-1], of / max(1.0, of.sum()), np.diff(edges) * 0.92, align="edge", color=BLUE, alpha=0.75)
    lower.set(xlabel="confidence", ylabel="share of all frames")
    lower.set_title(f"{of.sum():.0f} frames")
    lower.yaxis.set_major_formatter(PercentFormatter(1.0, 0))
    return figure

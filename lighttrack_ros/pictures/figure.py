"""What all figures share: one look, a head above the axes, and the file they go to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from lighttrack_ros.outputs import replacing

PAPER, PANEL, INK, FAINT, GRID = "#17191c", "#24272b", "#e4e8eb", "#9298a0", "#3e4248"
BLUE, GREEN, RED, YELLOW, PINK, TEAL = "#6ebeff", "#78aa96", "#fa968c", "#f0c85a", "#e696c8", "#78bebe"
DPI = 100  # sizes are given in pixels of the PNG

_LOOK = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PANEL,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.xmargin": 0.0,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.borderpad": 0.45,
    "legend.columnspacing": 1.6,
    "legend.frameon": False,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "pdf.fonttype": 42,  # TrueType: letters can be searched and copied
    "svg.hashsalt": "lighttrack",  # the same figure gives the same file
    "text.color": INK,
    **{f"{axis}tick.{side}": 0 for axis in "xy" for side in ("major.size", "minor.size")},
    **{f"{axis}tick.{of}": value for axis in "xy" for of, value in (("color", FAINT), ("major.pad", 6))},
}
_NO_DATE = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_MARGIN = 16  # pixels beside the head
_lock = threading.RLock()


@contextmanager
def look() -> Iterator[None]:
    """The look of this project, whatever the user's matplotlibrc says; what was set before is set again afterwards.

    matplotlib keeps its settings for the whole process, so one thread at a time is let in.
    """
    with _lock, style.context(_LOOK, after_reset=True):
        yield


def new_figure(
    title: str, subtitle: str, facts: Sequence[tuple[str, str]] = (), *, height: int, width: int = 1600
) -> tuple[Figure, SubFigure]:
    """A figure with its head written, and the part below it, of `height` pixels, for the axes. Call it within `look`.

    Args:
        facts: name and value each, written large in a row.
        height, width: pixels; the head comes on top.
    """
    top = 132 if facts else 76
    figure = Figure((width / DPI, (top + height) / DPI), dpi=DPI, layout="constrained")
    head, body = figure.subfigures(2, 1, squeeze=False, height_ratios=(top, height)).ravel()

    def write(text: str, x: float, y: float, size: float, colour: str) -> None:
        head.text(x / width, 1 - y / top, plain(text), size=size, color=colour, va="baseline")

    write(title, _MARGIN, 40, 20, INK)
    write(subtitle, _MARGIN, 65, 10.5, FAINT)
    for number, (name, value) in enumerate(facts):
        write(value, _MARGIN + 170 * number, 102, 15, INK)
        write(name, _MARGIN + 170 * number, 121, 9.5, FAINT)
    return figure, body


def legend(axes: Axes, markerscale: float = 1.0) -> None:
    """In the line of the title, at the right."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncol=10, markerscale=markerscale)


def plain(text: str) -> str:
    """Text in which a $ is a $ and begins no formula."""
    return text.replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write .png, .svg or .pdf; the same figure gives the same bytes."""
    with look(), replacing(path) as beside:
        figure.savefig(beside, metadata=_NO_DATE.get(path.suffix.lower()))

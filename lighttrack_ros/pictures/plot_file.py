"""Whether a plot can be drawn and written, found out before what it shows is measured. Needs no matplotlib itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.outputs import check_writable

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Find out now, not after a long run, whether a plot can be drawn to `path`; makes its folder.

    Raises:
        LightTrackError: no matplotlib, a suffix that is none of PLOT_SUFFIXES, or a file that cannot be written.
    """
    if find_spec("matplotlib") is None:
        raise LightTrackError(f"{path}: drawing it needs matplotlib: pip install 'matplotlib>=3.5'")
    check_writable(path, PLOT_SUFFIXES)

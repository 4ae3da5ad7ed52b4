"""Parse arguments that several commands have."""

from __future__ import annotations

import argparse
import math

import numpy as np

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box


def parse_box(text: str) -> Box:
    """`x,y,w,h` as a box.

    Raises:
        LightTrackError: not four finite numbers, or no positive size.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4 or not np.all(np.isfinite(values)) or min(values[2:]) <= 0:
        raise LightTrackError(f"--box is {text!r}, expected left,top,width,height in pixels, e.g. 316,140,112,116")
    return Box(*values)


def parse_rate(text: str, least: float = 0.0) -> float:
    """Frames per second; inf for `max`.

    Raises:
        LightTrackError: no number, or outside `least` (0: more than 0) to 10,000.
    """
    if text == "max":
        return math.inf
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (0 < rate <= 10_000 and rate >= least):
        wanted = f"{least:g} to 10000" if least else "more than 0"
        raise LightTrackError(f"--rate is {text!r}, expected frames a second ({wanted}) or max")
    return rate


def add_page_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the page is served."""
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="to serve the page on; 0.0.0.0 is every network, and then the page asks for a token (default: "
        "%(default)s: for this machine alone)",
    )
    parser.add_argument("--port", type=int, help="of the page; 0 takes a free one (default: 8520)")

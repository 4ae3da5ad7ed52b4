"""What several commands take, read from text."""

from __future__ import annotations

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

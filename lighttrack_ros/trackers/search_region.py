"""The square region round a target and the way back from it, as STARK's descendants have it (MixFormer, OSTrack).

Such trackers believe every prediction: the next region lies round the last box, nothing is smoothed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame
from lighttrack_ros.trackers.crop import SquareCropper

_MARGIN = 10.0  # pixels of a box that stay inside the frame, and the least that its sides measure
_BLACK = np.zeros(3, np.uint8)


def crop_region(cropper: SquareCropper, frame: Frame, box: Box, factor: float, out: npt.NDArray[np.uint8]) -> int:
    """Crop the square round a box whose side is `factor` times the root of the box's area; black outside the frame.

    Args:
        out: (m, m, 3) uint8, the crop in BGR; written in place.

    Returns:
        The side of the square in pixels of the frame.
    """
    side = math.ceil(math.sqrt(box.area) * factor)
    centre_x, centre_y = box.centre
    x0, y0 = round(centre_x - side / 2), round(centre_y - side / 2)
    # The authors' padding begins one pixel early on the right and at the bottom.
    seen = _Trimmed(frame, frame.width - (x0 + side >= frame.width), frame.height - (y0 + side >= frame.height))
    cropper.crop(seen, x0, y0, side, _BLACK, out)
    return side


def place_in_frame(prediction: Sequence[float], region_of: Box, side: int, frame: Frame) -> Box:
    """A predicted box in pixels of the frame, clipped as the authors do.

    Args:
        prediction: centre x, centre y, width, height in sides of the region.
        region_of: the box round which the region was cropped.
        side: of the region, pixels of the frame.

    Raises:
        LightTrackError: the prediction is not finite.
    """
    if not all(map(math.isfinite, prediction)):
        raise LightTrackError("the network gave a box that is not finite: the engine is broken")
    # The region's centre is taken for the box's: that the crop was rounded to whole pixels is left out, as published.
    corner_x, corner_y = (centre - side / 2 for centre in region_of.centre)
    x, y, width, height = (side * value for value in prediction)
    left, top = corner_x + x - width / 2, corner_y + y - height / 2
    x, width = clip(left, left + width, frame.width)
    y, height = clip(top, top + height, frame.height)
    return Box(x, y, width, height)


def within(frame: Frame, box: Box) -> Box:
    """A box to start on, no larger than the frame: a huge one would ask for a huge crop."""
    return Box(box.x, box.y, min(box.width, float(frame.width)), min(box.height, float(frame.height)))


def clip(start: float, end: float, size: int) -> tuple[float, float]:
    """Start and length of an interval of which the margin stays within 0..size."""
    margin = min(_MARGIN, float(size))
    start = min(max(0.0, start), size - margin)
    return start, max(margin, min(max(margin, end), float(size)) - start)


class _Trimmed(Frame):
    """The top-left part of a frame."""

    def __init__(self, frame: Frame, width: int, height: int) -> None:
        self._frame, self.width, self.height = frame, width, height

    def region(self, x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.uint8]:
        return self._frame.region(x0, y0, x1, y1)

    def mean_colour(self) -> npt.NDArray[np.float64]:
        return self._frame.mean_colour()

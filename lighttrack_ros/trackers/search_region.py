"""The square search region around a target, and mapping a prediction in it back to the frame.

As in STARK and its successors (MixFormer, OSTrack). They take every prediction as it is: the next region lies around
the last box, nothing is smoothed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lighttrack_ros.errors import EngineError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame
from lighttrack_ros.trackers.crop import SquareCropper

_MARGIN = 10.0  # pixels of a box that must stay inside the frame; also the smallest width and height
_BLACK = np.zeros(3, np.uint8)


def crop_region(cropper: SquareCropper, frame: Frame, box: Box, factor: float, out: npt.NDArray[np.uint8]) -> int:
    """Crop the square around a box; its side is `factor` times the root of the box's area. Black outside the frame.

    Args:
        out: (m, m, 3) uint8, the crop in BGR; written in place.

    Returns:
        The side of the square in pixels of the frame.
    """
    side = math.ceil(math.sqrt(box.area) * factor)
    centre_x, centre_y = box.centre
    x0, y0 = round(centre_x - side / 2), round(centre_y - side / 2)
    # As in the authors' code, the padding begins one pixel early on the right and at the bottom.
    seen = _Trimmed(frame, frame.width - (x0 + side >= frame.width), frame.height - (y0 + side >= frame.height))
    cropper.crop(seen, x0, y0, side, _BLACK, out)
    return side


def place_in_frame(prediction: Sequence[float], region_of: Box, side: int, frame: Frame) -> Box:
    """Map a predicted box to pixels of the frame; clips it as the authors' code does.

    Args:
        prediction: centre x, centre y, width, height, in units of the region's side.
        region_of: the box around which the region was cropped.
        side: of the region, in pixels of the frame.

    Raises:
        EngineError: the prediction is not finite.
    """
    if not all(map(math.isfinite, prediction)):
        raise EngineError("the network gave a box that is not finite: the engine is broken")
    # As published, this ignores that the crop's corner was rounded to whole pixels.
    corner_x, corner_y = (centre - side / 2 for centre in region_of.centre)
    x, y, width, height = (side * value for value in prediction)
    left, top = corner_x + x - width / 2, corner_y + y - height / 2
    x, width = clip(left, left + width, frame.width)
    y, height = clip(top, top + height, frame.height)
    return Box(x, y, width, height)


def within(frame: Frame, box: Box) -> Box:
    """An initial box cut to the frame's width and height: a huge box would need a huge crop."""
    return Box(box.x, box.y, min(box.width, float(frame.width)), min(box.height, float(frame.height)))


def clip(start: float, end: float, size: int) -> tuple[float, float]:
    """Start and length of an interval, moved and cut so that at least _MARGIN of it lies within 0..size."""
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

"""Camera pixels as the trackers see them: a view of the camera's bytes, decoded only where needed."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Frame(ABC):
    """One image of any encoding, of which square regions are read as BGR.

    A frame never copies the camera's buffer; `region` decodes no more than it is asked for.
    """

    width: int
    height: int

    @abstractmethod
    def region(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """Pixels x0..x1-1, y0..y1-1 (inside the frame, not empty).

        Returns:
            (y1 - y0, x1 - x0, 3) uint8, BGR; a view where the encoding allows it: never write to it.
        """

    @abstractmethod
    def mean_colour(self) -> np.ndarray:
        """Mean B, G, R of the whole frame, (3,) float64."""

    def bgr(self) -> np.ndarray:
        """The whole frame, (height, width, 3) uint8, BGR."""
        return self.region(0, 0, self.width, self.height)

"""Camera pixels as the trackers see them: a view of the camera's bytes, decoded only where needed."""

from __future__ import annotations

from abc import ABC, abstractmethod

import cv2
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


def from_bgr(pixels: np.ndarray) -> Frame:
    """A frame of an array that is BGR already, (height, width, 3) uint8; it is not copied."""
    return _BgrFrame(pixels)


class _BgrFrame(Frame):
    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def region(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        return self._pixels[y0:y1, x0:x1]

    def mean_colour(self) -> np.ndarray:
        # Sums of whole numbers are exact, and so is the mean of a plain colour; cv2.mean's need not be.
        return np.array(cv2.sumElems(self._pixels)[:3]) / (self.width * self.height)

"""Square crops of a frame, resized into a network's input buffer; the rest of the frame is not read."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from lighttrack_ros.image import Frame

UInt8Array = npt.NDArray[np.uint8]


class SquareCropper:
    """Gives the same pixels as padding the whole frame with the fill colour, cutting the square and resizing it."""

    def __init__(self) -> None:
        self._canvas = np.empty(0, np.uint8)  # grows to the largest square that leaves the frame

    def crop(self, frame: Frame, x0: int, y0: int, side: int, fill: UInt8Array, out: UInt8Array) -> None:
        """Resize the square at (x0, y0) into `out`, bilinearly, in 8 bits.

        Args:
            frame: the frame to crop.
            x0, y0: top-left pixel of the square, which may lie outside the frame.
            side: pixels of the frame, at least 1.
            fill: (3,) uint8 BGR, the colour outside the frame.
            out: (m, m, 3) uint8, contiguous; written in place.
        """
        left, top = max(0, -x0), max(0, -y0)
        right, bottom = max(0, x0 + side - frame.width), max(0, y0 + side - frame.height)
        if left + right >= side or top + bottom >= side:
            out[:] = fill
            return
        square = frame.region(x0 + left, y0 + top, x0 + side - right, y0 + side - bottom)
        if left or top or right or bottom:
            canvas = self._square(side)
            cv2.copyMakeBorder(
                square, top, bottom, left, right, cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED, canvas, fill.tolist()
            )
            square = canvas
        if side == out.shape[0]:
            np.copyto(out, square)
        else:
            cv2.resize(square, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_LINEAR)

    def _square(self, side: int) -> UInt8Array:
        size = side * side * 3
        if self._canvas.size < size:
            self._canvas = np.empty(size, np.uint8)
        return self._canvas[:size].reshape(side, side, 3)

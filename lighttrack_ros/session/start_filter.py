"""A filter that tells the target from what stood round it when it was started.

Ridge regression on the features about each cell, as correlation filters learn it (Henriques et al., TPAMI 2015), of
the one frame whose box is known, and of its mirror image: without that it knows the frame better than the target.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.trackers.base import unit

Floats = NDArray[np.float32]

_TAPS = 3  # cells along each side
_REACH = 0.9  # cells: standard deviation of the wanted answer about the target's centre
_NEAR = 3  # cells from the target's
_RIDGE = 0.05  # of the mean squared input
_CELLS = 4  # along each side of a candidate's patch


class StartFilter:
    """Answers about 1 at the target and 0 beside it.

    Args:
        maps: (m, channels, n, n), features of looks at the frame of the start; the target's centre is at cell n // 2
            of each.
    """

    def __init__(self, maps: NDArray[np.floating]) -> None:
        rows, columns = np.indices(maps.shape[2:]) - maps.shape[-1] // 2
        # Far from the target every second cell, as on a chessboard, says as much and takes a third of the time.
        taken = (np.maximum(abs(rows), abs(columns)) <= _NEAR) | ((rows + columns) % 2 == 0)
        looks = unit(np.ascontiguousarray(maps.transpose(0, 2, 3, 1), np.float32))
        inputs = _inputs(looks, *np.nonzero(taken))
        wanted = np.exp(-(rows[taken] ** 2 + columns[taken] ** 2) / (2 * _REACH**2)).astype(np.float32)
        # As many unknowns as there are cells, not as there are inputs: those are more.
        # OpenCV's product, as that of BLAS takes twenty times as long where its threads wait for busy cores.
        products: Floats = np.asarray(cv2.mulTransposed(inputs, False), np.float32)
        products[np.diag_indices_from(products)] += _RIDGE * np.trace(products) / inputs.shape[1]
        weights = np.linalg.solve(products, np.tile(wanted, len(maps))) @ inputs
        self._bias = weights[-1]
        self._weights = _at_places(weights[:-1].reshape(_TAPS, _TAPS, -1))

    def answers(self, cells: Floats) -> Floats:
        """The best answer at the middle of each candidate, (k,).

        Args:
            cells: (k, 16, channels), of length 1.
        """
        return np.asarray((cells.reshape(len(cells), -1) @ self._weights).max(axis=1) + self._bias)


def _inputs(looks: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    """What the filter sees at some cells of (m, n, n, channels): (m * cells, inputs), of which the last is 1."""
    padded = np.pad(looks, ((0, 0), (1, 1), (1, 1), (0, 0)))
    down, right = np.divmod(np.arange(_TAPS * _TAPS), _TAPS)
    seen = padded[:, rows[:, None] + down, columns[:, None] + right]  # (m, cells, taps * taps, channels)
    flat = seen.reshape(seen.shape[0] * seen.shape[1], -1)
    return np.concatenate((flat, np.ones((len(flat), 1), np.float32)), axis=1)


def _at_places(weights: Floats) -> Floats:
    """The filter at each of its places in a patch, of (taps, taps, channels): (16 * channels, places)."""
    steps = _CELLS - _TAPS + 1
    places = np.zeros((steps, steps, _CELLS, _CELLS, weights.shape[2]), np.float32)
    for row, column in np.ndindex(steps, steps):
        places[row, column, row : row + _TAPS, column : column + _TAPS] = weights
    return np.ascontiguousarray(places.reshape(steps * steps, -1).T)

"""In which direction a camera sees a target, how large, and how fast the direction changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lighttrack_ros.camera_model import CameraModel
from lighttrack_ros.geometry import Box

_MEMORY = 0.05  # seconds after which a sample counts 1/e in a rate
_GAP = 1.0  # seconds between two images after which a rate begins anew
_PLACES = np.array(((0.5, 0.5), (0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)))  # middle; edges in x, in y


@dataclass(frozen=True)
class Bearing:
    """A direction in the optical frame; angles in radians.

    Attributes:
        ray: unit vector, x to the right, y down, z forward.
        azimuth: atan2(x, z), positive to the right.
        elevation: atan2(-y, hypot(x, z)), positive upwards.
        width, height: angle between a box's edges; nan where the lens's model does not reach an edge.
    """

    ray: tuple[float, float, float]
    azimuth: float
    elevation: float
    width: float
    height: float


def bearings(model: CameraModel, boxes: Sequence[Box], size: tuple[int, int]) -> list[Bearing | None]:
    """Of each box; None where the lens's model does not reach its middle.

    Args:
        size: width and height of the image in whose pixels the boxes are.

    Raises:
        LightTrackError: the image's shape is another one than the camera's.
    """
    array = np.array(boxes, np.float64).reshape(-1, 1, 4)
    points = array[..., :2] + _PLACES * array[..., 2:]
    rays = model.rays(points.reshape(-1, 2), size).reshape(-1, len(_PLACES), 3)
    found: list[Bearing | None] = []
    for middle, left, right, upper, lower in rays.tolist():
        x, y, z = middle
        if math.isnan(x):
            found.append(None)
        else:
            azimuth, elevation = math.atan2(x, z), math.atan2(-y, math.hypot(x, z))
            found.append(Bearing((x, y, z), azimuth, elevation, _angle(left, right), _angle(upper, lower)))
    return found


class RateMeter:
    """The rates of one target's angles, from noisy samples at uneven times.

    A line is fitted to the samples, of which older ones count less (the fading-memory filter of the first order in
    Morrison, "Introduction to sequential smoothing and prediction", 1969); the first few samples all count the same.
    """

    def __init__(self) -> None:
        self._stamp = self._count = 0
        self._angles: tuple[float, float] = (0.0, 0.0)
        self._rates: tuple[float, float] = (0.0, 0.0)

    def add(self, stamp: int, azimuth: float, elevation: float) -> tuple[float, float]:
        """The rates at the newest sample, radians a second; nan where there is no earlier one to go by.

        Args:
            stamp: nanoseconds.
            azimuth, elevation: radians.
        """
        passed = (stamp - self._stamp) / 1e9
        self._stamp = stamp
        if not 0 < passed < _GAP or not self._count:
            self._count, self._angles, self._rates = 1, (azimuth, elevation), (0.0, 0.0)
            return math.nan, math.nan
        self._count += 1
        kept = math.exp(-passed / _MEMORY)
        number = self._count
        of_angle = max(1 - kept**2, 2 * (2 * number - 1) / (number * (number + 1)))
        of_rate = max((1 - kept) ** 2, 6 / (number * (number + 1)))
        angles, rates = [], []
        for measured, angle, rate in zip((azimuth, elevation), self._angles, self._rates, strict=True):
            expected = angle + passed * rate
            # An azimuth behind the camera jumps from pi to -pi.
            error = math.remainder(measured - expected, 2 * math.pi)
            angles.append(expected + of_angle * error)
            rates.append(rate + of_rate * error / passed)
        self._angles, self._rates = (angles[0], angles[1]), (rates[0], rates[1])
        return self._rates


def _angle(a: list[float], b: list[float]) -> float:
    """Between two unit vectors."""
    return 2 * math.asin(min(math.dist(a, b) / 2, 1.0))  # nan stays nan in this order

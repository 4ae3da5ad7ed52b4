"""The drone's camera: a pinhole camera that follows its target, climbs, circles it and shakes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FIELD_OF_VIEW = math.radians(48)  # horizontal
_LAG = 0.25  # seconds in which a steered drone takes up 63 % of a change of velocity


class SmoothNoise:
    """A sum of sinusoids of random frequency and phase: repeatable noise, defined at any time.

    Args:
        rng: used only here.
        amplitude: standard deviation of the value.
        slow, fast: range of the frequencies, Hz.
    """

    def __init__(self, rng: np.random.Generator, amplitude: float, slow: float, fast: float, terms: int = 5) -> None:
        self._omega = 2 * np.pi * np.exp(rng.uniform(np.log(slow), np.log(fast), terms))
        self._phase = rng.uniform(0, 2 * np.pi, terms)
        weights = rng.uniform(0.5, 1.0, terms)
        self._amplitude = amplitude * weights * math.sqrt(2) / np.linalg.norm(weights)

    def __call__(self, time: float) -> float:
        return float(np.sum(self._amplitude * np.sin(self._omega * time + self._phase)))


class View:
    """One pose of the camera. World: metres, z up, the ground is z = 0. Image: pixels, y down."""

    def __init__(
        self, position: NDArray[np.float64], forward: NDArray[np.float64], roll: float, width: int, height: int
    ) -> None:
        self.position = position
        self.forward = forward / np.linalg.norm(forward)
        right = np.cross(self.forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        down = np.cross(self.forward, right)
        level = math.cos(roll) * right + math.sin(roll) * down
        rotation = np.stack([level, math.cos(roll) * down - math.sin(roll) * right, self.forward])
        self.width, self.height = width, height
        self.focal = 0.5 * width / math.tan(FIELD_OF_VIEW / 2)
        # As in OpenCV, the centre of pixel (0, 0) is at (0, 0).
        intrinsic = np.array(
            [[self.focal, 0, (width - 1) / 2], [0, self.focal, (height - 1) / 2], [0, 0, 1]], np.float64
        )
        self.matrix = intrinsic @ np.column_stack([rotation, -rotation @ position])

    def project(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """World points (N, 3) to image points (N, 2) and their depths (N,) along the optical axis, metres."""
        homogeneous = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        depth = homogeneous[:, 2]
        return homogeneous[:, :2] / np.where(np.abs(depth) < 1e-6, 1e-6, depth)[:, None], depth

    def sees(self, x: float, y: float, z: float, radius: float) -> bool:
        """Whether a ball of `radius` metres may be partly in the image, and is not too close to the camera."""
        column, row, depth = (self.matrix @ (x, y, z, 1.0)).tolist()
        if depth < radius + 1:
            return False
        margin = 1.2 * self.focal * radius / (depth - radius)
        column, row = column / depth, row / depth
        return bool(-margin < column < self.width + margin and -margin < row < self.height + margin)

    def plane(self, height: float) -> NDArray[np.float64]:
        """(3, 3) homography from the horizontal plane z = height (x, y, 1) to the image."""
        return np.column_stack([self.matrix[:, 0], self.matrix[:, 1], self.matrix[:, 3] + height * self.matrix[:, 2]])


class Drone:
    """The camera's pose at any time: it follows a target's smoothed track.

    Args:
        rng: used only here.
        track: time in seconds to the target's (x, y) in metres.
        azimuth: direction of view over the ground at the start, radians.
        altitudes: metres at the start, in the middle and at the end.
        duration: seconds.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        track: Callable[[float], NDArray[np.float64]],
        azimuth: float,
        altitudes: tuple[float, float, float],
        duration: float,
    ) -> None:
        self._track = track
        self._azimuth = azimuth
        self._swing = rng.choice([-1, 1]) * rng.uniform(0.25, 0.7)
        self._elevation = rng.uniform(math.radians(48), math.radians(60))
        self._altitudes = altitudes
        self._duration = duration
        wander = rng.uniform(0.05, 0.09)  # of the distance to the target
        self._wander = [SmoothNoise(rng, wander, 0.08, 0.3), SmoothNoise(rng, 0.7 * wander, 0.08, 0.3)]
        shake = rng.uniform(0.6, 1.4)
        self._roll = SmoothNoise(rng, math.radians(1.2), 0.1, 0.6)
        self._shake = [SmoothNoise(rng, math.radians(degrees) * shake, 1.5, 9.0) for degrees in (0.12, 0.12, 0.10)]
        self._gusts = rng.uniform(0, duration, 3)
        self._gust = [SmoothNoise(rng, math.radians(0.5) * shake, 2.0, 5.0) for _ in range(2)]

    def view(self, time: float, width: int, height: int) -> View:
        progress = min(max(time / self._duration, 0.0), 1.0)
        start, middle, end = self._altitudes
        first, second = _ease(min(progress * 2, 1.0)), _ease(max(progress * 2 - 1, 0.0))
        altitude = start + (middle - start) * first + (end - middle) * second
        azimuth = self._azimuth + self._swing * _ease(progress)
        reach = altitude / math.tan(self._elevation)
        ahead = np.array([math.cos(azimuth), math.sin(azimuth)])
        aside = np.array([-ahead[1], ahead[0]])
        # A drone that follows lags behind: it aims at the mean of the target's last positions.
        lagged = np.mean([self._track(time - delay) for delay in (0.0, 0.2, 0.4, 0.6, 0.8)], axis=0)
        distance = math.hypot(altitude, reach)
        aim = lagged + distance * (self._wander[0](time) * aside + self._wander[1](time) * ahead)
        ground = aim - ahead * reach
        position = np.array([ground[0], ground[1], altitude])
        gust = sum(math.exp(-(((time - at) / 0.35) ** 2)) for at in self._gusts)
        yaw = azimuth + self._shake[0](time) + gust * self._gust[0](time)
        pitch = self._elevation + self._shake[1](time) + gust * self._gust[1](time)
        forward = np.array(
            [math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), -math.sin(pitch)], np.float64
        )
        return View(position, forward, self._roll(time) + self._shake[2](time), width, height)


class SteeredDrone:
    """The camera's pose where somebody steers: it takes up a velocity with some lag, and shakes.

    Args:
        rng: used only here.
        position: (3,) metres, at the start.
        azimuth: direction of flight and view over the ground at the start, radians, counter-clockwise.
        elevation: by how much the camera looks down, radians.
    """

    def __init__(
        self, rng: np.random.Generator, position: NDArray[np.float64], azimuth: float, elevation: float
    ) -> None:
        self.position = np.array(position, np.float64)
        self.azimuth = azimuth
        self._elevation = elevation
        self._time = 0.0
        self._commanded = np.zeros(4)
        self._moving = np.zeros(4)  # what it has of that: forward, left, up, yaw rate
        self._roll = SmoothNoise(rng, math.radians(1.2), 0.1, 0.6)
        self._shake = [SmoothNoise(rng, math.radians(degrees), 1.5, 9.0) for degrees in (0.1, 0.1, 0.08)]
        self._wind = [SmoothNoise(rng, 0.5, 0.05, 0.4) for _ in range(2)]  # metres a second

    def steer(self, forward: float, left: float, up: float, yaw_rate: float) -> None:
        """Velocities in metres and radians a second, as geometry_msgs/Twist in base_link has them."""
        self._commanded[:] = forward, left, up, yaw_rate

    def advance(self, seconds: float) -> None:
        """Fly on."""
        self._moving += (self._commanded - self._moving) * (1 - math.exp(-seconds / _LAG))
        self.position, self.azimuth = self._after(seconds)
        self._time += seconds

    def view(self, time: float, width: int, height: int) -> View:
        """At a time near that to which it was advanced."""
        position, azimuth = self._after(time - self._time)
        yaw, pitch = azimuth + self._shake[0](time), self._elevation + self._shake[1](time)
        forward = np.array(
            [math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), -math.sin(pitch)], np.float64
        )
        return View(position, forward, self._roll(time) + self._shake[2](time), width, height)

    def _after(self, seconds: float) -> tuple[NDArray[np.float64], float]:
        forward, left, up, yaw_rate = self._moving.tolist()
        azimuth = self.azimuth + yaw_rate * seconds
        middle = self.azimuth + yaw_rate * seconds / 2
        cos, sin = math.cos(middle), math.sin(middle)
        wind = [noise(self._time) for noise in self._wind]
        velocity = np.array([forward * cos - left * sin + wind[0], forward * sin + left * cos + wind[1], up])
        return self.position + seconds * velocity, azimuth


def _ease(value: float) -> float:
    """Map 0..1 to 0..1 with zero slope at both ends."""
    return 0.5 - 0.5 * math.cos(math.pi * value)

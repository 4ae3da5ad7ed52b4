"""The generated world for a closed loop: a vehicle drives round for as long as it takes, and the camera is steered."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.geometry import Box
from lighttrack_ros.media.scene.camera import SteeredDrone
from lighttrack_ros.media.scene.canvas import Pixels
from lighttrack_ros.media.scene.ground import Road
from lighttrack_ros.media.scene.scene import WORLD, Scene
from lighttrack_ros.media.scene.things import Bridge

ALTITUDE = 36.0  # metres, at the start
LOOKS_DOWN = math.radians(52)
_STEP = 0.25  # metres between samples of the road
_RADIUS = 58.0  # metres, of the road on the whole
_FAR_AWAY = -1e5  # metres
_SETTING_OFF = 4.0  # seconds until the target has its speed


class Pursuit(Scene):
    """A scene without an end and without a script: where the camera is depends on how it was steered.

    Nothing hides the target for long: no bridge crosses the road, and trees stand beside it. The look-alike and other
    traffic come towards it again and again.

    Args:
        seed: determines place, time of day, vehicles, wind and shake.
        width, height: pixels.
        fps: frames a second.

    Attributes:
        drone: the camera; it is steered between two frames, and `next_frame` advances it.
    """

    _hidden_at = ()

    def __init__(self, seed: int, width: int = 640, height: int = 480, fps: float = 30.0) -> None:
        super().__init__(seed, width, height, fps)
        self._index = 0

    @property
    def focal_length(self) -> float:
        """Pixels."""
        return self.drone.view(0.0, self.width, self.height).focal

    def next_frame(self) -> tuple[Pixels, Box | None]:
        """The image of this moment, (height, width, 3) uint8 BGR, and the target's bounds in it; None: out of view.

        The moment after it is a frame later, and the drone flies until then as it is steered when that is asked for.
        """
        if self._index:
            self.drone.advance(1 / self.fps)
        image, box, _, _ = self._draw(self._index)
        self._index += 1
        return image, box

    def _road(self, rng: np.random.Generator) -> _Circuit:
        return _Circuit(rng)

    def _camera(self, rng: np.random.Generator, azimuth: float) -> SteeredDrone:
        ahead = np.array([math.cos(azimuth), math.sin(azimuth)])
        ground = self._target_at(0.0) - ahead * ALTITUDE / math.tan(LOOKS_DOWN)
        self.drone = SteeredDrone(rng, np.array([*ground, ALTITUDE]), azimuth, LOOKS_DOWN)
        return self.drone

    def _bridge_over(self, rng: np.random.Generator) -> Bridge:
        return Bridge(_FAR_AWAY, _FAR_AWAY, 0.0, 4.0, 6.0, 0.9, np.zeros((64, 256, 3), np.uint8))


class _Circuit:
    """A closed road, and a target that sets off and goes round on it at a steady speed."""

    def __init__(self, rng: np.random.Generator) -> None:
        turn = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
        radius = _RADIUS * (
            1
            + rng.uniform(0.06, 0.12) * np.cos(2 * turn + rng.uniform(0, 2 * np.pi))
            + rng.uniform(0.03, 0.05) * np.cos(3 * turn + rng.uniform(0, 2 * np.pi))
        )
        coarse = np.column_stack([radius * np.cos(turn), radius * np.sin(turn)]) + WORLD / 2
        coarse = np.vstack([coarse, coarse[:1]])
        steps = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(coarse, axis=0), axis=1))])
        self.length = float(steps[-1])
        self._places = np.linspace(0, self.length, round(self.length / _STEP) + 1)
        self.line = np.column_stack([np.interp(self._places, steps, coarse[:, axis]) for axis in (0, 1)])
        ahead = np.gradient(self.line, axis=0)
        ahead[0] = ahead[-1] = self.line[1] - self.line[-2]
        self._headings = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))
        self._speed = rng.uniform(6.5, 8.0)  # metres a second
        self._start = rng.uniform(0, self.length)

    def travelled(self, time: float) -> float:
        # Its speed grows in proportion to the time until it is reached.
        lasting = min(max(time, 0.0), _SETTING_OFF) ** 2 / (2 * _SETTING_OFF) + max(0.0, time - _SETTING_OFF)
        return self._start + self._speed * lasting

    def along(self, place: float) -> float:
        return place % self.length

    def heading(self, place: float) -> float:
        return float(np.interp(self.along(place), self._places, self._headings))

    def position(self, place: float, offset: float) -> NDArray[np.float64]:
        heading, place = self.heading(place), self.along(place)
        point = np.array([np.interp(place, self._places, self.line[:, axis]) for axis in (0, 1)])
        return point + offset * np.array([-math.sin(heading), math.cos(heading)])

    def pose(self, place: float, offset: float) -> tuple[float, float, float]:
        x, y = self.position(place, offset)
        return float(x), float(y), self.heading(place)

    def side_roads(self, rng: np.random.Generator) -> list[Road]:
        """A farm track away from the middle of the world."""
        place = rng.uniform(0, self.length)
        start = self.position(place, 0.0)
        outwards = (start - WORLD / 2) / np.linalg.norm(start - WORLD / 2)
        return [Road(start + np.arange(0, 140, _STEP)[:, None] * outwards, 3.4, True)]

"""The script of a generated scene: where vehicles drive, what hides them, and how a frame is drawn.

A drone follows a vehicle for ten seconds. The vehicle takes a turn, changes size in the image as the drone climbs,
is partly hidden by trees, meets a vehicle that looks the same, and is fully hidden by a bridge for a moment. The
seed determines everything. The ground truth is exact: it is the projected model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.scene.camera import Drone, View
from lighttrack_ros.media.scene.canvas import Canvas, Pixels, Sprite
from lighttrack_ros.media.scene.ground import LANE, Ground, Road
from lighttrack_ros.media.scene.things import (
    TEXTURE_DENSITY,
    Bridge,
    Building,
    Sun,
    Tree,
    Vehicle,
    draw_trees,
    random_vehicle,
    tree_sprite,
)

DEFAULT_SEED = 20
DURATION = 10.0  # seconds
HIDDEN = 0.15  # a target with a smaller visible share counts as not visible
WORLD = 200.0  # side, metres
_STEP = 0.25  # metres between samples of a road
_EXPOSURE = 1 / 120  # seconds
# When things happen, seconds.
_TURN, _MEETING, _BRIDGE = 2.6, 5.0, 7.2


@dataclass(frozen=True)
class SceneFrame:
    """One frame and its ground truth.

    Attributes:
        image: (height, width, 3) uint8, BGR.
        box: the target's exact bounds, cut at the frame's edge; includes hidden parts.
        visible: visible share of the target's pixels, 0..1.
        look_alike: the same bounds of the vehicle that looks like the target; None while it is out of view.
    """

    image: Pixels
    box: Box
    visible: float
    look_alike: Box | None

    @property
    def truth(self) -> Box | None:
        """The box; None if the target counts as not visible."""
        return self.box if self.visible >= HIDDEN else None


class Scene:
    """A scene of ten seconds; frames can be drawn in any order, and are always the same.

    Args:
        seed: determines place, time of day, vehicles and flight.
        width, height: pixels.
        fps: frames a second.

    A sequence: `len(scene)` frames, `scene[index]` draws one, iterating draws all.
    """

    _hidden_at: tuple[float, ...] = (1.1, 3.7, 9.0)  # seconds; behind trees, for a moment

    def __init__(self, seed: int = DEFAULT_SEED, width: int = 640, height: int = 480, fps: float = 30.0) -> None:
        if seed < 0:
            raise LightTrackError(f"seed is {seed}, expected 0 or more")
        self.width, self.height, self.fps = width, height, fps
        self._seed = seed
        rng = np.random.default_rng(seed)
        self._track = self._road(rng)
        azimuth = math.pi / 2 + rng.uniform(-0.5, 0.5) + (math.pi if rng.random() < 0.5 else 0.0)
        sun_azimuth = azimuth + rng.choice([-1, 1]) * rng.uniform(0.5, 2.2)
        sun_height = rng.uniform(math.radians(35), math.radians(60))
        self._sun = Sun(
            np.array(
                [math.cos(sun_height) * math.cos(sun_azimuth), math.cos(sun_height) * math.sin(sun_azimuth),
                 math.sin(sun_height)]
            )
        )  # fmt: skip
        self._cast(rng)
        self._drone = self._camera(rng, azimuth)
        self._furnish(rng, azimuth)
        # The ground is painted as finely as the frame's pixels need.
        density = 14.0 if max(width / 640, height / 480) < 1.4 else 18.0
        self._ground = Ground(rng, WORLD, density, self._roads, self._trees, self._buildings, self._bridge, self._sun)
        self._gain = rng.uniform(0.94, 1.06)
        self._contrast = rng.uniform(0.95, 1.12)
        noise = np.random.default_rng(seed + 1).normal(0, rng.uniform(1.8, 3.2), (height + 64, width + 64, 3))
        self._noise = np.clip(np.round(noise), -30, 30).astype(np.int8)

    def __len__(self) -> int:
        return round(DURATION * self.fps)

    def __iter__(self) -> Iterator[SceneFrame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> SceneFrame:
        """Draw frame `index`.

        Raises:
            IndexError: outside 0 .. len(self) - 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of a scene of {len(self)} frames")
        image, box, visible, look_alike = self._draw(index)
        if box is None:
            raise RuntimeError(f"scene {self._seed}: the target left the view in frame {index}")
        return SceneFrame(image, box, visible, look_alike)

    def _draw(self, index: int) -> tuple[Pixels, Box | None, float, Box | None]:
        """Image, target's box, its visible share, the look-alike's box; a box is None where it is out of view."""
        time = index / self.fps
        view = self._drone.view(time, self.width, self.height)
        canvas = Canvas(self._ground.draw(view))
        target, look_alike = self._draw_vehicles(canvas, view, time)
        self._draw_standing(canvas, view)
        image = self._expose(canvas.image, view, time, index)
        box, other = (_inside(bounds, self.width, self.height) for bounds in (target, look_alike))
        return image, box, canvas.target_visible, other

    def _road(self, rng: np.random.Generator) -> Track:
        return _Track(rng)

    def _camera(self, rng: np.random.Generator, azimuth: float) -> Camera:
        altitude = rng.uniform(34, 44)
        altitudes = (altitude, altitude * rng.uniform(0.66, 0.8), altitude * rng.uniform(1.15, 1.4))
        return Drone(rng, self._target_at, azimuth, altitudes, DURATION)

    def _bridge_over(self, rng: np.random.Generator) -> Bridge:
        track = self._track
        middle = track.position(track.travelled(_BRIDGE), 0.0)
        heading = track.heading(track.travelled(_BRIDGE)) + math.pi / 2 + rng.uniform(-0.25, 0.25)
        width = rng.uniform(4.2, 5.4)
        return Bridge(
            float(middle[0]), float(middle[1]), heading, width, rng.uniform(5.4, 6.4), 0.9, _deck_texture(rng, width)
        )

    def _target_at(self, time: float) -> NDArray[np.float64]:
        return self._track.position(self._track.travelled(time), -LANE)

    def _cast(self, rng: np.random.Generator) -> None:
        """Choose the vehicles: the target, its look-alike, which comes towards it, and other traffic."""
        self._target = random_vehicle(rng, ("sedan", "hatchback", "suv", "pickup", "van"))
        self._look_alike = Vehicle(
            self._target.length, self._target.width, self._target.height, self._target.kind, self._target.paint
        )
        meeting = self._track.travelled(_MEETING + rng.uniform(-0.3, 0.3))
        speed = rng.uniform(6, 9)
        # (vehicle, place on the road at time zero, speed along it); negative speeds come towards the target.
        self._oncoming = [(self._look_alike, meeting + speed * _MEETING, -speed)]
        # One follows it closely, one much later; none at the bridge, where it could be taken for the target.
        for gap in (rng.uniform(12, 16), rng.uniform(68, 85)):
            self._oncoming.append((random_vehicle(rng), meeting + speed * _MEETING + gap, -speed))
        self._oncoming.append((random_vehicle(rng), self._track.travelled(0.0) + rng.uniform(20, 45), -speed))
        self._ahead = [(random_vehicle(rng), rng.uniform(20, 30)), (random_vehicle(rng), -rng.uniform(16, 24))]

    def _furnish(self, rng: np.random.Generator, azimuth: float) -> None:
        """Place roads, the bridge, houses, parked cars and trees; some trees hide the target for a moment."""
        track = self._track
        self._roads = [*track.side_roads(rng), Road(track.line)]
        self._bridge = self._bridge_over(rng)
        taken = _Taken(self._roads, self._bridge)
        self._buildings = _houses(rng, track, taken)
        self._parked: list[tuple[Vehicle, tuple[float, float, float]]] = []
        for building in self._buildings:
            for _ in range(int(rng.integers(0, 3))):
                corner = building.corners()[int(rng.integers(4))]
                out = corner - (building.x, building.y)
                spot = corner + out / np.linalg.norm(out) * rng.uniform(2.5, 4)
                if taken.free(spot, 3.0, with_buildings=False):
                    pose = (float(spot[0]), float(spot[1]), building.heading + rng.choice([0, math.pi / 2]))
                    self._parked.append((random_vehicle(rng, ("sedan", "hatchback", "suv", "pickup")), pose))
                    taken.add(spot, 3.0)
        self._trees = self._plant(rng, azimuth, taken)
        leaf = np.array([(44, 112, 84), (40, 98, 62), (52, 124, 112)][int(rng.integers(3))])
        facing = self._drone.view(DURATION / 2, self.width, self.height)
        axes = np.stack([np.cross(facing.forward, (0, 0, 1)), np.zeros(3), -facing.forward])
        axes[0] /= np.linalg.norm(axes[0])
        axes[1] = np.cross(facing.forward, axes[0])
        light = axes @ self._sun.toward
        self._sprites: list[Sprite] = []
        for _ in range(6):
            blue, green, red = (float(np.clip(channel + rng.uniform(-16, 16), 10, 200)) for channel in leaf)
            self._sprites.append(tree_sprite(rng, (blue, green, red), light))

    def _plant(self, rng: np.random.Generator, azimuth: float, taken: _Taken) -> list[Tree]:
        trees: list[Tree] = []

        def plant(spot: NDArray[np.float64], radius: float) -> None:
            height = radius * rng.uniform(1.0, 1.35) + 1.2
            trees.append(Tree(float(spot[0]), float(spot[1]), radius, height, int(rng.integers(6))))

        # Beside the road, on the camera's side, with a height that makes the crown hide part of the target.
        for time in self._hidden_at:
            time += rng.uniform(-0.3, 0.3)
            place = self._track.travelled(time)
            camera = self._drone.view(time, self.width, self.height).position
            target = self._target_at(time)
            aside = self._track.position(place, 1.0) - self._track.position(place, 0.0)
            side = 1.0 if float((camera[:2] - target) @ aside) > 0 else -1.0
            reach = rng.uniform(5.4, 6.2) + side * LANE  # from the target's lane to the trunk
            across = abs(float((camera[:2] - target) @ aside))
            spot = target + (camera[:2] - target) * (reach / max(across, 1e-3))
            radius = rng.uniform(2.0, 3.0)
            height = 0.7 + camera[2] * reach / max(across, 1e-3) - rng.uniform(0.6, 0.95) * radius
            if height < 11 and abs(float(self._bridge.side(spot[None])[0])) > 7:
                trees.append(Tree(float(spot[0]), float(spot[1]), radius, max(height, radius), 0))
                taken.add(spot, 2.0)
        for _ in range(3):  # rows along the road
            start, side = rng.uniform(0, self._track.length), rng.choice([-1, 1])
            offset, spacing = rng.uniform(8.5, 11), rng.uniform(6.5, 9)
            for step in range(int(rng.integers(4, 9))):
                spot = self._track.position(start + step * spacing, side * offset) + rng.normal(0, 0.4, 2)
                if taken.free(spot, 3.0):
                    plant(spot, rng.uniform(1.9, 2.9))
        for _ in range(14):  # groves
            middle = rng.uniform(10, WORLD - 10, 2)
            for _ in range(int(rng.integers(6, 22))):
                spot = middle + rng.normal(0, 7.5, 2)
                if taken.free(spot, 3.6):
                    plant(spot, rng.uniform(1.6, 3.8))
        for _ in range(90):  # single trees and bushes
            spot = rng.uniform(2, WORLD - 2, 2)
            if taken.free(spot, 3.4):
                plant(spot, rng.uniform(0.7, 3.0))
        return trees

    def _draw_vehicles(
        self, canvas: Canvas, view: View, time: float
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        track = self._track
        travelled = track.travelled(time)
        cast: list[tuple[Vehicle, tuple[float, float, float]]] = [
            (self._target, track.pose(travelled, -LANE)),
            *self._parked,
        ]
        for vehicle, gap in self._ahead:
            cast.append((vehicle, track.pose(travelled + gap, -LANE)))
        for vehicle, start, speed in self._oncoming:
            place = track.along(start + speed * time)
            if 0 < place < track.length:
                x, y, heading = track.pose(place, LANE)
                cast.append((vehicle, (x, y, heading + math.pi)))
        cast.sort(key=lambda entry: -float((np.array([*entry[1][:2], 0.0]) - view.position) @ view.forward))
        bounds = {}
        for vehicle, pose in cast:
            sunlit = self._ground.sunlit(pose[0], pose[1])
            bounds[id(vehicle)] = vehicle.draw(canvas, view, self._sun, pose, sunlit, vehicle is self._target)
        return bounds[id(self._target)], bounds.get(id(self._look_alike))

    def _draw_standing(self, canvas: Canvas, view: View) -> None:
        """Draw houses, trees and the bridge: first what lies beyond the bridge, then the bridge, then the rest."""
        bridge, sun = self._bridge, self._sun
        camera_side = math.copysign(1.0, float(bridge.side(view.position[None, :2])[0]))
        tree_sides = bridge.side(np.array([(tree.x, tree.y) for tree in self._trees])) * camera_side
        for beyond in (True, False):
            if not beyond:
                bridge.draw_pillars(canvas, view, sun)
                bridge.draw_deck(canvas, view, sun)
            for building in sorted(self._buildings, key=lambda house: -_distance(view, house)):
                if (float(bridge.side(np.array([(building.x, building.y)]))[0]) * camera_side < 0) == beyond:
                    building.draw(canvas, view, sun)
            trees = [tree for tree, side in zip(self._trees, tree_sides, strict=True) if (side < 0) == beyond]
            draw_trees(canvas, view, trees, self._sprites)

    def _expose(self, image: Pixels, view: View, time: float, index: int) -> Pixels:
        """Simulate the sensor: motion blur, exposure, noise."""
        later = self._drone.view(time + _EXPOSURE, self.width, self.height)
        aim = view.position + view.forward * (view.position[2] / max(0.2, -float(view.forward[2])))
        before, after = view.project(aim[None])[0][0], later.project(aim[None])[0][0]
        image = _smeared(image, after - before)
        gain = self._gain * self._contrast * (1 + 0.02 * math.sin(1.7 * time))
        image = np.asarray(cv2.convertScaleAbs(image, alpha=gain, beta=128 * (1 - self._contrast)), np.uint8)
        row, column = np.random.default_rng((self._seed, index)).integers(0, 64, 2)
        grain = self._noise[row : row + self.height, column : column + self.width]
        return np.asarray(cv2.add(image, grain, dtype=cv2.CV_8U), np.uint8)


class Track(Protocol):
    """A road with a target on it: places are metres along its middle line, headings radians."""

    line: NDArray[np.float64]  # (n, 2) metres, finely sampled
    length: float

    def travelled(self, time: float) -> float:
        """The target's place at a time."""

    def along(self, place: float) -> float:
        """A vehicle's place; outside 0 .. length it is not on the road."""

    def heading(self, place: float) -> float:
        """Of the road."""

    def position(self, place: float, offset: float) -> NDArray[np.float64]:
        """(x, y) at a place along the line, `offset` metres to its left."""

    def pose(self, place: float, offset: float) -> tuple[float, float, float]:
        """x, y and heading."""

    def side_roads(self, rng: np.random.Generator) -> list[Road]:
        """Roads beside it."""


class Camera(Protocol):
    """Where the pictures are taken from."""

    def view(self, time: float, width: int, height: int) -> View:
        """At a time, of pictures of this size."""


class _Track:
    """The target's road, and the target's place on it at any time."""

    def __init__(self, rng: np.random.Generator) -> None:
        direction = rng.choice([-1.0, 1.0])
        self._speed = rng.uniform(8.0, 10.0)
        turn = direction * rng.uniform(math.radians(65), math.radians(100))
        radius = rng.uniform(13, 18)
        bend = abs(turn) * radius
        lead = 90.0
        self._start = lead
        self._turn_start = lead + self._speed * _TURN - 0.3 * bend
        self._turn_end = self._turn_start + bend
        total = lead + self._speed * DURATION + 100
        places = np.arange(0, total, _STEP)
        # Gentle bends before and after the turn; none where the bridge crosses.
        sway = 0.010 * np.sin(2 * np.pi * (places - self._turn_end) / rng.uniform(55, 80)) * -direction
        curvature = np.where((places > self._turn_start) & (places < self._turn_end), turn / bend, 0.55 * sway)
        curvature = np.where((places < lead - 10) | (places > total - 70), 0.0, curvature)
        # Smooth the curvature (clothoids), because steering takes time.
        kernel = np.hanning(25)
        curvature = np.convolve(curvature, kernel / kernel.sum(), mode="same")
        headings = np.cumsum(curvature) * _STEP
        headings += rng.uniform(0, 2 * np.pi)
        line = np.cumsum(np.column_stack([np.cos(headings), np.sin(headings)]) * _STEP, axis=0)
        # Put the part on which the target drives into the middle of the world.
        driven = line[int(lead / _STEP) : int((lead + self._speed * DURATION) / _STEP)]
        line += WORLD / 2 - (driven.min(axis=0) + driven.max(axis=0)) / 2
        self.line = line
        self.length = total
        self._headings = headings
        # Distance over time, slower in the turn, tabulated once.
        self._times = np.arange(-2.0, DURATION + 2.0, 0.02)
        place = lead - 2.0 * self._speed
        travelled = []
        for _ in self._times:
            travelled.append(place)
            middle = 0.5 * (self._turn_start + self._turn_end)
            slow = math.exp(-(((place - middle) / (0.8 * bend)) ** 2))
            place += self._speed * (1 - 0.3 * slow) * 0.02
        self._travelled = np.array(travelled)

    def travelled(self, time: float) -> float:
        """Metres along the line at a time."""
        return float(np.interp(time, self._times, self._travelled))

    def along(self, place: float) -> float:
        return place

    def heading(self, place: float) -> float:
        return float(np.interp(place, np.arange(len(self._headings)) * _STEP, self._headings))

    def position(self, place: float, offset: float) -> NDArray[np.float64]:
        """(x, y) at a place along the line, `offset` metres to its left."""
        index = np.arange(len(self.line)) * _STEP
        heading = self.heading(place)
        point = np.array([np.interp(place, index, self.line[:, 0]), np.interp(place, index, self.line[:, 1])])
        return point + offset * np.array([-math.sin(heading), math.cos(heading)])

    def pose(self, place: float, offset: float) -> tuple[float, float, float]:
        x, y = self.position(place, offset)
        return float(x), float(y), self.heading(place)

    def side_roads(self, rng: np.random.Generator) -> list[Road]:
        """The road that goes straight on where the target turns, and a farm track."""
        roads = []
        for place, ahead, minor in (
            (self._turn_start, 1.0, False),
            (self._turn_end + rng.uniform(24, 40), 0.0, True),
        ):
            heading = self.heading(place) + (0.0 if ahead else rng.choice([-1, 1]) * rng.uniform(1.2, 1.8))
            start = self.position(place, 0.0)
            away = np.arange(0, 140, _STEP)[:, None]
            bend = heading + rng.uniform(-0.004, 0.004) * away[:, 0]
            line = start + np.cumsum(np.column_stack([np.cos(bend), np.sin(bend)]) * _STEP, axis=0)
            roads.append(Road(line, 3.4 if minor else 7.2, minor))
        return roads


class _Taken:
    """Areas where nothing may be placed: roads, the bridge, houses."""

    def __init__(self, roads: list[Road], bridge: Bridge) -> None:
        self._bridge = bridge
        side = round(WORLD)
        free = np.full((side, side), 255, np.uint8)
        for road in roads:
            cv2.polylines(free, [np.round(road.line).astype(np.int32)], False, 0, max(1, round(road.width)))
        self._clearance = cv2.distanceTransform(free, cv2.DIST_L2, 3)
        self._spots: list[tuple[NDArray[np.float64], float]] = []

    def add(self, spot: NDArray[np.float64], radius: float) -> None:
        self._spots.append((spot, radius))

    def free(self, spot: NDArray[np.float64], radius: float, with_buildings: bool = True) -> bool:
        column, row = (int(value) for value in np.round(spot))
        if not (0 <= column < len(self._clearance) and 0 <= row < len(self._clearance)):
            return False
        if self._clearance[row, column] < radius:
            return False
        if abs(float(self._bridge.side(spot[None])[0])) < self._bridge.width / 2 + radius + 0.5:
            return False
        return not with_buildings or all(
            float(np.linalg.norm(spot - other)) > radius + reach for other, reach in self._spots
        )


def _houses(rng: np.random.Generator, track: Track, taken: _Taken) -> list[Building]:
    """Houses along the road, and a few out in the fields."""
    houses: list[Building] = []
    for attempt in range(60):
        if len(houses) >= 13:
            break
        if attempt < 40:
            place = rng.uniform(60, track.length - 80)
            spot = track.position(place, rng.choice([-1, 1]) * rng.uniform(17, 30))
            heading = track.heading(place) + rng.normal(0, 0.06) + rng.choice([0, math.pi / 2])
        else:
            spot, heading = rng.uniform(15, WORLD - 15, 2), rng.uniform(0, np.pi)
        length, width = rng.uniform(10, 18), rng.uniform(7, 10)
        if not taken.free(spot, 0.5 * math.hypot(length, width) + 1.5):
            continue
        ridged = rng.random() < 0.75
        height = rng.uniform(3.0, 5.5)
        houses.append(
            Building(float(spot[0]), float(spot[1]), length, width, height, heading,
                     _wall_texture(rng), _roof_texture(rng, ridged), width * 0.28 if ridged else 0.0)
        )  # fmt: skip
        taken.add(spot, 0.5 * math.hypot(length, width))
    return houses


def _wall_texture(rng: np.random.Generator) -> Pixels:
    """Plaster with windows every three metres, TEXTURE_DENSITY pixels a metre."""
    side = round(3 * TEXTURE_DENSITY)
    base = np.array([(196, 208, 214), (168, 190, 206), (150, 160, 168), (184, 200, 188)][int(rng.integers(4))])
    wall = np.clip(base + rng.normal(0, 5, (side, side, 1)), 0, 255).astype(np.uint8)
    low, high = round(0.28 * side), round(0.68 * side)
    cv2.rectangle(wall, (low - 2, low - 2), (high + 2, high + 2), (230, 232, 234), cv2.FILLED)
    cv2.rectangle(wall, (low, low), (high, high), (74, 66, 58), cv2.FILLED)
    cv2.line(wall, ((low + high) // 2, low), ((low + high) // 2, high), (226, 228, 230), 1)
    return wall


def _roof_texture(rng: np.random.Generator, ridged: bool) -> Pixels:
    """Tiles in courses, or gravel with hatches, TEXTURE_DENSITY pixels a metre."""
    size = 256
    blotch = cv2.resize(rng.standard_normal((10, 10)), (size, size), interpolation=cv2.INTER_CUBIC)[..., None] * 6
    if ridged:
        base = np.array([(62, 78, 152), (70, 92, 168), (72, 72, 88), (96, 84, 78)][int(rng.integers(4))])
        courses = np.zeros((size, size, 1))
        courses[::6] = -26
        courses[1::6] = 8
        courses[:, ::5] -= 10
    else:
        base = np.array([(150, 156, 160), (126, 128, 130), (108, 116, 124)][int(rng.integers(3))])
        courses = np.zeros((size, size, 1))
    roof = np.clip(base + courses + blotch + rng.normal(0, 6, (size, size, 1)), 0, 255).astype(np.uint8)
    if not ridged:
        for _ in range(4):
            corner = rng.integers(10, size - 50, 2)
            far = corner + rng.integers(14, 34, 2)
            cv2.rectangle(roof, (corner + 5).tolist(), (far + 5).tolist(), (84, 84, 84), cv2.FILLED)
            cv2.rectangle(roof, corner.tolist(), far.tolist(), (190, 194, 196), cv2.FILLED)
    return roof


def _deck_texture(rng: np.random.Generator, width: float) -> Pixels:
    """Concrete edges and rails, asphalt, a dashed middle: columns along the deck, rows across it."""
    rows, columns = round(width * TEXTURE_DENSITY), round(16 * TEXTURE_DENSITY)
    deck = np.clip(rng.normal(112, 5, (rows, columns, 1)) + np.array((2, 0, -2)), 0, 255).astype(np.uint8)
    kerb = round(0.55 * TEXTURE_DENSITY)
    for edge in (slice(0, kerb), slice(rows - kerb, rows)):
        deck[edge] = np.clip(rng.normal(172, 5, deck[edge].shape[:2])[..., None], 0, 255).astype(np.uint8)
    for row in (2, rows - 4):
        deck[row : row + 2] = (92, 96, 100)
        deck[row : row + 3, :: round(2 * TEXTURE_DENSITY)] = (60, 62, 64)
    middle = rows // 2
    deck[middle - 1 : middle + 1, : columns // 4] = (214, 220, 222)
    deck[middle - 1 : middle + 1, columns // 2 : 3 * columns // 4] = (214, 220, 222)
    for column in range(0, columns, columns // 4):  # joints
        deck[:, column : column + 1] = (74, 74, 74)
    return np.asarray(deck, np.uint8)


def _distance(view: View, building: Building) -> float:
    return float((np.array([building.x, building.y, 0.0]) - view.position) @ view.forward)


def _inside(bounds: NDArray[np.float64] | None, width: int, height: int) -> Box | None:
    """Bounds in pixel-centre coordinates to a box cut at the frame's edge; None if it is outside the frame."""
    if bounds is None:
        return None
    x0, y0 = max(0.0, float(bounds[0]) + 0.5), max(0.0, float(bounds[1]) + 0.5)
    x1, y1 = min(float(width), float(bounds[2]) + 0.5), min(float(height), float(bounds[3]) + 0.5)
    return Box(x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def _smeared(image: Pixels, motion: NDArray[np.float64]) -> Pixels:
    """Blur along the camera's motion during the exposure, in pixels."""
    length = float(np.hypot(*motion))
    if length < 0.7:
        return image
    taps = 2 if length < 2 else 3
    mixed = image
    for tap in range(1, taps):
        part = motion * (tap / (taps - 1)) - motion / 2 if taps == 3 else motion
        shift = np.array([[1, 0, part[0]], [0, 1, part[1]]], np.float64)
        moved = cv2.warpAffine(image, shift, (image.shape[1], image.shape[0]), borderMode=cv2.BORDER_REPLICATE)
        mixed = np.asarray(cv2.addWeighted(mixed, tap / (tap + 1), moved, 1 / (tap + 1), 0), np.uint8)
    return mixed

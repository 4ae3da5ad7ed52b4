"""Models, in metres, of what stands on the ground: vehicles, trees, buildings and the bridge."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.media.scene.camera import View
from lighttrack_ros.media.scene.canvas import Canvas, Pixels, Sprite, solid

Colour = tuple[float, float, float]  # BGR, 0..255
_GLASS: Colour = (62, 50, 42)
_TYRE: Colour = (28, 28, 28)
_FRONT_LIGHT: Colour = (225, 240, 245)
_REAR_LIGHT: Colour = (40, 36, 190)


@dataclass(frozen=True)
class Sun:
    """Light from one direction: `toward` is a unit vector that points at the sun."""

    toward: NDArray[np.float64]
    ambient: float = 0.62
    direct: float = 0.5

    def on(self, normal: NDArray[np.float64], sunlit: float) -> float:
        """Brightness of a surface, about 1 for one that faces the sun."""
        return self.ambient + self.direct * sunlit * max(0.0, float(normal @ self.toward))

    def shift(self, height: float) -> NDArray[np.float64]:
        """Offset on the ground of the shadow of a point at `height`, (2,) metres."""
        return np.asarray(-self.toward[:2] / self.toward[2] * height, np.float64)


@dataclass(frozen=True)
class _Face:
    points: NDArray[np.float64]  # (N, 3), convex, metres in the model's frame
    normal: NDArray[np.float64]
    colour: Colour
    glossy: bool = False


@dataclass
class Vehicle:
    """A vehicle's shape and paint; x is forward, y left, z up, the origin on the ground under its middle.

    Attributes:
        length, width, height: metres.
        kind: one of KINDS.
    """

    length: float
    width: float
    height: float
    kind: str
    paint: Colour

    def __post_init__(self) -> None:
        faces = _BUILDERS[self.kind](self)
        self._points = np.concatenate([face.points for face in faces])
        self._ends = np.cumsum([len(face.points) for face in faces])
        self._normals = np.array([face.normal / np.linalg.norm(face.normal) for face in faces])
        self._colours = np.array([face.colour for face in faces], np.float64)
        self._glossy = np.array([face.glossy for face in faces], np.float64)

    def draw(
        self, canvas: Canvas, view: View, sun: Sun, pose: tuple[float, float, float], sunlit: float, target: bool
    ) -> NDArray[np.float64] | None:
        """Draw it, its shadow first.

        Args:
            pose: x, y in metres, heading in radians.
            sunlit: 0 in full shadow .. 1 in the sun.
            target: whether this is the thing that is tracked.

        Returns:
            Bounds in the image (x0, y0, x1, y1), not cut at its edge; None where it is out of view.
        """
        x, y, heading = pose
        if not view.sees(x, y, 0.5 * self.height, 0.6 * self.length + self.height):
            return None
        cos, sin = math.cos(heading), math.sin(heading)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        place = np.array([x, y, 0.0])
        points = self._points @ turn.T + place
        normals = self._normals @ turn.T
        starts = self._ends - np.diff(self._ends, prepend=0)
        facing = np.einsum("ij,ij->i", normals, view.position - points[starts]) > 0
        # Paint and glass mirror the sky, most where they face up.
        shine = self._glossy * 18 * np.maximum(0, normals[:, 2]) * (0.4 + 0.6 * sunlit)
        light = sun.ambient + (sun.direct * sunlit) * np.maximum(0, normals @ sun.toward)
        colours = np.minimum(255, self._colours * light[:, None] + shine[:, None]).tolist()
        faces = [
            (points[start:end], colour)
            for start, end, colour, seen in zip(starts, self._ends, colours, facing, strict=True)
            if seen
        ]
        drawn = solid(view, faces)
        if drawn is None:
            return None
        colour, transparency, left, top, bounds = drawn
        self._shadow(canvas, view, sun, turn, place, sunlit)
        if target:
            canvas.blend_target(colour, transparency, left, top)
        else:
            canvas.blend(colour, transparency, left, top)
        return bounds

    def _shadow(
        self,
        canvas: Canvas,
        view: View,
        sun: Sun,
        turn: NDArray[np.float64],
        place: NDArray[np.float64],
        sunlit: float,
    ) -> None:
        a, b = self.length / 2, self.width / 2
        corners = np.array([(a, b, 0), (a, -b, 0), (-a, -b, 0), (-a, b, 0)]) @ turn.T + place
        soft = view.focal * 0.10 / float(np.linalg.norm(view.position - place))
        for high, strength in ((0.0, 0.45), (self.height * 0.9, 0.42 * sunlit)):
            shifted = corners[:, :2] * 1.0
            if high:
                shifted = np.concatenate([corners[:, :2], corners[:, :2] * 0.94 + place[:2] * 0.06 + sun.shift(high)])
            ground = np.column_stack([shifted, np.zeros(len(shifted))])
            points, depth = view.project(ground)
            if depth.min() > 1:
                hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
                canvas.darken(hull, strength, soft)


def _lit(colour: Colour, light: float, shine: float = 0.0) -> Colour:
    blue, green, red = (min(255.0, channel * light + shine) for channel in colour)
    return blue, green, red


def _frustum(
    base: list[tuple[float, float]],
    low: float,
    top: list[tuple[float, float]],
    high: float,
    sides: Colour | list[Colour],
    lid: Colour,
    glossy: bool = True,
) -> list[_Face]:
    """Side faces and lid between two convex outlines (anticlockwise from above) at two heights."""
    count = len(base)
    colours = sides if isinstance(sides, list) else [sides] * count
    faces = []
    for index in range(count):
        following = (index + 1) % count
        points = np.array(
            [(*base[index], low), (*base[following], low), (*top[following], high), (*top[index], high)], np.float64
        )
        faces.append(_Face(points, _normal(points), colours[index], glossy))
    up = np.array([0.0, 0.0, 1.0])
    faces.append(_Face(np.array([(*point, high) for point in top], np.float64), up, lid, glossy))
    return faces


def _rectangle(back: float, front: float, half: float) -> list[tuple[float, float]]:
    """Anticlockwise from the front right: sides are front, left, back, right."""
    return [(front, -half), (front, half), (back, half), (back, -half)]


def _chamfered(back: float, front: float, half: float, cut: float) -> list[tuple[float, float]]:
    return [
        (front, -half + cut), (front, half - cut), (front - 1.3 * cut, half), (back + cut, half),
        (back, half - cut), (back, -half + cut), (back + cut, -half), (front - 1.3 * cut, -half),
    ]  # fmt: skip


def _patch(centre: tuple[float, float, float], along: Colour, up: Colour, normal: Colour, colour: Colour) -> _Face:
    """A flat quad round `centre`, spanned by two half-axes."""
    middle, a, b = np.array(centre), np.array(along), np.array(up)
    points = np.array([middle - a - b, middle + a - b, middle + a + b, middle - a + b])
    return _Face(points, np.array(normal, np.float64), colour)


def _wheels(vehicle: Vehicle, radius: float, axles: tuple[float, ...]) -> list[_Face]:
    faces = []
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    for side in (-1, 1):
        for axle in axles:
            points = np.column_stack(
                [
                    axle * vehicle.length + radius * np.cos(angles),
                    np.full(len(angles), side * (vehicle.width / 2 + 0.01)),
                    radius + radius * np.sin(angles),
                ]
            )
            faces.append(_Face(points, np.array([0.0, side, 0.0]), _TYRE))
            hub = points.copy()
            hub[:, 0] = axle * vehicle.length + 0.5 * radius * np.cos(angles)
            hub[:, 2] = radius + 0.5 * radius * np.sin(angles)
            faces.append(_Face(hub, np.array([0.0, side, 0.0]), (135, 135, 135)))
    return faces


def _lights(vehicle: Vehicle, height: float, half: float = 0.12) -> list[_Face]:
    faces = []
    a, b = vehicle.length / 2 + 0.01, vehicle.width / 2
    for side in (-0.68, 0.68):
        faces.append(_patch((a, side * b, height), (0, 0.2, 0), (0, 0, half), (1, 0, 0), _FRONT_LIGHT))
        faces.append(_patch((-a, side * b, height), (0, 0.2, 0), (0, 0, half), (-1, 0, 0), _REAR_LIGHT))
    return faces


def _car(vehicle: Vehicle, cabin: tuple[float, float, float, float], belt: float) -> list[_Face]:
    """Hull, wheels, cabin: `cabin` is its back and front at the belt and at the roof, shares of the length."""
    length, half = vehicle.length, vehicle.width / 2
    paint, dark = vehicle.paint, _lit(vehicle.paint, 0.55)
    back, front = -length / 2, length / 2
    faces = _frustum(
        _chamfered(back + 0.1, front - 0.1, half - 0.06, 0.25),
        0.22,
        _chamfered(back, front, half, 0.28),
        0.5,
        dark,
        dark,
    )
    faces += _frustum(
        _chamfered(back, front, half, 0.28), 0.5, _chamfered(back + 0.08, front - 0.12, half - 0.07, 0.30), belt, paint,
        paint,
    )  # fmt: skip
    faces += _wheels(vehicle, 0.33, (-0.31, 0.31)) + _lights(vehicle, 0.5 * (0.5 + belt))
    cabin_back, cabin_front, roof_back, roof_front = (share * length for share in cabin)
    seam = _lit(paint, 0.72)
    # Edges of bonnet and tailgate: thin seams that show the shape from above.
    faces.append(
        _patch((cabin_front + 0.10, 0, belt + 0.005), (0.03, 0, 0), (0, half * 0.8, 0), (0, 0, 1), seam),
    )
    faces.append(
        _patch((0.46 * length, 0, belt + 0.005), (0.04, 0, 0), (0, half * 0.66, 0), (0, 0, 1), seam),
    )
    faces += _frustum(
        _rectangle(cabin_back, cabin_front, half * 0.90), belt, _rectangle(roof_back, roof_front, half * 0.74),
        vehicle.height, _GLASS, paint,
    )  # fmt: skip
    middle = 0.5 * (roof_back + roof_front)
    # Pillars: body colour over the side windows' middle.
    for side in (-1, 1):
        pillar = _patch(
            (middle, side * half * 0.825, 0.5 * (belt + vehicle.height)),
            (0.06, 0, 0),
            (0, -side * half * 0.08, 0.5 * (vehicle.height - belt)),
            (0, side, 0.4),
            paint,
        )
        faces.append(pillar)
    return faces


def _sedan(vehicle: Vehicle) -> list[_Face]:
    return _car(vehicle, (-0.36, 0.20, -0.22, 0.06), 0.86)


def _hatchback(vehicle: Vehicle) -> list[_Face]:
    return _car(vehicle, (-0.47, 0.20, -0.38, 0.06), 0.90)


def _suv(vehicle: Vehicle) -> list[_Face]:
    faces = _car(vehicle, (-0.48, 0.22, -0.43, 0.10), 1.05)
    half = vehicle.width / 2
    for side in (-1, 1):
        rail = (-0.16 * vehicle.length, side * half * 0.62, vehicle.height + 0.02)
        faces.append(_patch(rail, (0.24 * vehicle.length, 0, 0), (0, 0.05, 0), (0, 0, 1), (60, 60, 60)))
    return faces


def _pickup(vehicle: Vehicle) -> list[_Face]:
    faces = _car(vehicle, (-0.12, 0.22, -0.09, 0.10), 1.0)
    length, half = vehicle.length, vehicle.width / 2
    bed = _patch((-0.31 * length, 0, 1.01), (0.16 * length, 0, 0), (0, half * 0.78, 0), (0, 0, 1), (46, 46, 46))
    return [*faces, bed]


def _van(vehicle: Vehicle) -> list[_Face]:
    length, half, top = vehicle.length, vehicle.width / 2, vehicle.height
    back, front = -length / 2, length / 2
    paint = vehicle.paint
    faces = _frustum(
        _chamfered(back, front, half, 0.15), 0.25, _chamfered(back, front - 0.1, half, 0.15), 1.15, paint, paint
    )
    faces += _wheels(vehicle, 0.36, (-0.32, 0.32)) + _lights(vehicle, 0.8)
    faces += _frustum(
        _rectangle(back + 0.05, front - 0.55, half * 0.97), 1.15, _rectangle(back + 0.1, front - 1.3, half * 0.88), top,
        [_GLASS, paint, paint, paint], paint,
    )  # fmt: skip
    for side in (-1, 1):
        window = _patch((front - 1.45, side * half * 0.945, 1.15 + 0.45 * (top - 1.15)), (0.42, 0, 0),
                        (0, -side * 0.03, 0.26), (0, side, 0.1), _GLASS)  # fmt: skip
        faces.append(window)
    seam = _lit(paint, 0.8)
    for share in (-0.3, -0.1, 0.1):
        faces.append(_patch((share * length, 0, top + 0.005), (0.03, 0, 0), (0, half * 0.8, 0), (0, 0, 1), seam))
    return faces


def _truck(vehicle: Vehicle) -> list[_Face]:
    length, half, top = vehicle.length, vehicle.width / 2, vehicle.height
    front = length / 2
    cab_back = front - 1.9
    paint = vehicle.paint
    cargo: Colour = (214, 218, 220)
    frame = _rectangle(-front, front - 0.2, half * 0.9)
    chassis = _frustum(frame, 0.4, frame, 0.8,
                       (50, 50, 50), (50, 50, 50), glossy=False)  # fmt: skip
    cab_low = _frustum(
        _chamfered(cab_back, front, half, 0.12), 0.5, _chamfered(cab_back, front, half, 0.12), 1.5, paint, paint
    )
    cab_high = _frustum(
        _rectangle(cab_back, front - 0.05, half * 0.97), 1.5, _rectangle(cab_back, front - 0.45, half * 0.9),
        min(2.5, top - 0.3), [_GLASS, paint, paint, paint], paint,
    )  # fmt: skip
    box_outline = _rectangle(-front, cab_back - 0.25, half)
    box = _frustum(box_outline, 0.9, box_outline, top, cargo, _lit(cargo, 0.97))
    stripe = [
        _patch((-0.5 * (front - cab_back + 2.0), side * (half + 0.01), 1.7), (0.3 * length, 0, 0), (0, 0, 0.18),
               (0, side, 0), paint)
        for side in (-1, 1)
    ]  # fmt: skip
    wheels = _wheels(vehicle, 0.48, (-0.34, 0.34))
    return chassis + wheels + _lights(vehicle, 0.9) + cab_low + cab_high + box + stripe


def _bus(vehicle: Vehicle) -> list[_Face]:
    length, half, top = vehicle.length, vehicle.width / 2, vehicle.height
    front = length / 2
    paint = vehicle.paint
    hull = _chamfered(-front, front, half, 0.12)
    faces = _frustum(hull, 0.35, hull, 1.25, paint, paint) + _wheels(vehicle, 0.48, (-0.28, 0.30))
    faces += _lights(vehicle, 0.8) + _frustum(hull, 1.25, hull, top - 0.5, _GLASS, _GLASS)
    faces += _frustum(hull, top - 0.5, _chamfered(-front + 0.1, front - 0.1, half - 0.12, 0.12), top, paint,
                      _lit(paint, 0.5, 120))  # fmt: skip
    for share in (-0.28, 0.05, 0.3):
        faces.append(
            _patch((share * length, 0, top + 0.01), (0.7, 0, 0), (0, half * 0.5, 0), (0, 0, 1), (150, 150, 150))
        )
    return faces


_BUILDERS = {
    "sedan": _sedan,
    "hatchback": _hatchback,
    "suv": _suv,
    "pickup": _pickup,
    "van": _van,
    "truck": _truck,
    "bus": _bus,
}
# Length, width, height in metres.
KINDS: dict[str, tuple[float, float, float]] = {
    "sedan": (4.6, 1.85, 1.45),
    "hatchback": (4.0, 1.76, 1.50),
    "suv": (4.7, 1.95, 1.78),
    "pickup": (5.3, 1.95, 1.80),
    "van": (5.6, 2.05, 2.45),
    "truck": (8.2, 2.40, 3.30),
    "bus": (11.0, 2.55, 3.10),
}
PAINTS: tuple[Colour, ...] = (
    (228, 230, 232), (205, 205, 202), (150, 150, 148), (92, 90, 88), (46, 44, 44), (40, 34, 170), (30, 40, 205),
    (150, 84, 30), (190, 130, 60), (60, 110, 40), (40, 150, 220), (20, 200, 240), (70, 90, 120), (110, 60, 90),
)  # fmt: skip


def random_vehicle(rng: np.random.Generator, kinds: tuple[str, ...] = tuple(KINDS)) -> Vehicle:
    """A vehicle of a random kind, with sizes and paint a little off the standard."""
    kind = str(rng.choice(kinds))
    scale = rng.uniform(0.95, 1.06)
    length, width, height = (size * scale for size in KINDS[kind])
    base = PAINTS[int(rng.integers(len(PAINTS)))]
    blue, green, red = (float(np.clip(channel + rng.uniform(-12, 12), 20, 240)) for channel in base)
    return Vehicle(length, width, height, kind, (blue, green, red))


@dataclass(frozen=True)
class Tree:
    """A crown on a trunk: metres."""

    x: float
    y: float
    radius: float
    height: float  # of the crown's middle
    sprite: int


def tree_sprite(rng: np.random.Generator, leaf: Colour, light: NDArray[np.float64], size: int = 160) -> Sprite:
    """A crown seen from the air: clumps of leaves on a ball, lit from the image direction `light` (x, y, z)."""
    fine = 2
    side = size * fine
    colour = np.zeros((side, side, 3), np.uint8)
    opacity = np.zeros((side, side), np.uint8)
    lobes = rng.uniform(0, 2 * np.pi, 3)

    def leaves(angle: float, height: float, size_share: float, brightness: float) -> None:
        ragged = 0.88 + 0.07 * math.sin(3 * angle + lobes[0]) + 0.05 * math.sin(5 * angle + lobes[1])
        out = math.sqrt(1 - height**2) * ragged * math.sqrt(rng.uniform(0.8, 1.0))
        normal = np.array([out * math.cos(angle), out * math.sin(angle), height])
        # Small hollows all over the crown: the sun reaches only some clumps.
        lit = brightness * (0.46 + 0.66 * max(0.0, float(normal @ light)) + rng.normal(0, 0.085))
        tint = 1 + rng.normal(0, 0.045, 3)
        shade = tuple(float(np.clip(channel * lit * part, 4, 250)) for channel, part in zip(leaf, tint, strict=True))
        radius = side * size_share
        reach = side / 2 - radius - 2
        centre = (round(side / 2 + normal[0] * reach), round(side / 2 + normal[1] * reach))
        axes = (round(radius), round(radius * rng.uniform(0.55, 0.95)))
        turn = rng.uniform(0, 180)
        cv2.ellipse(colour, centre, axes, turn, 0, 360, shade, cv2.FILLED, cv2.LINE_AA)
        cv2.ellipse(opacity, centre, axes, turn, 0, 360, 255, cv2.FILLED, cv2.LINE_AA)

    for angle in np.linspace(0, 2 * np.pi, 40):  # the dark inside
        for height in (0.5, 0.8, 0.97):
            leaves(angle, height, 0.11, 0.5)
    # From the rim inwards and upwards, so that the sunlit top covers the rest.
    for height in np.sort(rng.uniform(0, 1, int(rng.integers(320, 420)))):
        leaves(rng.uniform(0, 2 * np.pi), height, rng.uniform(0.018, 0.042), 1.0)
    small = (size, size)
    return Sprite(
        np.asarray(cv2.resize(colour, small, interpolation=cv2.INTER_AREA), np.uint8),
        np.asarray(cv2.resize(opacity, small, interpolation=cv2.INTER_AREA), np.uint8),
    )


def draw_trees(canvas: Canvas, view: View, trees: list[Tree], sprites: list[Sprite]) -> None:
    """Draw crowns, far ones first."""
    if not trees:
        return
    crowns = np.array([(tree.x, tree.y, tree.height) for tree in trees])
    points, depth = view.project(crowns)
    feet, _ = view.project(crowns * (1, 1, 0))
    for index in np.argsort(-depth):
        if depth[index] < 3:
            continue
        tree = trees[index]
        side = 2 * view.focal * tree.radius / depth[index]
        x, y = points[index]
        if -side < x < view.width + side and -side < y < view.height + side:
            trunk = np.round(np.array([feet[index], points[index]])).astype(int)
            if depth[index] < 400:
                thickness = max(1, round(view.focal * 0.3 / depth[index]))
                cv2.line(canvas.image, trunk[0].tolist(), trunk[1].tolist(), (38, 52, 66), thickness, cv2.LINE_AA)
            canvas.blend(*sprites[tree.sprite].placed(x, y, side))


@dataclass(frozen=True)
class Building:
    """A block with a flat or a ridged roof; x, y its middle, metres; heading in radians."""

    x: float
    y: float
    length: float
    width: float
    height: float
    heading: float
    wall: Pixels
    roof: Pixels
    ridge: float  # height of the ridge above the walls; 0 is flat

    def corners(self) -> NDArray[np.float64]:
        """(4, 2), anticlockwise."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        a, b = self.length / 2, self.width / 2
        corners = np.array([(a, -b), (a, b), (-a, b), (-a, -b)]) @ np.array([[cos, sin], [-sin, cos]])
        return np.asarray(corners + np.array([self.x, self.y]), np.float64)

    def draw(self, canvas: Canvas, view: View, sun: Sun) -> None:
        if not view.sees(self.x, self.y, 0.5 * self.height, 0.5 * math.hypot(self.length, self.width) + self.height):
            return
        ground = np.column_stack([self.corners(), np.zeros(4)])
        eaves = np.column_stack([self.corners(), np.full(4, self.height)])
        for index in range(4):
            following = (index + 1) % 4
            quad = np.array([ground[index], ground[following], eaves[following], eaves[index]])
            self._quad(canvas, view, sun, quad, self.wall)
        if self.ridge <= 0:
            self._quad(canvas, view, sun, eaves, self.roof)
            return
        # The ridge runs along the length.
        top = np.array([0, 0, self.ridge])
        front, back = eaves[:2].mean(axis=0) + top, eaves[2:].mean(axis=0) + top
        for gable, peak in ((eaves[:2], front), (eaves[2:], back)):
            normal = _normal(np.array([gable[0], gable[1], peak, peak]))
            if float(normal @ (view.position - peak)) > 0:
                blue, green, red = self.wall.reshape(-1, 3).mean(axis=0)
                colour = _lit((blue, green, red), sun.on(normal, 1.0))
                drawn = solid(view, [(np.array([gable[0], gable[1], peak]), colour)])
                if drawn is not None:
                    canvas.blend(*drawn[:4])
        self._quad(canvas, view, sun, np.array([eaves[1], eaves[2], back, front]), self.roof)
        self._quad(canvas, view, sun, np.array([eaves[3], eaves[0], front, back]), self.roof)

    def _quad(self, canvas: Canvas, view: View, sun: Sun, quad: NDArray[np.float64], texture: Pixels) -> None:
        """One textured rectangle, TEXTURE_DENSITY texture pixels a metre, seen only from outside."""
        normal = _normal(quad)
        if float(normal @ (view.position - quad[0])) <= 0:
            return
        points, depth = view.project(quad)
        if depth.min() < 2 or not _in_view(points, view):
            return
        wide = float(np.linalg.norm(quad[1] - quad[0])) * TEXTURE_DENSITY
        tall = float(np.linalg.norm(quad[3] - quad[0])) * TEXTURE_DENSITY
        source = np.array([(0, tall), (wide, tall), (wide, 0), (0, 0)], np.float32)
        to_image = cv2.getPerspectiveTransform(source, points.astype(np.float32))
        canvas.textured(texture, np.asarray(to_image, np.float64), points, sun.on(normal, 1.0))


TEXTURE_DENSITY = 16.0  # pixels a metre, of walls, roofs and the bridge


@dataclass(frozen=True)
class Bridge:
    """A straight deck on pillars, right across the world, over the road: metres, heading in radians."""

    x: float
    y: float
    heading: float
    width: float
    height: float  # of the deck's top
    thickness: float
    deck: Pixels  # its rows run across the deck, its columns along it
    reach: float = 150.0

    def along(self) -> NDArray[np.float64]:
        return np.array([math.cos(self.heading), math.sin(self.heading)])

    def side(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Signed distance of (N, 2) points from the deck's middle line."""
        ahead = self.along()
        return np.asarray((points - (self.x, self.y)) @ np.array([-ahead[1], ahead[0]]), np.float64)

    def outline(self) -> NDArray[np.float64]:
        """The deck from above, (4, 2)."""
        ahead = self.along()
        aside = np.array([-ahead[1], ahead[0]]) * self.width / 2
        ends = np.array([-1, 1])[:, None] * ahead * self.reach + (self.x, self.y)
        return np.array([ends[0] - aside, ends[1] - aside, ends[1] + aside, ends[0] + aside])

    def draw_pillars(self, canvas: Canvas, view: View, sun: Sun) -> None:
        under = self.height - self.thickness
        for step in range(-7, 8):
            if step == 0:
                continue  # the road
            middle = np.array([self.x, self.y]) + self.along() * (step * 15 - math.copysign(5, step))
            if not view.sees(float(middle[0]), float(middle[1]), 0.5 * under, self.width + under):
                continue
            cos, sin = math.cos(self.heading), math.sin(self.heading)
            turn = np.array([[cos, sin], [-sin, cos]])
            square = np.array(_rectangle(-0.5, 0.5, 0.32 * self.width)) @ turn + middle
            outline = [(float(x), float(y)) for x, y in square]
            faces = [
                (face.points, _lit(face.colour, sun.on(face.normal, 0.6)))
                for face in _frustum(outline, 0, outline, under, (150, 156, 158), (150, 156, 158))
                if float(face.normal @ (view.position - face.points[0])) > 0
            ]
            drawn = solid(view, faces)
            if drawn is not None:
                canvas.blend(*drawn[:4])

    def draw_deck(self, canvas: Canvas, view: View, sun: Sun) -> None:
        ahead = self.along()
        aside = np.array([-ahead[1], ahead[0]])
        origin = np.array([self.x, self.y])
        edges = [origin - aside * self.width / 2, origin + aside * self.width / 2]
        near = min(edges, key=lambda edge: float(np.linalg.norm(edge - view.position[:2])))
        # Drawn in strips, so that strips behind the camera can be left out.
        strip = 12.0
        starts = np.arange(-self.reach, self.reach, strip)
        outward = near - origin
        outward3 = np.array([*(outward / np.linalg.norm(outward)), 0.0])
        for start in starts:
            near_ends = np.array([near + ahead * start, near + ahead * (start + strip)])
            self._fascia(canvas, view, sun, near_ends, outward3)
        texture_to_world = np.array(
            [
                [ahead[0] / TEXTURE_DENSITY, aside[0] / TEXTURE_DENSITY, edges[0][0]],
                [ahead[1] / TEXTURE_DENSITY, aside[1] / TEXTURE_DENSITY, edges[0][1]],
                [0, 0, 1],
            ]
        )
        to_image = view.plane(self.height) @ texture_to_world
        light = sun.on(np.array([0.0, 0.0, 1.0]), 1.0)
        visible = []
        for start in starts:
            quad = np.array([edges[0] + ahead * start, edges[0] + ahead * (start + strip),
                             edges[1] + ahead * (start + strip), edges[1] + ahead * start])  # fmt: skip
            points, depth = view.project(np.column_stack([quad, np.full(4, self.height)]))
            if depth.min() > 2 and _in_view(points, view):
                visible.append(points)
        if visible:
            # One polygon, because the ground would show through seams between strips.
            hull = cv2.convexHull(np.concatenate(visible).astype(np.float32))[:, 0].astype(np.float64)
            canvas.textured(self.deck, to_image, hull, light)

    def _fascia(
        self, canvas: Canvas, view: View, sun: Sun, ends: NDArray[np.float64], normal: NDArray[np.float64]
    ) -> None:
        low, high = self.height - self.thickness, self.height + 0.0
        quad = np.array([(*ends[0], low), (*ends[1], low), (*ends[1], high), (*ends[0], high)])
        if float(normal @ (view.position - quad[0])) <= 0:
            return
        points, depth = view.project(quad)
        if depth.min() <= 2 or not _in_view(points, view):
            return
        drawn = solid(view, [(quad, _lit((168, 172, 174), sun.on(normal, 0.9)))])
        if drawn is not None:
            canvas.blend(*drawn[:4])


def _normal(quad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit normal of a face whose points run anticlockwise seen from outside."""
    (ax, ay, az), (bx, by, bz) = (quad[1] - quad[0]).tolist(), (quad[3] - quad[0]).tolist()
    normal = np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
    return normal / math.sqrt(float(normal @ normal))


def _in_view(points: NDArray[np.float64], view: View) -> bool:
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(high[0] >= 0 and high[1] >= 0 and low[0] <= view.width and low[1] <= view.height)

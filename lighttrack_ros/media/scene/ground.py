"""The ground as one big picture: fields, roads with markings, gardens, and the shadows of all that stands still."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.media.scene.camera import View
from lighttrack_ros.media.scene.canvas import Pixels, fixed
from lighttrack_ros.media.scene.things import Bridge, Building, Sun, Tree

ROAD_WIDTH = 7.2  # metres
LANE = 1.75  # from the middle of the road to the middle of a lane
_LIGHT_DENSITY = 2.0  # pixels a metre of the map of sun and shade
_ASPHALT = (104, 102, 100)
_GRAVEL = (108, 128, 142)
_PAINT = (218, 224, 226)
_PALETTES = (
    # meadow, lawn, crop, ripe, soil (BGR): early summer, dry, northern
    ((68, 112, 100), (64, 120, 94), (58, 102, 80), (108, 166, 180), (76, 98, 122)),
    ((82, 128, 136), (66, 122, 102), (70, 118, 96), (120, 178, 196), (92, 122, 152)),
    ((80, 118, 104), (76, 130, 100), (70, 112, 86), (104, 154, 164), (74, 92, 112)),
)


@dataclass(frozen=True)
class Road:
    """A road's middle line, (N, 2) metres, finely sampled; minor roads carry no edge lines."""

    line: NDArray[np.float64]
    width: float = ROAD_WIDTH
    minor: bool = False


class Ground:
    """Ground of a square world, painted once, then warped into every frame.

    Args:
        rng: drawn from once, here.
        side: metres; what lies beyond is a mirror image.
        density: pixels a metre.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        side: float,
        density: float,
        roads: list[Road],
        trees: list[Tree],
        buildings: list[Building],
        bridge: Bridge,
        sun: Sun,
    ) -> None:
        self.density = density
        picture = _Painter(rng, side, density)
        picture.fields()
        picture.yards(buildings)
        picture.mottle()
        picture.roads(roads)
        self._sunlit = picture.shadows(trees, buildings, bridge, sun)
        picture.grain()
        self._levels = [picture.image]
        for _ in range(2):
            above = self._levels[-1]
            half = (above.shape[1] // 2, above.shape[0] // 2)
            self._levels.append(np.asarray(cv2.resize(above, half, interpolation=cv2.INTER_AREA), np.uint8))

    def draw(self, view: View) -> Pixels:
        """The ground as the camera sees it, (height, width, 3) uint8 BGR."""
        to_image = view.plane(0.0)
        # Metres to pixels at the picture's middle decide which size of the ground is read.
        middle = np.linalg.solve(to_image, np.array([view.width / 2, view.height / 2, 1.0]))
        distance = float(np.linalg.norm(view.position - (*(middle[:2] / middle[2]), 0.0)))
        wanted = view.focal / distance
        level = 0
        while level + 1 < len(self._levels) and self.density / 2**level > 1.45 * wanted:
            level += 1
        density = self.density / 2**level
        # A texture pixel's centre lies half a pixel inside its corner.
        to_world = np.array([[1 / density, 0, 0.5 / density], [0, 1 / density, 0.5 / density], [0, 0, 1]])
        image = cv2.warpPerspective(
            self._levels[level], to_image @ to_world, (view.width, view.height), borderMode=cv2.BORDER_REFLECT
        )
        return np.asarray(image, np.uint8)

    def sunlit(self, x: float, y: float) -> float:
        """0 in full shadow .. 1 in the sun, averaged over the size of a car."""
        column, row = round(x * _LIGHT_DENSITY), round(y * _LIGHT_DENSITY)
        height, width = self._sunlit.shape
        if 0 <= column < width and 0 <= row < height:
            return float(self._sunlit[row, column]) / 255
        return 1.0


class _Painter:
    def __init__(self, rng: np.random.Generator, side: float, density: float) -> None:
        self._rng = rng
        self._side = side
        self._density = density
        self._size = round(side * density)
        self._palette = _PALETTES[int(rng.integers(len(_PALETTES)))]
        self.image: Pixels = np.empty((self._size, self._size, 3), np.uint8)

    def fields(self) -> None:
        """Paint fields in strips and blocks."""
        rng = self._rng
        self.image[:] = self._palette[0]
        angle = rng.uniform(0, np.pi)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        cuts_u = np.cumsum(rng.uniform(28, 62, 14)) - self._side * 0.75
        for u0, u1 in pairwise(cuts_u):
            cuts_v = np.cumsum(rng.uniform(24, 70, 14)) - self._side * 0.75
            for v0, v1 in pairwise(cuts_v):
                quad = np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)]) @ turn + self._side / 2
                if quad.max() > 0 and quad.min() < self._side:
                    self._field(quad, angle + (np.pi / 2 if rng.random() < 0.5 else 0.0))

    def _field(self, quad: NDArray[np.float64], angle: float) -> None:
        rng = self._rng
        use = int(rng.choice(5, p=(0.40, 0.18, 0.2, 0.10, 0.12)))
        colour = np.array(self._palette[use], np.float64) * rng.uniform(0.88, 1.12) + rng.uniform(-6, 6, 3)
        points = self._pixels(quad)
        cv2.fillConvexPoly(self.image, points, colour.tolist(), cv2.LINE_AA, 4)
        low = np.clip(points.min(axis=0) // 16, 0, self._size)
        high = np.clip(points.max(axis=0) // 16 + 1, 0, self._size)
        if use >= 1 and (high > low).all():
            # Furrows, rows and mowing strips are stripes of different width and strength.
            narrowest, depth = ((0.0, 0.0), (2.5, 7.0), (0.9, 16.0), (1.4, 9.0), (0.7, 13.0))[use]
            spacing = narrowest * rng.uniform(1.0, 1.6)
            mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
            inside = np.zeros_like(mask)
            cv2.fillConvexPoly(inside, points - low * 16, 255, cv2.LINE_AA, 4)
            ahead = np.array([math.cos(angle), math.sin(angle)])
            aside = np.array([-ahead[1], ahead[0]])
            middle = quad.mean(axis=0)
            for offset in np.arange(-60, 60, spacing):
                ends = np.array([middle + aside * offset - ahead * 90, middle + aside * offset + ahead * 90])
                line = self._pixels(ends) - low * 16
                thickness = max(1, round(0.5 * spacing * self._density))
                cv2.line(mask, line[0].tolist(), line[1].tolist(), 255, thickness, cv2.LINE_8, 4)
            cv2.bitwise_and(mask, inside, dst=mask)
            area = self.image[low[1] : high[1], low[0] : high[0]]
            cv2.subtract(area, np.array((depth, depth * 0.9, depth * 1.1, 0)), dst=area, mask=mask)
        if rng.random() < 0.5:  # a grassy or trodden edge
            edge = np.array(self._palette[0], np.float64) * rng.choice([0.72, 1.16])
            width = max(1, round(rng.uniform(0.8, 1.8) * self._density))
            cv2.polylines(self.image, [points], True, edge.tolist(), width, cv2.LINE_8, 4)

    def mottle(self) -> None:
        """Multiply by noise of many sizes, a little different in each colour."""
        broad = self._noise(self._side / 14) * 0.55 + self._noise(self._side / 5) * 0.45
        fine = self._noise(self._side * 0.6) * 0.6 + self._noise(self._side * 2.2) * 0.8
        warm = self._noise(self._side / 10)
        common = broad * 22 + fine * 14
        channels = [np.asarray(np.clip(128 + common + shift * warm, 0, 255), np.uint8) for shift in (-6.0, 2.0, 9.0)]
        cv2.multiply(self.image, cv2.merge(channels), dst=self.image, scale=1 / 128)

    def yards(self, buildings: list[Building]) -> None:
        """Lawn and paving round the houses."""
        rng = self._rng
        for building in buildings:
            colour = np.array((128, 140, 146) if rng.random() < 0.5 else self._palette[1]) * rng.uniform(0.9, 1.1)
            middle = np.array([building.x, building.y])
            yard = (building.corners() - middle) * rng.uniform(1.35, 1.7, (1, 2)) + middle
            cv2.fillConvexPoly(self.image, self._pixels(yard), colour.tolist(), cv2.LINE_AA, 4)

    def roads(self, roads: list[Road]) -> None:
        """Verges with ragged edges, asphalt, wear, painted lines; later roads lie over earlier ones."""
        rng = self._rng
        half = self._size // 2
        coarse = self._density * half / self._size
        verge: Pixels = np.zeros((half, half), np.uint8)
        for road in roads:
            cv2.polylines(
                verge, [fixed(road.line * coarse)], False, 255, round((road.width + 2.4) * coarse), cv2.LINE_8, 4
            )
        verge = np.asarray(cv2.GaussianBlur(verge, (0, 0), 0.9 * coarse), np.uint8)
        ragged = sum(self._noise(self._side * cells, half) * 20 for cells in (0.2, 0.7, 2.5))
        # A steep but not sharp edge: the verge fades into the grass.
        share = np.clip((verge.astype(np.float32) + ragged - 120) * 4, 0, 235).astype(np.uint8)
        self._paint(_GRAVEL, np.asarray(cv2.resize(share, (self._size, self._size)), np.uint8))
        for road in roads:
            mask = np.zeros((self._size, self._size), np.uint8)
            self._polyline(mask, road.line, road.width, 255)
            tone = rng.uniform(0.9, 1.12) * (1.1 if road.minor else 1.0)
            self._paint(tuple(channel * tone for channel in _ASPHALT), mask)
            self._wear(road, mask)
            if not road.minor:
                for side in (-1, 1):
                    self._polyline(self.image, _beside(road.line, side * (road.width / 2 - 0.35)), 0.14, _PAINT)
            step = max(1, round(0.25 / float(np.linalg.norm(road.line[1] - road.line[0]))))
            dash, gap = 12 * step, 20 * step
            if not road.minor:
                for start in range(0, len(road.line) - dash, dash + gap):
                    self._polyline(self.image, road.line[start : start + dash], 0.15, _PAINT)

    def _wear(self, road: Road, mask: Pixels) -> None:
        """Paint tyre tracks, oil and mended patches, so that the road has texture."""
        rng = self._rng
        quarter = self._size // 2
        scale = self._density * quarter / self._size
        dark: Pixels = np.zeros((quarter, quarter), np.uint8)
        for lane in (-1, 1):
            for wheel in (-0.75, 0.75):
                track = fixed(_beside(road.line, lane * LANE + wheel) * scale)
                cv2.polylines(dark, [track], False, 26, max(1, round(0.55 * scale)), cv2.LINE_8, 4)
        for _ in range(len(road.line) // 90):
            at = road.line[int(rng.integers(len(road.line) - 12))]
            middle = np.round((at + rng.uniform(-3, 3, 2)) * scale).astype(int)
            size = np.maximum(1, np.round(rng.uniform(0.25, 1.6, 2) * scale)).astype(int)
            turn, darkness = rng.uniform(0, 180), rng.uniform(14, 50)
            cv2.ellipse(dark, middle.tolist(), size.tolist(), turn, 0, 360, darkness, cv2.FILLED)
        dark = np.asarray(cv2.GaussianBlur(dark, (0, 0), 0.25 * scale), np.uint8)
        big = cv2.resize(dark, (self._size, self._size), interpolation=cv2.INTER_LINEAR)
        big = cv2.bitwise_and(big, mask)
        cv2.subtract(self.image, cv2.merge([big] * 3), dst=self.image)
        for _ in range(len(road.line) // 60):  # mended patches, lighter or darker, along the road
            start = int(rng.integers(0, len(road.line) - 20))
            line = _beside(road.line[start : start + int(rng.integers(6, 20))], rng.uniform(-2.6, 2.6))
            tone = rng.uniform(0.78, 1.1)
            self._polyline(self.image, line, rng.uniform(0.5, 1.6), tuple(channel * tone for channel in _ASPHALT))
        for _ in range(len(road.line) // 50):  # cracks sealed with tar
            at = road.line[int(rng.integers(len(road.line)))] + rng.uniform(-3, 3, 2)
            crack = at + np.cumsum(rng.normal(0, 0.55, (7, 2)), axis=0)
            cv2.polylines(self.image, [self._pixels(crack)], False, (66, 64, 62), 1, cv2.LINE_AA, 4)

    def shadows(self, trees: list[Tree], buildings: list[Building], bridge: Bridge, sun: Sun) -> Pixels:
        """Paint the shadows of trees, houses and the bridge; returns the map for `sunlit`."""
        rng = self._rng
        half = self._size // 2
        scale = self._density * half / self._size
        shade: Pixels = np.zeros((half, half), np.uint8)

        def convex(points: NDArray[np.float64]) -> None:
            hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
            cv2.fillConvexPoly(shade, fixed(hull * scale), 255, cv2.LINE_AA, 4)

        for building in buildings:
            top = building.corners() + sun.shift(building.height + 0.5 * building.ridge)
            convex(np.concatenate([building.corners(), top]))
        convex(bridge.outline() + sun.shift(bridge.height - 0.5 * bridge.thickness))
        for tree in trees:
            at = np.array([tree.x, tree.y]) + sun.shift(tree.height)
            foot = np.array([tree.x, tree.y])
            trunk = np.round(np.array([foot, at]) * scale).astype(int)
            cv2.line(shade, trunk[0].tolist(), trunk[1].tolist(), 255, max(1, round(0.3 * scale)))
            for _ in range(7):
                spot = np.round((at + rng.normal(0, 0.34, 2) * tree.radius) * scale).astype(int)
                cv2.circle(shade, spot.tolist(), round(tree.radius * rng.uniform(0.45, 0.7) * scale), 255, cv2.FILLED)
        shade = np.asarray(cv2.GaussianBlur(shade, (0, 0), 0.22 * scale), np.uint8)
        transparency = cv2.convertScaleAbs(shade, alpha=0.52)
        transparency = 255 - np.asarray(transparency, np.uint8)
        big = np.asarray(cv2.resize(transparency, (self._size, self._size)), np.uint8)
        # Shade is lit by the sky: a little bluer than the sun.
        bluish = np.asarray(cv2.addWeighted(big, 0.88, np.full_like(big, 255), 0.12, 0), np.uint8)
        cv2.multiply(self.image, cv2.merge([bluish, big, big]), dst=self.image, scale=1 / 255)
        light_size = round(self._side * _LIGHT_DENSITY)
        light = cv2.resize(255 - shade, (light_size, light_size), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.GaussianBlur(light, (0, 0), 1.0 * _LIGHT_DENSITY), np.uint8)

    def grain(self) -> None:
        """Add fine grain everywhere, so that no surface is flat from close by."""
        tile = self._rng.normal(0, 5.5, (512, 512, 1)) + self._rng.normal(0, 1.5, (512, 512, 3))
        tile = np.clip(tile, -60, 60).astype(np.int8)
        for row in range(0, self._size, 512):
            for column in range(0, self._size, 512):
                area = self.image[row : row + 512, column : column + 512]
                cv2.add(area, tile[: area.shape[0], : area.shape[1]], dst=area, dtype=cv2.CV_8U)

    def _paint(self, colour: tuple[float, ...], share: Pixels) -> None:
        """Cover with one slightly mottled colour; `share` is the opacity, 0..255, at full size."""
        tile = np.clip(self._rng.normal(0, 4.0, (256, 256, 1)) + np.array(colour), 0, 255).astype(np.uint8)
        covering = cv2.merge([share] * 3)
        for row in range(0, self._size, 256):
            for column in range(0, self._size, 256):
                part = (slice(row, min(row + 256, self._size)), slice(column, min(column + 256, self._size)))
                cover = covering[part]
                if not cover.any():
                    continue
                area = self.image[part]
                cv2.multiply(area, cv2.bitwise_not(cover), dst=area, scale=1 / 255)
                paint = cv2.multiply(tile[: area.shape[0], : area.shape[1]], cover, scale=1 / 255)
                cv2.add(area, paint, dst=area)

    def _noise(self, cells: float, size: int = 0) -> NDArray[np.float32]:
        """Smooth noise of about unit strength with `cells` cells per side."""
        size = size or self._size
        count = min(max(4, round(cells)), size)
        grid = self._rng.standard_normal((count, count), dtype=np.float32)
        return np.asarray(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)

    def _pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        return fixed(points * self._density - 0.5)

    def _polyline(
        self, image: Pixels, line: NDArray[np.float64], width: float, colour: int | tuple[float, ...]
    ) -> None:
        shade = colour if isinstance(colour, tuple) else (float(colour),)
        thickness = max(1, round(width * self._density))
        cv2.polylines(image, [self._pixels(line)], False, shade, thickness, cv2.LINE_AA, 4)


def _beside(line: NDArray[np.float64], offset: float) -> NDArray[np.float64]:
    """A line `offset` metres to the left of another."""
    ahead = np.gradient(line, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    return line + offset * np.column_stack([-ahead[:, 1], ahead[:, 0]])

"""The image being drawn: blends objects into it, and measures how much of the target stays visible."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.media.scene.camera import View

_SUBPIXEL_BITS = 4
Pixels = NDArray[np.uint8]


class Sprite:
    """An image with soft edges, stored at several sizes.

    Args:
        colour: (n, n, 3) uint8 BGR, already multiplied by the opacity.
        opacity: (n, n) uint8.
    """

    def __init__(self, colour: Pixels, opacity: Pixels) -> None:
        self._levels = []
        while True:
            self._levels.append((colour, cv2.merge([255 - opacity] * 3)))
            if len(colour) <= 16:
                break
            colour, opacity = _halved(colour), _halved(opacity)

    def placed(self, x: float, y: float, side: float) -> tuple[Pixels, Pixels, int, int]:
        """Colour and transparency, scaled to `side` pixels and centred at (x, y), and their top-left corner."""
        level = 0
        while level + 1 < len(self._levels) and len(self._levels[level + 1][0]) >= side:
            level += 1
        colour, transparency = self._levels[level]
        scale = side / len(colour)
        left, top = int(np.floor(x - side / 2)) - 1, int(np.floor(y - side / 2)) - 1
        size = int(np.ceil(side)) + 3
        centre = (len(colour) - 1) / 2
        shift = np.array([[scale, 0, x - left - scale * centre], [0, scale, y - top - scale * centre]])
        return (
            _u8(cv2.warpAffine(colour, shift, (size, size))),
            _u8(cv2.warpAffine(transparency, shift, (size, size), borderValue=(255, 255, 255))),
            left,
            top,
        )


class Canvas:
    """One frame being drawn, from the ground up.

    Attributes:
        image: (height, width, 3) uint8 BGR.
    """

    def __init__(self, image: Pixels) -> None:
        self.image = image
        self._target_opacity: Pixels | None = None
        self._target_shows: Pixels | None = None
        self._corner = (0, 0)

    @property
    def target_visible(self) -> float:
        """Visible share of the target's pixels, 0..1; pixels outside the frame count as not visible."""
        if self._target_opacity is None or self._target_shows is None:
            return 0.0
        return float(self._target_shows.sum(dtype=np.int64) / max(1, self._target_opacity.sum(dtype=np.int64)))

    def blend(self, colour: Pixels, transparency: Pixels, left: int, top: int) -> None:
        """Blend a picture into the image.

        Args:
            colour: (h, w, 3), already multiplied by its opacity.
            transparency: (h, w, 3), 255 minus the opacity.
            left, top: its corner in the image; may lie outside.
        """
        part = _overlap(self.image, colour, left, top)
        if part is None:
            return
        here, there = part
        area = self.image[here]
        cv2.multiply(area, transparency[there], dst=area, scale=1 / 255)
        cv2.add(area, colour[there], dst=area)
        self._hide_target(transparency, left, top)

    def blend_target(self, colour: Pixels, transparency: Pixels, left: int, top: int) -> None:
        """`blend` the target itself; what is drawn over it later reduces `target_visible`."""
        self.blend(colour, transparency, left, top)
        opacity = 255 - transparency[:, :, 0]
        shows = np.zeros_like(opacity)
        part = _overlap(self.image, colour, left, top)
        if part is not None:
            shows[part[1]] = opacity[part[1]]
        self._target_opacity, self._target_shows, self._corner = opacity, shows, (left, top)

    def darken(self, points: NDArray[np.float64], strength: float, softness: float) -> None:
        """Multiply a convex polygon of image points (N, 2) by 1 - strength, its edge softened (pixels)."""
        margin = int(3 * softness) + 2
        region = _bounds(points, margin, self.image.shape)
        if region is None:
            return
        left, top, right, bottom = region
        mask: Pixels = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillConvexPoly(mask, fixed(points - (left, top)), 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        if softness > 0.3:
            mask = _u8(cv2.GaussianBlur(mask, (0, 0), softness))
        transparency = cv2.merge([255 - _u8(cv2.convertScaleAbs(mask, alpha=strength))] * 3)
        area = self.image[top:bottom, left:right]
        cv2.multiply(area, transparency, dst=area, scale=1 / 255)

    def textured(
        self, texture: Pixels, to_image: NDArray[np.float64], outline: NDArray[np.float64], light: float
    ) -> None:
        """Draw a texture inside a convex outline of image points (N, 2).

        Args:
            texture: (h, w, 3) uint8 BGR, repeated beyond its edges.
            to_image: (3, 3) homography from texture pixels to image pixels.
            light: brightness; 1 leaves the texture unchanged.
        """
        region = _bounds(outline, 1, self.image.shape)
        if region is None:
            return
        left, top, right, bottom = region
        move = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], np.float64)
        size = (right - left, bottom - top)
        colour = cv2.warpPerspective(texture, move @ to_image, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        mask = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillConvexPoly(mask, fixed(outline - (left, top)), 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        opacity = cv2.merge([mask] * 3)
        self.blend(_u8(cv2.multiply(colour, opacity, scale=light / 255)), _u8(cv2.bitwise_not(opacity)), left, top)

    def _hide_target(self, transparency: Pixels, left: int, top: int) -> None:
        if self._target_shows is None:
            return
        part = _overlap(self._target_shows, transparency, left - self._corner[0], top - self._corner[1])
        if part is not None:
            area = self._target_shows[part[0]]
            area[:] = cv2.multiply(area, transparency[part[1]][:, :, 0], scale=1 / 255)


def solid(
    view: View, faces: list[tuple[NDArray[np.float64], tuple[float, float, float]]]
) -> tuple[Pixels, Pixels, int, int, NDArray[np.float64]] | None:
    """Draw flat faces in the given order, at a higher resolution if they are small, then smooth them.

    Args:
        faces: convex world polygons (N, 3) and their BGR colours.

    Returns:
        Colour, transparency, left, top as `Canvas.blend` takes them, and the exact outline's bounds
        (x0, y0, x1, y1) in image coordinates; None where the thing is behind or far outside the view.
    """
    points, depth = view.project(np.concatenate([face for face, _ in faces]))
    if depth.min() < 1.0:
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    if high[0] < -50 or high[1] < -50 or low[0] > view.width + 50 or low[1] > view.height + 50:
        return None
    left, top = int(np.floor(low[0])) - 1, int(np.floor(low[1])) - 1
    width, height = int(np.ceil(high[0])) + 2 - left, int(np.ceil(high[1])) + 2 - top
    fine = 3 if max(width, height) <= 250 else 1
    image: Pixels = np.zeros((height * fine, width * fine, 3), np.uint8)
    mask: Pixels = np.zeros((height * fine, width * fine), np.uint8)
    # Pixel centres of the fine picture lie between those of the coarse one.
    inside = (points - (left, top) + 0.5) * fine - 0.5
    start = 0
    for face, colour in faces:
        polygon = fixed(inside[start : start + len(face)])
        start += len(face)
        cv2.fillConvexPoly(image, polygon, colour, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.fillConvexPoly(mask, polygon, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    if fine > 1:
        image = _u8(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        mask = _u8(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA))
    return image, _u8(cv2.merge([255 - mask] * 3)), left, top, np.concatenate([low, high])


def fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Image points in OpenCV's fixed-point form."""
    return np.round(np.clip(points, -30000, 30000) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _overlap(
    below: Pixels, above: Pixels, left: int, top: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Slices of two pictures where they overlap, `above` lying at (left, top) of `below`."""
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + above.shape[1], below.shape[1]), min(top + above.shape[0], below.shape[0])
    if x0 >= x1 or y0 >= y1:
        return None
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _bounds(points: NDArray[np.float64], margin: int, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    low = np.floor(points.min(axis=0)).astype(int) - margin
    high = np.ceil(points.max(axis=0)).astype(int) + margin + 1
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), shape[1]), min(int(high[1]), shape[0])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _halved(picture: Pixels) -> Pixels:
    size = (picture.shape[1] // 2, picture.shape[0] // 2)
    return _u8(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _u8(array: object) -> Pixels:
    """OpenCV's stubs say less than is known: these are uint8."""
    return np.asarray(array, np.uint8)

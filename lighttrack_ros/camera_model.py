"""From pixels to directions: a calibrated camera as sensor_msgs/CameraInfo describes it.

Pixels are counted as boxes are: (0, 0) is the top-left corner of the image, and the centre of its first pixel is at
(0.5, 0.5). A calibration, as OpenCV's, has that centre at (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lighttrack_ros.errors import LightTrackError

Floats = npt.NDArray[np.float64]

PLUMB_BOB, RATIONAL, EQUIDISTANT = "plumb_bob", "rational_polynomial", "equidistant"
_COEFFICIENTS = {PLUMB_BOB: (4, 5), RATIONAL: (8,), EQUIDISTANT: (4,)}  # how many; more may follow that are 0
_SAME_SHAPE = 0.01  # by which an image's width over height may differ from the camera's: resizing rounds
_STEPS = 30  # of Newton's method, at most
_SMALL = 1e-6  # focal lengths; a step of that size leaves an error of its square


@dataclass(frozen=True)
class CameraModel:
    """One calibration; the fields are those of sensor_msgs/CameraInfo.

    Attributes:
        width, height: pixels of the full sensor, for which the matrix is.
        matrix: fx, fy, cx, cy.
        distortion: name of the lens's model; empty where `coefficients` are.
        coefficients: plumb_bob k1, k2, p1, p2, k3; rational_polynomial k1, k2, p1, p2, k3 to k6; equidistant k1 to k4.
        binning: sensor's pixels in one of the image, across and down.
        roi: x, y, width, height of the part of the sensor that is read, in the sensor's pixels.
    """

    width: int
    height: int
    matrix: tuple[float, float, float, float]
    distortion: str = ""
    coefficients: tuple[float, ...] = ()
    binning: tuple[int, int] = (1, 1)
    roi: tuple[int, int, int, int] | None = None

    def rays(self, points: npt.ArrayLike, size: tuple[int, int]) -> Floats:
        """Unit vectors in the optical frame: x to the right, y down, z forward (REP 103).

        Args:
            points: (n, 2), pixels of an image.
            size: that image's width and height. It may be a resized one.

        Returns:
            (n, 3) float64; nan for a point that no ray through this lens reaches.

        Raises:
            LightTrackError: the image's shape is another one than the camera's.
        """
        fx, fy, cx, cy = self.matrix
        on_sensor = np.asarray(points, np.float64).reshape(-1, 2) * self._scale(size) + self._offset - 0.5
        distorted = (on_sensor - (cx, cy)) / (fx, fy)
        if self.distortion == EQUIDISTANT:
            return _from_equidistant(distorted, self.coefficients)
        if any(self.coefficients):
            distorted = _undistorted(distorted, self.coefficients)
        rays = np.column_stack((distorted, np.ones(len(distorted))))
        return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True), np.float64)

    @property
    def image_size(self) -> tuple[float, float]:
        """Width and height of the images that the camera sends, before anybody resizes them."""
        width, height = (self.width, self.height) if self.roi is None else self.roi[2:]
        return width / self.binning[0], height / self.binning[1]

    @property
    def _offset(self) -> tuple[int, int]:
        return (0, 0) if self.roi is None else self.roi[:2]

    def _scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Sensor's pixels in one of the image."""
        width, height = self.image_size
        if abs(size[0] * height / (size[1] * width) - 1) > _SAME_SHAPE:
            raise LightTrackError(
                f"it is for images of {width:g} x {height:g} pixels, and these are {size[0]} x {size[1]}: of another "
                "shape, so not resized ones; publish one for these images (with its roi, if they are cropped)"
            )
        across = (self.width if self.roi is None else self.roi[2]) / size[0]
        down = (self.height if self.roi is None else self.roi[3]) / size[1]
        return across, down


def camera_model(
    width: int,
    height: int,
    matrix: Sequence[float],
    distortion: str,
    coefficients: Sequence[float],
    binning: tuple[int, int] = (1, 1),
    roi: tuple[int, int, int, int] | None = None,
) -> CameraModel:
    """A checked model, of what a CameraInfo holds.

    Args:
        width, height: pixels of the full sensor.
        matrix: (9,), row by row: K for images as the lens gives them; the first three columns of P for rectified ones.
        distortion: distortion_model; empty, or anything with coefficients that are all 0 but "equidistant", for none.
        coefficients: D.
        binning: binning_x, binning_y; 0 means 1.
        roi: x_offset, y_offset, width, height; None, or all zero, for the full sensor.

    Raises:
        LightTrackError: it is no calibration, or of a lens that is not known here.
    """
    numbers = [float(value) for value in matrix]
    given = [float(value) for value in coefficients]
    if width <= 0 or height <= 0:
        raise LightTrackError(f"its size is {width} x {height}: expected that of the camera's images")
    if not any(numbers):
        raise LightTrackError("its matrix is all 0, which means that the camera is not calibrated")
    fx, skew, cx, zero, fy, cy = numbers[:6]
    good = np.isfinite(numbers).all() and fx > 0 and fy > 0 and not skew and not zero and numbers[6:] == [0, 0, 1]
    if not good:
        raise LightTrackError(f"its matrix is {numbers}: expected fx, 0, cx, 0, fy, cy, 0, 0, 1, and fx, fy above 0")
    if not np.isfinite(given).all():
        raise LightTrackError(f"its distortion coefficients are {given}: expected finite numbers")
    if distortion != EQUIDISTANT and not any(given):
        distortion, given = "", []
    elif distortion not in _COEFFICIENTS:
        known = ", ".join(_COEFFICIENTS)
        raise LightTrackError(f"its distortion model is {distortion!r}, known are {known}")
    else:
        numbers_known = _COEFFICIENTS[distortion]
        if len(given) < numbers_known[0] or any(given[numbers_known[-1] :]):
            expected = " or ".join(map(str, numbers_known))
            raise LightTrackError(
                f"its distortion model {distortion} has the coefficients {given}, expected {expected} of them"
            )
        given = given[: numbers_known[-1]]
    across, down = max(1, binning[0]), max(1, binning[1])
    if roi is not None and not any(roi):
        roi = None
    if roi is not None and not (roi[2] > 0 and roi[3] > 0 and roi[0] + roi[2] <= width and roi[1] + roi[3] <= height):
        raise LightTrackError(f"its roi {roi} (x, y, width, height) does not lie inside its {width} x {height} pixels")
    return CameraModel(width, height, (fx, fy, cx, cy), distortion, tuple(given), (across, down), roi)


def _from_equidistant(distorted: Floats, coefficients: Sequence[float]) -> Floats:
    """Kannala and Brandt, "A generic camera model ...", PAMI 2006: the distance from the middle is a polynomial of the
    angle from the axis, so that rays from beside and from behind the camera have their place, too."""
    k = np.array((1.0, *coefficients))
    powers = np.arange(1, 10, 2)
    distance = np.hypot(distorted[:, 0], distorted[:, 1])
    angle = np.minimum(distance, np.pi)
    for _ in range(_STEPS):
        value = (k * angle[:, None] ** powers).sum(axis=1)
        slope = (k * powers * angle[:, None] ** (powers - 1)).sum(axis=1)
        step = (value - distance) / np.where(np.abs(slope) < 1e-9, 1e-9, slope)
        angle = np.clip(angle - step, 0, np.pi)
        if np.all(np.abs(step) < _SMALL):
            break
    reached = (np.abs((k * angle[:, None] ** powers).sum(axis=1) - distance) < 1e-6) & (slope > 0)
    angle = np.where(reached, angle, np.nan)
    aside = np.sin(angle) / np.where(distance > 0, distance, 1)
    return np.column_stack((distorted * aside[:, None], np.cos(angle)))


def _undistorted(distorted: Floats, coefficients: Sequence[float]) -> Floats:
    """The point that the lens moved to `distorted`, (n, 2), in focal lengths from the middle: by Newton's method, as
    the iteration that OpenCV uses goes astray with wide lenses."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*coefficients, *(8 - len(coefficients)) * (0.0,))

    def distort(x: Floats, y: Floats) -> tuple[Floats, Floats, tuple[Floats, Floats, Floats], Floats]:
        r2 = x * x + y * y
        above, below = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        radial = above / below
        # By r2.
        change = (k1 + r2 * (2 * k2 + r2 * 3 * k3) - radial * (k4 + r2 * (2 * k5 + r2 * 3 * k6))) / below
        to_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        to_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        xx = radial + 2 * x * x * change + 2 * p1 * y + 6 * p2 * x
        xy = 2 * x * y * change + 2 * p1 * x + 2 * p2 * y
        yy = radial + 2 * y * y * change + 6 * p1 * y + 2 * p2 * x
        return to_x, to_y, (xx, xy, yy), below

    goal_x, goal_y = distorted[:, 0], distorted[:, 1]
    x, y = goal_x, goal_y
    with np.errstate(all="ignore"):  # what leads nowhere becomes nan
        for _ in range(_STEPS):
            to_x, to_y, (xx, xy, yy), _ = distort(x, y)
            away_x, away_y = to_x - goal_x, to_y - goal_y
            determinant = xx * yy - xy * xy
            step_x, step_y = (yy * away_x - xy * away_y) / determinant, (xx * away_y - xy * away_x) / determinant
            x, y = x - step_x, y - step_y
            if np.all(np.abs(step_x) + np.abs(step_y) < _SMALL):
                break
        to_x, to_y, (xx, xy, yy), below = distort(x, y)
        # Beyond the radius at which the polynomial turns back, a place in the image belongs to no ray.
        reached = (np.hypot(to_x - goal_x, to_y - goal_y) < 1e-6) & (xx * yy - xy * xy > 0) & (xx > 0) & (below > 0)
    return np.where(reached[:, None], np.column_stack((x, y)), np.nan)

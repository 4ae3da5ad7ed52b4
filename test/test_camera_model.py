"""Directions from pixels: against OpenCV on generated cameras, and images that are not of the calibration's size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lighttrack_ros.camera_model import CameraModel, camera_model
from lighttrack_ros.errors import LightTrackError

CLOSE = 0.05  # degrees; what is promised
WIDTH, HEIGHT = 640, 480


def matrix_of(rng: np.random.Generator, focal: float) -> np.ndarray:
    focal_x, focal_y = focal * rng.uniform(0.98, 1.02, 2)
    return np.array([[focal_x, 0, rng.uniform(300, 340)], [0, focal_y, rng.uniform(220, 260)], [0, 0, 1]])


def pixels(rng: np.random.Generator, number: int = 300) -> np.ndarray:
    """All over an image, as boxes count them."""
    return rng.uniform(0, 1, (number, 2)) * (WIDTH, HEIGHT)


def degrees_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=1) / 2, 0, 1)))


def unit(points: np.ndarray) -> np.ndarray:
    """Of points in focal lengths from the middle."""
    rays = np.column_stack((points, np.ones(len(points))))
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def plumb_bob(rng: np.random.Generator) -> list[float]:
    return [rng.uniform(-0.3, 0.1), rng.uniform(-0.05, 0.1), *rng.uniform(-2e-3, 2e-3, 2), rng.uniform(-0.01, 0.01)]


def rational(rng: np.random.Generator) -> list[float]:
    k4, k5 = rng.uniform(0.1, 0.5), rng.uniform(0.0, 0.1)
    return [k4 - rng.uniform(0.0, 0.3), k5, *rng.uniform(-1e-3, 1e-3, 2), rng.uniform(-0.01, 0.01), k4, k5, 0.0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("name", "lens"), [("plumb_bob", plumb_bob), ("rational_polynomial", rational)])
def test_as_opencv_undistorts_points(name, lens, seed):
    rng = np.random.default_rng(seed)
    matrix, coefficients = matrix_of(rng, rng.uniform(400, 900)), np.array(lens(rng))
    model = camera_model(WIDTH, HEIGHT, matrix.ravel(), name, coefficients)
    points = pixels(rng)
    # OpenCV counts from the middle of the first pixel.
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-12)
    undistorted = cv2.undistortPointsIter((points - 0.5)[:, None], matrix, coefficients, None, None, criteria)[:, 0]
    assert degrees_between(model.rays(points, (WIDTH, HEIGHT)), unit(undistorted)).max() < CLOSE / 100
    # And with the few steps that it takes unless told otherwise, where they suffice.
    undistorted = cv2.undistortPoints((points - 0.5)[:, None], matrix, coefficients)[:, 0]
    again = cv2.projectPoints(unit(undistorted), np.zeros(3), np.zeros(3), matrix, coefficients)[0][:, 0]
    near = np.abs(again - (points - 0.5)).max(axis=1) < 0.1
    assert near.mean() > 0.5
    assert degrees_between(model.rays(points, (WIDTH, HEIGHT)), unit(undistorted))[near].max() < CLOSE


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_lens_goes_back_to_the_ray_it_came_from(seed):
    """Where OpenCV's iteration goes astray its projection still tells the truth."""
    rng = np.random.default_rng(seed)
    matrix, coefficients = matrix_of(rng, 320.0), np.array([-0.28, 0.07, 1e-3, -5e-4, -0.006])
    rays = unit(rng.uniform(-1, 1, (300, 2)) * (1.0, 0.75))
    points = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, coefficients)[0][:, 0] + 0.5
    model = camera_model(WIDTH, HEIGHT, matrix.ravel(), "plumb_bob", coefficients)
    assert degrees_between(model.rays(points, (WIDTH, HEIGHT)), rays).max() < CLOSE / 100


@pytest.mark.parametrize("seed", range(8))
def test_as_opencv_undistorts_points_of_a_fisheye(seed):
    rng = np.random.default_rng(seed)
    matrix, coefficients = matrix_of(rng, rng.uniform(260, 500)), rng.uniform(-0.02, 0.02, 4)
    model = camera_model(WIDTH, HEIGHT, matrix.ravel(), "equidistant", coefficients)
    points = pixels(rng)
    undistorted = cv2.fisheye.undistortPoints((points - 0.5)[:, None], matrix, coefficients)[:, 0]
    inside = np.hypot(*undistorted.T) < np.tan(np.radians(80))
    assert inside.mean() > 0.9
    assert degrees_between(model.rays(points, (WIDTH, HEIGHT)), unit(undistorted))[inside].max() < CLOSE / 10


def test_a_fisheye_sees_behind_itself():
    coefficients = (0.01, -0.002, 0.0, 0.0)
    model = camera_model(WIDTH, HEIGHT, [150, 0, 320, 0, 150, 240, 0, 0, 1], "equidistant", coefficients)
    for angle in np.radians((30, 89, 91, 110)):
        distance = angle * (1 + 0.01 * angle**2 - 0.002 * angle**4)
        ray = model.rays([(320.5 + 150 * distance, 240.5)], (WIDTH, HEIGHT))[0]
        assert ray == pytest.approx((np.sin(angle), 0, np.cos(angle)), abs=1e-9)


def test_without_distortion_it_is_a_pinhole():
    pinhole = camera_model(WIDTH, HEIGHT, [500, 0, 319.5, 0, 500, 239.5, 0, 0, 1], "plumb_bob", [0.0] * 5)
    unnamed = camera_model(WIDTH, HEIGHT, [500, 0, 319.5, 0, 500, 239.5, 0, 0, 1], "", [])
    assert pinhole == unnamed
    # The middle of the image is on the axis, and a focal length beside it is at 45 degrees.
    rays = pinhole.rays([(320, 240), (820, 240), (320, 740)], (WIDTH, HEIGHT))
    half = np.sqrt(0.5)
    assert rays == pytest.approx(np.array([(0, 0, 1), (half, 0, half), (0, half, half)]))


LENS = ([400, 0, 655, 0, 410, 350, 0, 0, 1], "plumb_bob", [-0.2, 0.03, 1e-3, -1e-3, 0.0])  # of 1280 x 720


@pytest.mark.parametrize(
    ("changes", "size", "to_full"),
    [
        ({}, (640, 360), lambda point: 2 * point),  # resized by somebody
        ({"binning": (2, 2)}, (640, 360), lambda point: 2 * point),  # by the camera
        ({"binning": (0, 0)}, (1280, 720), lambda point: point),
        ({"binning": (2, 2)}, (1280, 720), lambda point: point),  # said, and not done
        ({"binning": (2, 1)}, (640, 720), lambda point: point * (2, 1)),
        ({"roi": (200, 100, 800, 400)}, (800, 400), lambda point: point + np.array((200, 100))),
        ({"roi": (0, 0, 0, 0)}, (1280, 720), lambda point: point),
        ({"roi": (200, 100, 800, 400), "binning": (2, 2)}, (400, 200), lambda point: 2 * point + np.array((200, 100))),
        ({"roi": (200, 100, 800, 400), "binning": (2, 2)}, (200, 100), lambda point: 4 * point + np.array((200, 100))),
    ],
)
def test_an_image_that_is_cropped_binned_or_resized(changes, size, to_full):
    full = camera_model(1280, 720, *LENS)
    points = np.random.default_rng(1).uniform(0, 1, (50, 2)) * size
    rays = camera_model(1280, 720, *LENS, **changes).rays(points, size)
    assert degrees_between(rays, full.rays(to_full(points), (1280, 720))).max() < 1e-6


def test_binned_pixels_are_where_opencv_puts_a_resized_image():
    """cv2.resize takes pixels for squares: the matrix of the smaller image follows from that."""
    full = np.array(LENS[0]).reshape(3, 3)
    small = np.diag((0.5, 0.5, 1.0)) @ full + np.array([[0, 0, -0.25], [0, 0, -0.25], [0, 0, 0]])
    points = np.random.default_rng(2).uniform(0.2, 0.8, (50, 2)) * (640, 360)  # at the edges OpenCV goes astray
    undistorted = cv2.undistortPointsIter(
        (points - 0.5)[:, None], small, np.array(LENS[2]), None, None, (cv2.TERM_CRITERIA_COUNT, 500, 0)
    )[:, 0]
    rays = camera_model(1280, 720, *LENS, binning=(2, 2)).rays(points, (640, 360))
    assert degrees_between(rays, unit(undistorted)).max() < CLOSE / 100


def test_another_shape_is_no_resized_image():
    model = camera_model(1280, 720, *LENS)
    with pytest.raises(LightTrackError, match=r"images of 1280 x 720 pixels, and these are 640 x 480"):
        model.rays([(1, 1)], (640, 480))
    model.rays([(1, 1)], (427, 240))  # rounded


def test_a_pixel_that_the_lens_does_not_reach_has_no_ray():
    """The polynomial turns back at a radius; beyond it no ray belongs to a place in the image."""
    model = camera_model(WIDTH, HEIGHT, [300, 0, 320, 0, 300, 240, 0, 0, 1], "plumb_bob", [-0.3, 0.0, 0.0, 0.0])
    rays = model.rays([(320, 240), (320, 5), (639, 479)], (WIDTH, HEIGHT))
    assert np.isfinite(rays[0]).all()
    assert np.isnan(rays[1:]).all()
    fisheye = camera_model(WIDTH, HEIGHT, [60, 0, 320, 0, 60, 240, 0, 0, 1], "equidistant", [0.0] * 4)
    rays = fisheye.rays([(320, 240), (639, 479)], (WIDTH, HEIGHT))  # the corner lies beyond 180 degrees
    assert np.isfinite(rays[0]).all()
    assert np.isnan(rays[1]).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matrix": [0.0] * 9}, "not calibrated"),
        ({"matrix": [float("nan"), 0, 1, 0, 1, 1, 0, 0, 1]}, "expected fx, 0, cx"),
        ({"matrix": [500, 0, 320, 0, -500, 240, 0, 0, 1]}, "fx, fy above 0"),
        ({"matrix": [500, 0, 320, 0, 500, 240, 0, 0, 0]}, "expected fx, 0, cx"),
        ({"distortion": "omni"}, "distortion model is 'omni', known are plumb_bob, rational_polynomial, equidistant"),
        ({"distortion": ""}, "distortion model is ''"),
        ({"coefficients": [0.1]}, r"plumb_bob has the coefficients \[0.1\], expected 4 or 5"),
        ({"coefficients": [0.1, 0, 0, 0, 0, 0.1]}, "expected 4 or 5"),
        ({"coefficients": [float("inf")] * 5}, "expected finite"),
        ({"distortion": "equidistant", "coefficients": []}, "expected 4"),
        ({"width": 0}, "its size is 0 x 480"),
        ({"roi": (600, 0, 100, 100)}, r"roi \(600, 0, 100, 100\) .* 640 x 480"),
        ({"roi": (10, 10, 0, 0)}, "roi"),
    ],
)
def test_what_is_no_calibration_is_refused(changes, words):
    given: dict = {
        "width": WIDTH,
        "height": HEIGHT,
        "matrix": [500, 0, 320, 0, 500, 240, 0, 0, 1],
        "distortion": "plumb_bob",
        "coefficients": [-0.1, 0.01, 0, 0, 0],
    }
    assert isinstance(camera_model(**given), CameraModel)
    with pytest.raises(LightTrackError, match=words):
        camera_model(**{**given, **changes})


def test_coefficients_that_are_zero_may_follow():
    eight = camera_model(
        WIDTH, HEIGHT, [500, 0, 320, 0, 500, 240, 0, 0, 1], "plumb_bob", [-0.1, 0.01, 0, 0, 0, 0, 0, 0]
    )
    assert eight.coefficients == (-0.1, 0.01, 0, 0, 0)

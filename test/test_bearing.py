"""Azimuth, elevation, angular size and rates of boxes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from lighttrack_ros.bearing import RateMeter, bearings
from lighttrack_ros.camera_model import camera_model
from lighttrack_ros.geometry import Box

MATRIX = np.array([[420.0, 0, 322.0], [0, 418.0, 236.0], [0, 0, 1]])
COEFFICIENTS = np.array([-0.25, 0.06, 1e-3, -1e-3, 0.0])
SIZE = (640, 480)
LENS = camera_model(*SIZE, MATRIX.ravel(), "plumb_bob", COEFFICIENTS)


def test_of_a_box_as_opencv_has_it():
    box = Box(500.0, 60.0, 80.0, 50.0)
    (bearing,) = bearings(LENS, [box], SIZE)
    points = np.array([(540, 85), (500, 85), (580, 85), (540, 60), (540, 110)]) - 0.5
    criteria = (cv2.TERM_CRITERIA_COUNT, 500, 0)
    flat = cv2.undistortPointsIter(points[:, None], MATRIX, COEFFICIENTS, None, None, criteria)[:, 0]
    rays = np.column_stack((flat, np.ones(5)))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    x, y, z = rays[0]
    assert bearing.ray == pytest.approx((x, y, z), abs=1e-7)
    assert bearing.azimuth == pytest.approx(math.atan2(x, z), abs=1e-7)
    assert bearing.elevation == pytest.approx(-math.asin(y), abs=1e-7)
    assert bearing.width == pytest.approx(math.acos(rays[1] @ rays[2]), abs=1e-6)
    assert bearing.height == pytest.approx(math.acos(rays[3] @ rays[4]), abs=1e-6)


def test_signs():
    right_above, left_below = bearings(LENS, [Box(400, 100, 20, 20), Box(200, 300, 20, 20)], SIZE)
    assert right_above.azimuth > 0
    assert right_above.elevation > 0
    assert left_below.azimuth < 0
    assert left_below.elevation < 0


def test_no_boxes_and_boxes_out_of_the_lens_s_reach():
    assert bearings(LENS, [], SIZE) == []
    turning = camera_model(*SIZE, [300, 0, 320, 0, 300, 240, 0, 0, 1], "plumb_bob", [-0.3, 0.0, 0.0, 0.0])
    middle, corner, reaching_out = bearings(
        turning, [Box(300, 220, 40, 40), Box(600, 440, 40, 40), Box(320, 0, 40, 300)], SIZE
    )
    assert middle is not None
    assert corner is None
    assert math.isnan(reaching_out.height)
    assert math.isfinite(reaching_out.width)


def samples(times: np.ndarray, rate: float, noise: float, start: float = 0.2) -> np.ndarray:
    return start + rate * times + np.random.default_rng(3).normal(0, noise, len(times))


def test_rates_of_a_steady_turn():
    times = np.arange(30) / 30
    meter = RateMeter()
    rates = [meter.add(round(t * 1e9), 0.2 + 0.5 * t, -0.1 - 0.3 * t) for t in times]
    assert all(map(math.isnan, rates[0]))
    assert np.allclose(rates[1:], (0.5, -0.3), atol=1e-6)


def test_rates_are_smoothed_and_follow():
    times = np.cumsum(np.random.default_rng(4).uniform(0.02, 0.06, 200))  # images are dropped now and again
    meter = RateMeter()
    noise = 1e-3  # radians: half a pixel of a small box
    angles = samples(times, 0.5, noise)
    rates = [meter.add(round(time * 1e9), angle, 0.0)[0] for time, angle in zip(times, angles, strict=True)]
    plain = np.diff(angles) / np.diff(times)
    assert np.std(rates[10:]) < 0.5 * np.std(plain)
    assert np.mean(rates[10:]) == pytest.approx(0.5, abs=0.02)
    # The target stops: so does its rate, in a third of a second.
    for step in range(1, 11):
        last = meter.add(round((times[-1] + step / 30) * 1e9), 0.2 + 0.5 * times[-1], 0.0)[0]
    assert abs(last) < 0.05


def test_a_rate_across_the_back_of_a_fisheye():
    meter = RateMeter()
    meter.add(10**9, math.pi - 0.01, 0.0)
    assert meter.add(11 * 10**8, -math.pi + 0.01, 0.0)[0] == pytest.approx(0.2)


@pytest.mark.parametrize("passed", [0, -(10**8), 2 * 10**9])
def test_rates_begin_anew_after_a_gap_and_where_the_clock_jumps_back(passed):
    meter = RateMeter()
    meter.add(10**9, 0.0, 0.0)
    meter.add(10**9 + 10**8, 0.1, 0.1)
    stamp = 10**9 + 10**8 + passed
    assert all(map(math.isnan, meter.add(stamp, 0.5, 0.5)))
    assert meter.add(stamp + 10**8, 0.6, 0.5) == pytest.approx((1.0, 0.0))

"""Boxes, context sides, rounding and windows."""

import numpy as np
import pytest

from lighttrack_ros.geometry import Box, context_side, hann_window, intersection_over_union, round_half_away


@pytest.mark.parametrize(
    ("a", "b", "overlap"),
    [
        (Box(0, 0, 10, 10), Box(0, 0, 10, 10), 1),
        (Box(0, 0, 10, 10), Box(5, 0, 10, 10), 1 / 3),
        (Box(0, 0, 10, 10), Box(2.5, 2.5, 5, 5), 0.25),
        (Box(0, 0, 10, 10), Box(10, 0, 10, 10), 0),
        (Box(0, 0, 10, 10), Box(3, 3, 0, 5), 0),
        (Box(0, 0, 0, 0), Box(0, 0, 0, 0), 0),
    ],
)
def test_overlap(a, b, overlap):
    assert intersection_over_union(a, b) == pytest.approx(overlap)
    assert intersection_over_union(b, a) == pytest.approx(overlap)


def test_context_side_is_twice_a_square_and_symmetric():
    assert context_side(10, 10) == 20
    assert context_side(20, 60) == pytest.approx((60 * 100) ** 0.5) == pytest.approx(context_side(60, 20))


@pytest.mark.parametrize(("value", "whole"), [(2.5, 3), (3.5, 4), (-2.5, -3), (2.4999, 2), (-0.4, 0), (7, 7)])
def test_halves_go_away_from_zero(value, whole):
    assert round_half_away(value) == whole


def test_window_equals_the_official_one(shared):
    golden = np.load(shared / "golden/lighttrack/forward.npz")
    np.testing.assert_allclose(hann_window(16), golden["window"], atol=1e-12)

"""Success and precision: equal to the published figures, and to arithmetic done by hand."""

import math

import numpy as np
import pytest

from lighttrack_ros.evaluation.metrics import accuracy, overlaps, step_times, success_curve
from lighttrack_ros.geometry import Box, intersection_over_union
from lighttrack_ros.media.sequences import load_sequence


@pytest.mark.parametrize(
    ("trajectory", "iou", "auc", "sr50", "precision20"),
    [
        ("woman", 0.660, 0.653, 0.899, 0.998),
        ("woman_ex127", 0.668, 0.660, 0.918, 1.000),
        ("woman_defaults", 0.637, 0.631, 0.868, 0.997),
    ],
)
def test_the_golden_trajectories_get_their_published_figures(shared, trajectory, iou, auc, sr50, precision20):
    boxes = np.load(shared / "golden/lighttrack" / f"{trajectory}.npz")["boxes"]
    score = accuracy(boxes, load_sequence(shared / "sequences/woman").truth)
    assert score.frames == 597
    assert score.iou == pytest.approx(iou, abs=0.0006)
    assert score.auc == pytest.approx(auc, abs=0.0006)
    assert score.sr50 == pytest.approx(sr50, abs=0.0006)
    assert score.precision20 == pytest.approx(precision20, abs=0.0006)


def test_one_threshold_more_for_every_twentieth_of_overlap():
    # 0.5 does not exceed the threshold 0.5; the perfect box does not exceed 1.
    assert success_curve(np.array([0.5])).sum() == 10
    assert success_curve(np.array([1.0])).sum() == 20
    assert success_curve(np.array([0.0])).sum() == 0


def test_frames_without_the_target_are_left_out():
    truth = np.array([(0, 0, 10, 10), (np.nan,) * 4, (0, 0, 10, 10)], float)
    boxes = np.array([(0, 0, 10, 10), (500, 500, 1, 1), (0, 5, 10, 10)], float)
    score = accuracy(boxes, truth)
    assert score.frames == 2
    assert score.iou == pytest.approx((1 + 1 / 3) / 2)
    assert score.sr50 == 0.5
    assert score.precision20 == 1.0


def test_a_box_that_is_not_finite_is_a_miss():
    truth = np.array([(0, 0, 10, 10)] * 2, float)
    boxes = np.array([(0, 0, 10, 10), (np.nan,) * 4])
    score = accuracy(boxes, truth)
    assert (score.iou, score.precision20) == (0.5, 0.5)


def test_precision_counts_twenty_pixels_and_no_more():
    truth = np.array([(0, 0, 10, 10)] * 2, float)
    assert accuracy(truth + np.array([(20, 0, 0, 0), (20.01, 0, 0, 0)]), truth).precision20 == 0.5


def test_overlaps_equal_the_overlap_of_two_boxes():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 30, (2, 200, 4))
    a[:5, 2] = 0  # empty
    expected = [intersection_over_union(Box(*first), Box(*second)) for first, second in zip(a, b, strict=True)]
    assert np.allclose(overlaps(a, b), expected)


@pytest.mark.parametrize("boxes", [np.zeros((3, 4)), np.zeros((2, 5)), np.zeros(4)])
def test_boxes_and_truth_of_different_shape_are_refused(boxes):
    with pytest.raises(ValueError, match="truth is"):
        accuracy(boxes, np.ones((2, 4)))


def test_a_truth_of_nothing_but_nan_is_refused():
    with pytest.raises(ValueError, match="no frame"):
        accuracy(np.zeros((2, 4)), np.full((2, 4), np.nan))


def test_step_times_are_percentiles_in_milliseconds():
    times = step_times([0.001 * value for value in range(1, 102)])
    assert (times.p50, times.p95, times.p99) == pytest.approx((51, 96, 100))
    assert math.isnan(step_times([]).p50)

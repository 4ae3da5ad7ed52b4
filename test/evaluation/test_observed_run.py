"""Figures of a run as an observer in another process saw it."""

import numpy as np
import pytest

from lighttrack_ros.evaluation.observed_run import Observation, ObservedRun
from lighttrack_ros.geometry import Box
from lighttrack_ros.session import State


def observation(index, state=State.TRACKING, latency=0.01):
    return Observation(index, Box(10, 10, 20, 20), state, 0.9, latency, 0.005)


def test_figures_count_what_was_published():
    truth = np.array([(10, 10, 20, 20)] * 6 + [(np.nan,) * 4] * 4, float)
    observations = {index: observation(index, latency=0.01 * (index + 1)) for index in (0, 1, 2, 4)}
    observations[5] = observation(5, State.LOST)
    observations |= {6: observation(6, State.LOST), 7: observation(7, State.UNCERTAIN), 8: observation(8)}
    run = ObservedRun("", "", 30, 10, observations, truth, np.isfinite(truth[:, 0]).astype(float))
    figures = run.figures()
    assert figures["frames"] == {"sent": 10, "answered": 8, "dropped": 2}
    assert figures["accuracy"]["frames"] == 5
    assert figures["accuracy"]["iou"] == 1
    assert figures["states"] == {"tracking": 5, "lost": 2, "uncertain": 1}
    assert figures["hidden"] == {
        "frames": 4, "reported_lost": 1, "reported_uncertain": 1, "visible_reported_lost": 1,
    }  # fmt: skip
    assert figures["latency_ms"]["max"] == pytest.approx(50)


def test_overlaps_are_by_frame_and_nan_where_the_target_is_hidden():
    truth = np.array([(10, 10, 20, 20), (10, 20, 20, 20), (np.nan,) * 4])
    run = ObservedRun("", "", 30, 3, {1: observation(1), 2: observation(2)}, truth, np.array([1.0, 1, 0]))
    assert run.overlaps == pytest.approx({1: 1 / 3, 2: np.nan}, nan_ok=True)
    assert ObservedRun("", "", 30, 3, {1: observation(1)}, None, None).overlaps == {}

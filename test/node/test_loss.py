"""Loss told from stamps: what is loss, and what is only a camera's way."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from lighttrack_ros.node.loss import LossMeter


def meter(stamps):
    meter = LossMeter()
    missing = sum(meter.add(round(stamp * 1e9)) for stamp in stamps)
    return meter, missing


@pytest.mark.parametrize("rate", [5, 30, 120])
@pytest.mark.parametrize("jitter", [0, 0.3])  # of a period
def test_a_camera_that_loses_nothing(rate, jitter):
    times = np.arange(300) / rate + np.random.default_rng(1).uniform(0, jitter / rate, 300)
    found, _ = meter(times)
    assert found.lost_share < 0.05
    assert found.rate == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.75])
def test_images_lost_at_random(share):
    times = np.arange(600)[np.random.default_rng(2).random(600) > share] / 30
    found, missing = meter(times)
    assert found.rate == pytest.approx(30, rel=0.05)
    assert found.lost_share == pytest.approx(share, abs=0.12)
    assert missing == pytest.approx(600 * share, rel=0.25)


def test_a_camera_that_goes_slower_loses_nothing():
    times = np.concatenate([np.arange(100) / 30, 100 / 30 + np.arange(100) / 15])
    found, missing = meter(times)
    assert missing <= 3  # until it is plain that this is its new pace
    assert found.lost_share < 0.1


def test_stamps_that_begin_again_or_stand_still():
    found, missing = meter([*np.arange(50) / 30, *np.arange(50) / 30, *[5.0] * 50])
    assert (found.rate, found.lost_share, missing) == (0, 0, 0)
    found.restart()
    assert found.rate == 0

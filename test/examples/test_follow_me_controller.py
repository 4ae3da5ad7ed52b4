"""The example's controller: it follows, it keeps its limits, and it stops."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/follow_me"))

from controller import Controller, Seen, Settings

PERIOD = 1 / 30
SETTINGS = Settings()


def test_it_turns_towards_the_target_and_flies_after_it():
    command = Controller(SETTINGS).step(PERIOD, Seen(azimuth=0.2, elevation=0.1, sure=True))
    assert command.yaw_rate < 0  # the target is on the right, and a positive rate turns to the left
    assert command.forward > 0  # it is higher in the picture, so further away
    command = Controller(SETTINGS).step(PERIOD, Seen(azimuth=-0.2, elevation=-0.1, sure=True))
    assert command.yaw_rate > 0
    assert command.forward < 0


def test_whatever_is_seen_the_limits_are_kept():
    controller = Controller(SETTINGS)
    rng = np.random.default_rng(0)
    before = controller.step(PERIOD, None)
    for azimuth, elevation in rng.uniform(-3, 3, (300, 2)):
        seen = rng.choice([Seen(azimuth, elevation, True), Seen(azimuth, elevation, False), None])
        command = controller.step(PERIOD, seen)
        assert abs(command.forward) <= SETTINGS.max_speed
        assert abs(command.yaw_rate) <= SETTINGS.max_yaw_rate
        assert abs(command.forward - before.forward) <= SETTINGS.max_acceleration * PERIOD + 1e-9
        assert abs(command.yaw_rate - before.yaw_rate) <= SETTINGS.max_yaw_acceleration * PERIOD + 1e-9
        before = command


def moving() -> Controller:
    controller = Controller(SETTINGS)
    for _ in range(60):
        command = controller.step(PERIOD, Seen(0.1, 0.1, True))
    assert command.forward > 3
    return controller


def test_it_stops_when_the_target_is_lost():
    controller = moving()
    for _ in range(round(SETTINGS.max_speed / SETTINGS.max_acceleration / PERIOD) + 1):
        command = controller.step(PERIOD, None)
    assert (command.forward, command.yaw_rate) == (0.0, 0.0)
    # And what had added up until then is forgotten.
    assert abs(controller.step(PERIOD, Seen(0.0, 0.0, True)).forward) < 1e-9


def test_while_the_target_is_uncertain_it_goes_on_for_a_moment_and_then_stops():
    controller = moving()
    before = controller.step(PERIOD, Seen(0.1, 0.1, True))
    # Nothing is done about what is seen now: it may be another thing.
    held = [controller.step(PERIOD, Seen(-1.0, -1.0, False)) for _ in range(round(SETTINGS.patience / PERIOD) - 1)]
    assert min(command.forward for command in held) >= before.forward
    for _ in range(120):
        command = controller.step(PERIOD, Seen(-1.0, -1.0, False))
    assert (command.forward, command.yaw_rate) == (0.0, 0.0)


def test_it_does_not_move_before_a_target_was_seen_for_sure():
    controller = Controller(SETTINGS)
    for _ in range(30):
        command = controller.step(PERIOD, Seen(0.5, 0.5, False))
    assert (command.forward, command.yaw_rate) == (0.0, 0.0)


@pytest.mark.parametrize("delay", [0, 3])
def test_a_target_that_goes_at_a_steady_pace_ends_in_the_middle(delay):
    """Also where what is seen is a tenth of a second old: the error of the middle is integrated away."""
    controller = Controller(SETTINGS)
    metres = 36 / np.sin(np.radians(52)) ** 2  # on the ground, of a radian of elevation
    far, seen = 0.0, [0.0] * (delay + 1)
    for _ in range(600):
        command = controller.step(PERIOD, Seen(0.0, seen[-1 - delay], True))
        far += (7.0 - command.forward) * PERIOD
        seen.append(far / metres)
    assert abs(seen[-1]) < 0.01
    assert max(seen) < 0.15

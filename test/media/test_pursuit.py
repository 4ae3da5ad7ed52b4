"""The scene whose camera is steered."""

import math

import numpy as np
import pytest

from lighttrack_ros.media.scene import Pursuit
from lighttrack_ros.media.scene.camera import SteeredDrone


def test_a_drone_goes_where_it_is_steered():
    drone = SteeredDrone(np.random.default_rng(0), np.array((10.0, 20.0, 30.0)), math.pi / 2, 0.9)
    drone._wind = [lambda _: 0.0, lambda _: 0.0]
    drone.steer(5.0, 0.0, -1.0, 0.0)
    for _ in range(90):
        drone.advance(1 / 30)
    # It takes the velocity up with a lag of a quarter of a second.
    assert drone.position == pytest.approx((10.0, 20.0 + 5 * 2.75, 30.0 - 2.75), abs=0.15)
    drone.steer(0.0, 0.0, 0.0, 0.5)
    for _ in range(90):
        drone.advance(1 / 30)
    assert drone.azimuth == pytest.approx(math.pi / 2 + 0.5 * 2.75, abs=0.02)
    view = drone.view(6.0, 320, 240)
    assert math.atan2(view.forward[1], view.forward[0]) == pytest.approx(drone.azimuth, abs=0.02)
    assert view.forward[2] < -0.7  # it looks down


def test_the_target_drives_off_unless_it_is_followed():
    scene = Pursuit(7, 160, 120, 2.0)
    _, box = scene.next_frame()
    assert box is not None
    assert abs(box.centre[0] / 160 - 0.5) < 0.1  # the camera begins above it
    assert abs(box.centre[1] / 120 - 0.5) < 0.1
    for _ in range(16):
        image, box = scene.next_frame()
    assert box is None
    assert image.shape == (120, 160, 3)
    scene.drone.steer(12.0, 0.0, 0.0, 0.15)
    assert any(scene.next_frame()[1] is not None for _ in range(20))
    around = [scene._target_at(float(time)) for time in np.linspace(0, 120, 1000)]
    assert np.linalg.norm(np.diff(around, axis=0), axis=1).max() < 2  # no jump where the road closes

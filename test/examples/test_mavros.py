"""The example for MAVROS: signs and units of what it hands over, and the node where mavros_msgs is installed."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples/mavros"))

import conversions  # noqa: E402


def test_a_gimbal_turns_towards_the_target():
    right_and_above = conversions.gimbal_rates((0.2, 0.1), gain=2.0, limit=1.0)
    assert right_and_above["yaw_rate"] == pytest.approx(0.4)  # MAVLink: positive to the right
    assert right_and_above["pitch_rate"] == pytest.approx(0.2)  # and upwards
    assert math.isnan(right_and_above["yaw"])  # a rate alone is asked for
    assert math.isnan(right_and_above["pitch"])
    assert conversions.gimbal_rates((-3.0, -3.0))["yaw_rate"] == -1.0
    standing = conversions.gimbal_rates(None)
    assert (standing["yaw_rate"], standing["pitch_rate"]) == (0.0, 0.0)
    assert right_and_above["flags"] == 28


def test_autopilots_get_back_the_direction():
    """What each of them makes of the message, as its source has it, is the ray in the body's axes."""
    x, y, z = ray = np.array((0.3, -0.2, 0.9)) / np.linalg.norm((0.3, -0.2, 0.9))
    body = np.array((-y, x, z))  # forward, right, down: the camera looks down, the image's top is forward
    px4 = conversions.landing_target_px4(tuple(ray), (0.1, 0.1))
    sensor_ray = np.array((-px4["angle"][1], px4["angle"][0], 1.0))  # landing_target_estimator
    assert sensor_ray / np.linalg.norm(sensor_ray) == pytest.approx(body)
    assert px4["frame"] == 0
    fields, position = conversions.landing_target_ardupilot(tuple(ray), (0.1, 0.1), 12.0)
    sensor_ray = np.array((-math.tan(fields["angle"][1]), math.tan(fields["angle"][0]), 1.0))  # AC_PrecLand_MAVLink
    assert sensor_ray / np.linalg.norm(sensor_ray) == pytest.approx(body)
    frd = np.array((position[0], -position[1], -position[2]))  # MAVROS turns base_link to aircraft
    assert frd / fields["distance"] == pytest.approx(body)
    assert fields["frame"] == 12


def test_a_ground_station_draws_the_box():
    status = conversions.image_status(1, (64.0, 48.0, 320.0, 240.0), (640, 480))
    box = [status[f"rec_{corner}"] for corner in ("top_x", "top_y", "bottom_x", "bottom_y")]
    assert box == pytest.approx((0.1, 0.1, 0.6, 0.6))
    assert (status["tracking_status"], status["tracking_mode"], status["target_data"]) == (1, 2, 4)
    assert conversions.image_status(2, (0, 0, 1, 1), (640, 480))["tracking_status"] == 1
    lost = conversions.image_status(3, (64.0, 48.0, 320.0, 240.0), (640, 480))
    assert lost["tracking_status"] == 2
    assert math.isnan(lost["rec_top_x"])
    assert conversions.image_status(0, (0, 0, 0, 0), (640, 480))["tracking_status"] == 0


def test_the_fields_are_those_of_mavlink():
    pytest.importorskip("pymavlink", reason="needs pymavlink")
    from pymavlink.dialects.v20 import common

    fields = conversions.image_status(1, (64.0, 48.0, 320.0, 240.0), (640, 480))
    message = common.MAVLink(None).camera_tracking_image_status_encode(**fields)
    assert message.rec_bottom_x == pytest.approx(0.6)
    assert common.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE == conversions.ACTIVE
    assert common.CAMERA_TRACKING_STATUS_FLAGS_ERROR == conversions.ERROR
    assert common.CAMERA_TRACKING_MODE_RECTANGLE == conversions.RECTANGLE
    assert common.CAMERA_TRACKING_TARGET_DATA_IN_STATUS == conversions.IN_STATUS
    assert common.MAV_FRAME_BODY_FRD == conversions.MAV_FRAME_BODY_FRD
    flags = common.GIMBAL_MANAGER_FLAGS_ROLL_LOCK | common.GIMBAL_MANAGER_FLAGS_PITCH_LOCK
    assert flags | common.GIMBAL_MANAGER_FLAGS_YAW_LOCK == conversions.gimbal_rates(None)["flags"]


def test_the_node_hands_bearings_to_mavros(world):
    pytest.importorskip("mavros_msgs", reason="needs mavros_msgs, which has no wheel")
    from geometry_msgs.msg import Vector3
    from mavros_msgs.msg import GimbalManagerSetPitchyaw, LandingTarget
    from node_harness import NodeProcess, wait_for

    from lighttrack_ros.msg import TargetBearing, TargetBearings

    def said_to(output: str, kind: type, topic: str, bearing: TargetBearing | None, *more: str) -> object:
        heard: list = []
        subscription = world.node.create_subscription(kind, topic, heard.append, 10)
        bearings = world.node.create_publisher(TargetBearings, "/steered/bearing", 1)
        command = [sys.executable, str(ROOT / "examples/mavros/steer_mavros.py"), "--ros-args"]
        node = NodeProcess([*command, "-p", f"output:={output}", "-r", "bearing:=/steered/bearing", *more])
        try:
            wait_for(bearings.get_subscription_count, "the node", lambda: node.output)
            wait_for(lambda: world.node.count_publishers(topic), "its publisher", lambda: node.output)
            message = TargetBearings(targets=[] if bearing is None else [bearing])
            return wait_for(lambda: bearings.publish(message) or heard, "its word", lambda: node.output)[0]
        finally:
            node.interrupt()
            world.node.destroy_subscription(subscription)
            world.node.destroy_publisher(bearings)

    ray = Vector3(x=0.6, y=0.0, z=0.8)
    bearing = TargetBearing(target_id="a", state=TargetBearing.STATE_TRACKING, ray=ray, azimuth=0.2, elevation=-0.1)
    pitch_yaw = "/mavros/gimbal_control/manager/set_pitchyaw"
    turned = said_to("gimbal", GimbalManagerSetPitchyaw, pitch_yaw, bearing)
    assert (turned.yaw_rate, turned.pitch_rate) == pytest.approx((0.4, -0.2))
    raw = "/mavros/landing_target/raw"
    landing = said_to("landing_ardupilot", LandingTarget, raw, bearing, "-p", "distance:=10.0")
    assert (landing.pose.position.y, landing.pose.position.z) == pytest.approx((-6.0, -8.0))
    assert said_to("landing_px4", LandingTarget, raw, bearing).angle[0] == pytest.approx(0.75)

"""From bearings and boxes to the fields of MAVLink's messages: pure functions of numbers, without ROS.

docs/steering.md has the tables that these follow, and where each convention was read.
"""

from __future__ import annotations

import math
from typing import Any

ROLL_LOCK, PITCH_LOCK, YAW_LOCK = 4, 8, 16  # GIMBAL_MANAGER_FLAGS: angles and rates against the horizon and north
MAV_FRAME_GLOBAL, MAV_FRAME_BODY_FRD = 0, 12
VISION_OTHER = 3  # LANDING_TARGET_TYPE
IDLE, ACTIVE, ERROR = 0, 1, 2  # CAMERA_TRACKING_STATUS_FLAGS
RECTANGLE = 2  # CAMERA_TRACKING_MODE
IN_STATUS = 4  # CAMERA_TRACKING_TARGET_DATA


def gimbal_rates(seen: tuple[float, float] | None, gain: float = 2.0, limit: float = 1.0) -> dict[str, Any]:
    """GimbalManagerSetPitchyaw that turns a camera on a gimbal towards a target; its rates are radians a second.

    Args:
        seen: azimuth and elevation, radians; None while there is no target to believe in: the gimbal is told to stand.
        gain: radians a second for each radian.
        limit: of the rates.
    """
    azimuth, elevation = seen or (0.0, 0.0)
    return {
        "flags": ROLL_LOCK | PITCH_LOCK | YAW_LOCK,
        "gimbal_device_id": 0,
        "pitch": math.nan,  # not an angle but a rate
        "yaw": math.nan,
        "pitch_rate": min(max(gain * elevation, -limit), limit),
        "yaw_rate": min(max(gain * azimuth, -limit), limit),
    }


def landing_target_px4(ray: tuple[float, float, float], size: tuple[float, float]) -> dict[str, Any]:
    """LandingTarget for PX4, by its angles alone; for a camera that looks straight down, the image's top forward.

    PX4 takes the angles for tangents.

    Args:
        ray: unit vector in the optical frame; z above 0.
        size: angular width and height, radians.
    """
    x, y, z = ray
    return {
        "target_num": 0,
        "frame": MAV_FRAME_GLOBAL,  # what MAVROS takes for "the position is not valid"
        "angle": [x / z, y / z],
        "distance": 0.0,
        "size": list(size),
        "type": VISION_OTHER,
    }


def landing_target_ardupilot(
    ray: tuple[float, float, float], size: tuple[float, float], distance: float
) -> tuple[dict[str, Any], tuple[float, float, float]]:
    """LandingTarget for ArduPilot, which MAVROS sends with a position; the camera as for PX4.

    Args:
        distance: to the target, metres, above 0; ArduPilot uses it where it has no range finder.

    Returns:
        The fields, and pose.position in base_link (x forward, y left, z up), metres.
    """
    x, y, z = ray
    fields = {
        "target_num": 0,
        "frame": MAV_FRAME_BODY_FRD,
        "angle": [math.atan2(x, z), math.atan2(y, z)],
        "distance": distance,
        "size": list(size),
        "type": VISION_OTHER,
    }
    return fields, (-y * distance, -x * distance, -z * distance)


def image_status(state: int, box: tuple[float, float, float, float], size: tuple[int, int]) -> dict[str, Any]:
    """CAMERA_TRACKING_IMAGE_STATUS, which a ground station draws: for pymavlink's camera_tracking_image_status_send.

    Args:
        state: TrackedTarget's: 0 idle, 1 tracking, 2 uncertain, 3 lost.
        box: x, y, width, height, pixels.
        size: the image's width and height.
    """
    x, y, width, height = box
    shown = state in (1, 2)
    return {
        "tracking_status": ACTIVE if shown else ERROR if state == 3 else IDLE,
        "tracking_mode": RECTANGLE if shown else 0,
        "target_data": IN_STATUS if shown else 0,
        "point_x": math.nan,
        "point_y": math.nan,
        "radius": math.nan,
        "rec_top_x": x / size[0] if shown else math.nan,
        "rec_top_y": y / size[1] if shown else math.nan,
        "rec_bottom_x": (x + width) / size[0] if shown else math.nan,
        "rec_bottom_y": (y + height) / size[1] if shown else math.nan,
    }

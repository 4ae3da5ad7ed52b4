"""EXAMPLE: a node that hands the tracker's bearings to MAVROS. Not for flight without a pilot at hand.

    python examples/mavros/steer_mavros.py --ros-args -r bearing:=/tracker/bearing -p output:=gimbal
    python examples/mavros/steer_mavros.py --ros-args -r bearing:=/tracker/bearing -p output:=landing_px4

It needs mavros_msgs (apt: ros-<distro>-mavros-msgs). MAVROS takes landing targets if its parameter
landing_target.listen_lt is true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rclpy
from conversions import gimbal_rates, landing_target_ardupilot, landing_target_px4
from mavros_msgs.msg import GimbalManagerSetPitchyaw, LandingTarget
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from lighttrack_ros.msg import TargetBearing, TargetBearings


class SteerMavros(Node):
    """Subscribes to `bearing`; publishes where MAVROS subscribes: remap what has another name there."""

    def __init__(self) -> None:
        super().__init__("steer_mavros")
        outputs: dict[str, tuple[type, str, Callable[[Any, Any], Any]]] = {
            "gimbal": (GimbalManagerSetPitchyaw, "/mavros/gimbal_control/manager/set_pitchyaw", self._gimbal),
            "landing_px4": (LandingTarget, "/mavros/landing_target/raw", self._landing_px4),
            "landing_ardupilot": (LandingTarget, "/mavros/landing_target/raw", self._landing_ardupilot),
        }
        output = str(self.declare_parameter("output", "gimbal").value)
        if output not in outputs:
            raise SystemExit(f"parameter output is {output!r}, expected one of {', '.join(outputs)}")
        self._target_id = str(self.declare_parameter("target_id", "").value)  # empty: the first there is
        self._gain = float(self.declare_parameter("gain", 2.0).value)
        self._limit = float(self.declare_parameter("limit", 1.0).value)
        self._distance = float(self.declare_parameter("distance", 0.0).value)  # metres, for ArduPilot
        if output == "landing_ardupilot" and self._distance <= 0:
            raise SystemExit("parameter distance is needed for ArduPilot: metres to the target, above 0")
        kind, topic, self._convert = outputs[output]
        self._publisher = self.create_publisher(kind, topic, 10)
        self.create_subscription(TargetBearings, "bearing", self._on_bearings, 1)

    def _on_bearings(self, message: TargetBearings) -> None:
        found = [target for target in message.targets if self._target_id in ("", target.target_id)]
        sure = found[0] if found and found[0].state == TargetBearing.STATE_TRACKING else None
        converted = self._convert(sure, message.header)
        if converted is not None:
            self._publisher.publish(converted)

    def _gimbal(self, target: TargetBearing | None, _: Any) -> GimbalManagerSetPitchyaw:
        seen = None if target is None else (target.azimuth, target.elevation)
        return GimbalManagerSetPitchyaw(**gimbal_rates(seen, self._gain, self._limit))

    def _landing_px4(self, target: TargetBearing | None, header: Any) -> LandingTarget | None:
        if target is None or target.ray.z <= 0:
            return None  # the autopilot takes silence for a target that is not seen
        ray, size = (target.ray.x, target.ray.y, target.ray.z), (target.angular_width, target.angular_height)
        return LandingTarget(header=header, **landing_target_px4(ray, size))

    def _landing_ardupilot(self, target: TargetBearing | None, header: Any) -> LandingTarget | None:
        if target is None or target.ray.z <= 0:
            return None
        ray, size = (target.ray.x, target.ray.y, target.ray.z), (target.angular_width, target.angular_height)
        fields, position = landing_target_ardupilot(ray, size, self._distance)
        message = LandingTarget(header=header, **fields)
        message.pose.position.x, message.pose.position.y, message.pose.position.z = position
        message.pose.orientation.w = 1.0
        return message


def main() -> None:
    rclpy.init()
    node = SteerMavros()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()

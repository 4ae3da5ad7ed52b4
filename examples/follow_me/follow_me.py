"""EXAMPLE: a node that turns the tracker's bearings into velocity commands. Not for flight without a pilot at hand.

    python examples/follow_me/follow_me.py --ros-args -r bearing:=/tracker/bearing -r cmd_vel:=/drone/cmd_vel

A command has the stamp of the image that it follows from. While nothing is heard the commands go to zero.
"""

from __future__ import annotations

import dataclasses

import rclpy
from controller import Controller, Seen, Settings
from geometry_msgs.msg import TwistStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from lighttrack_ros.msg import TargetBearing, TargetBearings

PERIOD = 0.1  # seconds between two commands while nothing is heard
LONGEST = 0.2  # seconds: a longer time between two images is no time in which to accelerate


class FollowMe(Node):
    """Subscribes to `bearing`, publishes `cmd_vel`; the parameters are those of `Settings`, and two more."""

    def __init__(self) -> None:
        super().__init__("follow_me")
        chosen = {
            field.name: float(self.declare_parameter(field.name, field.default).value)
            for field in dataclasses.fields(Settings)
        }
        self._target_id = str(self.declare_parameter("target_id", "").value)  # empty: the first there is
        silence = float(self.declare_parameter("silence", 0.5).value)  # seconds without a message before it stops
        self._quiet_after = round(silence / PERIOD)
        self._quiet = 0  # periods
        self._stamp = 0.0  # seconds, of the last image
        self._controller = Controller(Settings(**chosen))
        self._commands = self.create_publisher(TwistStamped, "cmd_vel", 1)
        self.create_subscription(TargetBearings, "bearing", self._on_bearings, 1)
        self.create_timer(PERIOD, self._on_timer)

    def _on_bearings(self, message: TargetBearings) -> None:
        self._quiet = 0
        stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
        passed, self._stamp = stamp - self._stamp, stamp
        found = [target for target in message.targets if self._target_id in ("", target.target_id)]
        seen = None
        if found and found[0].state != TargetBearing.STATE_LOST:
            sure = found[0].state == TargetBearing.STATE_TRACKING
            seen = Seen(found[0].azimuth, found[0].elevation, sure)
        self._publish(min(max(passed, 0.0), LONGEST), seen, message.header.stamp)

    def _on_timer(self) -> None:
        self._quiet += 1
        if self._quiet > self._quiet_after:
            self._publish(PERIOD, None, self.get_clock().now().to_msg())

    def _publish(self, passed: float, seen: Seen | None, stamp: object) -> None:
        command = self._controller.step(passed, seen)
        message = TwistStamped()
        message.header.stamp, message.header.frame_id = stamp, "base_link"
        message.twist.linear.x, message.twist.angular.z = command.forward, command.yaw_rate
        self._commands.publish(message)


def main() -> None:
    rclpy.init()
    node = FollowMe()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()

"""A publisher whose messages may be lost, but never cost more than themselves."""

from __future__ import annotations

from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation

from lighttrack_ros.node.diagnostics import Health


class Sender:
    """Publishes; what the middleware does not take is counted and told.

    A reliable writer waits at most 100 ms for its own threads. On a machine that has no time for them the message is
    lost, and that is no failure of the tracker whose box it holds.

    Args:
        publisher: rclpy's, of a lifecycle node or not.
    """

    def __init__(self, publisher: Any, health: Health) -> None:
        self._publisher = publisher
        self._health = health

    @property
    def topic_name(self) -> str:
        return str(self._publisher.topic_name)

    def get_subscription_count(self) -> int:
        return int(self._publisher.get_subscription_count())

    def publish(self, message: Any) -> None:
        try:
            self._publisher.publish(message)
        except rclpy_implementation.RCLError as error:
            self._health.problem("messages_lost", f"on {self.topic_name}: {str(error).partition(', at ')[0]}")

"""What people order, by topic and by service; every order is answered, or refused aloud."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import RegionOfInterest
from std_srvs.srv import SetBool, Trigger

from lighttrack_ros.geometry import Box
from lighttrack_ros.msg import InitBox
from lighttrack_ros.node.deferred_service import Answer, create_deferred_service
from lighttrack_ros.node.detections import DetectionTopics
from lighttrack_ros.node.diagnostics import Health
from lighttrack_ros.node.init_boxes import Start
from lighttrack_ros.node.interface import ENABLE, INIT_BOX, INIT_ROI, REMOVE, RESET, TRACK, subscribe
from lighttrack_ros.node.messages import to_nanoseconds, to_time
from lighttrack_ros.node.tracking_loop import TrackingLoop
from lighttrack_ros.srv import RemoveTarget, TrackTarget

_LONGEST_ID = 256  # characters


class Orders:
    """The services, which are there from the start, and the boxes' topics, which are there while the node is active.

    Attributes:
        enabled: whether images are to be worked on, whatever the node's state.
    """

    def __init__(self, node: LifecycleNode, health: Health) -> None:
        self._node = node
        self._health = health
        self._loop: TrackingLoop | None = None
        self._subscriptions: list[Any] = []
        self._detections: DetectionTopics | None = None
        self.enabled = True
        node.create_service(RESET.kind, RESET.name, self._on_reset)
        node.create_service(REMOVE.kind, REMOVE.name, self._on_remove)
        node.create_service(ENABLE.kind, ENABLE.name, self._on_enable)
        self._track_service = create_deferred_service(node, TRACK.kind, TRACK.name, self._on_track)

    def begin(self, loop: TrackingLoop, wake: Callable[[], object]) -> str:
        """Take boxes; returns where from, in words.

        Args:
            wake: called when a box came, as every image is wanted then.
        """
        self._wake = wake
        self._loop = loop
        self._subscriptions = [
            subscribe(self._node, INIT_BOX, self._on_init_box),
            subscribe(self._node, INIT_ROI, self._on_init_roi),
        ]
        self._detections = DetectionTopics(
            self._node, self._track, loop.suggest, lambda words: self._health.problem("bad_detections", words)
        )
        self._subscriptions += self._detections.orders
        names = ", ".join(subscription.topic_name for subscription in self._subscriptions)
        return f"{names} or from {self._track_service.service_name}"

    def end(self) -> None:
        """Refuse boxes from now on."""
        self._loop = None
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
        if self._detections is not None:
            self._detections.close()
            self._detections = None

    @property
    def may_come(self) -> bool:
        """Whether somebody is there who might send a box."""
        # rclpy counts clients from Jazzy on.
        clients = getattr(self._node, "count_clients", lambda _: 0)(self._track_service.service_name)
        topics = [subscription.topic_name for subscription in self._subscriptions]
        return bool(clients) or any(self._node.count_publishers(topic) for topic in topics)

    def _on_init_box(self, message: InitBox) -> None:
        box = Box(message.x, message.y, message.width, message.height)
        self._track(box, to_nanoseconds(message.header.stamp), message.target_id)

    def _on_init_roi(self, message: RegionOfInterest) -> None:
        self._track(Box(message.x_offset, message.y_offset, message.width, message.height), 0, "")

    def _on_track(self, request: TrackTarget.Request, answer: Answer) -> None:
        box = Box(request.x, request.y, request.width, request.height)

        def on_start(start: Start) -> None:
            response = TrackTarget.Response(accepted=start.accepted, message=start.words)
            response.stamp = to_time(start.stamp)
            answer.give(response)

        self._track(box, to_nanoseconds(request.header.stamp), request.target_id, on_start)

    def _track(self, box: Box, stamp: int, target_id: str, answer: Callable[[Start], object] = lambda _: None) -> None:
        loop = self._loop
        if loop is None:
            answer(Start(False, words="the node is not active"))
        elif not (all(map(math.isfinite, box)) and box.width >= 1 and box.height >= 1):
            words = f"{tuple(box)}: expected finite numbers, width and height at least 1 pixel"
            self._health.problem("bad_boxes", words, throttled=False)
            answer(Start(False, words=words))
        elif len(target_id) > _LONGEST_ID:  # it goes out again with every image
            words = f"target_id has {len(target_id)} characters, expected at most {_LONGEST_ID}"
            self._health.problem("bad_boxes", words, throttled=False)
            answer(Start(False, words=words))
        else:
            loop.track(box, stamp, target_id, answer)
            self._wake()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._loop is None:
            response.success, response.message = False, "not active: there is no target"
            return response
        count = len(self._loop.targets())
        self._node.get_logger().info(
            "told to forget the target (reset)" if count < 2 else "told to forget all targets (reset)"
        )
        self._loop.reset("told to forget it (reset)")
        response.success = True
        response.message = "target forgotten" if count < 2 else f"{count} targets forgotten"
        return response

    def _on_remove(self, request: RemoveTarget.Request, response: RemoveTarget.Response) -> RemoveTarget.Response:
        if self._loop is None:
            response.success, response.message = False, "not active: there is no target"
            return response
        self._node.get_logger().info(f"told to forget target {request.target_id[:_LONGEST_ID]!r} (remove)")
        response.success, response.message = self._loop.remove(request.target_id, "told to forget it (remove)")
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.enabled = bool(request.data)
        if self._loop is not None:
            self._loop.enable(self.enabled)
        response.success, response.message = True, "enabled" if self.enabled else "disabled: images are left alone"
        self._node.get_logger().info(f"told to be {response.message}")
        return response

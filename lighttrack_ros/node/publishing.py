"""What the node publishes of its targets: one message a target and image, and all of an image together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from rclpy.qos_overriding_options import QoSOverridingOptions

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import Frame
from lighttrack_ros.msg import TrackedTarget, TrackedTargets
from lighttrack_ros.node import interface
from lighttrack_ros.node.bearings import BearingPublisher
from lighttrack_ros.node.camera_info import CameraInfoSource
from lighttrack_ros.node.detections import INSTALLED, detections_of
from lighttrack_ros.node.diagnostics import CREDIBLE, UNKNOWN, Health, diagnostic_array
from lighttrack_ros.node.frame_buffer import Arrival
from lighttrack_ros.node.messages import Stamped, image_message, jpeg_message, target_message, to_time
from lighttrack_ros.node.sender import Sender
from lighttrack_ros.node.target import NO_TARGET, Outcome
from lighttrack_ros.pictures.target import draw_target
from lighttrack_ros.session import State


class Publishing:
    """The publishers of a configured node; all but `close` is called by the tracking loop, in its thread.

    Args:
        model: name of the one that tracks.

    Raises:
        LightTrackError: a QoS override that cannot be.
    """

    def __init__(self, node: LifecycleNode, model: str, health: Health) -> None:
        self._node = node
        self._model = model
        self._health = health
        self._publishers: list[Any] = []
        self._messages: list[TrackedTarget] = []  # of the image at work
        self._bearings: BearingPublisher | None = None
        try:
            self._target = self._create(interface.TARGET)
            self._targets = self._create(interface.TARGETS)
            self._bearing = self._create(interface.BEARING)
            self._detections = self._create(interface.DETECTIONS) if INSTALLED else None
            self._annotated = self._create(interface.ANNOTATED)
            self._jpeg = self._create(interface.COMPRESSED_ANNOTATED)
            self._timing = self._create(interface.TIMING)
        except RuntimeError as error:  # what rclpy makes of an override
            self.close()
            raise LightTrackError(str(error)) from error

    def _create(self, topic: interface.Published) -> Sender:
        publisher = self._node.create_lifecycle_publisher(
            topic.kind,
            topic.name,
            topic.qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._publishers.append(publisher)
        return Sender(publisher, self._health)

    def close(self) -> None:
        while self._publishers:
            self._node.destroy_lifecycle_publisher(self._publishers.pop())

    def begin_bearings(self, camera_info: CameraInfoSource) -> str:
        """Publish them by this calibration until `end_bearings`; returns the topic."""
        self._bearings = BearingPublisher(
            self._bearing,
            camera_info,
            lambda words: self._health.problem("no_bearings", words),
            self._node.get_logger().info,
        )
        return self._bearing.topic_name

    def end_bearings(self) -> None:
        """Not while the tracking loop runs."""
        bearings, self._bearings = self._bearings, None
        if bearings is not None:
            bearings.close()

    @property
    def is_looked_at(self) -> bool:
        """Whether somebody wants the annotated picture."""
        return any(publisher.get_subscription_count() for publisher in (self._annotated, self._jpeg))

    def publish(self, outcome: Outcome) -> None:
        """One target on one image, as soon as it is known."""
        message, report = outcome.arrival.message, outcome.report
        target = target_message(message, report, outcome.target_id, self._model)
        target.end_reason = outcome.end_reason
        target.frames_dropped = outcome.dropped
        target.processing_time = time.perf_counter() - outcome.began
        self._target.publish(target)
        if report is not NO_TARGET or outcome.end_reason:
            self._messages.append(target)
        if outcome.live and report.state != State.IDLE:
            since_stamp = (self._node.get_clock().now().nanoseconds - message.stamp) / 1e9
            self._health.latency(since_stamp, time.perf_counter() - outcome.began)
        if report.network is not None and self._timing.get_subscription_count():
            self._tell_timing(outcome, outcome.began + target.processing_time)

    def publish_image(self, read: Callable[[Stamped], Frame], arrival: Arrival, outcomes: Sequence[Outcome]) -> None:
        """All of an image, when it is done with.

        Args:
            read: decodes an image message, for the annotated picture of one without a target.
        """
        messages, self._messages = self._messages, []
        message = TrackedTargets(targets=messages)
        message.header.stamp, message.header.frame_id = to_time(arrival.message.stamp), arrival.message.frame_id
        self._targets.publish(message)
        if self._detections is not None and self._detections.get_subscription_count():
            self._detections.publish(detections_of(message))
        frame = next((outcome.frame for outcome in outcomes if outcome.frame is not None), None)
        if self._bearings is not None:
            self._bearings.publish(message, None if frame is None else (frame.width, frame.height))
        if self.is_looked_at:
            self._annotate(arrival.message, frame, read, outcomes)

    def _tell_timing(self, outcome: Outcome, published: float) -> None:
        """Where the time went that one target on one image took, milliseconds; the image is told by its header."""
        message, arrived = outcome.arrival.message, outcome.arrival.time
        assert outcome.report.network is not None
        started, ended = outcome.report.network
        seconds = {
            "transport": arrived + _clock_offset() - message.stamp / 1e9,
            "wait": outcome.turn - arrived,  # on Linux perf_counter() is monotonic()
            "crop": started - outcome.turn,
            "network": ended - started,
            "decode": published - ended,
        }
        values = {f"{name}_ms": f"{value * 1e3:.3f}" for name, value in seconds.items()}
        if self._node.get_parameter("use_sim_time").value or abs(seconds["transport"]) > CREDIBLE:
            values["transport_ms"] = UNKNOWN  # the stamps are not of this clock
        values["target_id"] = outcome.target_id
        timing = diagnostic_array(
            f"{self._node.get_fully_qualified_name()[1:]}: timing", DiagnosticStatus.OK, "", values
        )
        timing.header.stamp, timing.header.frame_id = to_time(message.stamp), message.frame_id
        self._timing.publish(timing)

    def _annotate(
        self,
        message: Stamped,
        frame: Frame | None,
        read: Callable[[Stamped], Frame],
        outcomes: Sequence[Outcome],
    ) -> None:
        try:
            frame = frame or read(message)
        except LightTrackError as error:
            self._health.problem("bad_images", str(error))
            return
        image = np.array(frame.bgr(), order="C")
        for outcome in outcomes:
            report = outcome.report
            draw_target(image, report.box, report.state, report.confidence, outcome.target_id, outcome.colour)
        if self._annotated.get_subscription_count():
            self._annotated.publish(image_message(message, image))
        if self._jpeg.get_subscription_count():
            self._jpeg.publish(jpeg_message(message, image))


def _clock_offset() -> float:
    """Seconds by which time.time() is ahead of time.monotonic(), read with nothing in between."""
    while True:
        before, wall = time.monotonic(), time.time()
        if time.monotonic() - before < 5e-5:
            return wall - before

"""The ROS node: lifecycle, topics, services; the work is done by the image stream and the tracking loop."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_policy_name_from_kind
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_srvs.srv import SetBool, Trigger

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import Model, load_model
from lighttrack_ros.msg import InitBox, TrackedTarget
from lighttrack_ros.node import parameters
from lighttrack_ros.node.diagnostics import Health, diagnostic_array
from lighttrack_ros.node.frame_buffer import FrameBuffer
from lighttrack_ros.node.image_stream import ImageStream
from lighttrack_ros.node.messages import (
    image_message,
    read_compressed_image,
    read_header,
    read_image,
    target_message,
    to_nanoseconds,
    to_time,
)
from lighttrack_ros.node.tracking_loop import NO_TARGET, Outcome, TrackingLoop
from lighttrack_ros.pictures.target import draw_target
from lighttrack_ros.runtime.watch import Watch, watch
from lighttrack_ros.session import Session, State
from lighttrack_ros.trackers import Tracker, create_tracker


class TrackerNode(LifecycleNode):
    """Follows one target through a camera's images; see docs/node.md.

    configure loads the model and warms it up, activate subscribes; deactivate forgets the target.

    Args:
        stopping: set by whoever is about to end the node; a compilation under way then ends too.

    Raises:
        LightTrackError: a parameter given at the start cannot be.
    """

    def __init__(self, stopping: threading.Event | None = None) -> None:
        self._stopping = stopping
        self._loaded: _Loaded | None = None
        self._active: _Active | None = None
        self._loading: Watch | None = None  # while the model is loaded
        super().__init__("tracker")
        self.parameters = parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._health = Health(self.get_logger().warning)
        self._enabled = True
        self._failure = ""  # why the last configure failed
        self._last_report = NO_TARGET
        self._reported_counts = self._health.counts()
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.create_timer(self.parameters.diagnostics_period, self._on_timer)

    def autostart(self) -> None:
        """Configure and activate; what goes wrong is logged, and the node stays as far as it got."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._failure = ""
        try:
            with self._diagnostics_while_loading():
                self._loaded = _load(self.parameters)
        except LightTrackError as error:
            self._failure = str(error)
        except Exception:  # rclpy would swallow it and finalise the node
            self._failure = "please report this: " + traceback.format_exc()
        if self._loaded is None:
            self.get_logger().error(f"not configured: {self._failure}")
            return TransitionCallbackReturn.FAILURE
        self._target_publisher = self.create_lifecycle_publisher(TrackedTarget, "~/target", QoSProfile(depth=10))
        self._annotated_publisher = self.create_lifecycle_publisher(Image, "~/annotated", QoSProfile(depth=1))
        self._timing_publisher = self.create_lifecycle_publisher(DiagnosticArray, "~/timing", QoSProfile(depth=10))
        loaded = self._loaded
        self.get_logger().info(
            f"model {loaded.model.name} on {loaded.tracker.backend}, warmed up in {loaded.seconds:.1f} s"
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._loaded is not None
        result = super().on_activate(state)
        compressed = self.parameters.image_transport == "compressed"
        loop = TrackingLoop(
            self._loaded.tracker,
            self._loaded.session,
            FrameBuffer(self.parameters.buffer_seconds, self.parameters.buffer_megabytes * 10**6),
            read_compressed_image if compressed else read_image,
            self._publish,
            self._health,
            self._enabled,
        )
        inits = [
            self.create_subscription(InitBox, "init_box", self._on_init_box, 1),
            self.create_subscription(RegionOfInterest, "init_roi", self._on_init_roi, 1),
        ]
        stream = ImageStream(
            self,
            CompressedImage if compressed else Image,
            self._image_topic(compressed),
            self.parameters.reliability == "reliable",
            self._on_image,
            self._on_incompatible,
            # Without a target, and without anybody who could draw a box on an image that is past, few are needed.
            lambda: loop.has_target or any(self.count_publishers(init.topic_name) for init in inits),
        )
        self._active = _Active(loop, stream, inits)
        stream.start()
        self.get_logger().info(f"waiting for images on {stream.topic} and for a box on init_box or init_roi")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._unload()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._unload()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._unload()
        return TransitionCallbackReturn.SUCCESS  # unconfigured: it may be tried again

    def destroy_node(self) -> None:
        self._stop()
        self._unload()
        super().destroy_node()

    def _stop(self) -> None:
        """Unsubscribe and forget the target; nothing happens if not active."""
        if self._active is None:
            return
        active, self._active = self._active, None
        active.stream.stop()
        for subscription in active.inits:
            self.destroy_subscription(subscription)
        active.loop.stop()
        self._last_report = NO_TARGET

    def _unload(self) -> None:
        if self._loaded is None:
            return
        loaded, self._loaded = self._loaded, None
        loaded.tracker.close()
        self.destroy_lifecycle_publisher(self._target_publisher)
        self.destroy_lifecycle_publisher(self._annotated_publisher)
        self.destroy_lifecycle_publisher(self._timing_publisher)

    def _image_topic(self, compressed: bool) -> str:
        topic = self.resolve_topic_name("image")
        return topic if not compressed or topic.endswith("/compressed") else f"{topic}/compressed"

    def _on_image(self, data: bytes) -> None:
        """In the stream's thread."""
        assert self._active is not None
        try:
            self._active.loop.put(read_header(data))
        except LightTrackError as error:
            self._health.problem("bad_images", str(error))

    def _publish(self, outcome: Outcome) -> None:
        """In the loop's thread."""
        assert self._loaded is not None
        message, report = outcome.arrival.message, outcome.report
        target = target_message(message, report, outcome.target_id, self._loaded.model.name)
        target.frames_dropped = outcome.dropped
        target.processing_time = time.perf_counter() - outcome.began
        self._target_publisher.publish(target)
        self._last_report = report
        if outcome.live and report.state != State.IDLE:
            since_stamp = (self.get_clock().now().nanoseconds - message.stamp) / 1e9
            self._health.latency(since_stamp, time.perf_counter() - outcome.began)
        if report.network is not None and self._timing_publisher.get_subscription_count():
            self._tell_timing(outcome, target.processing_time)
        if self._annotated_publisher.get_subscription_count():
            self._annotate(outcome)

    def _tell_timing(self, outcome: Outcome, processing: float) -> None:
        """Where the time went that one image took, milliseconds; the image is told by its header."""
        message, arrived = outcome.arrival.message, outcome.arrival.time
        assert outcome.report.network is not None
        started, ended = outcome.report.network
        seconds = {
            "transport": arrived + _clock_offset() - message.stamp / 1e9,
            "wait": outcome.began - arrived,  # on Linux perf_counter() is monotonic()
            "crop": started - outcome.began,
            "network": ended - started,
            "decode": outcome.began + processing - ended,
        }
        values = {f"{name}_ms": f"{value * 1e3:.3f}" for name, value in seconds.items()}
        timing = diagnostic_array(f"{self.get_fully_qualified_name()[1:]}: timing", DiagnosticStatus.OK, "", values)
        timing.header.stamp, timing.header.frame_id = to_time(message.stamp), message.frame_id
        self._timing_publisher.publish(timing)

    def _annotate(self, outcome: Outcome) -> None:
        assert self._active is not None
        try:
            frame = outcome.frame or self._active.loop.read(outcome.arrival.message)
        except LightTrackError as error:
            self._health.problem("bad_images", str(error))
            return
        image = np.array(frame.bgr(), order="C")
        report = outcome.report
        draw_target(image, report.box, report.state, report.confidence, outcome.target_id)
        self._annotated_publisher.publish(image_message(outcome.arrival.message, image))

    def _on_init_box(self, message: InitBox) -> None:
        box = Box(message.x, message.y, message.width, message.height)
        self._track(box, to_nanoseconds(message.header.stamp), message.target_id)

    def _on_init_roi(self, message: RegionOfInterest) -> None:
        self._track(Box(message.x_offset, message.y_offset, message.width, message.height), 0, "")

    def _track(self, box: Box, stamp: int, target_id: str) -> None:
        if self._active is None:
            return
        if not (all(map(math.isfinite, box)) and box.width >= 1 and box.height >= 1):
            self._health.problem(
                "bad_boxes", f"{tuple(box)}: expected finite numbers, width and height at least 1 pixel"
            )
            return
        self._active.loop.track(box, stamp, target_id)
        self._active.stream.wake()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._active is None:
            response.success, response.message = False, "not active: there is no target"
            return response
        self._active.loop.reset()
        response.success, response.message = True, "target forgotten"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = bool(request.data)
        if self._active is not None:
            self._active.loop.enable(self._enabled)
        response.success, response.message = True, "enabled" if self._enabled else "disabled: images are left alone"
        return response

    def _on_parameters(self, given: list[Parameter[Any]]) -> SetParametersResult:
        try:
            self.parameters = parameters.changed(self.parameters, given, configured=self._loaded is not None)
        except LightTrackError as error:
            return parameters.result(error)
        if self._active is not None:
            self._active.loop.limit_buffer(self.parameters.buffer_seconds, self.parameters.buffer_megabytes * 10**6)
        return parameters.result()

    def _on_incompatible(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        topic = self._active.stream.topic if self._active else "image"
        fix = "or set this node's parameter reliability to best_effort" if policy == "RELIABILITY" else ""
        self._health.problem(
            "incompatible_publishers",
            f"no images from a publisher on {topic}: its QoS does not go with this node's, policy {policy}, "
            f"reliability here is {self.parameters.reliability}; make the camera's {policy.lower()} "
            f"match {fix}".rstrip(),
        )

    def _on_timer(self) -> None:
        level, message = self._status()
        values: dict[str, object] = {
            "state": self._last_report.state.name.lower(),
            "enabled": str(self._enabled).lower(),
            "model": self._loaded.model.name if self._loaded else self.parameters.model,
            "backend": self._loaded.tracker.backend if self._loaded else self.parameters.backend,
            "image_transport": self.parameters.image_transport,
            "reliability": self.parameters.reliability,
            **self._health.rates(),
            **self._health.percentiles(),
            **self._health.counts(),
            **self._health.exits(),
        }
        if self._active is not None:
            values["image_topic"] = self._active.stream.topic
            values["publishers"] = self.count_publishers(self._active.stream.topic)
            values["kept_images"], values["kept_bytes"] = self._active.loop.kept()
        array = diagnostic_array(f"{self.get_fully_qualified_name()[1:]}: tracking", level, message, values)
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
        self._reported_counts = self._health.counts()

    @contextlib.contextmanager
    def _diagnostics_while_loading(self) -> Iterator[None]:
        """TensorRT may compile for minutes, in which the executor comes to no timer."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(self.parameters.diagnostics_period):
                self._on_timer()

        with watch(self._stopping) as self._loading:
            thread = threading.Thread(target=tell, name="diagnostics")
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()
                self._loading = None

    def _status(self) -> tuple[bytes, str]:
        """Level and one line, from what happened since the last time."""
        loading = self._loading
        if loading is not None:
            return DiagnosticStatus.OK, f"configuring: {loading.status() or 'loading the model'}"
        if self._failure:
            return DiagnosticStatus.ERROR, f"not configured: {self._failure}"
        if self._active is None:
            return DiagnosticStatus.OK, "inactive" if self._loaded else "unconfigured"
        counts = self._health.counts()
        new = {name: counts[name] - self._reported_counts[name] for name in counts}
        topic = self._active.stream.topic
        if not new["images_received"]:
            publishers = self.count_publishers(topic)
            hint = "" if not publishers else ": check QoS and the camera's transport, see docs/node.md"
            return DiagnosticStatus.WARN, f"no images on {topic} ({publishers} publishers{hint})"
        if new["internal_errors"] or new["tracker_errors"]:
            return DiagnosticStatus.ERROR, "errors while tracking, see the log"
        if new["bad_images"]:
            return DiagnosticStatus.WARN, f"{new['bad_images']} images on {topic} could not be used, see the log"
        return DiagnosticStatus.OK, self._last_report.state.name.lower() if self._enabled else "disabled"


@dataclass
class _Loaded:
    """What configure makes."""

    model: Model
    tracker: Tracker
    session: Session
    seconds: float  # that it took


@dataclass
class _Active:
    """What activate makes."""

    loop: TrackingLoop
    stream: ImageStream
    inits: list[Any]  # the subscriptions of init boxes


def _clock_offset() -> float:
    """Seconds by which time.time() is ahead of time.monotonic(), read with nothing in between."""
    while True:
        before, wall = time.monotonic(), time.time()
        if time.monotonic() - before < 5e-5:
            return wall - before


def _load(chosen: parameters.Parameters) -> _Loaded:
    """Load the model and take it through a first target, so that the first real one finds everything warm.

    Raises:
        LightTrackError: no such model or backend, or it cannot be loaded.
    """
    began = time.perf_counter()
    model = load_model(chosen.model)
    tracker = create_tracker(model, chosen.backend, chosen.threads)
    session = Session(tracker, model.session)
    frame = from_bgr(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    session.start(frame, Box(280.0, 200.0, 80.0, 80.0))
    for _ in range(3):
        session.step(frame)
    session.reset()
    return _Loaded(model, tracker, session, time.perf_counter() - began)

"""The ROS node: lifecycle, topics, services; the work is done by the image stream and the tracking loop."""

from __future__ import annotations

import contextlib
import difflib
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_srvs.srv import SetBool, Trigger

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Intensities, from_bgr, parse_intensity_range
from lighttrack_ros.models import Model, load_model
from lighttrack_ros.msg import InitBox, TargetBearings, TrackedTarget, TrackedTargets
from lighttrack_ros.node import parameters
from lighttrack_ros.node.bearings import BearingPublisher
from lighttrack_ros.node.camera_info import CameraInfoSource, camera_info_topic, takes_rectified
from lighttrack_ros.node.deferred_service import Answer, create_deferred_service
from lighttrack_ros.node.diagnostics import CREDIBLE, UNKNOWN, Health, diagnostic_array
from lighttrack_ros.node.frame_buffer import FrameBuffer
from lighttrack_ros.node.image_stream import ImageStream
from lighttrack_ros.node.loss import LossMeter
from lighttrack_ros.node.messages import (
    Stamped,
    encoding_of,
    image_message,
    jpeg_message,
    read_compressed_image,
    read_header,
    read_image,
    target_message,
    to_nanoseconds,
    to_time,
)
from lighttrack_ros.node.scheduling import Scheduling
from lighttrack_ros.node.stream_watch import StreamWatch
from lighttrack_ros.node.tracking_loop import NO_TARGET, Outcome, Start, TrackingLoop
from lighttrack_ros.node.transport import CAMERA_PROFILE, fastdds_profile, little_shared_memory
from lighttrack_ros.pictures.target import draw_target
from lighttrack_ros.runtime.watch import Watch, watch
from lighttrack_ros.session import Session, State
from lighttrack_ros.srv import TrackTarget
from lighttrack_ros.trackers import Tracker, create_tracker

_ROSOUT = 1.5  # seconds for a subscriber of /rosout to be found
_SILENCE = 3.0  # seconds without an image before the log says so
_LONGEST_ID = 256  # characters
_LOSS_SHARE = 0.1  # of the images: less is counted, and not complained of
_REMEDY = f"the camera's process needs {CAMERA_PROFILE}, see docs/node.md"


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
        try:
            self.parameters = parameters.declare(self)
        except LightTrackError as error:
            self.get_logger().error(str(error))
            self._let_rosout_hear()
            raise
        self._scheduling = Scheduling()
        self._finalized = False
        self._publishers: list[Any] = []  # of a configured node
        self.add_on_set_parameters_callback(self._on_parameters)
        self._health = Health(self.get_logger().warning)
        self._enabled = True
        self._failure = ""  # why the last configure failed
        self._last_report = NO_TARGET
        self._reported_counts = self._health.counts()
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._track_service = create_deferred_service(self, TrackTarget, "~/track", self._on_track)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        # Diagnostics must come also where nobody publishes the simulation's clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self.parameters.diagnostics_period, self._on_timer, clock=steady)
        if warning := little_shared_memory():
            self.get_logger().warning(warning)

    def _let_rosout_hear(self) -> None:
        """Of a node that ends at once, /rosout's subscribers have hardly heard that it is there."""
        until = time.monotonic() + _ROSOUT
        while not self.count_subscribers("/rosout") and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(_ROSOUT / 5)

    def autostart(self) -> None:
        """Configure and activate; what goes wrong is logged, and the node stays as far as it got."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._failure = ""
        try:
            with self._diagnostics_while_loading():
                self._loaded = _load(self.parameters, self._schedule)
        except LightTrackError as error:
            self._failure = str(error)
        except Exception:  # rclpy would swallow it and finalise the node
            self._failure = "please report this: " + traceback.format_exc()
        if self._loaded is None:
            self.get_logger().error(f"not configured: {self._failure}")
            return TransitionCallbackReturn.FAILURE
        try:
            self._target_publisher = self._create_publisher(TrackedTarget, "~/target", 10)
            self._targets_publisher = self._create_publisher(TrackedTargets, "~/targets", 10)
            self._bearing_publisher = self._create_publisher(TargetBearings, "~/bearing", 10)
            self._annotated_publisher = self._create_publisher(Image, "~/annotated", 1)
            self._jpeg_publisher = self._create_publisher(CompressedImage, "~/annotated/compressed", 1)
            self._timing_publisher = self._create_publisher(DiagnosticArray, "~/timing", 10)
        except RuntimeError as error:  # what rclpy makes of a QoS override that cannot be
            self._failure = str(error)
            self.get_logger().error(f"not configured: {self._failure}")
            self._unload()
            return TransitionCallbackReturn.FAILURE
        loaded = self._loaded
        self.get_logger().info(
            f"model {loaded.model.name} on {loaded.tracker.backend}, warmed up in {loaded.seconds:.1f} s"
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._loaded is not None
        result = super().on_activate(state)
        try:
            self._subscribe(self._loaded)
        except LightTrackError as error:
            self.get_logger().error(f"not activated: {error}")
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        return result

    def _create_publisher(self, kind: Any, name: str, depth: int) -> Any:
        overriding = QoSOverridingOptions.with_default_policies()
        publisher = self.create_lifecycle_publisher(
            kind, name, QoSProfile(depth=depth), qos_overriding_options=overriding
        )
        self._publishers.append(publisher)
        return publisher

    def _subscribe(self, loaded: _Loaded) -> None:
        """To images and boxes.

        Raises:
            LightTrackError: a QoS override that cannot be; nothing is left of the subscriptions.
        """
        compressed = self.parameters.image_transport == "compressed"
        self._loss = LossMeter()
        self._watch = StreamWatch()
        intensities = Intensities(parse_intensity_range(self.parameters.intensity_range))
        read = read_compressed_image if compressed else read_image
        self._beginning_told = self._rate_told = False
        stream = ImageStream(
            self,
            CompressedImage if compressed else Image,
            self._image_topic(compressed),
            self.parameters.reliability,
            self._on_image,
            self._on_incompatible,
            self._is_wanted,
            self._on_lost,
        )
        loop = TrackingLoop(
            loaded.tracker,
            loaded.session,
            FrameBuffer(self.parameters.buffer_seconds, self.parameters.buffer_megabytes * 10**6),
            lambda message: read(message, intensities),
            self._publish,
            self._health,
            self._enabled,
            self.get_logger().info,
            intensities,
            self._reload,
        )
        inits = [
            self.create_subscription(InitBox, "init_box", self._on_init_box, 1),
            self.create_subscription(RegionOfInterest, "init_roi", self._on_init_roi, 1),
        ]
        rectified = takes_rectified(self.parameters.rectification, stream.topic)
        camera_info = CameraInfoSource(self, camera_info_topic(self, stream.topic), rectified)
        bearings = BearingPublisher(
            self._bearing_publisher,
            camera_info,
            lambda words: self._health.problem("no_bearings", words),
            self.get_logger().info,
        )
        self._active = _Active(loop, stream, inits, bearings)
        self._last_image = time.monotonic()  # none yet: silence is counted from here
        stream.start()
        names = ", ".join(init.topic_name for init in inits)
        self.get_logger().info(
            f"waiting for images on {stream.topic} and for a box on {names} or from {self._track_service.service_name}"
        )
        self.get_logger().info(
            f"{self._bearing_publisher.topic_name} by the calibration on {camera_info.topic}, for "
            + ("rectified images" if rectified else "images as the lens gives them")
        )

    def _is_wanted(self) -> bool:
        """Few images are while there is no target, and nobody who looks or could draw a box on a past image."""
        active = self._active
        if active is None:
            return False
        if active.loop.has_target or self._is_looked_at():
            return True
        # rclpy counts clients from Jazzy on.
        clients = getattr(self, "count_clients", lambda _: 0)(self._track_service.service_name)
        return bool(clients) or any(self.count_publishers(init.topic_name) for init in active.inits)

    def _is_looked_at(self) -> bool:
        publishers = (self._annotated_publisher, self._jpeg_publisher)
        return any(publisher.get_subscription_count() for publisher in publishers)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._unload()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._unload()
        self._finalized = True
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
        if not active.loop.stop("the node was deactivated"):
            self._loaded = None  # its memory is in use, and stays so
            self.get_logger().error("the backend hangs: a new one is loaded at the next configure")
        active.bearings.close()
        self._last_report = NO_TARGET

    def _reload(self) -> tuple[Tracker, Session]:
        """In the loop's thread, in place of a tracker that fails.

        Raises:
            LightTrackError: it cannot be loaded.
        """
        assert self._loaded is not None
        with contextlib.suppress(Exception):  # it is broken
            self._loaded.tracker.close()
        self._loaded = loaded = _load(self.parameters, self._schedule)
        self.get_logger().warning(
            f"model {loaded.model.name} loaded anew in {loaded.seconds:.1f} s: the tracker failed"
        )
        return loaded.tracker, loaded.session

    def _unload(self) -> None:
        if self._loaded is not None:
            loaded, self._loaded = self._loaded, None
            loaded.tracker.close()
        while self._publishers:
            self.destroy_lifecycle_publisher(self._publishers.pop())

    def _image_topic(self, compressed: bool) -> str:
        topic = self.resolve_topic_name(self.parameters.image_topic)
        return topic if not compressed or topic.endswith("/compressed") else f"{topic}/compressed"

    def _on_image(self, data: bytes) -> None:
        """In the stream's thread."""
        active = self._active
        if active is None:
            return
        try:
            message = read_header(data)
        except LightTrackError as error:
            self._health.problem("bad_images", str(error))
            return
        active.loop.put(message)
        self._watch.add(message.stamp, message.frame_id)
        self._last_image = time.monotonic()
        if not self._beginning_told:
            self._beginning_told = True
            self._tell_beginning(active, message)
        self._look_for_loss(active.stream, message.stamp)

    def _tell_beginning(self, active: _Active, message: Stamped) -> None:
        """The first image, for whoever reads the log."""
        with contextlib.suppress(LightTrackError):  # the loop says what is wrong with it
            frame = active.loop.read(message)
            encoding = encoding_of(message, self.parameters.image_transport == "compressed")
            self.get_logger().info(
                f"first image on {active.stream.topic}: {frame.width} x {frame.height}, {encoding}, frame_id "
                f"{message.frame_id!r}, received in {active.stream.reliability.replace('_', ' ')}"
            )

    def _look_for_loss(self, stream: ImageStream, stamp: int) -> None:
        """Images that never arrived show as gaps between the stamps of those that did."""
        if not stream.takes_all:
            self._loss.restart()
            return
        missing = self._loss.add(stamp)
        if not self._rate_told and self._loss.rate:
            self._rate_told = True
            self.get_logger().info(f"images on {stream.topic} come at {self._loss.rate:.1f} Hz, by their stamps")
        if not missing:
            return
        share = self._loss.lost_share
        if share < _LOSS_SHARE:
            self._health.count("images_lost", missing)
        else:
            self._complain_of_loss(
                stream, f"{100 * share:.0f} %", f" ({self._loss.rate:.1f} Hz by their stamps)", missing
            )

    def _on_lost(self, count: int) -> None:
        """In the stream's thread; where so few images arrive that their stamps tell nothing, the middleware knows."""
        active = self._active
        if active is not None and active.stream.takes_all and not self._loss.rate:
            self._complain_of_loss(active.stream, "most", "", count)

    def _complain_of_loss(self, stream: ImageStream, share: str, rate: str, count: int) -> None:
        self._health.problem(
            "images_lost",
            f"{share} of the images of {stream.topic}{rate} are lost before they arrive here, received in "
            f"{stream.reliability.replace('_', ' ')}; start the camera's process with the Fast DDS profile "
            f"{fastdds_profile(CAMERA_PROFILE)} (docs/node.md, Raw images)",
            number=count,
        )

    def _publish(self, outcome: Outcome) -> None:
        """In the loop's thread."""
        assert self._loaded is not None
        message, report = outcome.arrival.message, outcome.report
        target = target_message(message, report, outcome.target_id, self._loaded.model.name)
        target.end_reason = outcome.end_reason
        target.frames_dropped = outcome.dropped
        target.processing_time = time.perf_counter() - outcome.began
        self._target_publisher.publish(target)
        told = report.state != State.IDLE or bool(target.end_reason)
        targets = TrackedTargets(header=target.header, targets=[target] if told else [])
        self._targets_publisher.publish(targets)
        active, frame = self._active, outcome.frame
        if active is not None:
            active.bearings.publish(targets, None if frame is None else (frame.width, frame.height))
        self._last_report = report
        if outcome.live and report.state != State.IDLE:
            since_stamp = (self.get_clock().now().nanoseconds - message.stamp) / 1e9
            self._health.latency(since_stamp, time.perf_counter() - outcome.began)
        if report.network is not None and self._timing_publisher.get_subscription_count():
            self._tell_timing(outcome, target.processing_time)
        if active is not None and self._is_looked_at():
            self._annotate(active, outcome)

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
        if self.get_parameter("use_sim_time").value or abs(seconds["transport"]) > CREDIBLE:
            values["transport_ms"] = UNKNOWN  # the stamps are not of this clock
        timing = diagnostic_array(f"{self.get_fully_qualified_name()[1:]}: timing", DiagnosticStatus.OK, "", values)
        timing.header.stamp, timing.header.frame_id = to_time(message.stamp), message.frame_id
        self._timing_publisher.publish(timing)

    def _annotate(self, active: _Active, outcome: Outcome) -> None:
        try:
            frame = outcome.frame or active.loop.read(outcome.arrival.message)
        except LightTrackError as error:
            self._health.problem("bad_images", str(error))
            return
        image = np.array(frame.bgr(), order="C")
        report = outcome.report
        draw_target(image, report.box, report.state, report.confidence, outcome.target_id)
        if self._annotated_publisher.get_subscription_count():
            self._annotated_publisher.publish(image_message(outcome.arrival.message, image))
        if self._jpeg_publisher.get_subscription_count():
            self._jpeg_publisher.publish(jpeg_message(outcome.arrival.message, image))

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
        active = self._active
        if active is None:
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
            active.loop.track(box, stamp, target_id, answer)
            active.stream.wake()

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._active is None:
            response.success, response.message = False, "not active: there is no target"
            return response
        self.get_logger().info("told to forget the target (reset)")
        self._active.loop.reset("told to forget it (reset)")
        response.success, response.message = True, "target forgotten"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = bool(request.data)
        if self._active is not None:
            self._active.loop.enable(self._enabled)
        response.success, response.message = True, "enabled" if self._enabled else "disabled: images are left alone"
        self.get_logger().info(f"told to be {response.message}")
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
            "reliability": self._active.stream.reliability if self._active else self.parameters.reliability,
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

    def _schedule(self) -> None:
        chosen = self.parameters
        refused = self._scheduling.arrange(chosen.nice, chosen.fifo_priority, chosen.cpus)
        if refused:
            self.get_logger().warning(refused)

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
        if self._finalized:
            return DiagnosticStatus.OK, "finalized"
        if self._active is None:
            return DiagnosticStatus.OK, "inactive" if self._loaded else "unconfigured"
        if seconds := self._active.loop.stuck():
            words = f"the tracker has been at one image for {seconds:.0f} s: the backend hangs"
            self._health.problem("tracker_errors", words)
            return DiagnosticStatus.ERROR, f"{words}; restart the node, or deactivate, cleanup and configure it"
        counts = self._health.counts()
        new = {name: counts[name] - self._reported_counts[name] for name in counts}
        topic = self._active.stream.topic
        if not new["images_received"]:
            words = self._why_no_images(topic)
            if time.monotonic() - self._last_image > _SILENCE:
                self._health.problem("silent_camera", words)
            return DiagnosticStatus.WARN, words
        if new["images_lost"] and not self._loss.rate:
            return DiagnosticStatus.WARN, f"most of the images on {topic} are lost on the way: {_REMEDY}"
        if new["internal_errors"] or new["tracker_errors"]:
            return DiagnosticStatus.ERROR, "errors while tracking, see the log"
        if new["bad_images"]:
            return DiagnosticStatus.WARN, f"{new['bad_images']} images on {topic} could not be used, see the log"
        publishers = self.count_publishers(topic)
        if strange := self._watch.complaint(publishers) or self._clock_stands():
            self._health.problem("strange_stream", f"{topic}: {strange}")
            return DiagnosticStatus.WARN, strange
        if new["images_lost"] and self._loss.lost_share > _LOSS_SHARE:
            share = 100 * self._loss.lost_share
            return (
                DiagnosticStatus.WARN,
                f"{share:.0f} % of the images on {topic} are lost on the way: {_REMEDY}",
            )
        return DiagnosticStatus.OK, self._last_report.state.name.lower() if self._enabled else "disabled"

    def _clock_stands(self) -> str:
        """Simulated time that nobody tells."""
        if self.get_parameter("use_sim_time").value and not self.get_clock().now().nanoseconds:
            return "use_sim_time is set, but nobody publishes /clock: latencies are not known"
        return ""

    def _why_no_images(self, topic: str) -> str:
        publishers = self.get_publishers_info_by_topic(topic)
        if publishers:
            hint = "check QoS and the camera's transport, see docs/node.md"
            return f"no images on {topic} ({len(publishers)} publishers: {hint})"
        kind = "sensor_msgs/msg/CompressedImage" if topic.endswith("/compressed") else "sensor_msgs/msg/Image"
        # Not what trackers draw, which is no camera's.
        others = [
            name
            for name, types in self.get_topic_names_and_types()
            if kind in types and name != topic and not name.endswith(("/annotated", "/annotated/compressed"))
        ]
        published = [name for name in others if self.count_publishers(name)]
        # The most similar first.
        published.sort(key=lambda name: difflib.SequenceMatcher(None, name, topic).ratio(), reverse=True)
        there = f"images are published on {', '.join(published[:3])}" if published else "nobody publishes images"
        return f"no images on {topic} (0 publishers; {there})"


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
    bearings: BearingPublisher


def _clock_offset() -> float:
    """Seconds by which time.time() is ahead of time.monotonic(), read with nothing in between."""
    while True:
        before, wall = time.monotonic(), time.time()
        if time.monotonic() - before < 5e-5:
            return wall - before


def _load(chosen: parameters.Parameters, schedule: Callable[[], object]) -> _Loaded:
    """Load the model and take it through a first target, so that the first real one finds everything warm.

    Raises:
        LightTrackError: no such model or backend, or it cannot be loaded.
    """
    began = time.perf_counter()
    model = load_model(chosen.model)
    schedule()  # before the backend starts its threads, which inherit it
    tracker = create_tracker(model, chosen.backend, chosen.threads, chosen.spin)
    session = Session.of(tracker, model)
    frame = from_bgr(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    session.start(frame, Box(280.0, 200.0, 80.0, 80.0))
    for _ in range(3):
        session.step(frame)
    session.reset()
    return _Loaded(model, tracker, session, time.perf_counter() - began)

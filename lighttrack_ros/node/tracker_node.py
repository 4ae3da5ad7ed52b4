"""The ROS node: lifecycle and parameters; the work is done by the tracking loop and what is around it."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import Frame, Intensities, parse_intensity_range
from lighttrack_ros.node import parameters
from lighttrack_ros.node.camera_info import CameraInfoSource, camera_info_topic, takes_rectified
from lighttrack_ros.node.diagnostics import Health
from lighttrack_ros.node.frame_buffer import FrameBuffer
from lighttrack_ros.node.loading import Loaded, load
from lighttrack_ros.node.messages import Stamped, read_compressed_image, read_image
from lighttrack_ros.node.orders import Orders
from lighttrack_ros.node.publishing import Publishing
from lighttrack_ros.node.reception import Reception
from lighttrack_ros.node.scheduling import Scheduling
from lighttrack_ros.node.status import Situation, Status
from lighttrack_ros.node.tracking_loop import TrackingLoop
from lighttrack_ros.node.transport import little_shared_memory
from lighttrack_ros.runtime.watch import Watch, watch
from lighttrack_ros.session import SessionPool

_ROSOUT = 1.5  # seconds for a subscriber of /rosout to be found


class TrackerNode(LifecycleNode):
    """Follows targets through a camera's images; see docs/node.md.

    configure loads the model and warms it up, activate subscribes; deactivate forgets the targets.

    Args:
        stopping: set by whoever is about to end the node; a compilation under way then ends too.

    Raises:
        LightTrackError: a parameter given at the start cannot be.
    """

    def __init__(self, stopping: threading.Event | None = None) -> None:
        self._stopping = stopping
        self._loaded: Loaded | None = None
        self._publishing: Publishing | None = None
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
        self.add_on_set_parameters_callback(self._on_parameters)
        self._health = Health(self.get_logger().warning)
        self._failure = ""  # why the last configure failed
        self._orders = Orders(self, self._health)
        self._status = Status(self, self._health)
        # Diagnostics must come also where nobody publishes the simulation's clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self.parameters.diagnostics_period, self._tell_status, clock=steady)
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
            with self._status_while_loading():
                self._loaded = load(self.parameters, self._schedule)
            self._publishing = Publishing(self, self._loaded.model.name, self._health)
        except LightTrackError as error:
            self._failure = str(error)
        except Exception:  # rclpy would swallow it and finalise the node
            self._failure = "please report this: " + traceback.format_exc()
        loaded = self._loaded
        if loaded is None or self._publishing is None:
            self._unload()
            self.get_logger().error(f"not configured: {self._failure}")
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(
            f"model {loaded.model.name} on {loaded.tracker.backend}, warmed up in {loaded.seconds:.1f} s"
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        try:
            self._begin()
        except LightTrackError as error:
            self.get_logger().error(f"not activated: {error}")
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        return result

    def _begin(self) -> None:
        """Subscribe to images and boxes, and start to work.

        Raises:
            LightTrackError: a QoS override that cannot be; nothing is left of the subscriptions.
        """
        loaded, publishing, chosen = self._loaded, self._publishing, self.parameters
        assert loaded is not None
        assert publishing is not None
        reception = Reception(self, chosen, self._health, self._is_wanted)
        intensities = Intensities(parse_intensity_range(chosen.intensity_range))
        as_bytes = read_compressed_image if chosen.image_transport == "compressed" else read_image

        def read(message: Stamped) -> Frame:
            return as_bytes(message, intensities)

        loop = TrackingLoop(
            loaded.sessions,
            FrameBuffer(chosen.buffer_seconds, chosen.buffer_megabytes * 10**6),
            read,
            publishing.publish,
            functools.partial(publishing.publish_image, read),
            self._health,
            self._orders.enabled,
            self.get_logger().info,
            intensities,
            self._reload,
        )
        rectified = takes_rectified(chosen.rectification, reception.topic)
        camera_info = CameraInfoSource(self, camera_info_topic(self, reception.topic), rectified)
        bearings = publishing.begin_bearings(camera_info)
        places = self._orders.begin(loop, reception.wake)
        self._active = _Active(loop, reception)
        reception.start(loop)
        self.get_logger().info(f"waiting for images on {reception.topic} and for a box on {places}")
        self.get_logger().info(
            f"{bearings} by the calibration on {camera_info.topic}, for "
            + ("rectified images" if rectified else "images as the lens gives them")
        )

    def _is_wanted(self) -> bool:
        """Few images are while there is no target, and nobody who looks or could draw a box on a past image."""
        active, publishing = self._active, self._publishing
        if active is None or publishing is None:
            return False
        return active.loop.has_target or publishing.is_looked_at or self._orders.may_come

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
        """Unsubscribe and forget the targets; nothing happens if not active."""
        if self._active is None:
            return
        active, self._active = self._active, None
        active.reception.stop()
        self._orders.end()
        if not active.loop.stop("the node was deactivated"):
            self._loaded = None  # its memory is in use, and stays so
            self.get_logger().error("the backend hangs: a new one is loaded at the next configure")
        if self._publishing is not None:
            self._publishing.end_bearings()

    def _reload(self) -> SessionPool:
        """In the loop's thread, in place of a tracker that fails.

        Raises:
            LightTrackError: it cannot be loaded.
        """
        assert self._loaded is not None
        with contextlib.suppress(Exception):  # it is broken
            self._loaded.tracker.close()
        self._loaded = loaded = load(self.parameters, self._schedule)
        self.get_logger().warning(
            f"model {loaded.model.name} loaded anew in {loaded.seconds:.1f} s: the tracker failed"
        )
        return loaded.sessions

    def _unload(self) -> None:
        loaded, self._loaded = self._loaded, None
        publishing, self._publishing = self._publishing, None
        if loaded is not None:
            loaded.tracker.close()
        if publishing is not None:
            publishing.close()

    def _on_parameters(self, given: list[Parameter[Any]]) -> SetParametersResult:
        try:
            self.parameters = parameters.changed(self.parameters, given, configured=self._loaded is not None)
        except LightTrackError as error:
            return parameters.result(error)
        if self._active is not None:
            self._active.loop.limit_buffer(self.parameters.buffer_seconds, self.parameters.buffer_megabytes * 10**6)
        return parameters.result()

    def _schedule(self) -> None:
        chosen = self.parameters
        refused = self._scheduling.arrange(chosen.nice, chosen.fifo_priority, chosen.cpus)
        if refused:
            self.get_logger().warning(refused)

    def _tell_status(self) -> None:
        active = self._active
        self._status.publish(
            Situation(
                self.parameters,
                self._orders.enabled,
                self._loading,
                self._failure,
                self._finalized,
                self._loaded,
                None if active is None else active.loop,
                None if active is None else active.reception,
            )
        )

    @contextlib.contextmanager
    def _status_while_loading(self) -> Iterator[None]:
        """TensorRT may compile for minutes, in which the executor comes to no timer."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(self.parameters.diagnostics_period):
                self._tell_status()

        with watch(self._stopping) as self._loading:
            thread = threading.Thread(target=tell, name="diagnostics")
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()
                self._loading = None


@dataclass(frozen=True)
class _Active:
    """What activate makes."""

    loop: TrackingLoop
    reception: Reception

"""A tracker node behind the page: its camera's images, what it says of its targets, and orders by its services."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Awaitable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future as RosFuture
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Intensities, UInt8Array
from lighttrack_ros.models import model_names
from lighttrack_ros.msg import TrackedTarget, TrackedTargets
from lighttrack_ros.node.image_stream import ImageStream
from lighttrack_ros.node.messages import read_compressed_image, read_header, read_image, to_nanoseconds, to_time
from lighttrack_ros.node.transport import TRACKER_PROFILE, transport_environment, tune_malloc
from lighttrack_ros.runtime import BACKENDS
from lighttrack_ros.session import State
from lighttrack_ros.srv import RemoveTarget, TrackTarget
from lighttrack_ros.viewer.board import Board, Target
from lighttrack_ros.viewer.protocol import Configure, Enable, Remove, Reset, Track
from lighttrack_ros.viewer.source import Answer

KEPT_SECONDS = 10.0  # of images in the node, for boxes that come late; the most that it takes

_NICE = 10  # the viewer never takes time that the tracker needs
_CREDIBLE = 60.0  # seconds: an image that seems older has a stamp of another clock
_LOOK = 0.5  # seconds between two looks at the graph
_SILENCE = 8.0  # seconds without diagnostics, or four of their periods, after which the node counts as gone
_STALE = 2.0  # seconds without a word of a target, while others are told of, after which it counts as ended

_SERVICES = {
    "track": TrackTarget,
    "remove": RemoveTarget,
    "reset": Trigger,
    "enable": SetBool,
    "change_state": ChangeState,
    "get_parameters": GetParameters,
    "set_parameters_atomically": SetParametersAtomically,
}


class TrackerSource:
    """Listens to one tracker node, from when the block begins. The camera's images only while somebody watches.

    Args:
        tracker: the node's name; one without a slash at its begin is looked for in this node's own namespace.
        keep_megabytes: while somebody watches, the node is told to keep past images up to this size; 0: it is not.
        ros_args: what would stand behind --ros-args.

    Raises:
        LightTrackError: a name or an argument that cannot be.
    """

    def __init__(self, tracker: str, keep_megabytes: int, ros_args: list[str]) -> None:
        self.board = Board()
        self._asked_for = tracker
        self._keep = keep_megabytes
        self._ros_args = ros_args
        # All of these belong to the executor's thread.
        self._watched = False
        self._clients: dict[str, Any] = {}
        self._stream: ImageStream | None = None
        self._camera: tuple[str, bool] | None = None  # topic, and whether it is compressed
        self._connected = False
        self._told_at = 0.0  # time.monotonic() of the last diagnostics
        self._period = 1.0  # seconds between two of them
        self._trouble = ""  # what they say, unless all is well
        self._heard: dict[str, float] = {}  # when each target was last told of
        self._buffers: dict[str, Any] | None = None  # of the node, as they were before somebody watched
        self._next_diagnostics: RosFuture[str] | None = None
        self._configuring = False

    def __enter__(self) -> TrackerSource:
        os.nice(_NICE)
        tune_malloc()
        os.environ.update(transport_environment(profile=TRACKER_PROFILE))
        with contextlib.ExitStack() as stack:
            try:
                arguments = ["lighttrack", "--ros-args", *self._ros_args]
                rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
                stack.callback(rclpy.try_shutdown)
                self._node = rclpy.create_node("viewer", start_parameter_services=False)
                stack.callback(self._node.destroy_node)
                self.name = self._node.resolve_topic_name(self._asked_for)
                self._targets = self._node.create_subscription(
                    TrackedTargets, f"{self.name}/targets", self._on_targets, 10
                )
                self._state_client: Any = self._node.create_client(GetState, f"{self.name}/get_state")
            except Exception as error:  # rclpy's errors of wrong names and arguments share no public base class
                raise LightTrackError(str(error).partition(", at ")[0]) from None
            self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
            # Also where nobody publishes the simulation's clock.
            self._node.create_timer(_LOOK, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))
            self._executor = SingleThreadedExecutor()
            self._executor.add_node(self._node)
            self._ending = False
            self._thread = threading.Thread(target=self._spin, name="viewer_executor")
            self._thread.start()
            self._stack = stack.pop_all()
        self.board.set_status(
            {"subject": self.name, "connected": False, "message": f"no tracker node {self.name}", "enabled": True}
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        done = threading.Event()

        async def leave() -> None:
            with contextlib.suppress(LightTrackError):
                await self._leave()
            done.set()

        self._executor.create_task(leave)
        done.wait(2.0)
        self._ending = True
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join()
        self._stop_stream()
        self._stack.close()

    def watch(self, on: bool) -> None:
        async def change() -> None:
            self._watched = on
            if on:
                for name in _SERVICES:
                    self._client(name)
                self._follow_camera()
            else:
                await self._leave()

        self._executor.create_task(self._guarded, change)

    def hold(self, on: bool) -> None:
        """A camera does not stand still; the node keeps its images meanwhile."""

    def order(self, order: object) -> Future[Answer]:
        answer: Future[Answer] = Future()
        answer.set_running_or_notify_cancel()

        async def work() -> None:
            try:
                answer.set_result(await self._do(order))
            except LightTrackError as error:
                answer.set_result(Answer(False, str(error)))
            except Exception:
                answer.set_result(Answer(False, "internal error, see the viewer's log"))
                raise

        self._executor.create_task(self._guarded, work)
        return answer

    def _spin(self) -> None:
        while rclpy.ok() and not self._ending:
            try:
                self._executor.spin()
            except Exception:  # noqa: PERF203 - nothing that comes from a topic or a page ends the viewer
                if not self._ending:
                    self._node.get_logger().error(f"a callback failed: {traceback.format_exc()}")

    async def _guarded(self, work: Any) -> None:
        try:
            await work()
        except LightTrackError as error:
            self._node.get_logger().warning(str(error))
        except Exception:
            self._node.get_logger().error(f"please report this: {traceback.format_exc()}")

    async def _leave(self) -> None:
        """Nobody watches any more: nothing of the camera or the node is used."""
        self._stop_stream()
        before, self._buffers = self._buffers, None
        if before:
            with contextlib.suppress(LightTrackError):
                await self._set_parameters(before)
        while self._clients and not self._watched:
            self._node.destroy_client(self._clients.popitem()[1])

    def _on_targets(self, message: TrackedTargets) -> None:
        now = time.monotonic()
        stamp = to_nanoseconds(message.header.stamp)
        age = (self._node.get_clock().now().nanoseconds - stamp) / 1e9
        latency = 1e3 * age if abs(age) < _CREDIBLE else None
        try:
            targets = [_target(target, latency) for target in message.targets]
        except ValueError:  # a state that there is not: the message of some other version
            return
        known = {target.target_id for target in self.board.targets}
        self._heard.update({target.target_id: now for target in targets})
        if known and not targets:
            self.board.forget_targets("the node does not follow it any more")
        elif targets:
            stale = [name for name in known if now - self._heard.get(name, now) > _STALE]
            reason = "the node does not tell of it any more"
            targets += [Target(name, State.IDLE, end_reason=reason) for name in stale]
        self._heard = {name: heard for name, heard in self._heard.items() if now - heard < 2 * _STALE}
        self.board.put_targets(stamp, targets)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self.name[1:]}: tracking":
                self._on_status(status)

    def _on_status(self, status: DiagnosticStatus) -> None:
        now = time.monotonic()
        if self._connected:
            self._period = min(60.0, max(0.1, now - self._told_at))
        self._told_at = now
        values = {item.key: item.value for item in status.values}
        if not self._connected:
            self._connected = True
            self._buffers = None
            self.board.note(f"{self.name} is there")
            self._executor.create_task(self._guarded, self._read_parameters)
        compressed = values.get("image_transport") == "compressed"
        topic = values.get("image_topic", "")
        self._camera = (topic, compressed) if topic else self._camera
        loud = status.level != DiagnosticStatus.OK or not topic
        self._trouble = status.message if loud else ""
        self.board.set_status(
            {
                "connected": True,
                "message": self._hint(),
                "enabled": values.get("enabled") != "false",
                "image_topic": _plain(*self._camera) if self._camera else "",
                "figures": _figures(values),
            }
        )
        self._follow_camera()
        if self._next_diagnostics is not None:
            self._next_diagnostics.set_result(status.message)
            self._next_diagnostics = None

    def _look(self) -> None:
        """At what is there."""
        quiet = time.monotonic() - self._told_at
        silent = quiet > max(_SILENCE, 4 * self._period)
        # The middleware may know of its services later than of its diagnostics, after a crash by many seconds.
        there = self._state_client.service_is_ready()
        absent = quiet > 2 * self._period and not there
        if self._connected and not (silent or absent):
            self.board.set_status({"message": self._hint()})
            if not there:  # it may be another node by now
                self._buffers = None
        elif self._connected:
            self._connected = False
            self._buffers = None
            self._stop_stream()
            self.board.forget_targets("the node is gone")
            self.board.note(f"{self.name} is gone")
            self.board.set_status({"connected": False, "message": f"no tracker node {self.name}", "figures": {}})
        if not self._watched:
            return
        kind = CompressedImage if self._camera and self._camera[1] else Image
        wanted = f"sensor_msgs/msg/{kind.__name__}"
        topics = [
            _plain(name, kind is CompressedImage)
            for name, types in self._node.get_topic_names_and_types()
            if wanted in types and not name.endswith("/annotated")
        ]
        self.board.set_status({"image_topics": sorted(topics), "models": model_names(), "backends": list(BACKENDS)})
        services = [self._client(name) for name in ("get_parameters", "set_parameters_atomically")]
        ready = self._connected and all(client.service_is_ready() for client in services)
        if ready and self._buffers is None and self._keep:
            self._buffers = {}
            self._executor.create_task(self._guarded, self._enlarge_buffer)

    def _hint(self) -> str:
        """What keeps an operator from tracking, while the node is there."""
        return self._trouble if self._state_client.service_is_ready() else f"{self.name} takes no orders yet"

    def _follow_camera(self) -> None:
        """Subscribe to the images that the node takes, while somebody watches."""
        if self._camera is None or not self._watched or not self._connected:
            return
        topic, compressed = self._camera
        if self._stream is not None:
            if self._stream.topic == topic:
                return
            self._stop_stream()
        read = read_compressed_image if compressed else read_image
        intensities = Intensities()

        def on_image(data: bytes) -> None:
            try:
                message = read_header(data)
            except LightTrackError:  # the node says what is wrong with it
                return

            def pixels() -> UInt8Array:
                return read(message, intensities).bgr()

            self.board.put_picture(message.stamp, pixels)

        kind = CompressedImage if compressed else Image
        self._stream = ImageStream(self._node, kind, topic, "auto", on_image, lambda _: None)
        self._stream.start()

    def _stop_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.stop()
            self.board.clear_pictures()

    async def _do(self, order: object) -> Answer:
        if isinstance(order, Track):
            request = TrackTarget.Request(target_id=order.target_id)
            request.x, request.y, request.width, request.height = order.box
            request.header.stamp = to_time(order.stamp)
            taken = await self._call("track", request)
            return Answer(taken.accepted, taken.message)
        if isinstance(order, Reset):
            done = await self._call("reset", Trigger.Request())
            return Answer(done.success, done.message)
        if isinstance(order, Remove):
            done = await self._call("remove", RemoveTarget.Request(target_id=order.target_id))
            return Answer(done.success, done.message)
        if isinstance(order, Enable):
            done = await self._call("enable", SetBool.Request(data=order.on))
            if done.success:
                self.board.set_status({"enabled": order.on})
            return Answer(done.success, done.message)
        if isinstance(order, Configure):
            if self._configuring:
                return Answer(False, "a change is under way already")
            self._configuring = True
            try:
                return await self._configure(order)
            finally:
                self._configuring = False
        return Answer(False, "a tracker node knows no such order")

    async def _configure(self, order: Configure) -> Answer:
        """Take the node down, change its parameters and bring it up; as it was where that cannot be."""
        status = (self.board.status(0) or (0, {}))[1]
        asked = {"model": order.model, "backend": order.backend, "image_topic": order.image_topic}
        wanted = {name: value for name, value in asked.items() if value and value != status.get(name)}
        for name, value in wanted.items():
            if value not in status.get(f"{name}s", ()):
                return Answer(False, f"{name}: none of those that are offered")
        if not wanted:
            return Answer(True, "nothing is to be changed")
        before = await self._get_parameters(list(wanted))
        state = (await self._await(self._state_client.call_async(GetState.Request()))).current_state.label
        if state == "active":
            await self._change_state("deactivate")
        if state in ("active", "inactive"):
            await self._change_state("cleanup")
        problem = await self._set_parameters(wanted)
        if not problem:
            problem = await self._bring_up()
            if problem:
                await self._set_parameters(before)
        if not problem:
            await self._read_parameters()
            changed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in wanted.items())
            return Answer(True, f"{changed}: point at the target again")
        again = await self._bring_up()
        return Answer(False, f"{problem}; " + (f"and as it was: {again}" if again else "all is as it was"))

    async def _bring_up(self) -> str:
        """Configure and activate; returns what went wrong."""
        for transition in ("configure", "activate"):
            if not await self._change_state(transition):
                self._next_diagnostics = RosFuture()
                return str(await self._await(self._next_diagnostics))
        return ""

    async def _change_state(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return bool((await self._call("change_state", request)).success)

    async def _enlarge_buffer(self) -> None:
        names = ["buffer_seconds", "buffer_megabytes"]
        before = await self._get_parameters(names)
        larger = {"buffer_seconds": KEPT_SECONDS, "buffer_megabytes": max(self._keep, before["buffer_megabytes"])}
        if larger != before and not await self._set_parameters(larger):
            self._buffers = before

    async def _read_parameters(self) -> None:
        """Which model and backend are asked for; what runs is told by the diagnostics."""
        with contextlib.suppress(LightTrackError):
            self.board.set_status(await self._get_parameters(["model", "backend"]))

    async def _get_parameters(self, names: list[str]) -> dict[str, Any]:
        response = await self._call("get_parameters", GetParameters.Request(names=names))
        return {name: parameter_value_to_python(value) for name, value in zip(names, response.values, strict=True)}

    async def _set_parameters(self, values: Mapping[str, Any]) -> str:
        """Returns why they are refused."""
        request = SetParametersAtomically.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        result = (await self._call("set_parameters_atomically", request)).result
        return "" if result.successful else result.reason or "the parameters are refused"

    def _client(self, name: str) -> Any:
        if name not in self._clients:
            self._clients[name] = self._node.create_client(_SERVICES[name], f"{self.name}/{name}")
        return self._clients[name]

    async def _call(self, name: str, request: Any) -> Any:
        client = self._client(name)
        if not client.service_is_ready():
            raise LightTrackError(f"{self.name}/{name}: nobody answers there; does the tracker node run?")
        return await self._await(client.call_async(request))

    async def _await(self, future: Awaitable[Any]) -> Any:
        answer = await future
        if answer is None:
            raise LightTrackError(f"{self.name} did not answer")
        return answer


def _target(message: TrackedTarget, latency: float | None) -> Target:
    box = Box(message.x, message.y, message.width, message.height)
    state = State(message.state)
    return Target(message.target_id, state, box, message.confidence, latency, message.end_reason)


def _plain(topic: str, compressed: bool) -> str:
    """The camera's name: what the node calls `image`."""
    return topic.removesuffix("/compressed") if compressed else topic


def _figures(values: Mapping[str, str]) -> dict[str, str]:
    """What of the diagnostics is worth a line on the page."""
    latency = [values.get(f"latency_p{percent}_ms", "unknown") for percent in (50, 99)]
    return {
        "camera": f"{values.get('images_received_hz', '0')} a second",
        "tracked": f"{values.get('images_processed_hz', '0')} a second",
        "latency p50, p99": ", ".join(latency) + ("" if "unknown" in latency else " ms"),
        "runs on": values.get("backend", ""),
        "images lost": values.get("images_lost", "0"),
    }

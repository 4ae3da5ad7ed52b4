"""Camera, node and observer as processes on this machine: what the demo and the latency benchmark are made of.

The camera is `lighttrack replay`, the node runs as it would on a robot; the observer lives in the calling process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.models import Model
from lighttrack_ros.node.transport import transport_environment, tune_malloc

_START_LIMIT = 90.0  # seconds for a node to load its model on a slow machine
_FIRST_IMAGE = 60.0  # seconds for a camera to load its frames and send the first
_ANSWER_LIMIT = 15.0  # seconds for a service to answer
_STOP_LIMIT = 15.0  # seconds for a process to end in order


def prepare_environment() -> None:
    """Make raw images arrive here and in the children, and keep them off the network."""
    os.environ.update(transport_environment())
    tune_malloc()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def node_command(
    namespace: str, model: Model, backend: str, parameters: Mapping[str, object] | None = None
) -> list[str]:
    """`parameters` are further ones of the node, by name."""
    chosen = {"model": model.folder.resolve(), "backend": backend, **(parameters or {})}
    command = [sys.executable, "-m", "lighttrack_ros.node", "--ros-args", "-r", f"__ns:={namespace}"]
    for name, value in chosen.items():
        command += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    return command


def camera_command(source: str, topic: str, rate: float, stamps: Path, bag_topic: str | None = None) -> list[str]:
    """`lighttrack replay`; further options may follow. `stamps` is for `read_stamps`."""
    topics = ["--topic", topic] if bag_topic is None else ["--topic", bag_topic, "--publish-as", topic]
    options = ["--rate", str(rate), "--preload", "--log", str(stamps)]
    # What a damaged recording lacks is said in the log, and is no failure of the camera.
    return [sys.executable, "-m", "lighttrack_ros", "replay", source, "--partial", *topics, *options]


class Child:
    """A process that ends with the block, out of the terminal's reach: Ctrl-C comes to this process alone.

    Args:
        log: file for all that it says.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        self._command = command

    def __enter__(self) -> Child:
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave a child, and its shared memory, behind.
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, signal.SIG_IGN) for number in signals]
        try:
            self.stop()
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    @property
    def last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "it said nothing")

    def stop(self) -> None:
        """SIGINT, and wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Observer:
    """This process's own ROS node: points trackers at targets and hears what they say of them."""

    def __init__(self) -> None:
        self._inits: dict[str, Any] = {}  # publishers by namespace

    def __enter__(self) -> Observer:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from lighttrack_ros.msg import InitBox

        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node(f"observer_{os.getpid()}", start_parameter_services=False)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._init_type = InitBox
        return self

    def __exit__(self, *_: object) -> None:
        import rclpy

        self._executor.shutdown(timeout_sec=1)
        self.node.destroy_node()
        rclpy.shutdown()

    def listen(self, namespace: str, on_target: Callable[[int, Any, int], None]) -> None:
        """Hear a tracker.

        Args:
            namespace: the tracker's, with a slash before it.
            on_target: called with the image's stamp (ns), the TrackedTarget, and the time of its arrival (ns).
        """
        from lighttrack_ros.msg import TrackedTarget

        def on_message(message: Any) -> None:
            arrival = time.time_ns()
            on_target(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec, message, arrival)

        # Boxes for several targets are published at once.
        self._inits[namespace] = self.node.create_publisher(self._init_type, f"{namespace}/init_box", 16)
        self.node.create_subscription(TrackedTarget, f"{namespace}/tracker/target", on_message, 50)

    def wait_for(self, namespace: str, node: Child) -> None:
        """Until the tracker hears this process and this process hears the tracker.

        Raises:
            LightTrackError: it ended, says that it cannot, or does not come up; the message has its last words.
        """
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

        failures: list[str] = []

        def on_diagnostics(message: Any) -> None:
            own = [status for status in message.status if status.name.startswith(f"{namespace[1:]}/tracker:")]
            failures.extend(status.message for status in own if status.level == DiagnosticStatus.ERROR)

        limit = time.monotonic() + _START_LIMIT
        init, topic = self._inits[namespace], f"{namespace}/tracker/target"
        diagnostics = self.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
        try:
            while init.get_subscription_count() == 0 or self.node.count_publishers(topic) == 0:
                self.spin_once()
                if node.status is not None:
                    raise LightTrackError(f"the node ended at once ({node.last_words})")
                if failures:
                    raise LightTrackError(f"the node is {failures[0]}")
                if time.monotonic() > limit:
                    raise LightTrackError(f"the node was not ready in {_START_LIMIT:.0f} s ({node.last_words})")
        finally:
            self.node.destroy_subscription(diagnostics)

    def forget_targets(self, namespace: str) -> None:
        """All that a tracker has.

        Raises:
            LightTrackError: it does not answer.
        """
        from std_srvs.srv import Trigger

        client: Any = self.node.create_client(Trigger, f"{namespace}/tracker/reset")
        limit = time.monotonic() + _ANSWER_LIMIT
        future = None
        try:
            while future is None or not future.done():
                if future is None and client.service_is_ready():
                    future = client.call_async(Trigger.Request())
                self.spin_once()
                if time.monotonic() > limit:
                    raise LightTrackError(f"{namespace}/tracker/reset does not answer")
        finally:
            self.node.destroy_client(client)

    def point_at_first(self, namespace: str, box: Box, target_ids: Sequence[str], camera: Child, stamps: Path) -> None:
        """Name the target in the first image that the camera sends, as soon as it has.

        Args:
            target_ids: several follow the same thing.
            stamps: the camera's, see `camera_command`.

        Raises:
            LightTrackError: the camera ended, or sends nothing.
        """
        limit = time.monotonic() + _FIRST_IMAGE
        while not (sent := read_stamps(stamps)):
            self.spin_once(0.01)
            if camera.status is not None:
                raise LightTrackError(f"the camera failed ({camera.last_words})")
            if time.monotonic() > limit:
                raise LightTrackError(f"the camera sent nothing in {_FIRST_IMAGE:.0f} s ({camera.last_words})")
        message = self._init_type()
        message.x, message.y, message.width, message.height = (float(value) for value in box)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(min(sent), 1_000_000_000)
        for target_id in target_ids:
            message.target_id = target_id
            self._inits[namespace].publish(message)

    def spin_once(self, seconds: float = 0.05) -> None:
        """Wait that long for a message, and let its callback have it."""
        self._executor.spin_once(timeout_sec=seconds)


def read_stamps(path: Path) -> dict[int, int]:
    """Stamp (ns) of every frame that the camera sent, to its index in the source."""
    lines = path.read_text(encoding="utf-8").split() if path.is_file() else []
    pairs = (line.split(",") for line in lines)
    return {int(stamp): int(index) for index, stamp in pairs}


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; put the handlers back in the end."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)

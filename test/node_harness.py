"""The tracker node in a process of its own, and a camera, an operator and an observer in this one."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_srvs.srv import SetBool, Trigger

from lighttrack_ros.geometry import Box
from lighttrack_ros.msg import InitBox, TrackedTarget, TrackedTargets
from lighttrack_ros.node.transport import transport_environment, tune_malloc

PERIOD = 33_333_333  # nanoseconds between two images of the clip
WIDTH, HEIGHT = 320, 240
TIMEOUT = 60.0  # seconds: for a machine that does other things too, not a claim about speed
ROOT = Path(__file__).resolve().parents[1]


def wait_for(condition: Callable[[], object], what: str, said: Callable[[], str] = str) -> object:
    """The condition's first true value; fails the test when none comes, with what was `said` until then."""
    end = time.monotonic() + TIMEOUT
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {TIMEOUT} s in vain for {what}\n{said()}"
        time.sleep(0.005)


def free_domain() -> int:
    """A ROS domain in which nobody seems to be, other for every process that asks at the same time."""
    for offset in range(100):
        domain = 1 + (os.getpid() + offset) % 100
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7400 + 250 * domain + 10))  # where a domain's first participant listens
            except OSError:
                continue
            return domain
    raise RuntimeError("every ROS domain from 1 to 100 is in use")


def node_command(namespace: str, parameters_file: Path | None = None, **parameters: object) -> list[str]:
    """What starts the node with parameters."""
    command = [sys.executable, "-m", "lighttrack_ros.node", "--ros-args", "-r", f"__ns:=/{namespace}"]
    if parameters_file:
        command += ["--params-file", str(parameters_file)]
    for key, value in parameters.items():
        command += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
    return command


class NodeProcess:
    """A process, from the checkout's root; everything it prints is kept."""

    def __init__(self, command: list[str]) -> None:
        self.output = ""
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for_output(self, text: str) -> None:
        wait_for(lambda: text in self.output or self.process.poll() is not None, repr(text), lambda: self.output)
        assert text in self.output, self.output

    def interrupt(self, times: int = 1) -> int:
        """SIGINT, and the exit status."""
        for _ in range(times):
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        return self.wait()

    def wait(self) -> int:
        try:
            status = self.process.wait(TIMEOUT)
        finally:
            self.process.kill()
            self._reader.join(TIMEOUT)
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line


class World:
    """What is around the node: publishes images and boxes, keeps what the node says."""

    def __init__(self) -> None:
        os.environ.update(transport_environment())
        os.environ["ROS_DOMAIN_ID"] = str(free_domain())
        tune_malloc()
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node("world", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class Tracker:
    """One node process in a namespace, with its topics and services as somebody outside sees them.

    Args:
        transport: raw or compressed, what the camera sends.
        camera: reliable or best_effort, what the camera offers.
    """

    def __init__(
        self, world: World, namespace: str, process: NodeProcess, transport: str = "raw", camera: str = "reliable"
    ) -> None:
        self._world = world
        self.process = process
        self.name = f"{namespace}/tracker"
        kind, suffix = (Image, "") if transport == "raw" else (CompressedImage, "/compressed")
        node = world.node
        offered = ReliabilityPolicy.RELIABLE if camera == "reliable" else ReliabilityPolicy.BEST_EFFORT
        self._offered = offered
        self.matches_camera = False  # whether the node was told to ask for what the camera offers
        self.camera = node.create_publisher(
            kind, f"{namespace}/image{suffix}", QoSProfile(depth=5, reliability=offered)
        )
        self.init_box = node.create_publisher(InitBox, f"{namespace}/init_box", 1)
        self.init_roi = node.create_publisher(RegionOfInterest, f"{namespace}/init_roi", 1)
        self.targets: list[TrackedTarget] = []
        self.of_images: list[TrackedTargets] = []
        self.status = None  # the newest DiagnosticStatus
        self._subscriptions = [
            node.create_subscription(TrackedTarget, f"{self.name}/target", self.targets.append, 1000),
            node.create_subscription(TrackedTargets, f"{self.name}/targets", self.of_images.append, 1000),
            node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100),
        ]
        self._clients: dict[str, object] = {}

    def wait_until_connected(self) -> None:
        """Everybody hears everybody: what is published now arrives."""
        for publisher in (self.camera, self.init_box, self.init_roi):
            self.wait_for(publisher.get_subscription_count, f"a subscriber of {publisher.topic_name}")
        if self.matches_camera:
            # The node may have subscribed before it knew what the camera offers; what is sent meanwhile may be lost.
            self.wait_for(self._reliability_matches, "the reliability that the camera offers")
        probe = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.wait_for(lambda: self.show(probe, 1) or self.targets, "what the node says of an image")

    def _reliability_matches(self) -> bool:
        infos = self._world.node.get_subscriptions_info_by_topic(self.camera.topic_name)
        return {info.qos_profile.reliability for info in infos} == {self._offered}

    def wait_for(self, condition: Callable[[], object], what: str) -> object:
        return wait_for(condition, what, lambda: self.process.output)

    def close(self) -> None:
        if self.process.process.poll() is None:
            self.process.interrupt()
        node = self._world.node
        for publisher in (self.camera, self.init_box, self.init_roi):
            node.destroy_publisher(publisher)
        for subscription in self._subscriptions:
            node.destroy_subscription(subscription)
        for client in self._clients.values():
            node.destroy_client(client)

    def show(self, image: np.ndarray, stamp: int, **changes: object) -> None:
        """Publish BGR pixels; `stamp` in nanoseconds."""
        if self.camera.msg_type is CompressedImage:
            message = CompressedImage(format="bgr8; png compressed bgr8")
            message.data = array("B", cv2.imencode(".png", image)[1].tobytes())
        else:
            message = image_message(image)
        for field, value in changes.items():
            setattr(message, field, value)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        message.header.frame_id = "camera_optical"
        self.camera.publish(message)
        self.last_shown = message

    def track(self, image: np.ndarray, stamp: int) -> TrackedTarget:
        """Publish an image and wait for what the node says of it."""
        self.show(image, stamp)
        return self.wait_for_target(stamp)

    def wait_for_target(self, stamp: int) -> TrackedTarget:
        return self.wait_for(
            lambda: next((target for target in reversed(self.targets) if stamp_of(target) == stamp), None),
            f"a target of the image of {stamp}",
        )

    def all_of(self, stamp: int) -> TrackedTargets:
        """What the node says of all targets on an image."""
        return self.wait_for(
            lambda: next((of_image for of_image in reversed(self.of_images) if stamp_of(of_image) == stamp), None),
            f"the targets of the image of {stamp}",
        )

    def start_on(self, clip: Clip, index: int = 0, target_id: str = "") -> None:
        """Show an image of the clip, then point at the target on it: the box names the image by its stamp."""
        stamp = clip.fresh_stamp()
        self.track(clip.images[index], stamp)
        self.point_at(clip.boxes[index], stamp, target_id)
        self.wait_for(
            lambda: any(stamp_of(t) == stamp and t.state != TrackedTarget.STATE_IDLE for t in self.targets[-3:]),
            "the start",
        )

    def point_at(self, box: Box, stamp: int = 0, target_id: str = "") -> None:
        message = InitBox(x=box.x, y=box.y, width=box.width, height=box.height, target_id=target_id)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        self.init_box.publish(message)

    def reset(self) -> Trigger.Response:
        return self.call(Trigger, "reset", Trigger.Request())

    def enable(self, enabled: bool) -> SetBool.Response:
        return self.call(SetBool, "enable", SetBool.Request(data=enabled))

    def change_state(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, "change_state", request).success

    def state(self) -> str:
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def set_parameter(self, name: str, value: object) -> object:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def describe(self, names: list[str]) -> list:
        return self.call(DescribeParameters, "describe_parameters", DescribeParameters.Request(names=names)).descriptors

    def get_parameters(self, names: list[str]) -> list:
        return self.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values

    def call(self, kind: type, name: str, request: object) -> object:
        future = self.ask(kind, name, request)
        self.wait_for(future.done, f"an answer of {name}")
        return future.result()

    def ask(self, kind: type, name: str, request: object) -> Future:
        """Call a service, whose answer may come late or never."""
        if name not in self._clients:
            self._clients[name] = self._world.node.create_client(kind, f"{self.name}/{name}")
        client = self._clients[name]
        self.wait_for(client.service_is_ready, f"the service {name}")
        return client.call_async(request)

    def counts(self) -> dict[str, str]:
        """Diagnostics from after this call."""
        for _ in range(2):  # the first may have been on its way before
            self.status = None
            status = self.wait_for(lambda: self.status, "diagnostics")
        return {item.key: item.value for item in status.values}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self.name}: tracking":
                self.status = status


class Clip:
    """A patch that wanders over a textured ground; exact boxes."""

    def __init__(self, length: int = 40) -> None:
        rng = np.random.default_rng(5)
        ground = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 4)
        ground = cv2.normalize(ground, None, 60, 160, cv2.NORM_MINMAX)
        patch = cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (36, 30), interpolation=cv2.INTER_CUBIC)
        self.images, self.boxes = [], []
        for index in range(length):
            x, y = round(60 + 3 * index + 8 * math.sin(index / 4)), round(90 + 25 * math.sin(index / 6))
            image = ground.copy()
            image[y : y + 30, x : x + 36] = patch
            self.images.append(image)
            self.boxes.append(Box(float(x), float(y), 36.0, 30.0))
        self._stamp = 1_700_000_000 * 10**9

    def fresh_stamp(self) -> int:
        """Later than any before; nobody's clock is asked, so that stamps are the same in every run."""
        self._stamp += PERIOD
        return self._stamp


def image_message(image: np.ndarray, encoding: str = "bgr8") -> Image:
    """Rows of bytes, (height, width, channels) or (height, width), as an Image."""
    pixels = array("B")
    pixels.frombytes(np.ascontiguousarray(image).tobytes())
    height, width = image.shape[:2]
    return Image(height=height, width=width, step=len(pixels) // height, encoding=encoding, data=pixels)


def stamp_of(target: TrackedTarget | TrackedTargets) -> int:
    return target.header.stamp.sec * 10**9 + target.header.stamp.nanosec


def box_of(target: TrackedTarget) -> Box:
    return Box(target.x, target.y, target.width, target.height)

"""EXAMPLE: follow_me in a closed loop with the generated scene's drone, tracker and all, over ROS.

    python examples/follow_me/closed_loop.py --seconds 60 --plot follow_me.png

Three processes: the tracker's node, follow_me, and this one, which is drone and camera. The drone flies as the newest
command says, two images later than the one that it follows from; it waits for that command, so that a slow machine
changes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import CameraInfo, Image

from lighttrack_ros.geometry import Box
from lighttrack_ros.media.frames import parse_size
from lighttrack_ros.media.scene import Pursuit
from lighttrack_ros.models import load_model
from lighttrack_ros.msg import InitBox, TrackedTarget
from lighttrack_ros.node.messages import Stamped, image_message, to_nanoseconds, to_time
from lighttrack_ros.rig import processes
from lighttrack_ros.rig.processes import Child

HERE = Path(__file__).resolve().parent
DELAY = 2  # images between the one that a command follows from and the one until which the drone has heard of it
AGAIN, PATIENCE = 3.0, 30.0  # seconds without a command after which an image is shown again, and after which it ends
START = 120.0  # seconds for the processes
FRAME_ID = "camera_optical_frame"


@dataclass(frozen=True)
class Moment:
    """One image.

    Attributes:
        box: the target's true bounds; None while it is out of view.
        state: of the tracker, one of TrackedTarget.STATE_...
        forward, yaw_rate: the command that followed.
    """

    seconds: float
    box: Box | None
    state: int
    forward: float
    yaw_rate: float


class Drone:
    """The drone with its camera, as a ROS node.

    Args:
        scene: what it flies through.
        namespace: with a slash before it.
    """

    def __init__(self, scene: Pursuit, namespace: str) -> None:
        self._scene = scene
        self.node = rclpy.create_node("drone", namespace=namespace, start_parameter_services=False)
        self._images = self.node.create_publisher(Image, "camera/image_raw", 2)
        self._infos = self.node.create_publisher(CameraInfo, "camera/camera_info", 2)
        self._inits = self.node.create_publisher(InitBox, "init_box", 1)
        self._commands: dict[int, TwistStamped] = {}  # by stamp
        self._states: dict[int, int] = {}
        self._subscriptions = [
            self.node.create_subscription(TwistStamped, "cmd_vel", self._on_command, 10),
            self.node.create_subscription(TrackedTarget, "tracker/target", self._on_target, 10),
        ]
        self._first = time.time_ns()

    def wait_for_others(self, children: list[Child]) -> None:
        """Until everybody hears everybody."""
        publishers = (self._images, self._infos, self._inits)
        topics = [subscription.topic_name for subscription in self._subscriptions]
        limit = time.monotonic() + START
        heard = self.node.resolve_topic_name("tracker/bearing")
        while (
            any(publisher.get_subscription_count() == 0 for publisher in publishers)
            or any(self.node.count_publishers(topic) == 0 for topic in topics)
            or self.node.count_subscribers(heard) == 0
        ):
            rclpy.spin_once(self.node, timeout_sec=0.05)
            ended = [child.last_words for child in children if child.status is not None]
            if ended or time.monotonic() > limit:
                raise SystemExit(f"a process did not come up: {ended or [child.last_words for child in children]}")

    def fly(self, seconds: float) -> list[Moment]:
        """Until then, with the target of the first image."""
        moments: list[Moment] = []
        for index in range(round(seconds * self._scene.fps)):
            stamp = self._first + round(index * 1e9 / self._scene.fps)
            if index >= DELAY:
                heard = moments[index - DELAY]
                self._scene.drone.steer(heard.forward, 0.0, 0.0, heard.yaw_rate)
            image, box = self._scene.next_frame()
            if not index:
                self._point_at(box, stamp)
            command = self._command_for(image, stamp)
            twist, state = command.twist, self._states.pop(stamp)
            moments.append(Moment(index / self._scene.fps, box, state, twist.linear.x, twist.angular.z))
        return moments

    def _point_at(self, box: Box | None, stamp: int) -> None:
        assert box is not None  # the camera begins above its target
        message = InitBox(x=box.x, y=box.y, width=box.width, height=box.height, target_id="car")
        message.header.stamp = to_time(stamp)
        self._inits.publish(message)

    def _publish(self, image: np.ndarray, stamp: int) -> None:
        header = Stamped(stamp, FRAME_ID, 0, b"")
        height, width = image.shape[:2]
        focal = self._scene.focal_length
        info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
        info.header.stamp, info.header.frame_id = to_time(stamp), FRAME_ID
        info.k = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
        info.p = [*info.k[:3], 0.0, *info.k[3:6], 0.0, *info.k[6:], 0.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        self._infos.publish(info)
        self._images.publish(image_message(header, np.ascontiguousarray(image)))

    def _command_for(self, image: np.ndarray, stamp: int) -> TwistStamped:
        """Show an image, and wait for what follows from it; an image may be lost on its way, so it is shown again."""
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            self._publish(image, stamp)
            again = time.monotonic() + AGAIN
            while time.monotonic() < again:
                if stamp in self._commands and stamp in self._states:
                    return self._commands.pop(stamp)
                rclpy.spin_once(self.node, timeout_sec=0.05)
        raise SystemExit(f"no command came for an image in {PATIENCE:g} s")

    def _on_command(self, message: TwistStamped) -> None:
        self._commands[to_nanoseconds(message.header.stamp)] = message

    def _on_target(self, message: TrackedTarget) -> None:
        self._states[to_nanoseconds(message.header.stamp)] = message.state


def run(seconds: float, seed: int, size: tuple[int, int], fps: float, folder: Path, model: str) -> list[Moment]:
    """One flight.

    Args:
        folder: for the processes' logs.
        model: name of a model folder, or its path.
    """
    processes.prepare_environment()
    namespace = f"/follow_me_{os.getpid()}"  # nobody else's topics
    ros = ["-r", f"__ns:={namespace}"]
    tracker = [*processes.node_command(namespace, load_model(model), "auto"), "-r", "image:=camera/image_raw"]
    follower = [sys.executable, str(HERE / "follow_me.py"), "--ros-args", *ros, "-r", "bearing:=tracker/bearing"]
    follower += ["-p", f"silence:={PATIENCE}"]
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(Child(tracker, folder / "tracker.log")),
            stack.enter_context(Child(follower, folder / "follow_me.log")),
        ]
        scene = Pursuit(seed, *size, fps)
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        drone = Drone(scene, namespace)
        stack.callback(drone.node.destroy_node)
        drone.wait_for_others(children)
        return drone.fly(seconds)


def off_middle(moments: list[Moment], size: tuple[int, int]) -> np.ndarray:
    """How far the target's middle is from the picture's, (n, 2), in shares of width and height; nan: out of view."""
    width, height = size
    return np.array(
        [
            (math.nan, math.nan)
            if moment.box is None
            else (moment.box.centre[0] / width - 0.5, moment.box.centre[1] / height - 0.5)
            for moment in moments
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", default="640x480", help="of the images")
    parser.add_argument("--rate", type=float, default=30.0, help="images a second")
    parser.add_argument("--plot", type=Path, help="PNG, SVG or PDF")
    parser.add_argument("--model", default="lighttrack_nano")
    args = parser.parse_args()
    size = parse_size(args.size)
    folder = Path(tempfile.mkdtemp(prefix="follow_me_"))
    moments = run(args.seconds, args.seed, size, args.rate, folder, args.model)
    off = np.abs(off_middle(moments, size))
    inside = (off < 1 / 6).all(axis=1)
    tracked = np.mean([moment.state == TrackedTarget.STATE_TRACKING for moment in moments])
    print(f"{len(moments)} images, logs in {folder}")
    print(f"in the middle third: {100 * inside.mean():.1f} % of the images; tracked: {100 * tracked:.1f} %")
    across, down = 100 * np.nanmax(off, axis=0)
    print(f"furthest from the middle: {across:.1f} % of the width, {down:.1f} % of the height (the third ends at 16.7)")
    if args.plot:
        from plot import draw

        draw(moments, off_middle(moments, size), args.plot)
        print(f"plot: {args.plot}")


if __name__ == "__main__":
    main()

"""The latency benchmark's rig: tracker and echo, which stay up, a camera a run, and this process as the observer."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.latency import PARTS, Run, Sample, cut
from lighttrack_ros.geometry import Box
from lighttrack_ros.models import Model
from lighttrack_ros.rig import processes
from lighttrack_ros.rig.processes import Child, Observer
from lighttrack_ros.rig.usage import busy_seconds, usage_of

NODE, ECHO = "node", "echo"
_WARM_UP = 0.5  # seconds of each run that do not count: the target's start is among them
_REST = 0.3  # seconds of the run's end that do not count: their boxes may still be on the way
_FIRST_BOX = 60.0  # seconds for a camera to load its frames and send the first
_SAMPLING = 0.5  # seconds


@dataclass(frozen=True)
class Clip:
    """What the camera shows, for `lighttrack replay`.

    Attributes:
        title: for the head of a table.
        source: a path.
        bag_topic: which topic to play, if it is a bag.
        compressed: whether that holds CompressedImage.
        frames: how many of the first frames are played, forwards and backwards in turn.
        box: the target in the first one.
    """

    title: str
    source: str
    bag_topic: str | None
    compressed: bool
    frames: int
    box: Box


class Rig:
    """Starts the nodes once; then `measure`, as often as wanted. One model, one clip.

    Args:
        folder: for logs.
        parameters: further ones of the node, by name.

    Attributes:
        watched: what came to the page of the last `viewer`, in words.
    """

    watched = ""

    def __init__(
        self, clip: Clip, model: Model, backend: str, folder: Path, parameters: Mapping[str, object] | None = None
    ) -> None:
        self._clip = clip
        self._folder = folder
        self._namespaces = {who: f"/lighttrack_bench_{os.getpid()}/{who}" for who in (NODE, ECHO)}
        node_command = processes.node_command(self._namespaces[NODE], model, backend, parameters)
        echo_command = [sys.executable, "-m", "lighttrack_ros.rig.echo"]
        if clip.compressed:
            node_command += ["-p", "image_transport:=compressed"]
            echo_command += ["--compressed"]
        echo_command += ["--ros-args", "-r", f"__ns:={self._namespaces[ECHO]}"]
        self._commands = {NODE: node_command, ECHO: echo_command}
        self._viewer: Child | None = None
        self._target_ids: list[str] = []
        self._began = 0  # nanoseconds; boxes of older images are the run's before
        # Of the run at work, by stamp.
        self._boxes: dict[int, tuple[int, int]] = {}
        self._answers: dict[int, int] = {}  # how many targets' boxes came
        self._parts: dict[int, list[float]] = {}

    def __enter__(self) -> Rig:
        from diagnostic_msgs.msg import DiagnosticArray

        processes.prepare_environment()
        with contextlib.ExitStack() as stack:
            stack.enter_context(processes.interruptible())
            self._nodes = {
                who: stack.enter_context(Child(command, self._folder / f"{who}.log"))
                for who, command in self._commands.items()
            }
            self._observer = stack.enter_context(Observer())
            self._observer.listen(self._namespaces[NODE], self._on_target)
            self._observer.listen(self._namespaces[ECHO], self._on_echo)
            timing = f"{self._namespaces[NODE]}/tracker/timing"
            self._observer.node.create_subscription(DiagnosticArray, timing, self._on_timing, 50)
            for who, node in self._nodes.items():
                self._observer.wait_for(self._namespaces[who], node)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @contextlib.contextmanager
    def viewer(self) -> Iterator[None]:
        """Somebody watches the node on the viewer's page while the block runs.

        Raises:
            LightTrackError: the viewer or who watches ends.
        """
        tracker = f"{self._namespaces[NODE]}/tracker"
        command = [sys.executable, "-m", "lighttrack_ros", "view", "--tracker", tracker, "--port", "0"]
        with Child(command, self._folder / "viewer.log") as self._viewer:
            limit = time.monotonic() + _FIRST_BOX
            while not (found := re.search(r"page: (\S+)", self._viewer.log.read_text(encoding="utf-8"))):
                self._observer.spin_once()
                if self._viewer.status is not None or time.monotonic() > limit:
                    raise LightTrackError(f"the viewer does not come up ({self._viewer.last_words})")
            watch = [sys.executable, "-m", "lighttrack_ros.rig.watcher", found[1]]
            try:
                with Child(watch, self._folder / "watcher.log") as watcher:
                    yield
                    if watcher.status is not None:
                        raise LightTrackError(f"who watches has ended ({watcher.last_words})")
                    self.watched = watcher.last_words
            finally:
                self._viewer = None

    def measure(self, who: str, rate: float, seconds: float, targets: int = 1) -> Run:
        """Show the clip to one of the nodes for so long.

        Args:
            who: NODE or ECHO.
            rate: frames a second; the camera sends fewer where it can not.
            targets: how many the node follows, all of them the same thing; a frame's box is the last one's then.

        Raises:
            LightTrackError: a process ended, or too few boxes came.
        """
        namespace, node = self._namespaces[who], self._nodes[who]
        if who == NODE:
            self._observer.forget_targets(namespace)
            self._target_ids = [f"target {number}" for number in range(1, targets + 1)]
        self._boxes, self._parts, self._answers, self._began = {}, {}, {}, time.time_ns()
        stamps_path = self._folder / "stamps.csv"
        stamps_path.unlink(missing_ok=True)
        topic = f"{namespace}/image" + ("/compressed" if self._clip.compressed else "")
        command = processes.camera_command(self._clip.source, topic, rate, stamps_path, self._clip.bag_topic)
        command += ["--first", str(self._clip.frames), "--ping-pong"]
        samples = []
        with Child(command, self._folder / "camera.log") as camera:
            if who == NODE:
                self._observer.point_at_first(namespace, self._clip.box, self._target_ids, camera, stamps_path)
            begin = self._wait_for_first_box(camera, node) + _WARM_UP
            end = begin + seconds
            pids = {"camera": camera.pid, who: node.pid, "observer": os.getpid()}
            if self._viewer is not None:
                pids["viewer"] = self._viewer.pid
            due = begin
            while (now := time.monotonic()) < end + _REST:
                self._observer.spin_once()
                if due <= now <= end + _SAMPLING:
                    samples.append(_sample(pids))
                    due += _SAMPLING
                for process, name in ((camera, "camera"), (node, who)):
                    if process.status is not None:
                        raise LightTrackError(f"the {name} ended ({process.last_words})")
            # The camera's clock, which the stamps are of.
            offset = time.time_ns() - round(time.monotonic() * 1e9)
            camera.stop()
        run = cut(
            list(processes.read_stamps(stamps_path)),
            self._boxes,
            self._parts,
            samples,
            round(begin * 1e9) + offset,
            round(end * 1e9) + offset,
            self._answers,
        )
        if len(run.stamps) < 5:
            raise LightTrackError(f"{len(run.stamps)} of {len(run.sent)} frames were answered; try more --seconds")
        return run

    def _wait_for_first_box(self, camera: Child, node: Child) -> float:
        """When it came, time.monotonic()."""
        limit = time.monotonic() + _FIRST_BOX
        while not self._boxes:
            self._observer.spin_once()
            if camera.status is not None:
                raise LightTrackError(f"the camera failed ({camera.last_words})")
            if node.status is not None:
                raise LightTrackError(f"the node ended ({node.last_words})")
            if time.monotonic() > limit:
                words = f"node: {node.last_words}; camera: {camera.last_words}"
                raise LightTrackError(f"no box came in {_FIRST_BOX:.0f} s ({words})")
        return time.monotonic()

    def _on_target(self, stamp: int, message: Any, arrival: int) -> None:
        if stamp >= self._began and message.target_id in self._target_ids and message.state:
            self._boxes[stamp] = (arrival, message.frames_dropped)
            self._answers[stamp] = self._answers.get(stamp, 0) + 1

    def _on_echo(self, stamp: int, message: Any, arrival: int) -> None:
        if stamp >= self._began:
            self._boxes[stamp] = (arrival, 0)

    def _on_timing(self, message: Any) -> None:
        values = {item.key: item.value for item in message.status[0].values}
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        self._parts[stamp] = [float(values[f"{name}_ms"]) / 1e3 for name in PARTS[:-1]]


def _sample(pids: dict[str, int]) -> Sample:
    usages = {name: usage_of(pid) for name, pid in pids.items()}
    cpu = {name: usage.cpu_seconds for name, usage in usages.items()}
    cpu["others"] = busy_seconds() - sum(cpu.values())
    return Sample(time.monotonic(), cpu, {name: usage.resident_bytes for name, usage in usages.items()})

"""A node under hours of what operators and cameras do, at random: whether anything of it grows, slows down or is lost.

This process is camera, operator and observer; the node is a process of its own. Every act is a stretch of images at the
camera's rate, with what happens meanwhile: a box, a reset, an occlusion, another resolution, silence, a broken message.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.models import Model
from lighttrack_ros.rig import processes
from lighttrack_ros.rig.processes import Child, Observer
from lighttrack_ros.rig.usage import usage_of

SIZES = ((320, 240), (640, 480))
RATE = 30.0  # Hz
_FRAMES = 100  # of the scene, forwards and backwards in turn; the target is in sight on all of them
_SAMPLING = 1.0  # seconds
_PATIENCE = 60.0  # seconds for a box to be answered, on a machine that does other things too
_REST = 1.0  # seconds for the last answers
_WRONG: list[dict[str, object]] = [
    {"encoding": "nonsense"},
    {"step": 1},
    {"height": 2**32 - 1},
    {"width": 3},
    {"data": array("B")},
]
_IDS = ("car", "van", "dog", "")
_MOST = 4  # targets at once: before another, the oldest is removed

# What may differ between the first window and the last, the noise of measuring: an allocator's arenas, a socket.
MEMORY_LIMIT, MEMORY_SLACK = 1.05, 8e6  # times, and bytes
LATENCY_LIMIT = 1.2  # times the p99

Tell = Callable[[str], object]  # what is going on, a line each


@dataclass
class Window:
    """A minute of the run, or a third of a short one.

    Attributes:
        latencies: seconds from stamp to box, of images with a target.
        memory, descriptors, threads: the least that the node had in that time: what is given back again is no growth;
            memory in bytes, resident, without what is shared.
        shared: bytes of the middleware's segments, shared with other processes, that it had touched: up to their size.
    """

    sent: int = 0
    answered: int = 0
    latencies: list[float] = field(default_factory=list)
    memory: int = 0
    shared: int = 0
    descriptors: int = 0
    threads: int = 0

    def figures(self) -> dict[str, float]:
        """Percentiles in milliseconds, memory in megabytes."""
        percentiles = np.percentile(self.latencies, (50, 99)) if self.latencies else (math.nan, math.nan)
        return {
            "sent": self.sent,
            "answered": self.answered,
            "p50_ms": 1e3 * float(percentiles[0]),
            "p99_ms": 1e3 * float(percentiles[1]),
            "memory_mb": self.memory / 1e6,
            "shared_mb": self.shared / 1e6,
            "descriptors": self.descriptors,
            "threads": self.threads,
        }


def grown_between(first: Window, last: Window) -> list[str]:
    """What grew, in words."""
    grown = [
        f"{name} grew from {getattr(first, name)} to {getattr(last, name)}"
        for name in ("descriptors", "threads")
        if getattr(last, name) > getattr(first, name)
    ]
    if last.memory > MEMORY_LIMIT * first.memory + MEMORY_SLACK:
        grown.append(f"memory grew from {first.memory / 1e6:.0f} to {last.memory / 1e6:.0f} MB")
    return grown


@dataclass(frozen=True)
class Soaked:
    """What a run came to.

    Attributes:
        acts: how often each act was played.
        boxes, boxes_answered: good boxes that were sent, and those that were taken in time.
        counts: the node's own, from its last diagnostics.
        grown: what grew from the first window to the last, in words.
        slower: whether the last window's p99 is over LATENCY_LIMIT times the first's.
    """

    windows: Sequence[Window]
    acts: dict[str, int]
    boxes: int
    boxes_answered: int
    counts: dict[str, str]
    grown: Sequence[str]
    slower: bool

    @property
    def faults(self) -> list[str]:
        """What must not have happened, in words; slowness is told apart, as it may be the machine's."""
        faults = list(self.grown)
        faults += [f"{name}: {self.counts[name]}" for name in ("internal_errors",) if self.counts.get(name, "0") != "0"]
        if self.boxes_answered < self.boxes:
            faults.append(f"{self.boxes - self.boxes_answered} of {self.boxes} good boxes were not taken")
        return faults

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{key: value for key, value in asdict(self).items() if key != "windows"},
            "windows": [window.figures() for window in self.windows],
            "faults": self.faults,
        }


def soak(model: Model, backend: str, seconds: float, seed: int, folder: Path, tell: Tell) -> Soaked:
    """Play acts for so long, after each was played once.

    Args:
        seed: of the acts and the scene's place.
        folder: for the node's log.

    Raises:
        LightTrackError: the node ended, or does not come up.
    """
    processes.prepare_environment()
    clips = [_paint(size, seed) for size in SIZES]
    namespace = f"/lighttrack_soak_{random.Random().getrandbits(32):08x}"  # nobody else's topics
    command = processes.node_command(namespace, model, backend, {"reliability": "reliable"})
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.interruptible())
        node = stack.enter_context(Child(command, folder / "node.log"))
        observer = stack.enter_context(Observer())
        run = _Run(observer, namespace, node, clips, random.Random(seed))
        observer.wait_for(namespace, node)
        return run.play(seconds, tell)


def _paint(size: tuple[int, int], seed: int) -> list[tuple[NDArray[np.uint8], Box]]:
    frames = [(frame.image, frame.box) for frame in itertools.islice(Scene(seed, *size, RATE), _FRAMES)]
    return frames + frames[-2:0:-1]


class _Run:
    """The world round one node."""

    def __init__(
        self,
        observer: Observer,
        namespace: str,
        node: Child,
        clips: Sequence[Sequence[tuple[NDArray[np.uint8], Box]]],
        rng: random.Random,
    ) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.impl.implementation_singleton import rclpy_implementation
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image
        from std_srvs.srv import SetBool, Trigger

        from lighttrack_ros.msg import InitBox
        from lighttrack_ros.srv import RemoveTarget

        self._observer, self._namespace, self._node, self._clips, self._rng = observer, namespace, node, clips, rng
        ros = observer.node
        self._image_type, self._box_type, self._trigger, self._set_bool = Image, InitBox, Trigger, SetBool
        self._camera = ros.create_publisher(Image, f"{namespace}/image", QoSProfile(depth=2))
        self._operator = ros.create_publisher(InitBox, f"{namespace}/init_box", 5)
        self._reset_client: Any = ros.create_client(Trigger, f"{namespace}/tracker/reset")
        self._remove_type = RemoveTarget
        self._remove_client: Any = ros.create_client(RemoveTarget, f"{namespace}/tracker/remove")
        self._enable_client: Any = ros.create_client(SetBool, f"{namespace}/tracker/enable")
        ros.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        observer.listen(namespace, self._on_target)
        self._refused = rclpy_implementation.RCLError
        self._size = 0  # index of the clip that is shown
        self._index = 0
        self._numbers = itertools.count()
        self._targets: deque[str] = deque()  # that were pointed at
        self._pending: dict[str, float] = {}  # boxes to be answered, by id: until when
        self._boxes = self._boxes_answered = 0
        self._windows = [Window()]
        self._sent: dict[int, Window] = {}  # by stamp, those that are not answered yet
        self._counts: dict[str, str] = {}
        self._due = self._sample_due = 0.0
        self._acts: dict[str, Callable[[], Iterator[object]]] = {
            "watch": self._watch,
            "start": self._start,
            "several": self._several,
            "reset": self._reset,
            "occlusion": self._occlusion,
            "resolution": self._resolution,
            "silence": self._silence,
            "clock back": self._clock_back,
            "bad messages": self._bad_messages,
            "disabled": self._disabled,
        }

    def play(self, seconds: float, tell: Tell) -> Soaked:
        played = dict.fromkeys(self._acts, 0)
        self._due = time.monotonic()
        for name in ("start", *self._acts):  # all that is made once is made now
            self._act(name)
        begin = time.monotonic()
        end = begin + seconds
        length = min(60.0, seconds / 3)
        self._windows, self._sent = [Window()], {}
        while (now := time.monotonic()) < end:
            if now >= begin + length * len(self._windows) and now + length / 2 < end:
                tell(_line(len(self._windows), self._windows[-1]))
                self._windows.append(Window())
            name = self._rng.choice(list(self._acts))
            played[name] += 1
            self._act(name)
        self._spin_until(time.monotonic() + _REST)
        tell(_line(len(self._windows), self._windows[-1]))
        first, last = self._windows[0], self._windows[-1]
        grown = grown_between(first, last)
        slower = last.figures()["p99_ms"] > LATENCY_LIMIT * first.figures()["p99_ms"]
        return Soaked(self._windows, played, self._boxes, self._boxes_answered, self._counts, grown, slower)

    def _act(self, name: str) -> None:
        for _ in self._acts[name]():
            pass
        # A box is answered, or its time is over, before something else may change its fate.
        while self._pending and time.monotonic() < max(self._pending.values()):
            self._show()
        self._pending.clear()

    # What may happen; each yields after every image.

    def _watch(self) -> Iterator[object]:
        for _ in range(self._rng.randrange(20, 90)):
            yield self._show()

    def _start(self) -> Iterator[object]:
        self._point(self._rng.choice(_IDS))
        yield from self._watch()

    def _several(self) -> Iterator[object]:
        for name in _IDS[:3]:
            self._point(name)
            for _ in range(self._rng.randrange(5, 20)):
                yield self._show()
        yield from self._watch()

    def _reset(self) -> Iterator[object]:
        self._reset_client.call_async(self._trigger.Request())
        self._targets.clear()
        for _ in range(10):
            yield self._show()
        yield from self._start()

    def _occlusion(self) -> Iterator[object]:
        for _ in range(self._rng.randrange(5, 60)):
            yield self._show(hidden=True)
        yield from self._watch()

    def _resolution(self) -> Iterator[object]:
        self._size = (self._size + 1) % len(self._clips)
        for _ in range(10):  # the node gives the target up after three
            yield self._show()
        yield from self._start()

    def _silence(self) -> Iterator[object]:
        self._spin_until(time.monotonic() + self._rng.uniform(0.2, 2.0))
        self._due = time.monotonic()
        yield from self._watch()

    def _clock_back(self) -> Iterator[object]:
        """As a bag that begins again: stamps of the past for a while, which no latency is taken of."""
        for number in range(self._rng.randrange(5, 40)):
            yield self._show(stamp=10**18 + number * 33_333_333)
        yield from self._watch()

    def _bad_messages(self) -> Iterator[object]:
        for _ in range(5):
            yield self._show(wrong=self._rng.choice(_WRONG))
            values = self._rng.choice([(math.nan, 1, 9, 9), (1e9, 1, 9, 9), (1, 1, -9, 9), (1, 1, 0, 0)])
            self._operator.publish(
                self._box_type(**dict(zip(("x", "y", "width", "height"), map(float, values), strict=True)))
            )
            yield self._show()

    def _disabled(self) -> Iterator[object]:
        self._enable_client.call_async(self._set_bool.Request(data=False))
        for _ in range(self._rng.randrange(5, 30)):
            yield self._show(counted=False)
        self._enable_client.call_async(self._set_bool.Request(data=True))
        yield from (self._show(counted=False) for _ in range(3))
        yield from self._start()

    def _point(self, name: str) -> None:
        """At the target, on the next image."""
        _, box = self._clips[self._size][self._index]
        message = self._box_type(target_id=f"{name} {next(self._numbers)}" if name else "")
        if message.target_id in self._targets:
            self._targets.remove(message.target_id)
        while len(self._targets) >= _MOST:
            self._remove_client.call_async(self._remove_type.Request(target_id=self._targets.popleft()))
        self._targets.append(message.target_id)
        stamp = self._show()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        message.x, message.y, message.width, message.height = (float(value) for value in box)
        self._boxes += 1
        self._pending[message.target_id] = time.monotonic() + _PATIENCE
        self._operator.publish(message)

    def _show(
        self,
        hidden: bool = False,
        stamp: int | None = None,
        wrong: dict[str, object] | None = None,
        counted: bool = True,
    ) -> int:
        """Publish the next image when it is due; returns its stamp.

        Args:
            hidden: the target's place is painted over.
            stamp: instead of the present time, nanoseconds.
            wrong: fields of the message as they should not be.
            counted: whether an answer is expected.
        """
        self._spin_until(self._due)
        self._due = max(self._due + 1 / RATE, time.monotonic())
        image, box = self._clips[self._size][self._index]
        self._index = (self._index + 1) % len(self._clips[self._size])
        height, width = image.shape[:2]
        if hidden:
            image = image.copy()
            x, y, w, h = (round(value) for value in box)
            image[max(0, y - h // 2) : y + 2 * h, max(0, x - w // 2) : x + 2 * w] = 90
        pixels = array("B")
        pixels.frombytes(np.ascontiguousarray(image).data.cast("B"))
        message = self._image_type(height=height, width=width, step=3 * width, encoding="bgr8", data=pixels)
        for name, value in (wrong or {}).items():
            setattr(message, name, value)
        now = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now if stamp is None else stamp, 10**9)
        if counted and stamp is None and not wrong:
            self._windows[-1].sent += 1
            self._sent[now] = self._windows[-1]
        try:
            self._camera.publish(message)
        except self._refused:  # by a writer of the middleware that had no time: an image that is lost
            self._sent.pop(now, None)
        return now if stamp is None else stamp

    def _spin_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0:
            self._observer.spin_once(left)
            self._sample()
        self._sample()

    def _sample(self) -> None:
        now = time.monotonic()
        if now < self._sample_due:
            return
        self._sample_due = now + _SAMPLING
        if self._node.status is not None:
            raise LightTrackError(f"the node ended ({self._node.last_words}); its log is {self._node.log}")
        window, place = self._windows[-1], Path(f"/proc/{self._node.pid}")
        usage = usage_of(self._node.pid)
        window.shared = usage.shared_bytes
        window.memory = _least(window.memory, usage.resident_bytes - usage.shared_bytes)
        window.descriptors = _least(window.descriptors, len(list((place / "fd").iterdir())))
        window.threads = _least(window.threads, len(list((place / "task").iterdir())))

    def _on_target(self, stamp: int, message: Any, arrival: int) -> None:
        window = self._sent.pop(stamp, None)
        if window is not None:
            window.answered += 1
            if message.state:
                window.latencies.append((arrival - stamp) / 1e9)
        if message.state and self._pending.pop(message.target_id, None) is not None:
            self._boxes_answered += 1

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == f"{self._namespace[1:]}/tracker: tracking":
                self._counts = {item.key: item.value for item in status.values}


def _least(before: int, value: int) -> int:
    """0: there was none before."""
    return min(before, value) if before else value


def _line(number: int, window: Window) -> str:
    figures = window.figures()
    return (
        f"{number:6}{figures['sent']:9}{figures['answered']:10}{figures['p50_ms']:9.1f}{figures['p99_ms']:9.1f}"
        f"{figures['memory_mb']:11.1f}{figures['shared_mb']:11.1f}{figures['descriptors']:13}{figures['threads']:9}"
    )


HEAD = f"{'window':>6}{'images':>9}{'answered':>10}{'p50 ms':>9}{'p99 ms':>9}"
HEAD += f"{'memory MB':>11}{'shared MB':>11}{'descriptors':>13}{'threads':>9}"

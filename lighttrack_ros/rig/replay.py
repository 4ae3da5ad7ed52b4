"""Publish a rosbag2, a video, a folder of frames or the generated scene as a camera.

A bag's messages go out as the bytes that were recorded. Stamps are new unless asked otherwise: a tracker
measures its latency from them, and a recorded stamp is years old.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.bag import restamped, stamp_of
from lighttrack_ros.media.frames import FrameSource
from lighttrack_ros.node.transport import transport_environment, tune_malloc
from lighttrack_ros.rig.usage import available_bytes

DEFAULT_TOPIC = "image"
_MOMENT = 0.05  # seconds between two tries of a writer
_SETTLE = 0.5  # seconds between finding a subscriber and the first frame: it must find the publisher too


@dataclass
class Clip:
    """What is to be played: messages with the time, in seconds, at which each is due at speed 1.

    A message is serialised (bytes, CDR), or a frame: (height, width, 3) uint8 BGR. `files` are those that it is read
    from.
    """

    name: str
    topic: str
    compressed: bool
    count: int | None
    messages: Iterable[tuple[float, Any]]
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        self._recording = self.messages

    @property
    def shortfall(self) -> str | None:
        """After it was played to its end, in words, why that was less than the recording announces; else None."""
        return getattr(self._recording, "shortfall", None)

    def cut(self, count: int) -> None:
        """Leave out what comes after the first messages."""
        source = self.messages
        self.messages = _First(source, count)
        self.count = count if self.count is None else min(self.count, count)

    def and_back(self) -> None:
        """After the last message those before it, at the same pace, but for the first; preloaded."""
        forth = list(self.messages)
        end = forth[-1][0] if forth else 0.0
        self.messages = forth + [(2 * end - due, payload) for due, payload in forth[-2:0:-1]]

    def preload(self) -> None:
        free = available_bytes()
        used = 0
        kept = []
        with tqdm(
            self.messages, desc="decoding", total=self.count, unit="frame", leave=False, disable=None
        ) as messages:
            for due, payload in messages:
                used += len(payload) if isinstance(payload, bytes) else payload.nbytes
                if used > 0.7 * free:
                    raise LightTrackError(
                        f"{self.name}: too large for --preload ({free >> 20} MiB of memory are available)"
                    )
                kept.append((due, payload))
        self.messages = kept


@dataclass
class _First:
    """The beginning of what can be iterated again."""

    messages: Iterable[tuple[float, Any]]
    count: int

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        return itertools.islice(self.messages, self.count)


class Frames:
    """The frames of a video, a folder or a scene, each due at its own time."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        return iter(self._source.timed())

    @property
    def shortfall(self) -> str | None:
        return self._source.shortfall


def play(clip: Clip, camera: Camera, rate: float | None, speed: float, endless: bool, log: TextIO | None) -> int:
    """Send every message when it is due; returns how many.

    Args:
        rate: messages a second; inf: as fast as they go; None: as recorded, times `speed`.
        endless: begin again at the end.
        log: takes a line of index and stamp for every message.

    Raises:
        LightTrackError: there is nothing to send.
    """
    sent = 0
    total = None if endless else clip.count
    with tqdm(total=total, desc=f"{clip.name} on {camera.topic}", unit="frame", disable=None) as bar:
        start = time.perf_counter()
        while True:
            before, due = sent, 0.0
            for index, (recorded, payload) in enumerate(clip.messages):
                due = recorded / speed if rate is None else index / rate
                late = time.perf_counter() - start - due
                if late < 0:
                    time.sleep(-late)
                elif late > 0.1:
                    start += late  # a camera that fell behind does not hurry afterwards
                stamp = camera.publish(payload)
                if log is not None:
                    log.write(f"{index},{stamp}\n")
                sent += 1
                bar.update()
            if sent == before:
                raise LightTrackError(f"{clip.name}: nothing in it to publish")
            if not endless:
                return sent
            start += due + (1 / rate if rate is not None else due / max(1, sent - before - 1))


class Camera:
    """A publisher of images in a process of its own.

    Args:
        reliability: reliable or best_effort.
        frame_id: of frames that have none.
        keep_stamps: of serialised messages: they go out as they are, not stamped with the present time.

    Raises:
        LightTrackError: on entering: a topic that is none.
    """

    def __init__(self, clip: Clip, reliability: str, frame_id: str, keep_stamps: bool) -> None:
        self.topic = clip.topic
        self._clip = clip
        self._reliability = reliability
        self._frame_id = frame_id
        self._keep_stamps = keep_stamps

    def __enter__(self) -> Camera:
        os.environ.update(transport_environment())
        tune_malloc()
        import rclpy
        from rclpy.exceptions import InvalidTopicNameException
        from rclpy.impl.implementation_singleton import rclpy_implementation
        from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
        from rclpy.signals import SignalHandlerOptions
        from rclpy.validate_topic_name import validate_topic_name
        from sensor_msgs.msg import CompressedImage, Image

        try:
            validate_topic_name(self._clip.topic)
        except InvalidTopicNameException as error:
            reason = str(error).partition("\n")[0]
            raise LightTrackError(f"topic {self._clip.topic!r}: {reason.rstrip(':')}") from None
        # A shell starts background jobs with SIGINT ignored; both signals end this one.
        signal.signal(signal.SIGINT, _interrupt_once)
        signal.signal(signal.SIGTERM, _interrupt_once)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._image_type = Image
        self._refused = rclpy_implementation.RCLError
        self._node = rclpy.create_node(f"replay_{os.getpid()}", enable_rosout=False, start_parameter_services=False)
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=getattr(ReliabilityPolicy, self._reliability.upper()),
        )
        kind = CompressedImage if self._clip.compressed else Image
        self._publisher = self._node.create_publisher(kind, self._clip.topic, qos)
        self.topic = self._publisher.topic_name
        return self

    def __exit__(self, *_: object) -> None:
        import rclpy

        # From here on the process ends; a second Ctrl-C must not cut that short: shared memory would stay behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._node.destroy_node()
        rclpy.shutdown()

    def wait_for_subscriber(self) -> None:
        if self._publisher.get_subscription_count() == 0:
            print(f"waiting for a subscriber on {self.topic} (--no-wait plays at once)", file=sys.stderr, flush=True)
        while self._publisher.get_subscription_count() == 0:
            time.sleep(0.05)
        time.sleep(_SETTLE)

    def publish(self, payload: Any) -> int:
        """Send one message; returns its stamp, nanoseconds."""
        stamp = time.time_ns()
        seconds, nanoseconds = divmod(stamp, 1_000_000_000)
        if isinstance(payload, bytes):
            if self._keep_stamps:
                self._send(payload)
                return stamp_of(payload)
            self._send(restamped(payload, seconds, nanoseconds))
            return stamp
        message = self._image_type()
        message.header.frame_id = self._frame_id
        message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
        message.height, message.width = payload.shape[:2]
        message.encoding = "bgr8"
        message.step = 3 * payload.shape[1]
        # An array of bytes is taken as it is; bytes or a numpy array would be copied value by value.
        data = array("B")
        data.frombytes(np.ascontiguousarray(payload).data.cast("B"))
        message.data = data
        self._send(message)
        return stamp

    def _send(self, message: Any, tries: int = 5) -> None:
        """On a machine that has no time for the middleware's threads a writer may refuse a message for a moment."""
        try:
            self._publisher.publish(message)
        except self._refused as error:
            if tries == 1:
                raise LightTrackError(f"{self.topic}: the middleware takes no image ({error})") from error
            time.sleep(_MOMENT)
            self._send(message, tries - 1)

    def drain(self) -> None:
        """Let the last frame arrive before the publisher goes."""
        from rclpy.duration import Duration

        self._publisher.wait_for_all_acked(Duration(seconds=1))
        time.sleep(0.2)


def _interrupt_once(*_: object) -> None:
    """The first Ctrl-C ends what is under way; from then on the process ends, and no second one may cut that short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt

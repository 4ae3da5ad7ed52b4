"""The last second of images, as they came: for boxes drawn on an image that is no longer the newest."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lighttrack_ros.node.messages import Stamped


@dataclass(frozen=True)
class Arrival:
    """One image off the camera's topic.

    Attributes:
        number: counts the images, from 1.
        time: when it arrived, seconds of time.monotonic().
    """

    number: int
    time: float
    message: Stamped


class FrameBuffer:
    """Images bounded in age and in bytes; the newest always stays. Copies nothing; not thread-safe.

    Args:
        seconds: how long an image is kept.
        size: bytes of all images together.
    """

    def __init__(self, seconds: float, size: int) -> None:
        self.seconds = seconds
        self.size = size
        self.bytes = 0
        self._arrivals: deque[Arrival] = deque()

    def append(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        self.bytes += len(arrival.message.data)
        while len(self._arrivals) > 1 and (
            self.bytes > self.size or arrival.time - self._arrivals[0].time > self.seconds
        ):
            self.bytes -= len(self._arrivals.popleft().message.data)

    @property
    def newest(self) -> Arrival | None:
        return self._arrivals[-1] if self._arrivals else None

    def after(self, number: int) -> list[Arrival]:
        """Those that arrived after the one of that number, oldest first."""
        newer: list[Arrival] = []
        for arrival in reversed(self._arrivals):
            if arrival.number <= number:
                break
            newer.append(arrival)
        return newer[::-1]

    def of_stamp(self, stamp: int) -> Arrival | None:
        """The image with exactly this stamp (nanoseconds), the newest of them if there are several."""
        return next((arrival for arrival in reversed(self._arrivals) if arrival.message.stamp == stamp), None)

    def __len__(self) -> int:
        return len(self._arrivals)

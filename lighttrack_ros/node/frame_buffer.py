"""The last second of images, as they came: for boxes drawn on an image that is no longer the newest."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

from lighttrack_ros.node.messages import Stamped

_FAR = 16_666_667  # nanoseconds: half a period at 30 Hz; where images are missing, their gaps are no period
_ROUNDING = 10**6  # nanoseconds that a stamp loses at most on a way through milliseconds


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
        """The image of this stamp (nanoseconds): the nearest within half a frame period, the newest of equals.

        Stamps that went through microseconds or a float are not equal any more. What lies ahead of the newest image by
        more than rounding does may still come, and is not found.
        """
        nearest = self.nearest(stamp)
        if nearest is None:
            return None
        ahead = stamp - nearest.message.stamp
        allowed = min(self._period() / 2, _FAR)
        if nearest is self.newest:
            allowed = min(allowed, _ROUNDING) if ahead > 0 else allowed
        return nearest if abs(ahead) <= allowed else None

    def nearest(self, stamp: int) -> Arrival | None:
        """The image whose stamp differs least, the newest of equals; None while there is none."""
        return min(reversed(self._arrivals), key=lambda arrival: abs(arrival.message.stamp - stamp), default=None)

    @property
    def oldest(self) -> Arrival | None:
        return self._arrivals[0] if self._arrivals else None

    def _period(self) -> float:
        """Nanoseconds between two images by their stamps, lost ones aside; 0 where that is not known."""
        stamps = [arrival.message.stamp for arrival in self._arrivals]
        gaps = sorted(after - before for before, after in itertools.pairwise(stamps) if after > before)
        return float(gaps[len(gaps) // 4]) if gaps else 0.0

    def __len__(self) -> int:
        return len(self._arrivals)

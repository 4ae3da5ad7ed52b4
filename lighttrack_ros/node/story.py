"""What happens to a target, in the log: a line when it begins, is lost, found or ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from lighttrack_ros.geometry import Box
from lighttrack_ros.node.init_boxes import words_of
from lighttrack_ros.session import Report, State

_DOUBT_PERIOD = 5.0  # seconds in which a target that is in doubt now and again is told of once


class Story:
    """Of one target, from box to box.

    Args:
        target_id: empty for the target without one.
        tell: logs one line.
        count: adds one to a count of the diagnostics.

    Attributes:
        lost, found: how often it was.
    """

    def __init__(
        self, target_id: str, tell: Callable[[str], object], count: Callable[[str], object] = lambda _: None
    ) -> None:
        self._name = f"target {target_id!r}" if target_id else "target"
        self._tell = tell
        self._count = count
        self._state = State.IDLE
        self._since = 0.0  # time.monotonic()
        self._doubted = -math.inf  # when the log said so for the last time
        self.lost = self.found = 0

    def began(self, box: Box, image: str, stamp: int, age: float) -> None:
        self._tell(
            f"{self._name} taken: {words_of(box)} on the {image} image of stamp {stamp / 1e9:.3f}, which came "
            f"{age:.3f} s ago"
        )
        self._state, self._since = State.TRACKING, time.monotonic()

    def saw(self, report: Report) -> None:
        """The session's word on the next image."""
        before, state = self._state, report.state
        if before == State.LOST and state == State.UNCERTAIN:
            state = State.LOST  # it may be back: not found yet, and if it is not, not lost once more
        self._state = state
        if state == before:
            return
        now = time.monotonic()
        lasted, self._since = now - self._since, now
        if state == State.LOST:
            self.lost += 1
            self._count("targets_lost")
            self._tell(
                f"{self._name} lost {lasted:.1f} s after it became uncertain, last seen at {words_of(report.box)}"
            )
        elif before == State.LOST:
            self.found += 1
            self._count("targets_found")
            self._tell(f"{self._name} found at {words_of(report.box)}, {lasted:.1f} s after it was lost")
        elif state == State.UNCERTAIN and now - self._doubted > _DOUBT_PERIOD:
            self._doubted = now
            self._tell(f"{self._name} uncertain, confidence {report.confidence:.2f}, after {lasted:.1f} s of tracking")

    def ended(self, reason: str) -> None:
        self._tell(f"{self._name} ended: {reason}")
        self._state = State.IDLE

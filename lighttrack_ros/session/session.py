"""One target's life: idle, tracking, uncertain, lost, found again; which estimate may be believed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from lighttrack_ros.geometry import Box, clip_box, context_side
from lighttrack_ros.image import Frame
from lighttrack_ros.models import SessionSettings
from lighttrack_ros.trackers.base import Estimate, Tracker

NOWHERE = Box(0.0, 0.0, 0.0, 0.0)
_NEWS = 0.1  # share of the newest frame in what is known of how the target looks


class State(IntEnum):
    """What may be believed of the box; the values are those of TrackedTarget.msg."""

    IDLE = 0
    TRACKING = 1
    UNCERTAIN = 2
    LOST = 3


@dataclass(frozen=True)
class Report:
    """The session's word on one frame: the estimate as the outside world may use it.

    While the target is lost, `box` is where it was last seen. `box` always lies inside the frame: it is the visible
    part of `whole`, the tracker's box of the whole target. `network` is the estimate's; None where no network ran to
    find the target.
    """

    state: State
    box: Box
    confidence: float
    exit_index: int = -1
    network: tuple[float, float] | None = field(default=None, compare=False)
    whole: Box | None = field(default=None, compare=False)

    @property
    def outside(self) -> tuple[float, float, float, float]:
        """By how much the whole target sticks out of the frame at the left, top, right and bottom, pixels."""
        box, whole = self.box, self.whole or self.box
        right, bottom = whole.x + whole.width - box.x - box.width, whole.y + whole.height - box.y - box.height
        return max(0.0, box.x - whole.x), max(0.0, box.y - whole.y), max(0.0, right), max(0.0, bottom)


class Session:
    """Follows one target with a tracker and says what may be believed; not thread-safe.

    While the target is in sight the box is the tracker's own, cut at the frame's edges. Once it is lost the
    tracker looks at one place a frame, for a target of the size that it last had, until the session is confident
    at one place on several frames in a row. Every other look goes on from where the tracker was led, as if nothing
    had been lost; those between go round the place where the target was last seen.

    Args:
        tracker: whose target is the session's from now on.
        settings: the model's.
    """

    def __init__(self, tracker: Tracker, settings: SessionSettings) -> None:
        self._tracker = tracker
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget the target."""
        self._state = State.IDLE
        self._seen = NOWHERE  # the tracker's target when it was last believed
        self._doubtful = 0  # frames in a row on which an uncertain one was not confirmed
        self._convincing = 0  # frames in a row on which an uncertain or lost one was found, at one place
        self._looks = Looks()
        self._trail = NOWHERE  # where the tracker was led since the target was lost
        self._on_trail = False  # whether the last look was there
        self._places: Iterator[Box] = iter(())  # for the looks between

    def start(self, frame: Frame, box: Box) -> Report:
        """Take the target from `box` on `frame`, forgetting any earlier one.

        Raises:
            LightTrackError: the box is not finite, is empty or lies outside the frame; an earlier target stays.
        """
        self._tracker.init(frame, box)
        self.reset()
        self._state, self._seen = State.TRACKING, self._tracker.target
        return Report(self._state, clip_box(box, frame.width, frame.height), 1.0, whole=box)

    def step(self, frame: Frame) -> Report:
        """Find the target on the next frame; without a target, an idle report.

        Raises:
            LightTrackError: the tracker cannot work on this frame; nothing is lost, the next may follow.
        """
        if self._state == State.IDLE:
            return Report(self._state, NOWHERE, 0.0)
        if self._state == State.LOST and not self._convincing:
            self._on_trail = not self._on_trail
            self._tracker.target = self._trail if self._on_trail else next(self._places)
        expected = self._tracker.target
        estimate = self._tracker.update(frame)
        confidence = self._confidence(estimate)
        if self._state == State.TRACKING and confidence < self._settings.uncertain:
            self._state, self._doubtful, self._convincing = State.UNCERTAIN, 0, 0
        if self._state != State.TRACKING:
            self._judge(confidence, expected, frame)
        if self._state == State.TRACKING:
            self._seen = self._tracker.target
            self._looks.learn(estimate)
        if self._state == State.LOST:
            if self._on_trail:
                self._trail = self._at_last_size(self._tracker.target)
            return self._report(frame, self._seen, 0.0, estimate)
        return self._report(frame, self._tracker.target, confidence, estimate)

    def _judge(self, confidence: float, expected: Box, frame: Frame) -> None:
        """From uncertain to lost, and from either back to tracking."""
        if confidence < self._settings.found:
            self._convincing = 0
        elif self._convincing and not _near(self._tracker.target, expected):
            self._convincing = 1
        else:
            self._convincing += 1
        self._doubtful = self._doubtful + 1 if confidence < self._settings.uncertain else 0
        if self._convincing >= self._settings.found_frames:
            self._state = State.TRACKING
        elif self._state == State.UNCERTAIN and self._doubtful >= self._settings.lost_frames:
            self._state, self._on_trail = State.LOST, True
            self._places = _search_places(self._seen, frame)

    def _report(self, frame: Frame, box: Box, confidence: float, estimate: Estimate) -> Report:
        visible = clip_box(box, frame.width, frame.height)
        return Report(self._state, visible, confidence, estimate.exit_index, estimate.network, box)

    def _confidence(self, estimate: Estimate) -> float:
        """How likely it is that the target is in view, by the model's own record; see docs/lost.md."""
        settings = self._settings
        evidence = log_odds(estimate) - settings.unlikeness * self._looks.unlike(estimate)
        return 1 / (1 + math.exp(-settings.slope * (evidence - settings.midpoint)))

    def _at_last_size(self, box: Box) -> Box:
        (x, y), (_, _, width, height) = box.centre, self._seen
        return Box(x - width / 2, y - height / 2, width, height)


class Looks:
    """How a target has looked lately; says how much something else looks unlike it."""

    def __init__(self) -> None:
        self._mean: npt.NDArray[np.float32] | None = None
        self._count = 0

    def learn(self, estimate: Estimate) -> None:
        """Take in how a target that is believed in looks: all count the same at first, later the newer ones more."""
        if estimate.appearance is None:
            return
        self._count += 1
        if self._mean is None:
            self._mean = estimate.appearance.copy()
        else:
            self._mean += (estimate.appearance - self._mean) * np.float32(max(1 / self._count, _NEWS))

    def unlike(self, estimate: Estimate) -> float:
        """1 - cosine of how this looks and how the target did; 0 where nothing is known."""
        if estimate.appearance is None or self._mean is None:
            return 0.0
        return 1 - float(estimate.appearance @ self._mean) / max(float(np.linalg.norm(self._mean)), 1e-12)


def log_odds(estimate: Estimate) -> float:
    """Of the network's score that the target is in view; within +-27.6."""
    score = estimate.confidence if estimate.evidence is None else estimate.evidence
    score = min(max(score, 1e-12), 1 - 1e-12)
    return math.log(score / (1 - score))


def _near(found: Box, expected: Box) -> bool:
    """Whether a target may have got from one place to the other within a frame: by its own size."""
    distance = math.dist(found.centre, expected.centre)
    return distance <= math.sqrt(expected.area)


def _search_places(seen: Box, frame: Frame) -> Iterator[Box]:
    """Boxes of the size of `seen` to look round, for ever: its own place, then rings outwards over the frame.

    Every round reaches twice as far as the one before, as a target tends to come back where it went.
    """
    step = context_side(seen.width, seen.height)  # half of what a tracker sees of one place
    centre_x, centre_y = seen.centre
    furthest = math.ceil(max(frame.width, frame.height) / step)
    reach = 1
    while True:
        for ring in range(reach + 1):
            for column, row in _ring(ring):
                x, y = centre_x + column * step, centre_y + row * step
                if (0 <= x <= frame.width and 0 <= y <= frame.height) or ring == 0:
                    yield Box(x - seen.width / 2, y - seen.height / 2, seen.width, seen.height)
        reach = 1 if reach >= furthest else 2 * reach


def _ring(radius: int) -> Iterator[tuple[int, int]]:
    """The cells of a square ring round (0, 0)."""
    for row in range(-radius, radius + 1):
        for column in range(-radius, radius + 1, 1 if abs(row) == radius else 2 * radius):
            yield column, row

"""The loop that turns images into boxes: one thread, always on to the newest image."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import FEW_LEVELS, Frame, Intensities, grey_levels
from lighttrack_ros.node.diagnostics import Health
from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer
from lighttrack_ros.node.messages import Stamped
from lighttrack_ros.session import NOWHERE, Report, Session, State
from lighttrack_ros.trackers import Tracker

CATCH_UP = 0.5  # seconds in which the images between an old one and the present are gone through
AHEAD = 10**9  # nanoseconds by which the stamp of an init box may be ahead of the newest image
PATIENCE = 3.0  # seconds for which an init box waits for its image
FAILURES = 3  # images in a row on which the tracker fails, after which its engines are loaded anew
STUCK = 5.0  # seconds at one image after which a backend counts as hanging
STRANGERS = 3  # images of another size in a row after which the camera is taken to have changed

NO_TARGET = Report(State.IDLE, NOWHERE, 0.0)


@dataclass(frozen=True)
class Outcome:
    """What the loop has to say of one image.

    Attributes:
        frame: the pixels; None while there is no target, when no image is decoded.
        began: when the image was taken up, time.perf_counter().
        dropped: images skipped since the last outcome, because a newer one was there.
        live: False for an old image, gone through only to catch up.
        end_reason: why the target before it ended, if it did; empty otherwise.
    """

    arrival: Arrival
    report: Report
    target_id: str
    frame: Frame | None
    began: float
    dropped: int
    live: bool
    end_reason: str = ""


@dataclass(frozen=True)
class Start:
    """What became of an init box.

    Attributes:
        stamp: of the image that it was taken on, nanoseconds; 0 if it was refused.
        words: why it was refused, or what was different from what was asked for.
    """

    accepted: bool
    stamp: int = 0
    words: str = ""


@dataclass(frozen=True)
class _InitBox:
    box: Box
    stamp: int  # nanoseconds; 0: the next image
    target_id: str
    after: int  # number of the newest image when the box came
    until: float  # time.monotonic()
    answer: Callable[[Start], object]
    note: str = ""  # what is to be said where the image is not the one that was asked for


@dataclass(frozen=True)
class _Target:
    """The one in the session."""

    target_id: str
    size: tuple[int, int]  # of the images on which its boxes mean something

    def __str__(self) -> str:
        return f"target {self.target_id!r}" if self.target_id else "target"


class TrackingLoop:
    """Takes images and orders from any thread; works and calls `publish` in its own.

    Args:
        tracker: the one inside `session`, for its idle work.
        read: decodes an image message; may raise LightTrackError.
        publish: called with every outcome.
        health: told of everything that is counted or goes wrong.
        tell: logs one line, of what happened to the target.
        intensities: what `read` uses for values of more than 8 bits; taken anew where a target begins.
        reload: called in the loop's thread when the tracker fails again and again; loads it anew, with a session.
    """

    def __init__(
        self,
        tracker: Tracker,
        session: Session,
        buffer: FrameBuffer,
        read: Callable[[Stamped], Frame],
        publish: Callable[[Outcome], None],
        health: Health,
        enabled: bool = True,
        tell: Callable[[str], object] = lambda _: None,
        intensities: Intensities | None = None,
        reload: Callable[[], tuple[Tracker, Session]] | None = None,
    ) -> None:
        self._intensities = intensities
        self._reload = reload
        self._tracker = tracker
        self._session = session
        self.read = read
        self._publish = publish
        self._health = health
        self._story = _Story(tell, health.count)

        # Shared, under the lock of `_news`.
        self._news = threading.Condition()
        self._buffer = buffer
        self._arrived = 0
        self._interval = 0.0  # seconds between two images, smoothed
        self._init_box: _InitBox | None = None
        self._reset = ""  # why the target is to be forgotten
        self._enabled = enabled
        self._stopping = False

        # The loop's own.
        self._target: _Target | None = None
        self._last: Arrival | None = None  # the image published last
        self._end_reason = ""  # of a target, until it has been published
        self._done = 0  # number of the image taken up last
        self._reported = 0  # number of the image published last
        self._strangers = 0
        self._catch_up_until = 0.0  # time.monotonic(); 0: not catching up
        self._step_time = 0.01  # seconds, smoothed
        self._failures = 0  # images in a row on which the tracker failed
        self._broken = False  # whether it has still to be loaded anew
        self._busy_since = 0.0  # time.monotonic(); 0: it waits
        self._thread = threading.Thread(target=self._run, name="tracking_loop", daemon=True)
        self._thread.start()

    def put(self, message: Stamped) -> None:
        """An image has arrived."""
        now = time.monotonic()
        with self._news:
            newest = self._buffer.newest
            if newest is not None:
                passed = now - newest.time
                self._interval += 0.2 * (passed - self._interval) if self._interval else passed
            self._arrived += 1
            self._buffer.append(Arrival(self._arrived, now, message))
            self._news.notify()
        self._health.count("images_received")

    def track(self, box: Box, stamp: int, target_id: str, answer: Callable[[Start], object] = lambda _: None) -> None:
        """Start on a box, forgetting any earlier target.

        Args:
            box: pixels of the image it was drawn on.
            stamp: of that image, nanoseconds; 0 is the next one to arrive.
            answer: called once with what became of it, from any thread.
        """
        with self._news:
            before = self._init_box
            until = time.monotonic() + PATIENCE
            self._init_box = _InitBox(box, stamp, target_id, self._arrived, until, answer)
            self._news.notify()
        self._refuse(before, "another box came before its image did")

    def reset(self, reason: str) -> None:
        """Forget the target, and any box that waits for its image.

        Args:
            reason: why, for the log and for the message that tells of the end.
        """
        with self._news:
            self._reset = reason
            before, self._init_box = self._init_box, None
            self._news.notify()
        self._refuse(before, reason)

    def enable(self, enabled: bool) -> None:
        """Go on with the next image, or leave all images alone; the target stays."""
        with self._news:
            if enabled and not self._enabled:
                self._done = self._reported = self._arrived
            self._enabled = enabled
            self._news.notify()

    def limit_buffer(self, seconds: float, size: int) -> None:
        with self._news:
            self._buffer.seconds, self._buffer.size = seconds, size

    @property
    def has_target(self) -> bool:
        """Whether there is a target, or a box that waits for its image."""
        return self._target is not None or self._init_box is not None

    def kept(self) -> tuple[int, int]:
        """Images in the buffer, and their bytes."""
        with self._news:
            return len(self._buffer), self._buffer.bytes

    def stuck(self) -> float:
        """Seconds at one image where that is too long, else 0; a box that waits for its turn is refused then."""
        since = self._busy_since
        seconds = time.monotonic() - since if since else 0.0
        if seconds < STUCK:
            return 0.0
        with self._news:
            waiting, self._init_box = self._init_box, None
        self._refuse(waiting, f"the tracker has been at one image for {seconds:.0f} s")
        return seconds

    def stop(self, reason: str) -> bool:
        """Finish the image in work and end the thread; the session is left without a target.

        Args:
            reason: see `reset`.

        Returns:
            False if a backend hangs: the thread goes on, and the tracker must not be touched.
        """
        with self._news:
            self._stopping = True
            before, self._init_box = self._init_box, None
            self._news.notify()
        self._thread.join(STUCK)
        self._refuse(before, reason)
        if self._thread.is_alive():
            return False
        self._end(reason)
        self._publish_end()
        return True

    def _run(self) -> None:
        idle_work = False  # whether the tracker may have some
        while True:
            with self._news:
                if self._stopping:
                    return
                reset, self._reset = self._reset, ""
                late = self._too_late()
                arrival, init_box = self._choose() if not reset and late is None else (None, None)
                if arrival is None and not idle_work and not reset and late is None:
                    box = self._init_box
                    self._busy_since = 0.0
                    self._news.wait(None if box is None else max(0.0, box.until - time.monotonic()))
                    continue
            self._busy_since = time.monotonic()
            try:
                if reset:
                    self._end(reset)
                    self._publish_end()
                elif late is not None:
                    self._refuse(late, f"no image came in {PATIENCE:g} s" if self._enabled else "the node is disabled")
                elif arrival is None:
                    idle_work = self._tracker.idle_work(self._until_next_image())
                else:
                    idle_work = self._process(arrival, init_box)
            except Exception as error:  # nothing that one image brings may end the loop
                idle_work = False
                self._failed(error, init_box)

    def _failed(self, error: Exception, init_box: _InitBox | None) -> None:
        """The tracker did on one image; a start, or some images in a row, and its target is given up."""
        words = str(error) if isinstance(error, LightTrackError) else "internal error, see the log"
        if isinstance(error, LightTrackError):
            self._health.problem("tracker_errors", words)
        else:
            self._health.problem("internal_errors", "please report this: " + traceback.format_exc())
        self._refuse(init_box, words)
        self._failures += 1
        if self._broken or self._reload is None or (init_box is None and self._failures < FAILURES):
            return
        self._end(f"the tracker failed ({words}); send a new box")
        self._publish_end()
        try:
            self._load_anew(self._reload)
        except Exception as again:
            words = f"cannot be loaded anew ({again}), the next box tries it again"
            self._health.problem("tracker_errors", words, throttled=False)

    def _load_anew(self, reload: Callable[[], tuple[Tracker, Session]]) -> None:
        """Raises LightTrackError: it cannot be loaded."""
        self._broken = True
        self._tracker, self._session = reload()
        self._broken, self._failures = False, 0

    def _too_late(self) -> _InitBox | None:
        """The box that has waited for its image long enough; under the lock."""
        late = self._init_box
        if late is None or time.monotonic() < late.until:
            return None
        self._init_box = None
        return late

    def _refuse(self, init_box: _InitBox | None, reason: str) -> None:
        """Orders by people are never refused in silence."""
        if init_box is not None:
            self._health.problem("bad_boxes", f"{_words(init_box.box)}: {reason}", throttled=False)
            init_box.answer(Start(False, 0, reason))

    def _end(self, reason: str) -> None:
        """The target's, if there is one; the reason is published with the next outcome."""
        self._session.reset()
        self._catch_up_until = 0.0
        if self._target is not None:
            self._story.ended(str(self._target), reason)
            self._target, self._end_reason = None, reason

    def _publish_end(self) -> None:
        """At once, under the header of the image published last: the next may never come."""
        if self._end_reason and self._last is not None:
            reason, self._end_reason = self._end_reason, ""
            self._publish(Outcome(self._last, NO_TARGET, "", None, time.perf_counter(), 0, False, reason))

    def _choose(self) -> tuple[Arrival | None, _InitBox | None]:
        """The next image to work on, and the box to start with on it; under the lock."""
        if not self._enabled:
            return None, None
        if self._init_box is not None:
            init_box = self._init_box
            arrival = self._image_of(init_box)
            if arrival is not None:
                self._init_box = None
                return arrival, dataclasses.replace(init_box, note=self._not_as_asked(arrival, init_box))
        waiting = self._buffer.after(self._done)
        if not waiting:
            self._catch_up_until = 0.0
            return None, None
        if not self._catch_up_until:
            return waiting[-1], None
        # Evenly spaced: as many as there is time for.
        affordable = (self._catch_up_until - time.monotonic()) / self._step_time
        stride = math.ceil(len(waiting) / max(1.0, affordable))
        if stride >= len(waiting):
            self._catch_up_until = 0.0
        return waiting[min(stride, len(waiting)) - 1], None

    def _image_of(self, init_box: _InitBox) -> Arrival | None:
        """The image on which a box was drawn; None while it has still to come."""
        newest = self._buffer.newest
        if newest is None:
            return None
        if not init_box.stamp:
            following = self._buffer.after(init_box.after)
            return following[0] if following else None
        arrival = self._buffer.of_stamp(init_box.stamp)
        if arrival is not None:
            return arrival
        ahead = init_box.stamp - newest.message.stamp
        return None if 0 < ahead <= AHEAD else newest

    def _process(self, arrival: Arrival, init_box: _InitBox | None) -> bool:
        """Track or start on one image; returns whether the tracker may have idle work now."""
        began = time.perf_counter()
        news = arrival.number > self._done
        self._done = max(self._done, arrival.number)
        if init_box is None and self._target is None:
            self._say(arrival, NO_TARGET, None, began)
            return False
        if init_box is not None and self._broken and self._reload is not None:
            self._load_anew(self._reload)
        if init_box is not None and self._intensities is not None:
            self._intensities.start(init_box.box)
        try:
            frame = self.read(arrival.message)
        except LightTrackError as error:
            self._health.problem("bad_images", str(error))
            self._wait_for_better(init_box, arrival)
            return False
        self._health.count("images_decoded")
        report = self._start(arrival, frame, init_box) if init_box is not None else None
        if report is None and news:
            report = self._step(frame)
        if report is None:
            return False
        self._failures = 0
        self._say(arrival, report, frame, began)
        if self._target is not None:
            self._story.saw(str(self._target), report)
        self._step_time += 0.2 * (time.perf_counter() - began - self._step_time)
        return True

    def _start(self, arrival: Arrival, frame: Frame, init_box: _InitBox) -> Report | None:
        """Begin with a box; None if it is no good, the earlier target stays then.

        Raises:
            EngineError: the tracker fails.
        """
        try:
            report = self._session.start(frame, init_box.box)
        except EngineError:
            raise
        except LightTrackError as error:
            self._refuse(init_box, str(error))
            return None
        if self._target is not None:
            self._end_reason = "replaced by a new box"
            self._story.ended(str(self._target), self._end_reason)
        self._target = _Target(init_box.target_id, (frame.width, frame.height))
        self._strangers = 0
        self._done = arrival.number
        self._reported = arrival.number
        now = time.monotonic()
        self._catch_up_until = now + CATCH_UP
        note = init_box.note
        if note:
            self._health.problem("stamps_gone", note, throttled=False)
        levels = grey_levels(frame.bgr())
        if levels < FEW_LEVELS:
            self._health.problem(
                "flat_images",
                f"it has {levels} grey levels, hardly any to track by (parameter intensity_range, the lens, the light)",
                throttled=False,
            )
        size = f"{frame.width} x {frame.height}"
        self._story.began(str(self._target), init_box.box, size, arrival.message.stamp, now - arrival.time)
        init_box.answer(Start(True, arrival.message.stamp, note))
        return report

    def _not_as_asked(self, arrival: Arrival, init_box: _InitBox) -> str:
        """Why a box starts on an image that is not the one it was drawn on, and how far that is; under the lock."""
        oldest = self._buffer.oldest
        if not init_box.stamp or oldest is None or self._buffer.of_stamp(init_box.stamp) is not None:
            return ""
        behind = arrival.message.stamp - init_box.stamp
        kept = f"the {len(self._buffer)} kept"
        if behind < 0:
            return (
                f"its stamp is {-behind / 1e9:.3f} s newer than the newest image: another clock? Starting on the newest"
            )
        if init_box.stamp < oldest.message.stamp:
            older = (oldest.message.stamp - init_box.stamp) / 1e9
            return (
                f"the image it was drawn on is {behind / 1e9:.3f} s older than the newest and {older:.3f} s older than "
                f"the oldest of {kept} (parameters buffer_seconds and buffer_megabytes): starting on the newest"
            )
        nearest = self._buffer.nearest(init_box.stamp)
        assert nearest is not None
        away = abs(nearest.message.stamp - init_box.stamp) / 1e6
        return f"none of {kept} images has its stamp, the nearest is {away:.3f} ms away: starting on the newest"

    def _step(self, frame: Frame) -> Report | None:
        """Find the target, if there is one; None if this is another camera's image."""
        if self._target is None:
            return NO_TARGET
        if (frame.width, frame.height) == self._target.size:
            self._strangers = 0
            return self._session.step(frame)
        self._strangers += 1
        width, height = self._target.size
        change = f"the image is {frame.width} x {frame.height}, the target was given on {width} x {height}"
        if self._strangers < STRANGERS:
            self._health.problem("bad_images", f"{change}: skipped")
            return None
        self._end(f"{change}, {STRANGERS} times; send a new box")
        return NO_TARGET

    def _wait_for_better(self, init_box: _InitBox | None, arrival: Arrival) -> None:
        """The box's image cannot be read: start on the one after it, unless another box has come."""
        with self._news:
            if init_box is not None and self._init_box is None and not self._reset:
                again = dataclasses.replace(init_box, stamp=0, after=arrival.number)
                self._init_box, init_box = again, None
        self._refuse(init_box, "its image cannot be read, and another order came")

    def _say(self, arrival: Arrival, report: Report, frame: Frame | None, began: float) -> None:
        dropped = max(0, arrival.number - self._reported - 1)
        self._reported = arrival.number
        self._health.count("images_processed")
        self._health.count("images_dropped", dropped)
        self._health.stopped_at(report.exit_index)
        target_id = self._target.target_id if self._target else ""
        self._last, reason, self._end_reason = arrival, self._end_reason, ""
        self._publish(Outcome(arrival, report, target_id, frame, began, dropped, not self._catch_up_until, reason))

    def _until_next_image(self) -> float:
        with self._news:
            newest = self._buffer.newest
            return max(0.0, newest.time + self._interval - time.monotonic()) if newest else math.inf


class _Story:
    """What happens to the target, in the log: a line when it begins, is lost, found or ends.

    Args:
        tell: logs one line.
        count: adds one to a count of the diagnostics.
    """

    def __init__(self, tell: Callable[[str], object], count: Callable[[str], object]) -> None:
        self._tell = tell
        self._count = count
        self._state = State.IDLE
        self._since = 0.0  # time.monotonic()
        self._doubted = -math.inf  # when the log said so for the last time

    def began(self, target: str, box: Box, image: str, stamp: int, age: float) -> None:
        self._tell(
            f"{target} taken: {_words(box)} on the {image} image of stamp {stamp / 1e9:.3f}, which came {age:.3f} s ago"
        )
        self._state, self._since = State.TRACKING, time.monotonic()

    def saw(self, target: str, report: Report) -> None:
        """The session's word on the next image."""
        before, self._state = self._state, report.state
        if report.state == before:
            return
        now = time.monotonic()
        lasted, self._since = now - self._since, now
        if report.state == State.LOST:
            self._count("targets_lost")
            self._tell(f"{target} lost {lasted:.1f} s after it became uncertain, last seen at {_words(report.box)}")
        elif before == State.LOST:
            self._count("targets_found")
            self._tell(f"{target} found at {_words(report.box)}, {lasted:.1f} s after it was lost")
        elif report.state == State.UNCERTAIN and now - self._doubted > _DOUBT_PERIOD:
            self._doubted = now
            self._tell(f"{target} uncertain, confidence {report.confidence:.2f}, after {lasted:.1f} s of tracking")

    def ended(self, target: str, reason: str) -> None:
        self._tell(f"{target} ended: {reason}")
        self._state = State.IDLE


_DOUBT_PERIOD = 5.0  # seconds in which a target that is in doubt now and again is told of once


def _words(box: Box) -> str:
    return f"box x {box.x:.1f}, y {box.y:.1f}, {box.width:.1f} x {box.height:.1f}"

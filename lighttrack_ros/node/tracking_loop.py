"""The loop that turns images into boxes: one thread, always on to the newest image."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame
from lighttrack_ros.node.diagnostics import Health
from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer
from lighttrack_ros.node.messages import Stamped
from lighttrack_ros.session import NOWHERE, Report, Session, State
from lighttrack_ros.trackers import Tracker

CATCH_UP = 0.5  # seconds in which the images between an old one and the present are gone through
PATIENCE = 10**9  # nanoseconds by which the stamp of an init box may be ahead of the newest image
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
    """

    arrival: Arrival
    report: Report
    target_id: str
    frame: Frame | None
    began: float
    dropped: int
    live: bool


@dataclass(frozen=True)
class _InitBox:
    box: Box
    stamp: int  # nanoseconds; 0: the next image
    target_id: str
    after: int  # number of the newest image when the box came


@dataclass(frozen=True)
class _Target:
    """The one in the session."""

    target_id: str
    size: tuple[int, int]  # of the images on which its boxes mean something


class TrackingLoop:
    """Takes images and orders from any thread; works and calls `publish` in its own.

    Args:
        tracker: the one inside `session`, for its idle work.
        read: decodes an image message; may raise LightTrackError.
        publish: called with every outcome.
        health: told of everything that is counted or goes wrong.
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
    ) -> None:
        self._tracker = tracker
        self._session = session
        self.read = read
        self._publish = publish
        self._health = health

        # Shared, under the lock of `_news`.
        self._news = threading.Condition()
        self._buffer = buffer
        self._arrived = 0
        self._interval = 0.0  # seconds between two images, smoothed
        self._init_box: _InitBox | None = None
        self._reset = False
        self._enabled = enabled
        self._stopping = False

        # The loop's own.
        self._target: _Target | None = None
        self._done = 0  # number of the image taken up last
        self._reported = 0  # number of the image published last
        self._strangers = 0
        self._catch_up_until = 0.0  # time.monotonic(); 0: not catching up
        self._step_time = 0.01  # seconds, smoothed
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

    def track(self, box: Box, stamp: int, target_id: str) -> None:
        """Start on a box, forgetting any earlier target.

        Args:
            box: pixels of the image it was drawn on.
            stamp: of that image, nanoseconds; 0 is the next one to arrive.
        """
        with self._news:
            self._init_box = _InitBox(box, stamp, target_id, self._arrived)
            self._news.notify()

    def reset(self) -> None:
        """Forget the target, and any box that waits for its image."""
        with self._news:
            self._reset = True
            self._init_box = None
            self._news.notify()

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

    def stop(self) -> None:
        """Finish the image in work and end the thread; the session is left without a target."""
        with self._news:
            self._stopping = True
            self._news.notify()
        self._thread.join()
        self._session.reset()

    def _run(self) -> None:
        idle_work = False  # whether the tracker may have some
        while True:
            with self._news:
                if self._stopping:
                    return
                self._obey_reset()
                arrival, init_box = self._choose()
                if arrival is None and not idle_work:
                    self._news.wait()
                    continue
            try:
                if arrival is None:
                    idle_work = self._tracker.idle_work(self._until_next_image())
                else:
                    idle_work = self._process(arrival, init_box)
            except LightTrackError as error:
                idle_work = False
                self._health.problem("tracker_errors", str(error))
            except Exception:  # nothing that one image brings may end the loop
                idle_work = False
                self._health.problem("internal_errors", "please report this: " + traceback.format_exc())

    def _obey_reset(self) -> None:
        if self._reset:
            self._reset = False
            self._session.reset()
            self._target = None
            self._catch_up_until = 0.0

    def _choose(self) -> tuple[Arrival | None, _InitBox | None]:
        """The next image to work on, and the box to start with on it; under the lock."""
        if not self._enabled:
            return None, None
        if self._init_box is not None:
            init_box = self._init_box
            arrival = self._image_of(init_box)
            if arrival is not None:
                self._init_box = None
                return arrival, init_box
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
        if 0 < ahead <= PATIENCE:
            return None
        age = f"{-ahead / 1e9:.3f} s older" if ahead < 0 else f"{ahead / 1e9:.3f} s newer"
        self._health.problem(
            "stamps_gone",
            f"the init box was drawn on an image {age} than the newest, which is not among the {len(self._buffer)} "
            f"kept (parameters buffer_seconds and buffer_megabytes): starting on the newest",
        )
        return newest

    def _process(self, arrival: Arrival, init_box: _InitBox | None) -> bool:
        """Track or start on one image; returns whether the tracker may have idle work now."""
        began = time.perf_counter()
        news = arrival.number > self._done
        self._done = max(self._done, arrival.number)
        if init_box is None and self._target is None:
            self._say(arrival, NO_TARGET, None, began)
            return False
        try:
            frame = self.read(arrival.message)
        except LightTrackError as error:
            self._health.problem("bad_images", str(error))
            if init_box is not None:
                self._wait_for_better(init_box, arrival)
            return False
        self._health.count("images_decoded")
        report = self._start(arrival, frame, init_box) if init_box is not None else None
        if report is None and news:
            report = self._step(frame)
        if report is None:
            return False
        self._say(arrival, report, frame, began)
        self._step_time += 0.2 * (time.perf_counter() - began - self._step_time)
        return True

    def _start(self, arrival: Arrival, frame: Frame, init_box: _InitBox) -> Report | None:
        """Begin with a box; None if it is no good, the earlier target stays then."""
        try:
            report = self._session.start(frame, init_box.box)
        except LightTrackError as error:
            self._health.problem("bad_boxes", str(error))
            return None
        self._target = _Target(init_box.target_id, (frame.width, frame.height))
        self._strangers = 0
        self._done = arrival.number
        self._reported = arrival.number
        self._catch_up_until = time.monotonic() + CATCH_UP
        return report

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
        self._health.problem("bad_images", f"{change}, {STRANGERS} times: target forgotten, send a new init box")
        self._session.reset()
        self._target = None
        return NO_TARGET

    def _wait_for_better(self, init_box: _InitBox, arrival: Arrival) -> None:
        """The box's image cannot be read: start on the one after it, unless another box has come."""
        with self._news:
            if self._init_box is None and not self._reset:
                self._init_box = _InitBox(init_box.box, 0, init_box.target_id, arrival.number)

    def _say(self, arrival: Arrival, report: Report, frame: Frame | None, began: float) -> None:
        dropped = max(0, arrival.number - self._reported - 1)
        self._reported = arrival.number
        self._health.count("images_processed")
        self._health.count("images_dropped", dropped)
        self._health.stopped_at(report.exit_index)
        target_id = self._target.target_id if self._target else ""
        self._publish(Outcome(arrival, report, target_id, frame, began, dropped, not self._catch_up_until))

    def _until_next_image(self) -> float:
        with self._news:
            newest = self._buffer.newest
            return max(0.0, newest.time + self._interval - time.monotonic()) if newest else math.inf

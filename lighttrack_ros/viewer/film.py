"""A video, a folder of images or a camera behind the page, tracked in this process, without ROS."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.frames import FrameSource
from lighttrack_ros.models import Model, load_model, model_names
from lighttrack_ros.runtime import BACKENDS
from lighttrack_ros.session import NOWHERE, Report, Session, State
from lighttrack_ros.trackers import Tracker, create_tracker
from lighttrack_ros.viewer.board import Board, Target
from lighttrack_ros.viewer.protocol import Configure, Play, Remove, Reset, Track
from lighttrack_ros.viewer.source import Answer

KEPT_SECONDS = 10.0  # of frames, for boxes drawn on an old one
KEPT_BYTES = 256 << 20

_NO_TARGET = Report(State.IDLE, NOWHERE, 0.0)


@dataclass(frozen=True)
class Shot:
    """One frame, and what became of it.

    Attributes:
        index: of the frame in its source, from 0.
        time: seconds since the source's first frame.
        image: (height, width, 3) uint8 BGR.
        report: idle while there is no target.
        target_id: the target's name.
        seconds: that the session took; nan where it did nothing, or was given the target.
    """

    index: int
    time: float
    image: NDArray[np.uint8]
    report: Report = _NO_TARGET
    target_id: str = ""
    seconds: float = math.nan

    @property
    def stamp(self) -> int:
        """What tells frames apart, in place of a camera's stamp; 0 would mean the next one."""
        return self.index + 1


class Film:
    """Plays frames on a board and tracks what the page points at; `shots` does the work, all else is for any thread.

    A film stands still on its first frame until somebody presses Play or points at a target, and while somebody
    draws. A box takes it back to the frame on which it was drawn, and it goes on from there. A camera never stands
    still: the frames since then are gone through as fast as possible.

    Args:
        frames: what is played.
        model, backend, threads: see `trackers.create_tracker`.
        paced: play at the film's own rate; False: once there is a target, as fast as the tracker can.
        repeat: stand still at the end until somebody presses Play; False: be done, if a target was followed to it.
    """

    def __init__(
        self,
        frames: FrameSource,
        model: Model,
        backend: str = "auto",
        threads: int = 0,
        paced: bool = True,
        repeat: bool = True,
    ) -> None:
        self.board = Board()
        self._frames = frames
        self._model, self._backend, self._threads = model, backend, threads
        self._paced, self._repeat = paced, repeat
        # Shared, under the lock of `_news`.
        self._news = threading.Condition()
        self._orders: deque[tuple[Callable[[], Answer], Future[Answer]]] = deque()
        self._playing = frames.live
        self._held = False
        self._stop = threading.Event()
        # The loop's own.
        self._kept: deque[Shot] = deque()  # shown, and not yet given out
        self._ahead: deque[Shot] = deque()  # shown once, before somebody pointed at an older one
        self._target_id: str | None = None
        self._at_end = self._again = False
        self._tracker: Tracker | None = None
        self._session: Session | None = None
        self._due = 0.0  # time.monotonic() at which the film's time 0 was, or would have been
        self._step = math.nan  # seconds, smoothed
        self.board.set_status(
            {
                "subject": frames.name,
                "connected": True,
                "model": model.name,
                "backend": backend,
                "models": model_names(),
                "backends": list(BACKENDS),
            }
        )

    def watch(self, on: bool) -> None:
        """A film plays for nobody too."""

    def hold(self, on: bool) -> None:
        with self._news:
            self._held = on
            self._news.notify()

    def stop(self) -> None:
        """Have `shots` come to its end; may be called in a signal handler."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def order(self, order: object) -> Future[Answer]:
        work: Callable[[], Answer]
        if isinstance(order, Track):
            box, stamp, name = order.box, order.stamp, order.target_id
            work = lambda: self._start(box, stamp, name)  # noqa: E731
        elif isinstance(order, Reset):
            work = lambda: self._forget("told to forget it (reset)")  # noqa: E731
        elif isinstance(order, Remove):
            of = order.target_id
            work = lambda: self._forget("told to forget it", of)  # noqa: E731
        elif isinstance(order, Play):
            on = order.on
            work = lambda: self._play(on)  # noqa: E731
        elif isinstance(order, Configure):
            model, backend = order.model, order.backend
            work = lambda: self._configure(model, backend)  # noqa: E731
        else:
            work = lambda: Answer(False, "a film knows no such order")  # noqa: E731
        future: Future[Answer] = Future()
        with self._news:
            self._orders.append((work, future))
            self._news.notify()
        return future

    def start(self, box: Box, target_id: str = "") -> None:
        """Point at a target in the first frame, before `shots`."""
        self._first_box = (box, target_id)

    _first_box: tuple[Box, str] | None = None

    def shots(self) -> Generator[Shot, None, None]:
        """Play; every frame is given out once, in order, when nothing can change of it any more.

        A film that is played again begins anew with index 0.

        Raises:
            LightTrackError: the model cannot be loaded, or a frame not be read.
        """
        self._say(message="loading the model")
        try:
            self._load(self._model, self._backend)
            self._say(message="")
            self._again = True
            while self._again and not self._stop.is_set():
                self._again = False
                yield from self._run_through()
                self._forget("the film begins anew")
        finally:
            if self._tracker is not None:
                self._tracker.close()
            for _, future in self._orders:
                future.set_result(Answer(False, "the viewer has ended"))
            self._orders.clear()

    def _run_through(self) -> Iterator[Shot]:
        """From the first frame to the last."""
        source = enumerate(self._frames.timed())
        self._due = math.nan
        size = 0
        while not self._stop.is_set():
            if self._ahead:
                shot = self._ahead.popleft()
            else:
                following = next(source, None)
                if following is None:
                    self._stand_at_the_end()
                    if self._ahead:
                        continue
                    break
                index, (seconds, image) = following
                shot = Shot(index, seconds, image)
                size += image.nbytes
            self._wait_for(shot)
            if self._stop.is_set():
                break
            shot = self._track(shot)
            self._kept.append(shot)
            self._show(shot)
            if shot.index == 0 and self._first_box is not None:
                (box, name), self._first_box = self._first_box, None
                answer = self._start(box, shot.stamp, name)
                if not answer.ok:
                    raise LightTrackError(answer.words)
            while not (self._playing and not self._held) and not self._stop.is_set():
                self._due = math.nan
                self._do_orders(0.1)
            self._do_orders(0.0)
            while self._kept and not self._ahead:
                oldest = self._kept[0]
                if size <= KEPT_BYTES and shot.time - oldest.time <= KEPT_SECONDS:
                    break
                size -= oldest.image.nbytes
                yield self._kept.popleft()
        self._ahead.clear()
        while self._kept:
            yield self._kept.popleft()

    def _stand_at_the_end(self) -> None:
        """Until somebody has the film begin anew, or points at something on one of the last frames."""
        if self._frames.live:
            return
        self._at_end, self._playing = True, False
        self._say(message="the end: Play shows it again")
        while not (self._again or self._ahead or self._stop.is_set()):
            if self._target_id is not None and not self._repeat:
                break
            self._do_orders(0.1)
        self._at_end = False
        self._say(message="")

    def _wait_for(self, shot: Shot) -> None:
        """Until it is the frame's turn; orders are done meanwhile."""
        if self._frames.live or (not self._paced and self._target_id is not None):
            return
        if math.isnan(self._due):
            self._due = time.monotonic() - shot.time
        while not self._stop.is_set() and (rest := self._due + shot.time - time.monotonic()) > 0:
            if self._held or self._orders:
                return  # they are looked at after this frame
            with self._news:
                self._news.wait(min(rest, 0.1))
        if time.monotonic() - self._due - shot.time > 0.5:  # slower than the film: do not try to catch up
            self._due = time.monotonic() - shot.time

    def _do_orders(self, patience: float) -> None:
        with self._news:
            if not self._orders and patience:
                self._news.wait(patience)
            orders = list(self._orders)
            self._orders.clear()
        for work, future in orders:
            future.set_result(_answer(work))

    def _track(self, shot: Shot) -> Shot:
        if self._session is None or self._target_id is None:
            return replace(shot, report=_NO_TARGET, target_id="", seconds=math.nan)
        began = time.perf_counter()
        try:
            report = self._session.step(from_bgr(shot.image))
        except LightTrackError as error:
            self.board.note(str(error))
            return replace(shot, report=_NO_TARGET, target_id="", seconds=math.nan)
        took = time.perf_counter() - began
        self._step = took if math.isnan(self._step) else self._step + 0.1 * (took - self._step)
        assert self._tracker is not None
        while self._tracker.idle_work():
            pass
        return replace(shot, report=report, target_id=self._target_id, seconds=took)

    def _show(self, shot: Shot) -> None:
        targets = []
        if shot.report.state != State.IDLE:
            latency = None if math.isnan(shot.seconds) else 1e3 * shot.seconds
            targets = [Target(shot.target_id, shot.report.state, shot.report.box, shot.report.confidence, latency)]
        image = shot.image
        self.board.put_targets(shot.stamp, targets)  # before the picture: a film may be played again
        self.board.put_picture(shot.stamp, lambda: image)
        of = f" of {self._frames.count}" if self._frames.count else ""
        step = "" if math.isnan(self._step) else f"{1e3 * self._step:.1f} ms"
        self._say(figures={"frame": f"{shot.index + 1}{of}", "a step takes": step})

    def _start(self, box: Box, stamp: int, target_id: str) -> Answer:
        """Take the target on a kept frame, and go on from there."""
        found = next((index for index, shot in enumerate(self._kept) if shot.stamp == stamp), None)
        if found is None or self._session is None:
            return Answer(False, "that frame is no longer kept: point at something on a newer one")
        shot = self._kept[found]
        report = self._session.start(from_bgr(shot.image), box)  # its error leaves all as it was
        self._forget("replaced by a new box", of_session=False)
        self._target_id = target_id
        later = [self._kept.pop() for _ in range(len(self._kept) - found - 1)]
        self._ahead.extendleft(later)
        shot = replace(shot, report=report, target_id=target_id, seconds=math.nan)
        self._kept[-1] = shot
        self._show(shot)
        self._due = math.nan
        self._playing = True
        self._say()
        return Answer(True)

    def _forget(self, reason: str, only: str | None = None, of_session: bool = True) -> Answer:
        if self._target_id is None or only not in (None, self._target_id):
            return Answer(False, "there is no such target")
        self._target_id = None
        if of_session and self._session is not None:
            self._session.reset()
        self.board.forget_targets(reason)
        return Answer(True)

    def _play(self, on: bool) -> Answer:
        if self._frames.live and not on:
            return Answer(False, "a camera cannot be stopped")
        self._playing = on
        self._again = on and self._at_end
        self._say()
        return Answer(True)

    def _configure(self, model: str, backend: str) -> Answer:
        if model not in model_names() and model != self._model.name:
            return Answer(False, "there is no model of that name")
        if backend not in BACKENDS:
            return Answer(False, "there is no such backend")
        self._say(message="loading the model")
        try:
            self._load(self._model if model == self._model.name else load_model(model), backend)
        finally:
            self._say(message="")
        return Answer(True, f"{model} on {backend}: point at the target again")

    def _load(self, model: Model, backend: str) -> None:
        """Replace the tracker; after an error the former one stays."""
        tracker = create_tracker(model, backend, self._threads)
        session = Session.of(tracker, model)
        self._forget("another model", of_session=False)
        if self._tracker is not None:
            self._tracker.close()
        self._model, self._backend = model, backend
        self._tracker, self._session = tracker, session
        self.board.set_status({"model": model.name, "backend": backend})

    def _say(self, **values: object) -> None:
        playing = {} if self._frames.live else {"playing": self._playing}
        self.board.set_status({**playing, **values})


def _answer(work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except LightTrackError as error:
        return Answer(False, str(error))

"""What there is to see: the newest picture, the targets on it, the status, what has happened; for any thread."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import UInt8Array
from lighttrack_ros.session.states import NOWHERE, State

RIPENING = 0.15  # seconds for which a picture waits for what the tracker says of it
LONGEST = 0.5  # the same where the tracker is slow
_SILENCE = 1.0  # seconds without a word of the tracker after which no picture waits
_WAITING = 16  # pictures that wait at most
_REMEMBERED = 64  # images of which it is remembered what was said
_EVENTS = 200


@dataclass(frozen=True)
class Target:
    """What the tracker says of one target on one image.

    Attributes:
        latency: milliseconds from the image's stamp to the box; None where the clocks do not agree.
        end_reason: why it has ended; empty while it has not.
    """

    target_id: str
    state: State
    box: Box = NOWHERE
    confidence: float = 0.0
    latency: float | None = None
    end_reason: str = ""


@dataclass(frozen=True)
class Picture:
    """One image of the camera, not yet decoded.

    Attributes:
        number: counts the pictures from 1.
        stamp: the camera's, nanoseconds.
        arrived: time.monotonic().
        read: its pixels, (height, width, 3) uint8 BGR, never to be written to; may raise LightTrackError.
        targets: all of them, as they are on this image.
        told: whether the tracker has said so of this image; else they are as they were last.
    """

    number: int
    stamp: int
    arrived: float
    read: Callable[[], UInt8Array]
    targets: tuple[Target, ...] = ()
    told: bool = False


@dataclass(frozen=True)
class Event:
    """Something that happened, for the list of lost and found; `time` is seconds since 1970."""

    number: int
    time: float
    kind: str  # started, lost, found, ended, note
    target_id: str
    words: str


class Board:
    """Sources write, the server reads. Of the pictures only the newest few are kept.

    A picture is shown together with what the tracker says of the very same image: it waits for that, but not long.

    Args:
        clock: seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._number = 0
        self._waiting: deque[Picture] = deque(maxlen=_WAITING)
        self._ripe: Picture | None = None
        self._told: OrderedDict[int, tuple[Target, ...]] = OrderedDict()  # by stamp: all targets after that image
        self._told_at = -_SILENCE
        self._lag = 0.0  # seconds from a picture to the tracker's word of it, smoothed
        self._targets: dict[str, Target] = {}
        self._missing: set[str] = set()  # ids of targets that were lost and not found since; they may be uncertain
        self._status: dict[str, Any] = {}
        self._version = 0
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._happened = 0
        self._listeners: tuple[Callable[[], object], ...] = ()

    def listen(self, on_news: Callable[[], object]) -> None:
        """Have a function called after every change, in whatever thread it was made."""
        self._listeners += (on_news,)

    def put_picture(self, stamp: int, read: Callable[[], UInt8Array]) -> None:
        """An image has arrived; see `Picture`."""
        with self._lock:
            self._number += 1
            self._waiting.append(Picture(self._number, stamp, self._clock(), read))
        self._tell()

    def put_targets(self, stamp: int, targets: Sequence[Target]) -> None:
        """The tracker has worked on an image; targets that are not named stay as they were."""
        with self._lock:
            for target in targets:
                self._follow(target)
            self._told[stamp] = tuple(self._targets.values())
            self._told.move_to_end(stamp)
            while len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
            self._told_at = self._clock()
            arrived = next((picture.arrived for picture in self._waiting if picture.stamp == stamp), None)
            if arrived is not None:
                self._lag += 0.2 * (self._told_at - arrived - self._lag)
        self._tell()

    def forget_targets(self, reason: str) -> None:
        """The tracker is gone, and all that it followed."""
        with self._lock:
            for target in list(self._targets.values()):
                self._follow(replace(target, state=State.IDLE, end_reason=reason))
            self._told.clear()
            self._told_at = -_SILENCE
        self._tell()

    def set_status(self, values: Mapping[str, Any]) -> None:
        """Plain data for the page; what is not named stays as it was."""
        with self._lock:
            if all(name in self._status and self._status[name] == value for name, value in values.items()):
                return
            self._status = {**self._status, **values}
            self._version += 1
        self._tell()

    def note(self, words: str) -> None:
        """Something to be read in the list of what has happened."""
        with self._lock:
            self._add_event("note", "", words)
        self._tell()

    def newest(self, after: int) -> tuple[Picture | None, float | None]:
        """The newest picture that may be shown, if its number is higher.

        Returns:
            The picture, and where there is none yet the seconds after which to ask again (None: at the next news).
        """
        with self._lock:
            now = self._clock()
            patience = min(max(RIPENING, 2 * self._lag), LONGEST) if now - self._told_at < _SILENCE else 0.0
            ready = -1
            for index, picture in enumerate(self._waiting):
                if picture.stamp in self._told or now - picture.arrived >= patience:
                    ready = index
            for _ in range(ready + 1):
                picture = self._waiting.popleft()
                told = picture.stamp in self._told
                targets = self._told[picture.stamp] if told else tuple(self._targets.values())
                self._ripe = replace(picture, targets=targets, told=told)
            if self._ripe is not None and self._ripe.number > after:
                return self._ripe, None
            if self._waiting:
                return None, max(0.0, self._waiting[0].arrived + patience - now)
            return None, None

    def clear_pictures(self) -> None:
        """The camera is another one from now on, or nobody watches."""
        with self._lock:
            self._waiting.clear()
            self._ripe = None

    def status(self, after: int) -> tuple[int, dict[str, Any]] | None:
        """The status and its version, if that is higher."""
        with self._lock:
            return (self._version, self._status) if self._version > after else None

    def events(self, after: int) -> list[Event]:
        """Those with higher numbers, as far as they are remembered."""
        with self._lock:
            return [event for event in self._events if event.number > after]

    @property
    def targets(self) -> tuple[Target, ...]:
        """As they are now."""
        with self._lock:
            return tuple(self._targets.values())

    def _follow(self, target: Target) -> None:
        """Keep the target's newest state; what changes is an event."""
        before = self._targets.get(target.target_id)
        was_missing = target.target_id in self._missing and not target.end_reason
        missing = target.state == State.LOST or (was_missing and target.state == State.UNCERTAIN)
        self._missing.discard(target.target_id)
        if missing:
            self._missing.add(target.target_id)
        if target.state == State.IDLE:
            if before is not None:
                del self._targets[target.target_id]
            if before is not None or target.end_reason:
                self._add_event("ended", target.target_id, target.end_reason)
            return
        self._targets[target.target_id] = target
        if before is not None and target.end_reason:  # pointed anew, under the same name
            self._add_event("ended", target.target_id, target.end_reason)
            before = None
        if before is None:
            self._add_event("started", target.target_id, "")
        elif missing != was_missing:
            self._add_event("lost" if missing else "found", target.target_id, "")

    def _add_event(self, kind: str, target_id: str, words: str) -> None:
        self._happened += 1
        self._events.append(Event(self._happened, time.time(), kind, target_id, words))

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

"""Boxes that somebody drew round a target, and the image that each of them waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lighttrack_ros.geometry import Box
from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer

AHEAD = 10**9  # nanoseconds by which an init box may come before its image
PATIENCE = 3.0  # seconds for which an init box waits for its image


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
class InitBox:
    """One that was sent.

    Attributes:
        stamp: of the image it was drawn on, nanoseconds; 0: the next image.
        after: number of the newest image when the box came.
        until: when its patience ends, time.monotonic().
        answer: to be called once with what became of it.
        note: what is to be said where the image is not the one that was asked for.
    """

    box: Box
    stamp: int
    target_id: str
    after: int
    until: float
    answer: Callable[[Start], object]
    note: str = ""


class InitBoxes:
    """Those that wait for their image, one a target; not thread-safe."""

    def __init__(self) -> None:
        self._boxes: dict[str, InitBox] = {}

    def __bool__(self) -> bool:
        return bool(self._boxes)

    @property
    def target_ids(self) -> set[str]:
        return set(self._boxes)

    def add(self, init_box: InitBox) -> None:
        self._boxes[init_box.target_id] = init_box

    def take(self, target_id: str) -> InitBox | None:
        """The target's, which then waits no more."""
        return self._boxes.pop(target_id, None)

    def take_all(self) -> list[InitBox]:
        boxes, self._boxes = self._boxes, {}
        return list(boxes.values())

    def take_late(self, now: float) -> list[InitBox]:
        """Those that have waited long enough at a time.monotonic()."""
        late = [init_box for init_box in self._boxes.values() if now >= init_box.until]
        for init_box in late:
            del self._boxes[init_box.target_id]
        return late

    def take_ready(self, buffer: FrameBuffer, now: float) -> tuple[Arrival, InitBox] | None:
        """The first whose image is there at a time.monotonic(), with that image.

        Returns:
            The image, and the box with a note where the image is not the one that was asked for.
        """
        for init_box in self._boxes.values():
            arrival = _image_of(init_box, buffer, now)
            if arrival is not None:
                del self._boxes[init_box.target_id]
                return arrival, replace(init_box, note=_not_as_asked(arrival, init_box, buffer))
        return None

    def patience(self, now: float) -> float | None:
        """Seconds until one has waited long enough; None while none waits."""
        until = min((init_box.until for init_box in self._boxes.values()), default=None)
        return None if until is None else max(0.0, until - now)


def _image_of(init_box: InitBox, buffer: FrameBuffer, now: float) -> Arrival | None:
    """The image on which a box was drawn; None while it has still to come."""
    newest = buffer.newest
    if newest is None:
        return None
    if not init_box.stamp:
        following = buffer.after(init_box.after)
        return following[0] if following else None
    arrival = buffer.of_stamp(init_box.stamp)
    if arrival is not None:
        return arrival
    # A camera begins again after a pause: a box for its first image may come before that image does.
    pause = (now - newest.time) * 1e9
    return None if 0 < init_box.stamp - newest.message.stamp <= AHEAD + pause else newest


def _not_as_asked(arrival: Arrival, init_box: InitBox, buffer: FrameBuffer) -> str:
    """Why a box starts on an image that is not the one it was drawn on, and how far that is; else empty."""
    oldest = buffer.oldest
    if not init_box.stamp or oldest is None or buffer.of_stamp(init_box.stamp) is not None:
        return ""
    behind = arrival.message.stamp - init_box.stamp
    kept = f"the {len(buffer)} kept"
    if behind < 0:
        return f"its stamp is {-behind / 1e9:.3f} s newer than the newest image: another clock? Starting on the newest"
    if init_box.stamp < oldest.message.stamp:
        older = (oldest.message.stamp - init_box.stamp) / 1e9
        return (
            f"the image it was drawn on is {behind / 1e9:.3f} s older than the newest and {older:.3f} s older than "
            f"the oldest of {kept} (parameters buffer_seconds and buffer_megabytes): starting on the newest"
        )
    nearest = buffer.nearest(init_box.stamp)
    assert nearest is not None
    away = abs(nearest.message.stamp - init_box.stamp) / 1e6
    return f"none of {kept} images has its stamp, the nearest is {away:.3f} ms away: starting on the newest"


def words_of(box: Box) -> str:
    return f"box x {box.x:.1f}, y {box.y:.1f}, {box.width:.1f} x {box.height:.1f}"

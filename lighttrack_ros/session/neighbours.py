"""The other targets in the picture, as one target knows them: what is in their boxes is not this one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from lighttrack_ros.geometry import Box, intersection_over_union

_HELD = 0.5  # overlap from which a box is another's
_APART = 0.3  # overlap under which two targets are seen as two
_NEWS = 0.3  # share of the newest frame in how the target moves
_HIDDEN = 30  # frames for which it is taken to move on like that behind another


class Neighbours:
    """Of one target, from its start on. Call `look` at the begin of a frame, and `settle` at its end."""

    def __init__(self) -> None:
        self._boxes: Mapping[Hashable, Box] = {}
        self._met: set[Hashable] = set()  # those that were there when it was seen
        self._apart: set[Hashable] = set()  # of them, those that were once beside it
        self._centre: tuple[float, float] | None = None  # of the target when it was seen last, apart from all
        self._speed = 0.0, 0.0  # pixels a frame
        self._moves = 0  # that are in it
        self._frames = 0  # since then

    def look(self, boxes: Mapping[Hashable, Box]) -> None:
        """Take in where the others are that are believed in, pixels of the frame."""
        self._boxes = boxes
        self._frames += 1

    def hold(self, box: Box) -> bool:
        """Whether a box is one of theirs. Targets that have always overlapped, a rider and a horse, may go on so."""
        return any(
            intersection_over_union(box, other) > _HELD and (key in self._apart or key not in self._met)
            for key, other in self._boxes.items()
        )

    @property
    def may_hide(self) -> bool:
        """Whether it is to be expected yet that it comes out from behind another."""
        return self._frames <= _HIDDEN

    def place(self, size: Box) -> Box | None:
        """Where this target is if another hides it: as far on as it was moving; None if it was never seen by itself.

        Args:
            size: a box of the target's size.
        """
        if self._centre is None:
            return None
        frames = min(self._frames, _HIDDEN)
        x, y = (at + frames * speed for at, speed in zip(self._centre, self._speed, strict=True))
        return size._replace(x=x - size.width / 2, y=y - size.height / 2)

    def settle(self, box: Box) -> None:
        """The target is believed to be here."""
        beside = {key for key, other in self._boxes.items() if intersection_over_union(box, other) < _APART}
        self._met |= self._boxes.keys()
        self._apart |= beside
        if len(beside) < len(self._boxes):
            return  # what is seen may be another's
        centre = box.centre
        if self._centre is not None:
            moved = ((now - before) / self._frames for now, before in zip(centre, self._centre, strict=True))
            self._moves += 1
            news = max(_NEWS, 1 / self._moves)
            x, y = (speed + news * (new - speed) for new, speed in zip(moved, self._speed, strict=True))
            self._speed = x, y
        self._centre, self._frames = centre, 0

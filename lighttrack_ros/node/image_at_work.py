"""The image that the targets have their turns on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import Frame
from lighttrack_ros.node.diagnostics import Health
from lighttrack_ros.node.frame_buffer import Arrival
from lighttrack_ros.node.messages import Stamped
from lighttrack_ros.node.target import Outcome


class UnreadableError(LightTrackError):
    """An image that cannot be decoded: counted and told already."""


@dataclass
class ImageAtWork:
    """From its first turn until a newer image is there, or all targets have had theirs.

    Attributes:
        began: time.perf_counter().
        frame: its pixels; None until somebody asked for them.
        outcomes: what was published of it.
        complained: whether its size was complained of.
    """

    arrival: Arrival
    began: float
    frame: Frame | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    complained: bool = False
    _is_unreadable: bool = False

    def begin_turn(self) -> float:
        """When the turn that begins now has begun, time.perf_counter(): the first one with the image."""
        return time.perf_counter() if self.outcomes else self.began

    def decode(self, read: Callable[[Stamped], Frame], health: Health) -> Frame:
        """Its pixels, decoded once.

        Raises:
            UnreadableError: they cannot be.
        """
        if self._is_unreadable:
            raise UnreadableError
        if self.frame is None:
            try:
                self.frame = read(self.arrival.message)
            except LightTrackError as error:
                self._is_unreadable = True
                health.problem("bad_images", str(error))
                raise UnreadableError from error
            health.count("images_decoded")
        return self.frame

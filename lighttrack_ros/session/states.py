"""What a session says of a target on one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from lighttrack_ros.geometry import Box

NOWHERE = Box(0.0, 0.0, 0.0, 0.0)


class State(IntEnum):
    """What may be believed of the box; the values are those of TrackedTarget.msg."""

    IDLE = 0
    TRACKING = 1
    UNCERTAIN = 2
    LOST = 3


@dataclass(frozen=True)
class Report:
    """The session's word on one frame: the estimate as the outside world may use it.

    `box` is the best guess there is, also while the target is lost. It always lies inside the frame: it is the visible
    part of `whole`, the tracker's box of the whole target. `confidence` is how likely it is that the box is right.
    `network` is the estimate's; None where no network ran to find the target.
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

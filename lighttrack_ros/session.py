"""One target's life: idle, tracking, uncertain, lost, found again; which estimate may be believed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from lighttrack_ros.geometry import Box


class State(IntEnum):
    """What may be believed of the box; the values are those of TrackedTarget.msg."""

    IDLE = 0
    TRACKING = 1
    UNCERTAIN = 2
    LOST = 3


@dataclass(frozen=True)
class Report:
    """The session's word on one frame: the estimate as the outside world may use it.

    While the target is lost, `box` is where it was last seen. `box` always lies inside the frame.
    """

    state: State
    box: Box
    confidence: float
    exit_index: int = -1

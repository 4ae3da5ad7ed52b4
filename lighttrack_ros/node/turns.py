"""Whose turn it is: several targets, one after the other, and images that keep coming.

An image is gone through target by target while it is the newest. When a newer one is there, that one is next, and the
targets that had no turn on the image before come first. So no target starves: each is at most a round of turns behind.
Only a target whose run of the network another one's has shared goes before (`TrackingLoop._turn_of_partner`).
A target that was given on an old image catches up with the present in turns of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer


class Waiting(Protocol):
    """What the order of the turns depends on.

    Attributes:
        done: number of the image that the target had its last turn on.
        served: number of that turn, counted over all targets.
        catch_up_until: when it is to have caught up, time.monotonic(); 0: it is on to the newest image.
    """

    done: int
    served: int
    catch_up_until: float


_Target = TypeVar("_Target", bound=Waiting)


@dataclass(frozen=True)
class Turn(Generic[_Target]):
    """Which target is next, on which image, and whether it has caught up then."""

    arrival: Arrival
    target: _Target
    is_live: bool


def next_turn(
    targets: Collection[_Target], buffer: FrameBuffer, at_work: int, now: float, step_time: float
) -> Turn[_Target] | None:
    """The next turn; None if there is nothing to do before another image arrives.

    Args:
        at_work: number of the image of the turn before, if more turns may follow on it; else 0.
        now: time.monotonic().
        step_time: seconds that a turn takes.
    """
    newest = buffer.newest
    if newest is None:
        return None
    due = sorted((target for target in targets if target.done < newest.number), key=lambda target: target.served)
    if not due:
        return None
    if at_work == newest.number:
        for target in due:
            if not target.catch_up_until:
                return Turn(newest, target, True)
    if not due[0].catch_up_until:
        return Turn(newest, due[0], True)
    # The other targets have their turns in between.
    turns = [_catching_up(target, buffer, now, step_time * len(targets)) for target in due if target.catch_up_until]
    for turn in turns:
        if not turn.is_live and turn.target.done < at_work <= turn.arrival.number:  # that image is decoded already
            arrival = next((kept for kept in buffer.after(at_work - 1) if kept.number == at_work), None)
            if arrival is not None:
                return Turn(arrival, turn.target, False)
    return turns[0]


def _catching_up(target: _Target, buffer: FrameBuffer, now: float, step_time: float) -> Turn[_Target]:
    """The next of the images since its last turn, evenly spaced: as many as there is time for."""
    waiting = buffer.after(target.done)
    affordable = (target.catch_up_until - now) / step_time
    stride = math.ceil(len(waiting) / max(1.0, affordable))
    return Turn(waiting[min(stride, len(waiting)) - 1], target, stride >= len(waiting))

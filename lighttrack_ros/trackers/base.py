"""The interface of every tracker: start on a box, then one estimate per frame."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame


@dataclass(frozen=True)
class Estimate:
    """The result of one frame.

    Attributes:
        box: pixels of the frame, as the authors' code reports it.
        confidence: the network's own score, 0..1, before any penalty; what it is worth differs
            from model to model, see `session`.
        evidence: score, 0..1, that the target is anywhere in the search region; None where `confidence` is that.
        network: when the network was started and when its outputs were there, time.perf_counter().
        exit_index: exit after which the network stopped, from 0; -1 for networks without exits.
    """

    box: Box
    confidence: float
    exit_index: int = -1
    evidence: float | None = None
    network: tuple[float, float] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Sight:
    """What the search region of the last frame showed: everything in it that might be the target.

    Attributes:
        boxes: (k, 4) float64, x, y, width, height in pixels of the frame, not smoothed; row 0 is the one that the
            tracker took, the others are peaks of the score map, the highest first.
        logits: (k,) float64, the network's score of each before the sigmoid.
        patches: (k, 4, 4, channels) float32, the cells about each one's centre of the features that the network
            matches with its template; None where the network gives none.
        mean, deviation: of the logits over the region.
    """

    boxes: npt.NDArray[np.float64]
    logits: npt.NDArray[np.float64]
    patches: npt.NDArray[np.float32] | None
    mean: float
    deviation: float

    @cached_property
    def cells(self) -> npt.NDArray[np.float32]:
        """(k, 16, channels) float32: the patches' cells, at length 1; only where there are patches."""
        return unit(self._flat)

    @cached_property
    def looks(self) -> npt.NDArray[np.float32]:
        """(k, channels) float32: their means over the cells, at length 1; only where there are patches."""
        return unit(self._flat.sum(axis=1))

    @property
    def _flat(self) -> npt.NDArray[np.float32]:
        assert self.patches is not None
        return self.patches.reshape(len(self.patches), -1, self.patches.shape[-1])


def unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Vectors along the last axis, at length 1."""
    lengths = np.sqrt(np.einsum("...f,...f->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


class Tracker(ABC):
    """One target in one stream of frames. Not thread-safe; frames of any size may follow each other.

    For several targets `another` makes trackers that share the engines; no two of them may work at the same time.
    """

    backend: str  # the backend that its engines really use
    has_sight = False  # whether `sight` says anything

    @abstractmethod
    def init(self, frame: Frame, box: Box) -> None:
        """Start to track what is in `box` on `frame`; forgets any earlier target.

        Raises:
            LightTrackError: the box is not finite, is empty or lies outside the frame.
        """

    def reset(self) -> None:  # noqa: B027  # most trackers have nothing under way
        """Forget the target: work for it that waits is dropped."""

    @abstractmethod
    def update(self, frame: Frame) -> Estimate:
        """Find the target on the next frame.

        Raises:
            LightTrackError: `init` was never called.
        """

    def look_ahead(self, frame: Frame, other: Tracker) -> bool:
        """Run the network for the next `update` of two trackers at once, both on this frame, where that is faster.

        Call it directly before this tracker's update; the other's comes directly after it. Their results are the same
        as without.

        Args:
            other: one that shares the engines; both have a target.

        Returns:
            Whether it has run for both.
        """
        return False

    @abstractmethod
    def another(self) -> Tracker:
        """A tracker of one more target, on the same engines; it has no target yet.

        Only what is known of the target is its own: its place and its template's features. These stay allocated until
        the engines are freed, so that trackers should be used again for other targets.
        """

    def surroundings(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """The features of the search region on the frame of `init`, and of its mirror image; None where `sight` is.

        Ask directly after `init`; the target's centre is at cell n // 2 of each.

        Returns:
            (2, channels, n, n) float32.
        """
        return None

    def sight(self) -> Sight | None:
        """What the last `update` saw beside its estimate; None where the tracker does not say.

        Ask before the next update, of any tracker on the same engines.
        """
        return None

    @property
    @abstractmethod
    def target(self) -> Box:
        """The box around which the next frame is searched; set it to search elsewhere.

        Raises:
            LightTrackError: `init` was never called.
        """

    @target.setter
    @abstractmethod
    def target(self, box: Box) -> None: ...

    @property
    def place(self) -> object:
        """Where the next frame is searched, and how; assign one that was taken earlier to go on from there."""
        return self.target

    @place.setter
    def place(self, place: object) -> None:
        assert isinstance(place, Box)
        self.target = place

    def idle_work(self, seconds: float = math.inf) -> bool:
        """Do one step of work that can wait, e.g. of renewing a template; call it between frames, when none is waiting.

        `update` never does such work, so that it delays no frame. A loop without time limit gets the published
        results by

            estimate = tracker.update(frame)
            while tracker.idle_work():
                pass

        A loop with a time limit does one step at a time, and looks for a new frame after each.

        Args:
            seconds: until the next frame is expected; a step that takes longer is not started.

        Returns:
            Whether a step was done; if so, there may be another.
        """
        return False

    def go_on_as(self, other: Tracker) -> None:
        """Look in the next frame where, and as, another tracker of the same model would."""
        self.target = other.target

    def take_turn(self, number: int) -> None:  # noqa: B027  # most trackers have one network
        """Have another of its networks run in the next frame, if it has several; for comparisons that must see all."""

    @abstractmethod
    def close(self) -> None:
        """Free the engines, for all trackers that share them; safe to call twice."""


def check_box(frame: Frame, box: Box) -> None:
    """Refuse an initial box on which no tracker can start.

    Raises:
        LightTrackError: not finite, empty, or outside the frame.
    """
    if not all(map(math.isfinite, box)):
        raise LightTrackError(f"init box {tuple(box)} is not finite")
    if box.width <= 0 or box.height <= 0:
        raise LightTrackError(f"init box {tuple(box)} is empty: width and height must be greater than 0")
    if not (box.x < frame.width and box.y < frame.height and box.x + box.width > 0 and box.y + box.height > 0):
        raise LightTrackError(f"init box {tuple(box)} lies outside the frame of {frame.width} x {frame.height}")

"""A box for one click: the one on which the tracking network agrees with itself."""

from __future__ import annotations

import numpy as np

from lighttrack_ros.geometry import Box, clip_box, intersection_over_union
from lighttrack_ros.image import UInt8Array, from_bgr
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.trackers import Tracker, create_tracker

_SMALLEST = 16.0  # pixels: side of the first square that is tried
_STEP = 1.5  # from one square to the next
_SCORE = 0.3  # weight of the network's score beside the agreement, chosen on training videos and photos


class Proposer:
    """Proposes boxes by a network of its own, loaded at the first use; for one thread.

    The network is shown squares of growing size round the point, each as the target on the same picture, and asked
    where the target is. Its box leans towards the edges of what is in the middle: where two neighbouring squares lead
    to nearly the same box, that is the thing.
    """

    def __init__(self) -> None:
        self._tracker: Tracker | None = None

    def load(self) -> Tracker:
        """The network, on one thread.

        Raises:
            LightTrackError: the default model is not there or cannot be loaded.
        """
        if self._tracker is None:
            self._tracker = create_tracker(load_model(DEFAULT_MODEL), "onnxruntime", threads=1)
        return self._tracker

    def propose(self, image: UInt8Array, x: float, y: float) -> Box:
        """The box of the thing at a point.

        Args:
            image: (height, width, 3) uint8, BGR.
            x, y: inside it, pixels.

        Raises:
            LightTrackError: see `load`.
        """
        tracker, frame = self.load(), from_bgr(image)
        candidates = []
        side = _SMALLEST
        while side < min(frame.width, frame.height):
            tracker.init(frame, Box(x - side / 2, y - side / 2, side, side))
            score = tracker.update(frame).confidence
            candidates.append((score, tracker.target))
            side *= _STEP
        if not candidates:
            return clip_box(Box(x - 8, y - 8, 16, 16), frame.width, frame.height)
        boxes = [box for _, box in candidates]
        worth = [_SCORE * score + _agreement(boxes, index) for index, (score, _) in enumerate(candidates)]
        tracker.init(frame, boxes[int(np.argmax(worth))])
        tracker.update(frame)
        return clip_box(tracker.target, frame.width, frame.height)

    def close(self) -> None:
        """Free the network."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None


def _agreement(boxes: list[Box], index: int) -> float:
    """Mean overlap of a box with its neighbours'."""
    neighbours = boxes[max(0, index - 1) : index] + boxes[index + 1 : index + 2]
    return float(np.mean([intersection_over_union(boxes[index], box) for box in neighbours])) if neighbours else 0.0

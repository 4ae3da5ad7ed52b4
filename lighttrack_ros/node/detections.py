"""vision_msgs, where that package is installed: detections in, and the targets as detections out.

A detection's box is given by its middle; middle and size are in pixels, counted as everywhere here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from lighttrack_ros.geometry import Box
from lighttrack_ros.msg import TrackedTarget, TrackedTargets
from lighttrack_ros.node.interface import INIT_DETECTION, INIT_DETECTIONS, SEEN_DETECTIONS, subscribe
from lighttrack_ros.node.messages import to_nanoseconds

try:
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
except ImportError:  # there is no wheel of it
    Detection2D = Detection2DArray = ObjectHypothesisWithPose = None

INSTALLED = Detection2D is not None

_MOST = 50  # detections of one message that are looked at, those of the best score


class DetectionTopics:
    """What a node hears in vision_msgs: orders to start targets, and what a detector sees. Nothing if not installed.

    Args:
        track: told of a box, the stamp of its image in nanoseconds, and an id.
        suggest: told of the places where a detector sees something.
        complain: told why a detection was not used.

    Attributes:
        orders: the subscriptions by which somebody may start a target; theirs to destroy who asked for it.
    """

    def __init__(
        self,
        node: Node,
        track: Callable[[Box, int, str], object],
        suggest: Callable[[list[Box]], object],
        complain: Callable[[str], object],
    ) -> None:
        self._node = node
        self._track = track
        self._suggest = suggest
        self._complain = complain
        self.orders: list[Any] = []
        self._others: list[Any] = []
        if INSTALLED:
            self.orders = [
                subscribe(node, INIT_DETECTION, self._on_order),
                subscribe(node, INIT_DETECTIONS, self._on_orders),
            ]
            self._others = [subscribe(node, SEEN_DETECTIONS, self._on_detections)]

    def close(self) -> None:
        """Unsubscribe from what is no order."""
        for subscription in self._others:
            self._node.destroy_subscription(subscription)

    def _on_order(self, detection: Any) -> None:
        self._track(box_of(detection), to_nanoseconds(detection.header.stamp), detection.id)

    def _on_orders(self, array: Any) -> None:
        for detection in array.detections:
            stamp = to_nanoseconds(detection.header.stamp) or to_nanoseconds(array.header.stamp)
            self._track(box_of(detection), stamp, detection.id)

    def _on_detections(self, array: Any) -> None:
        best = heapq.nlargest(_MOST, array.detections, key=score_of)
        boxes = [box_of(detection) for detection in best]
        good = [box for box in boxes if all(map(math.isfinite, box)) and box.width >= 1 and box.height >= 1]
        if len(good) < len(boxes):
            bad = next(box for box in boxes if box not in good)
            self._complain(f"{tuple(bad)}: expected finite numbers, width and height at least 1 pixel")
        if good:
            self._suggest(good)


def box_of(detection: Any) -> Box:
    """Of a Detection2D; its rotation is left out."""
    middle, width, height = detection.bbox.center.position, detection.bbox.size_x, detection.bbox.size_y
    return Box(middle.x - width / 2, middle.y - height / 2, width, height)


def score_of(detection: Any) -> float:
    """The best hypothesis's; 0 without any, and for what is no number."""
    scores = [float(result.hypothesis.score) for result in detection.results]
    return max((score for score in scores if not math.isnan(score)), default=0.0)


def detections_of(targets: TrackedTargets) -> Any:
    """A Detection2DArray of what is in sight: targets that are tracked or uncertain, and no guesses."""
    shown = (TrackedTarget.STATE_TRACKING, TrackedTarget.STATE_UNCERTAIN)
    array = Detection2DArray(header=targets.header)
    array.detections = [_detection(target) for target in targets.targets if target.state in shown]
    return array


def _detection(target: TrackedTarget) -> Any:
    detection = Detection2D(header=target.header, id=target.target_id)
    detection.bbox.center.position.x = target.x + target.width / 2
    detection.bbox.center.position.y = target.y + target.height / 2
    detection.bbox.size_x, detection.bbox.size_y = target.width, target.height
    result = ObjectHypothesisWithPose()
    result.hypothesis.score = float(target.confidence)  # of which class it is, a tracker does not know
    detection.results = [result]
    return detection

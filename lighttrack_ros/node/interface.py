"""The node's topics and services: declared here, created from this, and listed in docs/node.md by `make docs`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from lighttrack_ros.node.image_stream import DEPTH
from lighttrack_ros.session import MOST_TARGETS


@dataclass(frozen=True)
class Declared:
    """A topic or a service.

    Attributes:
        name: before remapping; `~` is the node.
        type: as ROS writes it, e.g. std_srvs/srv/Trigger.
        what: what it is for, in Markdown, for docs/node.md.
    """

    name: str
    type: str
    what: str

    @property
    def kind(self) -> Any:
        """The class of that type.

        Raises:
            ImportError: its package is not installed.
        """
        package, folder, name = self.type.split("/")
        return getattr(importlib.import_module(f"{package}.{folder}"), name)


@dataclass(frozen=True)
class Topic(Declared):
    """One that the node listens or speaks on.

    Attributes:
        depth: of the queue, messages.
        reliability: None: as the parameter of that name says.
    """

    depth: int
    reliability: ReliabilityPolicy | None = ReliabilityPolicy.RELIABLE

    @property
    def qos(self) -> QoSProfile:
        """Of a topic whose reliability is no parameter's."""
        assert self.reliability is not None
        return QoSProfile(depth=self.depth, reliability=self.reliability)


class Subscribed(Topic):
    """The node listens."""


class Published(Topic):
    """The node speaks."""


class Service(Declared):
    """The node answers."""


def subscribe(node: Node, topic: Subscribed, callback: Callable[[Any], None]) -> Any:
    """rclpy's subscription."""
    return node.create_subscription(topic.kind, topic.name, callback, topic.qos)


IMAGE = Subscribed("image", "sensor_msgs/msg/Image", "`image_transport: raw`", DEPTH, None)
COMPRESSED_IMAGE = Subscribed(
    "image/compressed",
    "sensor_msgs/msg/CompressedImage",
    "`image_transport: compressed`; JPEG, PNG. Remap `image`, the suffix follows",
    DEPTH,
    None,
)
INIT_BOX = Subscribed(
    "init_box",
    "lighttrack_ros/msg/InitBox",
    "a box, the stamp of the image it was drawn on, an id: one more target, or a known one anew",
    MOST_TARGETS,  # boxes for all targets may come at once
)
INIT_ROI = Subscribed(
    "init_roi",
    "sensor_msgs/msg/RegionOfInterest",
    "a box for the next image; quick to type; for the target without an id",
    1,
)
TRACK = Service(
    "~/track",
    "lighttrack_ros/srv/TrackTarget",
    "the same as `init_box`, with an answer: taken, and on which image, or why not",
)
TARGET = Published(
    "~/target",
    "lighttrack_ros/msg/TrackedTarget",
    "one for every target and image that was processed, as soon as it is known, and one when a target ends; idle ones "
    "while there is no target",
    10,
)
TARGETS = Published(
    "~/targets",
    "lighttrack_ros/msg/TrackedTargets",
    "the same messages, all of an image in one, when the image is done with; one for every image that was processed, "
    "empty while there is no target",
    10,
)
BEARING = Published(
    "~/bearing",
    "lighttrack_ros/msg/TargetBearings",
    "the directions of an image's targets in the camera's optical frame; one for every image that was processed, while "
    "somebody listens and the calibration is known: [steering.md](steering.md)",
    10,
)
CAMERA_INFO = Subscribed(
    "camera_info",
    "sensor_msgs/msg/CameraInfo",
    "the calibration, for `~/bearing`; the one beside the image: `/camera/camera_info` for `/camera/image_raw`. "
    "Elsewhere: remap `camera_info`; the log has the full name",
    10,
    ReliabilityPolicy.BEST_EFFORT,  # goes with every camera
)
ANNOTATED = Published(
    "~/annotated",
    "sensor_msgs/msg/Image",
    "the image, bgr8, with the boxes, the targets' ids and colours; drawn only while somebody listens",
    1,
)
COMPRESSED_ANNOTATED = Published(
    "~/annotated/compressed",
    "sensor_msgs/msg/CompressedImage",
    "the same as a JPEG, as image_transport's `compressed` has it, for a slow link; encoded only while somebody "
    "listens",
    1,
)
INIT_DETECTION = Subscribed(
    "init_detection",
    "vision_msgs/msg/Detection2D",
    "the same as `init_box`; this and the next three where vision_msgs is installed: "
    "[steering.md](steering.md#detectors-vision_msgs)",
    MOST_TARGETS,
)
INIT_DETECTIONS = Subscribed("init_detections", "vision_msgs/msg/Detection2DArray", "several of these", 1)
SEEN_DETECTIONS = Subscribed(
    "detections",
    "vision_msgs/msg/Detection2DArray",
    "what a detector sees all the time; looked at while a target is lost",
    1,
)
DETECTIONS = Published(
    "~/detections",
    "vision_msgs/msg/Detection2DArray",
    "the targets in sight, of every image that was processed; only while somebody listens",
    10,
)
TIMING = Published(
    "~/timing",
    "diagnostic_msgs/msg/DiagnosticArray",
    "where the time of a target on an image went, ms: transport, wait, crop, network, decode, and the `target_id` (a "
    "run of the network that two targets share counts for the first of them); only while somebody listens: "
    "[latency.md](latency.md)",
    10,
)
DIAGNOSTICS = Published(
    "/diagnostics",
    "diagnostic_msgs/msg/DiagnosticArray",
    "once a second (`diagnostics_period`): [below](#diagnostics)",
    1,
)
RESET = Service("~/reset", "std_srvs/srv/Trigger", "forget all targets")
REMOVE = Service("~/remove", "lighttrack_ros/srv/RemoveTarget", "forget the target of that id; the others stay")
ENABLE = Service(
    "~/enable",
    "std_srvs/srv/SetBool",
    "false: leave images alone, keep the targets; true: go on with the next image",
)

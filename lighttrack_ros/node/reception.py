"""The camera's images as they arrive: handed on to the tracking loop, and complained of where something is wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import qos_policy_name_from_kind

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.node.diagnostics import Health
from lighttrack_ros.node.image_stream import ImageStream
from lighttrack_ros.node.interface import COMPRESSED_IMAGE, IMAGE
from lighttrack_ros.node.loss import LossMeter
from lighttrack_ros.node.messages import Stamped, encoding_of, read_header
from lighttrack_ros.node.parameters import Parameters
from lighttrack_ros.node.stream_watch import StreamWatch
from lighttrack_ros.node.tracking_loop import TrackingLoop
from lighttrack_ros.node.transport import CAMERA_PROFILE, fastdds_profile

LOSS_SHARE = 0.1  # of the images: less is counted, and not complained of


class Reception:
    """From activation to deactivation.

    Args:
        is_wanted: whether every image is, see `ImageStream`.

    Attributes:
        last_image: when the newest came, time.monotonic(); at first, when it was begun.
        loss: what the gaps between the stamps tell.

    Raises:
        LightTrackError: a QoS override that cannot be.
    """

    def __init__(
        self, node: LifecycleNode, parameters: Parameters, health: Health, is_wanted: Callable[[], bool]
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._health = health
        self._loop: TrackingLoop | None = None
        self._beginning_told = self._rate_told = False
        self.loss = LossMeter()
        self._watch = StreamWatch()
        compressed = parameters.image_transport == "compressed"
        self._stream = ImageStream(
            node,
            (COMPRESSED_IMAGE if compressed else IMAGE).kind,
            self._image_topic(compressed),
            parameters.reliability,
            self._on_image,
            self._on_incompatible,
            is_wanted,
            self._on_lost,
        )
        self.last_image = time.monotonic()

    def start(self, loop: TrackingLoop) -> None:
        """Hand images to the loop from now on."""
        self._loop = loop
        self._stream.start()

    def wake(self) -> None:
        """Ask again whether every image is wanted."""
        self._stream.wake()

    def stop(self) -> None:
        """Unsubscribe; no image is handed on afterwards."""
        self._stream.stop()

    @property
    def topic(self) -> str:
        return self._stream.topic

    @property
    def reliability(self) -> str:
        """What is asked of the publishers now."""
        return self._stream.reliability

    def complaint(self, publishers: int) -> str:
        """What is strange about the headers of the last images; empty if nothing is."""
        return self._watch.complaint(publishers)

    def _image_topic(self, compressed: bool) -> str:
        topic = self._node.resolve_topic_name(self._parameters.image_topic)
        return topic if not compressed or topic.endswith("/compressed") else f"{topic}/compressed"

    def _on_image(self, data: bytes) -> None:
        """In the stream's thread."""
        loop = self._loop
        if loop is None:
            return
        try:
            message = read_header(data)
        except LightTrackError as error:
            self._health.problem("bad_images", str(error))
            return
        loop.put(message)
        self._watch.add(message.stamp, message.frame_id)
        self.last_image = time.monotonic()
        if not self._beginning_told:
            self._beginning_told = True
            self._tell_beginning(loop, message)
        self._look_for_loss(message.stamp)

    def _tell_beginning(self, loop: TrackingLoop, message: Stamped) -> None:
        """The first image, for whoever reads the log."""
        with contextlib.suppress(LightTrackError):  # the loop says what is wrong with it
            frame = loop.read(message)
            encoding = encoding_of(message, self._parameters.image_transport == "compressed")
            self._node.get_logger().info(
                f"first image on {self.topic}: {frame.width} x {frame.height}, {encoding}, frame_id "
                f"{message.frame_id!r}, received in {self.reliability.replace('_', ' ')}"
            )

    def _look_for_loss(self, stamp: int) -> None:
        """Images that never arrived show as gaps between the stamps of those that did."""
        if not self._stream.takes_all:
            self.loss.restart()
            return
        missing = self.loss.add(stamp)
        if not self._rate_told and self.loss.rate:
            self._rate_told = True
            self._node.get_logger().info(f"images on {self.topic} come at {self.loss.rate:.1f} Hz, by their stamps")
        if not missing:
            return
        share = self.loss.lost_share
        if share < LOSS_SHARE:
            self._health.count("images_lost", missing)
        else:
            self._complain_of_loss(f"{100 * share:.0f} %", f" ({self.loss.rate:.1f} Hz by their stamps)", missing)

    def _on_lost(self, count: int) -> None:
        """In the stream's thread; where so few images arrive that their stamps tell nothing, the middleware knows."""
        if self._stream.takes_all and not self.loss.rate:
            self._complain_of_loss("most", "", count)

    def _complain_of_loss(self, share: str, rate: str, count: int) -> None:
        self._health.problem(
            "images_lost",
            f"{share} of the images of {self.topic}{rate} are lost before they arrive here, received in "
            f"{self.reliability.replace('_', ' ')}; start the camera's process with the Fast DDS profile "
            f"{fastdds_profile(CAMERA_PROFILE)} (docs/node.md, Raw images)",
            number=count,
        )

    def _on_incompatible(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        fix = "or set this node's parameter reliability to best_effort" if policy == "RELIABILITY" else ""
        self._health.problem(
            "incompatible_publishers",
            f"no images from a publisher on {self.topic}: its QoS does not go with this node's, policy {policy}, "
            f"reliability here is {self._parameters.reliability}; make the camera's {policy.lower()} "
            f"match {fix}".rstrip(),
        )

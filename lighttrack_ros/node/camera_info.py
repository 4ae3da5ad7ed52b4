"""The camera's calibration, from the camera_info beside its images."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from lighttrack_ros.camera_model import CameraModel, camera_model
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.node.image_stream import NotOfTheExecutor
from lighttrack_ros.node.interface import CAMERA_INFO
from lighttrack_ros.node.messages import read_header

RECTIFICATIONS = AUTO, RAW, RECTIFIED = "auto", "raw", "rectified"

_STAMP = slice(4, 12)  # bytes of a serialised message
_COMPRESSED = "/compressed"


def camera_info_topic(node: Node, image_topic: str) -> str:
    """The full name: camera_info beside the image, as image_transport has it, or what `camera_info` is remapped to."""
    remapped = node.resolve_topic_name(CAMERA_INFO.name)
    if remapped != node.resolve_topic_name(CAMERA_INFO.name, only_expand=True):
        return remapped
    folder = image_topic.removesuffix(_COMPRESSED).rpartition("/")[0]
    return node.resolve_topic_name(f"{folder}/{CAMERA_INFO.name}")


def takes_rectified(choice: str, image_topic: str) -> bool:
    """Whether the images are rectified: as RECTIFICATIONS says, or by the name, as image_proc's begin: image_rect."""
    return choice == RECTIFIED or (
        choice == AUTO and "rect" in image_topic.removesuffix(_COMPRESSED).rpartition("/")[2]
    )


class CameraInfoSource:
    """Messages are left in the middleware until an image asks for them: nobody pays for what nobody uses.

    Args:
        topic: full name.
        rectified: whether the images are.
    """

    def __init__(self, node: Node, topic: str, rectified: bool) -> None:
        self.topic = topic
        self._node = node
        self._rectified = rectified
        self._kept: OrderedDict[int, bytes] = OrderedDict()  # by stamp, serialised, with stamp 0
        self._newest = 0  # its stamp
        self._read: tuple[bytes, CameraModel | LightTrackError] | None = None
        self._subscription: Any = node.create_subscription(
            CAMERA_INFO.kind,
            topic,
            lambda _: None,
            CAMERA_INFO.qos,
            callback_group=NotOfTheExecutor(),
            raw=True,
        )

    def close(self) -> None:
        """Unsubscribe; not while another thread asks for a model."""
        self._node.destroy_subscription(self._subscription)

    def model(self, stamp: int) -> CameraModel:
        """Of the image of this stamp, or else the newest there is.

        Args:
            stamp: nanoseconds.

        Raises:
            LightTrackError: there is none, or it is no calibration; says which topic is meant.
        """
        self._take()
        if not self._kept:
            publishers = self._node.count_publishers(self.topic)
            raise LightTrackError(
                f"no camera_info came on {self.topic} ({publishers} publishers); remap camera_info if it is elsewhere"
            )
        data = self._kept.get(stamp) or self._kept[self._newest]
        if self._read is None or self._read[0] != data:  # of most cameras it is the same for every image
            self._read = data, self._read_model(data)
        found = self._read[1]
        if isinstance(found, LightTrackError):
            raise found
        return found

    def _take(self) -> None:
        handle = self._subscription.handle
        with handle:
            while (taken := handle.take_message(CameraInfo, True)) is not None:
                try:
                    self._newest = read_header(taken[0]).stamp
                except LightTrackError:
                    continue  # no message
                self._kept[self._newest] = taken[0][: _STAMP.start] + bytes(8) + taken[0][_STAMP.stop :]
                self._kept.move_to_end(self._newest)
                if len(self._kept) > CAMERA_INFO.depth:
                    self._kept.popitem(last=False)

    def _read_model(self, data: bytes) -> CameraModel | LightTrackError:
        try:
            return model_of(deserialize_message(data, CameraInfo), self._rectified)
        except LightTrackError as error:
            return LightTrackError(f"{self.topic}: {error}")
        except RuntimeError as error:  # what rclpy makes of bytes that are no message
            return LightTrackError(f"{self.topic}: cannot be read ({error})")


def model_of(message: CameraInfo, rectified: bool) -> CameraModel:
    """For images as the lens gives them, or for rectified ones.

    Raises:
        LightTrackError: it is no calibration.
    """
    roi = message.roi
    part = (roi.x_offset, roi.y_offset, roi.width, roi.height)
    binning = (message.binning_x, message.binning_y)
    if rectified:
        matrix = message.p.reshape(3, 4)[:, :3].ravel()
        return camera_model(message.width, message.height, matrix, "", (), binning, part)
    return camera_model(message.width, message.height, message.k, message.distortion_model, message.d, binning, part)

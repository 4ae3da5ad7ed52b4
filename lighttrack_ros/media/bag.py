"""Images of a rosbag2 as the bytes in which they were recorded, and new ones: sqlite3 and mcap, without ROS."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_ROI_AHEAD = 500_000_000  # nanoseconds: the box must be there when the image comes, on another topic


class ImageBag:
    """One image topic of a rosbag2.

    Args:
        path: the bag's folder, or one .mcap or .db3 file.
        topic: which topic; may be left out where the bag has a single image topic.

    Attributes:
        topic, message_type: the topic and its type, one of IMAGE_TYPES.
        count: number of its messages.
        others: names of the bag's other topics.

    Raises:
        LightTrackError: no bag, a damaged one, or no such image topic in it.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        self.path = path
        self._reader = _open(path)
        images = [
            connection
            for connection in self._reader.connections
            if connection.msgtype in IMAGE_TYPES and connection.msgcount > 0
        ]
        names = sorted({connection.topic for connection in images})
        if topic is None:
            if len(names) != 1:
                self.close()
                found = f"has {len(names)} image topics: {', '.join(names)}; choose one with --topic"
                raise LightTrackError(f"{path}: {found}" if names else f"{path}: has no images in it")
            topic = names[0]
        wanted = topic if topic in names else "/" + topic
        self._connections = [connection for connection in images if connection.topic == wanted]
        if not self._connections:
            self.close()
            raise LightTrackError(f"{path}: no images on {topic} (image topics: {', '.join(names) or 'none'})")
        self.topic: str = wanted
        self.message_type: str = self._connections[0].msgtype
        self.count = sum(connection.msgcount for connection in self._connections)
        self.others = sorted({connection.topic for connection in self._reader.connections} - {wanted})

    def __iter__(self) -> Iterator[tuple[float, bytes]]:
        """Yield the time of recording in seconds since the first message, and the serialised message (CDR)."""
        start = None
        try:
            for _, nanoseconds, data in self._reader.messages(self._connections):
                start = nanoseconds if start is None else start
                yield (nanoseconds - start) / 1e9, bytes(data)
        except LightTrackError:
            raise
        except Exception as error:  # rosbags raises many kinds: its own, zstd's, sqlite3's, struct's
            raise LightTrackError(f"{self.path}: damaged at {self.topic} ({error})") from error

    def close(self) -> None:
        self._reader.close()


def write_bag(
    path: Path, images: Iterable[tuple[int, NDArray[np.uint8]]], topic: str, frame_id: str, target: Box | None = None
) -> None:
    """Write a rosbag2 (mcap) of raw images.

    Args:
        path: folder of the bag, which must not be there yet.
        images: stamp, nanoseconds, and (height, width, 3) uint8 BGR pixels; in order.
        target: recorded on /init_roi shortly before the first image, so that `ros2 bag play` starts the tracker too.

    Raises:
        LightTrackError: it is there, or cannot be written.
    """
    try:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise LightTrackError(f"{path}: writing a rosbag2 needs the rosbags package: pip install rosbags") from None
    if path.exists():
        raise LightTrackError(f"{path}: is there already; a bag is written into a new folder")
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    image_type, roi_type = IMAGE_TYPES[0], "sensor_msgs/msg/RegionOfInterest"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Version 8: what Humble reads as well.
        with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            to_images = writer.add_connection(topic, image_type, typestore=store)
            for index, (stamp, pixels) in enumerate(images):
                if index == 0 and target is not None:
                    x, y, width, height = (round(value) for value in target)
                    roi = types[roi_type](x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)
                    to_target = writer.add_connection("/init_roi", roi_type, typestore=store)
                    writer.write(to_target, stamp - _ROI_AHEAD, store.serialize_cdr(roi, roi_type))
                seconds, nanoseconds = divmod(stamp, 1_000_000_000)
                image = types[image_type](
                    header=types["std_msgs/msg/Header"](
                        stamp=types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds), frame_id=frame_id
                    ),
                    height=pixels.shape[0],
                    width=pixels.shape[1],
                    encoding="bgr8",
                    is_bigendian=0,
                    step=3 * pixels.shape[1],
                    data=pixels.reshape(-1),
                )
                writer.write(to_images, stamp, store.serialize_cdr(image, image_type))
    except OSError as error:
        raise LightTrackError(f"{path}: cannot be written ({error.strerror})") from None


def restamped(message: bytes, seconds: int, nanoseconds: int) -> bytes:
    """A serialised message with another header stamp: the first field after CDR's four bytes of encapsulation.

    Raises:
        LightTrackError: too short to hold a header.
    """
    if len(message) < 12:
        raise LightTrackError(f"a message of {len(message)} bytes holds no header")
    order = "<" if message[1] & 1 else ">"
    return b"".join((message[:4], struct.pack(order + "iI", seconds, nanoseconds), memoryview(message)[12:]))


def stamp_of(message: bytes) -> int:
    """The header stamp of a serialised message, nanoseconds.

    Raises:
        LightTrackError: too short to hold a header.
    """
    if len(message) < 12:
        raise LightTrackError(f"a message of {len(message)} bytes holds no header")
    seconds, nanoseconds = struct.unpack_from(("<" if message[1] & 1 else ">") + "iI", message, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def is_bag(path: Path) -> bool:
    return (path / "metadata.yaml").is_file() or (path.is_file() and path.suffix in (".mcap", ".db3"))


def _open(path: Path) -> Any:
    try:
        from rosbags.rosbag2 import Reader
    except ImportError:
        raise LightTrackError(f"{path}: reading a rosbag2 needs the rosbags package: pip install rosbags") from None
    try:
        reader = Reader(path)
        reader.open()
    except Exception as error:  # rosbags raises many kinds: its own, zstd's, sqlite3's, struct's
        raise LightTrackError(f"{path}: cannot be read as a rosbag2 ({error})") from error
    return reader

"""Images of a rosbag2 as the bytes in which they were recorded: sqlite3 and mcap, without ROS."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lighttrack_ros.errors import LightTrackError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


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

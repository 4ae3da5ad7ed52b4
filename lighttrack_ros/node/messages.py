"""ROS messages to and from the house's own types.

Images are taken off the middleware as serialised bytes (CDR) and read here: rclpy's own conversion copies the
pixels once more, a fifth of what receiving costs, also for the images that nobody looks at.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Literal

import cv2
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import Frame, Intensities, UInt8Array, decode, decode_compressed
from lighttrack_ros.msg import TrackedTarget
from lighttrack_ros.session import Report

_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Stamped:
    """An image message as it came, of which only the header was read.

    Attributes:
        stamp: the camera's, nanoseconds.
        body: where in `data` the fields after the header begin.
        data: the serialised message.
    """

    stamp: int
    frame_id: str
    body: int
    data: bytes


def read_header(data: bytes) -> Stamped:
    """The header of a serialised Image or CompressedImage.

    Raises:
        LightTrackError: no message, or a stamp that no message can carry.
    """
    reader = _CdrReader(data)
    seconds, nanoseconds = reader.int32(), reader.uint32()
    stamp = seconds * 10**9 + nanoseconds
    if stamp // 10**9 >= 2**31:
        raise LightTrackError(f"the image's stamp is {seconds} s and {nanoseconds} ns, expected under a second of ns")
    return Stamped(stamp, reader.string(), reader.position, data)


def read_image(message: Stamped, intensities: Intensities | None = None) -> Frame:
    """The pixels of a serialised sensor_msgs/Image; no copy, see `image.decode`.

    Raises:
        LightTrackError: the message or its image cannot be read.
    """
    reader = _CdrReader(message.data, message.body)
    height, width = reader.uint32(), reader.uint32()
    encoding = reader.string()
    is_bigendian = bool(reader.uint8())
    step = reader.uint32()
    return decode(encoding, width, height, step, is_bigendian, reader.octets(), intensities)


def read_compressed_image(message: Stamped, intensities: Intensities | None = None) -> Frame:
    """The pixels of a serialised sensor_msgs/CompressedImage.

    Raises:
        LightTrackError: the message or its image cannot be read.
    """
    reader = _CdrReader(message.data, message.body)
    return decode_compressed(reader.string(), reader.octets(), intensities)


def encoding_of(message: Stamped, compressed: bool) -> str:
    """The encoding of a serialised Image, or the format of a CompressedImage.

    Raises:
        LightTrackError: the message cannot be read.
    """
    reader = _CdrReader(message.data, message.body)
    if not compressed:
        reader.uint32(), reader.uint32()  # height, width
    return reader.string()


def target_message(message: Stamped, report: Report, target_id: str, model: str) -> TrackedTarget:
    """What is known of the target on one image; the caller fills in the times."""
    left, top, right, bottom = map(float, report.outside)
    target = TrackedTarget(
        target_id=target_id,
        state=int(report.state),
        x=float(report.box.x),
        y=float(report.box.y),
        width=float(report.box.width),
        height=float(report.box.height),
        outside_left=left,
        outside_top=top,
        outside_right=right,
        outside_bottom=bottom,
        confidence=float(report.confidence),
        model=model,
        exit_index=report.exit_index,
    )
    target.header.stamp = to_time(message.stamp)
    target.header.frame_id = message.frame_id
    return target


def image_message(message: Stamped, image: UInt8Array) -> Image:
    """(height, width, 3) uint8 BGR, contiguous, under the header of another image."""
    height, width = image.shape[:2]
    pixels = array("B")
    pixels.frombytes(image.data.cast("B"))  # a hundred times faster than from bytes or an ndarray
    annotated = Image(height=height, width=width, encoding="bgr8", step=3 * width, data=pixels)
    annotated.header.stamp = to_time(message.stamp)
    annotated.header.frame_id = message.frame_id
    return annotated


def jpeg_message(message: Stamped, image: UInt8Array) -> CompressedImage:
    """The same as image_transport's `compressed` has it: JPEG."""
    _, jpeg = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    pixels = array("B")
    pixels.frombytes(jpeg.data)
    annotated = CompressedImage(format="bgr8; jpeg compressed bgr8", data=pixels)
    annotated.header.stamp = to_time(message.stamp)
    annotated.header.frame_id = message.frame_id
    return annotated


def to_time(nanoseconds: int) -> Time:
    seconds, rest = divmod(nanoseconds, 10**9)
    return Time(sec=seconds, nanosec=rest)


def to_nanoseconds(time: Time) -> int:
    return int(time.sec) * 10**9 + int(time.nanosec)


class _CdrReader:
    """Reads the fields of a serialised message one after the other (plain CDR; nothing here is longer than 4 bytes)."""

    def __init__(self, data: bytes, position: int = 4) -> None:
        # Two bytes name the representation, big endian if even: plain CDR of versions 1 and 2.
        if len(data) < 4 or data[0] or data[1] not in (0, 1, 6, 7):
            raise LightTrackError(f"a serialised message begins with {data[:4].hex() or 'nothing'}, expected plain CDR")
        self._data = memoryview(data)
        self._order: Literal["little", "big"] = "little" if data[1] & 1 else "big"
        self.position = position

    def uint8(self) -> int:
        return self._take(1)[0]

    def uint32(self) -> int:
        self.position = (self.position + 3) & ~3  # aligned to its size; the 4 bytes before the fields do not matter
        return int.from_bytes(self._take(4), self._order)

    def int32(self) -> int:
        value = self.uint32()
        return value - 2**32 if value >= 2**31 else value

    def octets(self) -> memoryview:
        return self._take(self.uint32())

    def string(self) -> str:
        return bytes(self.octets()).rstrip(b"\0").decode("utf-8", "replace")

    def _take(self, count: int) -> memoryview:
        begin, self.position = self.position, self.position + count
        if self.position > len(self._data):
            raise LightTrackError(f"a serialised message ends after {len(self._data)} bytes, in the middle of a field")
        return self._data[begin : self.position]

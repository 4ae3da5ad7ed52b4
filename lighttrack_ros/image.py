"""Frames: views of a camera's bytes, of which only the regions that are read are decoded to BGR."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box

UInt8Array = npt.NDArray[np.uint8]
Buffer = Any  # bytes, bytearray, memoryview or array.array

_LIMIT = "OPENCV_IO_MAX_IMAGE_PIXELS"
FEW_LEVELS = 16  # with fewer grey levels an image has hardly any contrast to track by
_SAMPLES = 16_384  # values of an image from which its range is measured
_RARE = 1.0  # per cent of the values that the range leaves out at each end: dead pixels, sparks
_MARGIN = 0.1  # of the range, added at both ends
_CLIPPED = 0.02  # if a larger share of the values lies outside the range, it is measured again

MIN_SIDE = 16  # pixels; no camera sends less, and smaller images show no target


class Frame(ABC):
    """One image of any encoding; rectangular regions of it are read as BGR.

    A frame never copies the camera's buffer; `region` decodes only the requested pixels.
    """

    width: int
    height: int

    @abstractmethod
    def region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        """Pixels x0..x1-1, y0..y1-1 (inside the frame, not empty).

        Returns:
            (y1 - y0, x1 - x0, 3) uint8, BGR; may be a view of the camera's buffer: never write to it.
        """

    def mean_colour(self) -> npt.NDArray[np.float64]:
        """Mean B, G, R of the whole frame, (3,) float64."""
        return np.array(cv2.mean(self.bgr())[:3])

    def bgr(self) -> UInt8Array:
        """The whole frame, (height, width, 3) uint8, BGR."""
        return self.region(0, 0, self.width, self.height)


def from_bgr(image: UInt8Array) -> Frame:
    """A frame of (height, width, 3) uint8, BGR, e.g. from cv2.imread; not copied."""
    return _Packed(image, None)


class Intensities:
    """Maps values of more than 8 bits to grey levels, for the successive images of one camera.

    Thermal cameras, for example, use a few hundred of 65,536 values. The first image's range is stretched over all
    grey levels. Later images use the same range, so that brightness does not flicker, until too many values leave it.

    Args:
        fixed: lowest and highest value, instead of the measured range.
    """

    def __init__(self, fixed: tuple[float, float] | None = None) -> None:
        self._fixed = fixed
        self._range: tuple[float, float] | None = None
        self._targets: tuple[Box, ...] = ()

    def start(self, *targets: Box) -> None:
        """Measure the range again on the next image, and on the targets in it, which may be few of its pixels."""
        self._range, self._targets = None, targets

    @property
    def adapts(self) -> bool:
        """Whether images were mapped by a measured range, so that the next `start` makes the same image another."""
        return self._range is not None

    def range_of(self, values: npt.NDArray[Any]) -> tuple[float, float]:
        """Lowest and highest value for one image, (height, width) or (height, width, channels), of any type."""
        if self._fixed is not None:
            return self._fixed
        sample = _measured(values)
        if self._range is not None and sample.size:
            low, high = self._range
            if np.mean((sample < low) | (sample > high)) > _CLIPPED:
                self._range = None
        if self._range is None:
            self._range = _held(sample)
            for target in self._targets:
                inside = _measured(_inside(values, target))
                if inside.size:
                    low, high = _held(inside)
                    self._range = min(self._range[0], low), max(self._range[1], high)
            self._targets = ()
        return self._range


def parse_intensity_range(text: str) -> tuple[float, float] | None:
    """`7300,7800` as lowest and highest value; None for `auto`.

    Raises:
        LightTrackError: neither.
    """
    if text == "auto":
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise LightTrackError(f"intensity_range is {text!r}, expected auto, or LOW,HIGH such as 7300,7800")
    return low, high


def grey_levels(image: UInt8Array) -> int:
    """Number of different grey levels of an image, (height, width, 3) uint8 BGR; large images are sampled."""
    step = max(1, math.isqrt(image.shape[0] * image.shape[1] // _SAMPLES))
    return len(np.unique(cv2.cvtColor(np.ascontiguousarray(image[::step, ::step]), cv2.COLOR_BGR2GRAY)))


def decode(
    encoding: str,
    width: int,
    height: int,
    step: int,
    is_bigendian: bool,
    data: Buffer,
    intensities: Intensities | None = None,
) -> Frame:
    """The fields of a sensor_msgs/Image as a frame, without copying `data`.

    Args:
        encoding: one of `encodings()`; others are decoded by cv_bridge if it is installed.
        step: bytes from one row to the next; rows may be padded.
        is_bigendian: byte order of values of more than 8 bits.
        data: the bytes of the rows; kept alive by the frame.
        intensities: maps such values to grey levels; None: by this image's own range.

    Raises:
        LightTrackError: the fields contradict each other, or the encoding cannot be decoded.
    """
    data = memoryview(data).cast("B")
    check_size(width, height)
    if not data.nbytes:
        raise LightTrackError(f"image of {width} x {height} {encoding!r} has no data")
    kind = _ENCODINGS.get(encoding)
    if kind is None:
        return _decode_by_cv_bridge(encoding, width, height, step, is_bigendian, data)
    row = width * kind.channels * kind.value_bytes
    if step < row:
        raise LightTrackError(
            f"image step is {step}, expected at least {row} bytes for a row of {width} pixels {encoding!r}"
        )
    two_planes = kind.frame is _Yuv420
    if (two_planes and height % 2) or (width % 2 and kind.frame in (_Yuv420, _Yuv422)):
        raise LightTrackError(f"image is {width} x {height}: pixels of {encoding!r} share colour, expected even sides")
    rows = height * 3 // 2 if two_planes else height
    # Some drivers leave out the padding of the last row.
    if not step * (rows - 1) + row <= data.nbytes <= step * rows:
        raise LightTrackError(
            f"image data has {data.nbytes} bytes, expected {step * rows} for {width} x {height} {encoding!r} "
            f"with step {step}"
        )
    dtype = np.dtype(f"{'>' if is_bigendian else '<'}{kind.value_kind}{kind.value_bytes}")
    strides = (step, row // width, kind.value_bytes)
    pixels: npt.NDArray[Any] = np.ndarray((rows, width, kind.channels), dtype, data, strides=strides)
    pixels = pixels if kind.channels > 1 else pixels[:, :, 0]
    if kind.value_bytes == 1:
        return kind.frame(pixels, kind.code)
    return kind.frame(pixels, kind.code, *(intensities or Intensities()).range_of(pixels))


def decode_compressed(format: str, data: Buffer, intensities: Intensities | None = None) -> Frame:
    """The fields of a sensor_msgs/CompressedImage (JPEG, PNG or another format of cv2.imdecode) as a frame.

    Raises:
        LightTrackError: the data is no image, is damaged, or is compressed depth.
    """
    if "compresseddepth" in format.lower():
        raise LightTrackError(f"compressed image format is {format!r}: depth is no picture (choose a colour topic)")
    pixels = np.frombuffer(data, np.uint8)
    if not pixels.size:
        raise LightTrackError(f"compressed image of format {format!r} has no data")
    try:
        return decode_file(pixels, intensities)
    except LightTrackError as error:
        raise LightTrackError(f"compressed image of {pixels.size} bytes {format!r}: {error}") from error


def decode_file(data: UInt8Array, intensities: Intensities | None = None) -> Frame:
    """The content of an image file (JPEG, PNG, TIFF or another format of cv2.imdecode) as a frame.

    The EXIF orientation is ignored: boxes refer to the pixels as they are stored, not to the rotated image.

    Args:
        data: (bytes,) uint8.
        intensities: maps values of more than 8 bits to grey levels; None: by this image's own range.

    Raises:
        LightTrackError: the data is no image, or is damaged.
    """
    try:
        flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as error:
        if "IO_MAX_IMAGE_PIXELS" in str(error):
            limit = os.environ.get(_LIMIT, "its own limit")
            raise LightTrackError(f"has more pixels than {limit}, the environment's {_LIMIT}") from error
        raise LightTrackError(f"cannot be decoded ({error})") from error
    if image is None:
        raise LightTrackError("expected a whole JPEG or PNG")
    check_size(image.shape[1], image.shape[0])
    code = cv2.COLOR_GRAY2BGR if image.ndim == 2 else None
    if image.dtype == np.uint8:
        return _Packed(image.astype(np.uint8, copy=False), code)
    return _Deep(image, code, *(intensities or Intensities()).range_of(image))


def encodings() -> tuple[str, ...]:
    """The values of Image.encoding that `decode` reads without cv_bridge."""
    return tuple(_ENCODINGS)


def check_size(width: int, height: int) -> None:
    """Refuse an image that is too small to track in.

    Raises:
        LightTrackError: a side is under MIN_SIDE.
    """
    if width < MIN_SIDE or height < MIN_SIDE:
        raise LightTrackError(f"image is {width} x {height}, expected at least {MIN_SIDE} x {MIN_SIDE} pixels")


class _Packed(Frame):
    """Packed pixels of 1, 3 or 4 bytes; `code` is cv2's conversion to BGR, None for BGR itself."""

    def __init__(self, pixels: UInt8Array, code: int | None) -> None:
        self.height, self.width = pixels.shape[:2]
        self._pixels = pixels
        self._code = code

    def region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        part = self._pixels[y0:y1, x0:x1]
        return part if self._code is None else cv2.cvtColor(part, self._code)  # type: ignore[return-value]


class _Deep(Frame):
    """Values of more than 8 bits; `low` to `high` is mapped to 0..255."""

    def __init__(self, pixels: npt.NDArray[Any], code: int | None, low: float, high: float) -> None:
        self.height, self.width = pixels.shape[:2]
        self._pixels = pixels
        self._code = code
        self._low, self._high = low, high

    def region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        part = _to_8_bits(_native(self._pixels[y0:y1, x0:x1]), self._low, self._high)
        return part if self._code is None else cv2.cvtColor(part, self._code)  # type: ignore[return-value]


class _Bayer(Frame):
    """One colour per pixel, 8 or 16 bits; the other two are interpolated from the neighbours."""

    def __init__(self, pixels: npt.NDArray[Any], code: int, low: float = 0, high: float = 255) -> None:
        self.height, self.width = pixels.shape
        self._pixels = pixels
        self._code = code
        self._low, self._high = low, high

    def region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        # Two pixels of margin, starting at an even pixel: keeps the pattern's phase, and every pixel's neighbours.
        left, top = max(0, x0 - 2) & ~1, max(0, y0 - 2) & ~1
        right, bottom = min(self.width, x1 + 2), min(self.height, y1 + 2)
        part = cv2.cvtColor(_native(self._pixels[top:bottom, left:right]), self._code)
        part = part[y0 - top : y1 - top, x0 - left : x1 - left]
        if part.dtype == np.uint8:
            return part  # type: ignore[return-value]
        return _to_8_bits(part, self._low, self._high)


class _Yuv422(Frame):
    """Two pixels in four bytes; they share their colour."""

    def __init__(self, pixels: UInt8Array, code: int) -> None:
        self.height, self.width = pixels.shape[:2]
        self._pixels = pixels
        self._code = code

    def region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        left, right = x0 & ~1, x1 + (x1 & 1)
        part = cv2.cvtColor(self._pixels[y0:y1, left:right], self._code)
        return part[:, x0 - left : x1 - left]  # type: ignore[return-value]


class _Yuv420(Frame):
    """A plane of brightness, then a plane of colour with one pair of values per 2 x 2 pixels."""

    def __init__(self, planes: UInt8Array, code: int) -> None:
        self.height, self.width = planes.shape[0] * 2 // 3, planes.shape[1]
        self._brightness = planes[: self.height]
        self._colour = planes[self.height :].reshape(self.height // 2, self.width // 2, 2)
        self._code = code

    def region(self, x0: int, y0: int, x1: int, y1: int) -> UInt8Array:
        left, right, top, bottom = x0 & ~1, x1 + (x1 & 1), y0 & ~1, y1 + (y1 & 1)
        brightness = self._brightness[top:bottom, left:right]
        colour = self._colour[top // 2 : bottom // 2, left // 2 : right // 2]
        part = cv2.cvtColorTwoPlane(brightness, colour, self._code)
        return part[y0 - top : y1 - top, x0 - left : x1 - left]  # type: ignore[return-value]


class _Encoding(NamedTuple):
    """How to make a frame from the bytes of one encoding."""

    frame: Callable[..., Frame]
    channels: int  # values per pixel
    value_bytes: int
    code: int | None  # cv2's conversion to BGR
    value_kind: str = "u"  # numpy's: unsigned, signed (i) or float (f)


# ROS names a Bayer pattern by its first row, OpenCV by its second: ROS's rggb is OpenCV's BG.
_ENCODINGS = {
    "bgr8": _Encoding(_Packed, 3, 1, None),
    "rgb8": _Encoding(_Packed, 3, 1, cv2.COLOR_RGB2BGR),
    "bgra8": _Encoding(_Packed, 4, 1, cv2.COLOR_BGRA2BGR),
    "rgba8": _Encoding(_Packed, 4, 1, cv2.COLOR_RGBA2BGR),
    "mono8": _Encoding(_Packed, 1, 1, cv2.COLOR_GRAY2BGR),
    "mono16": _Encoding(_Deep, 1, 2, cv2.COLOR_GRAY2BGR),
    "bgr16": _Encoding(_Deep, 3, 2, None),
    "rgb16": _Encoding(_Deep, 3, 2, cv2.COLOR_RGB2BGR),
    "bgra16": _Encoding(_Deep, 4, 2, cv2.COLOR_BGRA2BGR),
    "rgba16": _Encoding(_Deep, 4, 2, cv2.COLOR_RGBA2BGR),
    "16UC1": _Encoding(_Deep, 1, 2, cv2.COLOR_GRAY2BGR),
    "16SC1": _Encoding(_Deep, 1, 2, cv2.COLOR_GRAY2BGR, "i"),
    "16UC3": _Encoding(_Deep, 3, 2, None),
    "32FC1": _Encoding(_Deep, 1, 4, cv2.COLOR_GRAY2BGR, "f"),
    "8UC1": _Encoding(_Packed, 1, 1, cv2.COLOR_GRAY2BGR),
    "8UC3": _Encoding(_Packed, 3, 1, None),
    "8UC4": _Encoding(_Packed, 4, 1, cv2.COLOR_BGRA2BGR),
    "uyvy": _Encoding(_Yuv422, 2, 1, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422": _Encoding(_Yuv422, 2, 1, cv2.COLOR_YUV2BGR_UYVY),  # uyvy's name before Iron
    "yuyv": _Encoding(_Yuv422, 2, 1, cv2.COLOR_YUV2BGR_YUY2),
    "yuv422_yuy2": _Encoding(_Yuv422, 2, 1, cv2.COLOR_YUV2BGR_YUY2),  # yuyv's name before Iron
    "nv12": _Encoding(_Yuv420, 1, 1, cv2.COLOR_YUV2BGR_NV12),
    "nv21": _Encoding(_Yuv420, 1, 1, cv2.COLOR_YUV2BGR_NV21),
    "bayer_rggb8": _Encoding(_Bayer, 1, 1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": _Encoding(_Bayer, 1, 1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": _Encoding(_Bayer, 1, 1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": _Encoding(_Bayer, 1, 1, cv2.COLOR_BayerGB2BGR),
    "bayer_rggb16": _Encoding(_Bayer, 1, 2, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr16": _Encoding(_Bayer, 1, 2, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg16": _Encoding(_Bayer, 1, 2, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg16": _Encoding(_Bayer, 1, 2, cv2.COLOR_BayerGB2BGR),
}


def _native(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pixels in a layout that OpenCV accepts; 16-bit pixels of another byte order or with padded rows are copied."""
    return part if part.itemsize == 1 else np.ascontiguousarray(part, part.dtype.newbyteorder("="))


def _to_8_bits(part: npt.NDArray[Any], low: float, high: float) -> UInt8Array:
    """Map `low`..`high` to 0..255; values outside are clipped, nan becomes 0."""
    if part.dtype == np.uint16:
        # OpenCV's subtraction stops at 0, and its conversion at 255.
        begin = min(max(round(low), 0), 65535)
        shifted = cv2.subtract(part, (float(begin),) * 4) if begin else part  # type: ignore[call-overload]
        return cv2.convertScaleAbs(shifted, alpha=255 / max(high - begin, 1))  # type: ignore[return-value]
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (part.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-9))
    levels: UInt8Array = np.rint(np.nan_to_num(np.clip(scaled, 0, 255))).astype(np.uint8)
    return levels


def _inside(values: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    """The part of an image in a box; empty where the box lies outside."""
    x0, y0 = max(0, math.floor(box.x)), max(0, math.floor(box.y))
    return values[y0 : max(0, math.ceil(box.y + box.height)), x0 : max(0, math.ceil(box.x + box.width))]


def _measured(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A sample of an image's values, without 0, the highest and nan: these mean "not measured", or are dead pixels."""
    step = max(1, math.isqrt(values.shape[0] * values.shape[1] // _SAMPLES))
    sample: npt.NDArray[Any] = np.asarray(values[::step, ::step]).ravel()
    valid = np.isfinite(sample) if sample.dtype.kind == "f" else sample < np.iinfo(sample.dtype).max
    sample = sample[valid]
    measured = sample[sample != 0]
    return measured if measured.size else sample


def _held(sample: npt.NDArray[Any]) -> tuple[float, float]:
    """The range of almost all values, extended by a tenth on each side for later images."""
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(sample, (_RARE, 100 - _RARE)))
    margin = _MARGIN * (high - low)
    low, high = low - margin, high + margin
    if sample.dtype.kind != "f":
        limits = np.iinfo(sample.dtype)
        low, high = max(low, float(limits.min)), min(high, float(limits.max))
    return low, max(high, low + 1 if sample.dtype.kind != "f" else low + 1e-9)


def _decode_by_cv_bridge(
    encoding: str, width: int, height: int, step: int, is_bigendian: bool, data: memoryview
) -> Frame:
    """Decode rare encodings by cv_bridge, if it is installed."""
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        raise LightTrackError(
            f"image encoding is {encoding!r}, supported are {', '.join(_ENCODINGS)}; "
            "others need cv_bridge (apt install ros-$ROS_DISTRO-cv-bridge)"
        ) from error
    message = SimpleNamespace(
        encoding=encoding, width=width, height=height, step=step, is_bigendian=int(is_bigendian), data=data
    )
    try:
        image = CvBridge().imgmsg_to_cv2(message, "bgr8")
    except Exception as error:  # cv_bridge, Boost and OpenCV raise various types
        raise LightTrackError(
            f"image encoding is {encoding!r}, which cv_bridge cannot decode ({error}); "
            f"supported are {', '.join(_ENCODINGS)}"
        ) from error
    return from_bgr(image)

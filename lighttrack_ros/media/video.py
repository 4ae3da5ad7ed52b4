"""Video files, read and written by PyAV (FFmpeg): frames with their own times, as far as a file can be decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from io import FileIO
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.outputs import check_writable, replacing

ANNOTATED = "annotated by lighttrack_ros"  # the comment in a video that is a result, no recording
_DEFAULT_FPS = 30.0
_JUMP = 1.0  # seconds
_SAMPLE = 200  # packets whose times tell the rate
_TICKS = 90_000  # a second, of the times that are written
# Container: encoder and its options. Browsers play H.264 in MP4 and VP8 in WebM.
_H264 = ("libx264", {"preset": "veryfast", "crf": "20"})
_CODECS = {
    ".mp4": _H264,
    ".mov": _H264,
    ".mkv": _H264,
    ".avi": ("mjpeg", {"q": "3"}),
    ".webm": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "4M"}),
}
_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi", ".webm": "webm"}


class VideoFile:
    """A video file; what lies behind a damaged stretch is read too. Frames are turned as a player turns them.

    Attributes:
        fps: mean rate by the frames' own times; what the container announces where they have none.
        count: number of frames, as the container announces it; None where it does not.
        shortfall: after a run to the end, in words, how many frames could not be decoded; None if all could.

    Raises:
        LightTrackError: no video, or PyAV is not installed.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.path = path
        self.files: tuple[Path, ...] = (path,)
        self.shortfall: str | None = None
        with self._open() as (container, stream):
            self.count: int | None = stream.frames or None
            self.fps = _rate(container, stream)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (frame for _, frame in self.timed())

    def timed(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield the frames, each with its own time in seconds since the first one's; times never run backwards.

        Raises:
            LightTrackError: not one frame can be decoded.
        """
        import av

        period, last, offset = 1 / self.fps, 0.0, 0.0
        read = packets = damaged = 0
        self.shortfall = None
        with self._open() as (container, stream):
            stream.thread_type = "AUTO"
            for packet in _packets(container, stream):
                packets += packet.size > 0
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    damaged += 1
                    continue
                for frame in frames:
                    raw = frame.time if frame.time is not None else last + offset + (period if read else 0.0)
                    if not read:
                        offset = raw
                    elif raw - offset < last - _JUMP:  # a recorder that started its clock anew
                        offset = raw - last - period
                    last = max(last, raw - offset)  # behind a damaged stretch some come out of order
                    read += 1
                    yield last, _pixels(frame)
        if not read:
            raise LightTrackError(f"{self.path}: not one frame of it can be decoded; is the file complete?")
        if damaged or (self.count or 0) > packets:
            of = f" of the {self.count}" if self.count else ""
            announced = " that the file announces" if self.count else f" ({damaged} damaged ones left out)"
            self.shortfall = f"{read}{of} frames{announced} could be decoded"

    def count_frames(self) -> int:
        """Number of the frames in the file, without decoding them; damaged ones count."""
        with self._open() as (container, stream):
            return sum(packet.size > 0 and not packet.is_discard for packet in _packets(container, stream))

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        """The container and its video stream."""
        av = _import_av(self.path)
        with contextlib.ExitStack() as stack:
            try:
                # An open file without a name: FFmpeg takes names for addresses (colons, dashes), knows UTF-8 alone,
                # and believes endings.
                file = stack.enter_context(self.path.open("rb"))
                nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
                # From PyAV 19 on metadata that is no UTF-8 is no error, and the argument is gone.
                lenient = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
                container = stack.enter_context(av.open(nameless, **lenient))
            except (OSError, ValueError, av.error.FFmpegError) as error:
                reason = "" if isinstance(error, av.error.FFmpegError) else f": {error}"
                raise LightTrackError(
                    f"{self.path}: cannot be opened as a video (try to convert it to H.264 in .mp4){reason}"
                ) from None
            stream = container.streams.best("video")
            if stream is None:
                raise LightTrackError(f"{self.path}: there is no video in it")
            yield container, stream


class VideoWriter:
    """A video, opened before the first frame is tracked so that a bad path costs no run.

    The frames keep their times, but for .avi, which knows one rate alone. The file is there once it is whole: it is
    written beside its place and moved there by `close`; after an error it is left out.

    Args:
        path: .mp4, .mov, .mkv (H.264), .webm (VP8) or .avi (Motion JPEG).
        width, height: pixels; an odd one loses its last row or column, as these codecs know no odd sizes.
        fps: the rate of frames written without a time, and of an .avi.
        comment: stored in the file, e.g. ANNOTATED.

    Raises:
        LightTrackError: another suffix, a file that cannot be written, or PyAV is not installed.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float, comment: str = "") -> None:
        check_writable(path, tuple(_CODECS))
        self._av = _import_av(path)
        self._path = path
        self._size = (width - width % 2, height - height % 2)
        self._fps = fps
        self._ticks = -1
        codec, options = _CODECS[path.suffix.lower()]
        self._constant = path.suffix.lower() == ".avi"
        rate = Fraction(fps).limit_denominator(1001)
        self._stack = contextlib.ExitStack()
        file = self._stack.enter_context(replacing(path))
        try:
            streams = {"movflags": "+faststart"} if path.suffix.lower() in (".mp4", ".mov") else {}
            self._file = _Kept(self._stack.enter_context(file.open("w+b", buffering=0)))
            self._container = self._av.open(
                self._file, "w", format=_FORMATS[path.suffix.lower()], container_options=streams
            )
            if comment:
                self._container.metadata["comment"] = comment
            self._stream = self._container.add_stream(codec, rate=rate, options=options)
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            self._time_base = 1 / rate if self._constant else Fraction(1, _TICKS)
            self._stream.codec_context.time_base = self._time_base
        except (OSError, ValueError) as error:
            self._stack.__exit__(type(error), error, None)
            raise LightTrackError(f"{path}: cannot be written ({error})") from None

    def write(self, image: NDArray[np.uint8], time: float | None = None) -> None:
        """Append one (height, width, 3) uint8 BGR frame; one of another size is scaled to the first's.

        Args:
            time: seconds since the first frame; left out, it follows at the writer's rate.

        Raises:
            LightTrackError: it cannot be written, e.g. as the disk is full.
        """
        width, height = self._size
        if image.shape[1] - image.shape[1] % 2 != width or image.shape[0] - image.shape[0] % 2 != height:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        image = np.ascontiguousarray(image[:height, :width])
        if self._constant:
            frame = self._av.VideoFrame.from_ndarray(image, format="bgr24")
        else:  # OpenCV's conversion; FFmpeg's own is three levels too dark
            planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
            frame = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        if self._constant:
            self._ticks += 1
        else:
            ticks = self._ticks + round(_TICKS / self._fps) if time is None else round(time * _TICKS)
            # A thousandth of a second is what some containers can tell apart.
            self._ticks = max(ticks, self._ticks + _TICKS // 1000) if self._ticks >= 0 else 0
        frame.pts, frame.time_base = self._ticks, self._time_base
        self._mux(frame)

    def close(self) -> None:
        """Finish the file and move it into place.

        Raises:
            LightTrackError: it cannot be written.
        """
        try:
            self._mux(None)
            self._container.close()
            self._check()
        except BaseException as error:
            self._discard(error)
            raise
        self._stack.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._discard(error)

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, ValueError, self._av.error.FFmpegError) as error:
            raise LightTrackError(f"{self._path}: cannot be written ({error})") from None
        self._check()

    def _check(self) -> None:
        error = self._file.error
        if error is not None:
            raise LightTrackError(f"{self._path}: cannot be written ({error.strerror or error})")

    def _discard(self, error: BaseException) -> None:
        with contextlib.suppress(Exception):  # PyAV's own share no base class with the others
            self._container.close()
        with contextlib.suppress(type(error)):
            self._stack.__exit__(type(error), error, error.__traceback__)


class _Kept:
    """The file under FFmpeg, which can only print an error of Python's: the first one is kept, and writing goes on."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.name = file.name
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            rest = memoryview(data)
            while rest and self.error is None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) or b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def is_annotated(path: Path) -> bool:
    """Whether a video is a result of `lighttrack track` or `demo`, with boxes drawn into it."""
    try:
        with VideoFile(path)._open() as (container, _):
            comments = [value for key, value in container.metadata.items() if key.lower() == "comment"]
    except LightTrackError:
        return False
    return ANNOTATED in comments


def _import_av(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise LightTrackError(
            f"{path}: reading and writing video needs the package av (PyAV): pip install 'lighttrack_ros[video]'"
        ) from None
    return av


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets up to the end of the file, or to where it cannot be read on; last, an empty one."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return
        if packet is None:
            return
        yield packet


def _rate(container: Any, stream: Any) -> float:
    """Frames a second by the times of the first packets, which come in decoding order."""
    times = []
    for packet, _ in zip(_packets(container, stream), range(_SAMPLE), strict=False):
        if packet.pts is not None:
            times.append(float(packet.pts * packet.time_base))
    span = max(times) - min(times) if times else 0.0
    rate = (len(times) - 1) / span if span > 0 else float(stream.average_rate or 0)
    return rate if 0.01 <= rate <= 1000 else _DEFAULT_FPS


def _pixels(frame: Any) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = frame.to_ndarray(format="bgr24")
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image

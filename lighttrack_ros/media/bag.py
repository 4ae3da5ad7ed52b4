"""Images of a rosbag as the bytes in which they were recorded, and new ones: sqlite3, mcap and ROS 1, without ROS."""

from __future__ import annotations

import os
import re
import shutil
import struct
import tempfile
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_ROI_AHEAD = 5_000_000  # nanoseconds: the box must be there when the image comes, on another topic
_METADATA = "metadata.yaml"
_MCAP, _SQLITE, _ROS1, _ZSTD = "mcap", "sqlite3", "ROS 1", "zstd"
_MAGIC = {b"\x89MCAP0\r\n": _MCAP, b"SQLite format 3\0": _SQLITE, b"#ROSBAG V2": _ROS1, b"\x28\xb5\x2f\xfd": _ZSTD}


class ImageBag:
    """One image topic of a rosbag2 or a ROS 1 bag, opened by what its files are, not by their names.

    A bag is a folder (with or without metadata.yaml) or a single file: mcap, sqlite3 or ROS 1, each also compressed
    by zstd. What a killed recorder leaves is read as far as it goes: an mcap up to where it was cut, and a sqlite3
    file together with the -wal file beside it. What is missing then is told by `shortfall`.

    Args:
        path: the bag's folder, or one of its files.
        topic: which topic; may be left out where the bag has a single image topic.

    Attributes:
        topic, message_type: the topic and its type, one of IMAGE_TYPES.
        count: number of its messages, as the bag announces it.
        others: names of the bag's other topics.
        files: the bag's files.
        shortfall: after iterating, in words, why there were fewer messages than announced; None if there were not.

    Raises:
        LightTrackError: no bag, a damaged one, or no such image topic in it.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        self.path = path
        self._scratch = tempfile.TemporaryDirectory(prefix="lighttrack_bag_", ignore_cleanup_errors=True)
        self.shortfall: str | None = None
        try:
            metadata = _metadata(path)
            storage = _parts(path, metadata)
            self.files = (*storage, path / _METADATA) if metadata.files else tuple(storage)
            self._parts = [_open_part(part, Path(self._scratch.name), metadata) for part in storage]
            found = Counter[tuple[str, str]]()
            for part in self._parts:
                found.update(part.topics)
            announced = metadata.counts or {topic: count for (topic, _), count in found.items()}
            kinds = dict(found.keys())
            names = sorted({topic for topic, kind in kinds.items() if kind in IMAGE_TYPES and announced.get(topic)})
            if topic is None:
                if len(names) != 1:
                    several = f"has {len(names)} image topics: {', '.join(names)}; choose one with --topic"
                    raise LightTrackError(f"{path}: {several if names else 'has no images in it'}{self._cut_note()}")
                topic = names[0]
            wanted = topic if topic in names else "/" + topic
            if wanted not in names:
                raise LightTrackError(f"{path}: no images on {topic} (image topics: {', '.join(names) or 'none'})")
        except BaseException:
            self.close()
            raise
        self.topic: str = wanted
        self.message_type: str = kinds[wanted]
        self.count = announced[wanted]
        self.others = sorted((set(kinds) | set(announced)) - {wanted})

    def __iter__(self) -> Iterator[tuple[float, bytes]]:
        """Yield the time of recording in seconds since the first message, and the serialised message (CDR)."""
        start, read, damage = None, 0, ""
        self.shortfall = None
        for part in self._parts:
            try:
                for nanoseconds, data in part.messages(self.topic, self.message_type):
                    start = nanoseconds if start is None else start
                    read += 1
                    yield (nanoseconds - start) / 1e9, data
            except LightTrackError:
                raise
            except Exception as error:  # rosbags and mcap raise many kinds: their own, zstd's, sqlite3's, struct's
                damage = damage or f"{part.path.name} is damaged ({error})"
            damage = damage or part.cut
        if not read:
            raise LightTrackError(f"{self.path}: not one image on {self.topic} can be read ({damage or 'none there'})")
        if damage or read < self.count:
            number = f"{read} of the {self.count} images" if read < self.count else f"{read} images"
            self.shortfall = f"{number} on {self.topic} could be read" + (f": {damage}" if damage else "")

    def close(self) -> None:
        for part in getattr(self, "_parts", []):
            part.close()
        self._scratch.cleanup()

    def _cut_note(self) -> str:
        cut = [part.cut for part in self._parts if part.cut]
        return f" ({cut[0]})" if cut else ""


def is_bag(path: Path) -> bool:
    """Whether `path` is a rosbag2 folder, or a file of a bag, by what is in it."""
    if path.is_dir():
        return (path / _METADATA).is_file() or bool(_storage_files(path))
    return path.is_file() and _kind(path) is not None


class _Part(Protocol):
    """One file of a bag.

    Attributes:
        topics: (name, message type) -> number of messages.
        cut: why it ends early, in words; empty if it does not.
    """

    path: Path
    topics: dict[tuple[str, str], int]
    cut: str

    def messages(self, topic: str, kind: str) -> Iterator[tuple[int, bytes]]:
        """Yield the time of recording, nanoseconds, and the message, CDR."""
        ...

    def close(self) -> None: ...


class _Metadata:
    """What metadata.yaml says; without one, nothing.

    Attributes:
        files: the bag's files, in order; counts: topic -> messages; both empty without a metadata.yaml.
        messages_compressed: whether every message is compressed by itself.
    """

    def __init__(self, files: list[str], counts: dict[str, int], messages_compressed: bool) -> None:
        self.files, self.counts, self.messages_compressed = files, counts, messages_compressed


def _metadata(path: Path) -> _Metadata:
    file = path / _METADATA
    if not file.is_file():
        return _Metadata([], {}, False)
    _check_packages(path)
    try:
        from ruamel.yaml import YAML  # rosbags comes with it

        content = YAML(typ="safe").load(file.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        if content.get("compression_format") not in (None, "", "zstd"):
            raise LightTrackError(f"{path}: compressed by {content['compression_format']}, expected zstd")
        return _Metadata(
            [str(name) for name in content["relative_file_paths"]],
            {
                str(topic["topic_metadata"]["name"]): int(topic["message_count"])
                for topic in content["topics_with_message_count"]
            },
            str(content.get("compression_mode", "")).lower() == "message",
        )
    except LightTrackError:
        raise
    except Exception as error:  # whatever yaml and a foreign file make of it
        raise LightTrackError(f"{file}: is no metadata of a rosbag2 ({type(error).__name__}: {error})") from error


def _parts(path: Path, metadata: _Metadata) -> list[Path]:
    """The bag's files."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise LightTrackError(f"{path}: cannot be read as a rosbag2, there is no such file or folder")
    if not metadata.files:
        return _storage_files(path)
    # Paths were relative to somewhere else in old bags.
    files = [path / Path(name).name for name in metadata.files]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise LightTrackError(f"{path}: {', '.join(missing)} is missing, which {_METADATA} names")
    return files


def _storage_files(folder: Path) -> list[Path]:
    """The files of a bag in a folder without metadata.yaml, as a recorder numbers them."""

    def number(file: Path) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", file.name)]

    suffixes = (".mcap", ".db3", ".bag")
    files = [
        file
        for file in folder.iterdir()
        if not file.name.startswith(".") and file.name.removesuffix(".zstd").endswith(suffixes) and file.is_file()
    ]
    return sorted((file for file in files if _kind(file)), key=lambda file: (number(file), file.name))


def _kind(file: Path) -> str | None:
    """What a file is by its first bytes: one of _MAGIC's values; None for what is part of no bag."""
    try:
        with file.open("rb") as stream:
            begin = stream.read(16)
    except OSError as error:
        raise LightTrackError(f"{file}: cannot be read ({error.strerror})") from None
    return next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), None)


def _open_part(file: Path, scratch: Path, metadata: _Metadata) -> _Part:
    """One file of a bag, opened.

    Args:
        scratch: folder for what has to be unpacked first.
    """
    _check_packages(file)
    kind = _kind(file)
    try:
        if kind == _ZSTD:
            file = _unpacked(file, scratch)
            kind = _kind(file)
        if kind == _ROS1:
            return _Ros1File(file)
        if kind == _SQLITE:
            return _Rosbag2File(_with_wal(file, scratch), ".db3", metadata.messages_compressed)
        if kind == _MCAP:
            return _open_mcap(file, metadata.messages_compressed)
    except LightTrackError:
        raise
    except Exception as error:  # rosbags and mcap raise many kinds: their own, zstd's, sqlite3's, struct's
        raise LightTrackError(f"{file}: cannot be read as a bag, {kind} ({error})") from error
    raise LightTrackError(f"{file}: is no file of a bag (expected mcap, sqlite3 or ROS 1)")


def _check_packages(path: Path) -> None:
    try:
        import mcap  # noqa: F401
        import rosbags.rosbag2  # noqa: F401
    except ImportError:
        raise LightTrackError(
            f"{path}: reading a bag needs the packages rosbags and mcap: pip install 'lighttrack_ros[bags]'"
        ) from None


def _unpacked(file: Path, scratch: Path) -> Path:
    import zstandard

    target = scratch / file.name.removesuffix(".zstd")
    with file.open("rb") as packed, target.open("wb") as stream:
        zstandard.ZstdDecompressor().copy_stream(packed, stream)
    return target


def _with_wal(file: Path, scratch: Path) -> Path:
    """The database with what a killed recorder left in the -wal file beside it."""
    wal = file.with_name(file.name + "-wal")
    if not wal.is_file() or not wal.stat().st_size:
        return file
    import sqlite3

    copy = scratch / file.name
    shutil.copyfile(file, copy)
    shutil.copyfile(wal, scratch / wal.name)
    connection = sqlite3.connect(copy)
    try:
        connection.execute("pragma journal_mode=delete")  # takes the log into the database
    finally:
        connection.close()
    return copy


def _open_mcap(file: Path, messages_compressed: bool) -> _Part:
    """With its index where rosbags can use it; else by reading from the front, which asks for no end and no profile."""
    try:
        return _Rosbag2File(file, ".mcap", messages_compressed)
    except Exception:  # cut, of another profile, or truly damaged
        return _McapStream(file)


class _Rosbag2File:
    """An mcap with an index, or a sqlite3 database, read by rosbags."""

    cut = ""

    def __init__(self, path: Path, plugin: str, messages_compressed: bool) -> None:
        from rosbags.rosbag2 import Reader

        self.path = path
        self._compressed = messages_compressed
        # rosbags makes a URI of a database's name.
        name = Path(urllib.parse.quote(os.fsencode(path))) if plugin == ".db3" else path
        self._reader: Any = Reader.STORAGE_PLUGINS[plugin](name)
        self._reader.open()
        self.topics = _promised(self._reader)

    def messages(self, topic: str, kind: str) -> Iterator[tuple[int, bytes]]:
        wanted = [one for one in self._reader.connections if (one.topic, one.msgtype) == (topic, kind)]
        if not wanted:
            return
        unpack: Callable[[bytes], bytes] = bytes
        if self._compressed:
            import zstandard

            unpack = zstandard.ZstdDecompressor().decompress
        for _, nanoseconds, data in self._reader.messages(wanted):
            yield nanoseconds, bytes(unpack(data))

    def close(self) -> None:
        self._reader.close()


def _promised(reader: Any) -> dict[tuple[str, str], int]:
    """How many messages a rosbags reader announces, by topic and type."""
    counts: dict[tuple[str, str], int] = {}
    for connection in reader.connections:
        key = (connection.topic, connection.msgtype)
        counts[key] = counts.get(key, 0) + connection.msgcount
    return counts


class _Ros1File:
    """A ROS 1 bag, its messages made into those of ROS 2."""

    cut = ""

    def __init__(self, path: Path) -> None:
        from rosbags.rosbag1 import Reader

        self.path = path
        self._reader = Reader(path)
        self._reader.open()
        self.topics = _promised(self._reader)

    def messages(self, topic: str, kind: str) -> Iterator[tuple[int, bytes]]:
        wanted = [one for one in self._reader.connections if (one.topic, one.msgtype) == (topic, kind)]
        convert = _ros1_conversion(kind)
        for _, nanoseconds, data in self._reader.messages(wanted) if wanted else ():
            yield nanoseconds, convert(data)

    def close(self) -> None:
        self._reader.close()


class _McapStream:
    """An mcap read from the front: cut by a crash, without a profile, or converted from ROS 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = ""
        # One pass for the topics: there is no index of them.
        self.topics: dict[tuple[str, str], int] = dict(Counter((topic, kind) for topic, kind, *_ in self._records()))

    def messages(self, topic: str, kind: str) -> Iterator[tuple[int, bytes]]:
        convert = _ros1_conversion(kind)
        for name, of_kind, encoding, nanoseconds, data in self._records():
            if (name, of_kind) == (topic, kind):
                if encoding not in ("cdr", "ros1"):
                    raise LightTrackError(f"{self.path}: {topic} is encoded as {encoding!r}, expected cdr or ros1")
                yield nanoseconds, data if encoding == "cdr" else convert(data)

    def close(self) -> None:
        pass

    def _records(self) -> Iterator[tuple[str, str, str, int, bytes]]:
        """Yield topic, message type, encoding, time (ns) and message of every record up to the end or the cut."""
        from mcap.exceptions import RecordLengthLimitExceeded
        from mcap.records import Channel, Message, Schema
        from mcap.stream_reader import StreamReader

        schemas: dict[int, str] = {}
        channels: dict[int, tuple[str, str, str]] = {}
        with self.path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            records = StreamReader(stream, record_size_limit=size, validate_crcs=True).records
            while True:
                try:
                    record = next(records, None)
                except Exception as error:  # mcap raises many kinds where a file ends early or is damaged
                    cut = stream.tell() >= size or isinstance(error, RecordLengthLimitExceeded)
                    reason = "it was cut there" if cut else f"damaged there ({error})"
                    self.cut = f"{self.path.name} can be read up to byte {stream.tell()} of {size}, {reason}"
                    return
                if record is None:
                    return
                if isinstance(record, Schema):
                    parts = record.name.split("/")
                    schemas[record.id] = "/".join((parts[0], "msg", parts[-1]))
                elif isinstance(record, Channel):
                    kind = schemas.get(record.schema_id, "")
                    channels[record.id] = (record.topic, kind, record.message_encoding)
                elif isinstance(record, Message) and record.channel_id in channels:
                    yield (*channels[record.channel_id], record.log_time, record.data)


def _ros1_conversion(kind: str) -> Any:
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    return lambda data: bytes(store.ros1_to_cdr(data, kind))


def write_bag(
    path: Path,
    images: Iterable[tuple[int, NDArray[np.uint8]]],
    topic: str,
    frame_id: str,
    target_of: Callable[[int], Box | None] = lambda _: None,
) -> None:
    """Write a rosbag2 (mcap) of raw images.

    Args:
        path: folder of the bag, which must not be there yet.
        images: stamp, nanoseconds, and (height, width, 3) uint8 BGR pixels; in order.
        target_of: the target in the image of an index, asked once that image was taken from `images`; recorded on
            /init_roi just before it, so that `ros2 bag play` starts the tracker too.

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
    # Written beside, under its own name: rosbags names the files after the folder.
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        # Version 8: what Humble reads as well.
        with Writer(beside / path.name, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            to_images, to_target = writer.add_connection(topic, image_type, typestore=store), None
            for index, (stamp, pixels) in enumerate(images):
                target = target_of(index)
                if target is not None:
                    x, y, width, height = (round(value) for value in target)
                    roi = types[roi_type](x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)
                    to_target = to_target or writer.add_connection("/init_roi", roi_type, typestore=store)
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
        (beside / path.name).rename(path)
    except OSError as error:
        raise LightTrackError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


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

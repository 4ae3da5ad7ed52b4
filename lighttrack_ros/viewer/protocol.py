"""What page and server say to each other. Whatever comes from a page is checked here, as everything from a topic is.

From the page: JSON texts, one order each, with a `type` and, where it is answered, the page's own `request` number.
To the page: JSON texts, and pictures as binary messages: the length of the head (4 bytes, little endian), the head
(JSON: number, stamp, width and height of the camera's image, the targets and whether they are of this very image), the
JPEG.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.viewer.board import Event, Picture

LONGEST = 4096  # bytes of a message from a page
_LONGEST_TEXT = 256  # characters
_LARGEST = 1e6  # pixels: no image is so large
_MOST = 2**53  # whole numbers up to here are exact in JavaScript


@dataclass(frozen=True)
class Hello:
    """The first message of a page."""

    token: str


@dataclass(frozen=True)
class Watch:
    """Whether the page is in sight."""

    on: bool


@dataclass(frozen=True)
class Seen:
    """This picture is on the screen, or a newer one has taken its place."""

    number: int


@dataclass(frozen=True)
class Propose:
    """Which box would go with this point, in pixels of the camera's image, of the picture on the screen?"""

    request: int
    number: int
    x: float
    y: float


@dataclass(frozen=True)
class Hold:
    """Somebody begins, or ceases, to draw on a picture: films stop."""

    on: bool


@dataclass(frozen=True)
class Track:
    """Follow what is in the box on the image of this stamp (nanoseconds)."""

    request: int
    stamp: int
    box: Box
    target_id: str


@dataclass(frozen=True)
class Reset:
    """Forget all targets."""

    request: int


@dataclass(frozen=True)
class Remove:
    """Forget one target."""

    request: int
    target_id: str


@dataclass(frozen=True)
class Enable:
    """Work on images, or leave them alone."""

    request: int
    on: bool


@dataclass(frozen=True)
class Play:
    """Let a film run, or stop it."""

    request: int
    on: bool


@dataclass(frozen=True)
class Configure:
    """Another model, backend or camera; each is one of those that the status offers."""

    request: int
    model: str
    backend: str
    image_topic: str


Order = Propose | Track | Reset | Remove | Enable | Play | Configure
Message = Hello | Watch | Seen | Hold | Order


def parse(text: str | bytes) -> Message:
    """A page's message.

    Raises:
        LightTrackError: it is none; the words name the field, and never repeat what was sent.
    """
    if isinstance(text, bytes):
        raise LightTrackError("a binary message, expected JSON")
    if len(text) > LONGEST:
        raise LightTrackError(f"a message of {len(text)} characters, expected {LONGEST} at most")
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise LightTrackError("a message that is no JSON") from None
    if not isinstance(fields, dict):
        raise LightTrackError("a message that is no JSON object")
    kind = fields.pop("type", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise LightTrackError(f"type: expected one of {', '.join(_KINDS)}")
    make, readers = _KINDS[kind]
    if set(fields) != set(readers):
        raise LightTrackError(f"{kind}: expected the fields {', '.join(readers) or '(none)'}")
    message: Message = make(**{name: read(f"{kind}.{name}", fields[name]) for name, read in readers.items()})
    return message


def picture_message(picture: Picture, width: int, height: int, jpeg: bytes, trip: float | None) -> bytes:
    """One picture for a page, with what the tracker says of it.

    Args:
        width, height: of the camera's image, in whose pixels the boxes are; the JPEG may be smaller.
        trip: seconds from sending an earlier one to hearing that it was shown.
    """
    targets = [
        {
            "id": target.target_id,
            "state": target.state.name.lower(),
            "box": [_finite(value, 2) for value in target.box],
            "confidence": _finite(target.confidence, 3),
            "latency": None if target.latency is None else _finite(target.latency, 2),
        }
        for target in picture.targets
    ]
    head = {
        "number": picture.number,
        "stamp": str(picture.stamp),
        "width": width,
        "height": height,
        "trip": None if trip is None else round(1e3 * trip),
        "told": picture.told,
        "targets": targets,
    }
    encoded = json.dumps(head, separators=(",", ":")).encode()
    return struct.pack("<I", len(encoded)) + encoded + jpeg


def text_message(kind: str, **fields: Any) -> str:
    """Any other message to a page."""
    return json.dumps({"type": kind, **fields}, separators=(",", ":"), allow_nan=False)


def events_message(events: list[Event]) -> str:
    """For the list of what has happened."""
    listed = [{"number": e.number, "time": e.time, "kind": e.kind, "id": e.target_id, "words": e.words} for e in events]
    return text_message("events", events=listed)


def _finite(value: float, digits: int) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None


def _refuse_constant(_: str) -> Any:
    raise ValueError


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
        raise LightTrackError(f"{name}: expected a text of at most {_LONGEST_TEXT} printable characters")
    return value


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise LightTrackError(f"{name}: expected true or false")
    return value


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise LightTrackError(f"{name}: expected a whole number from 0 on")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
        raise LightTrackError(f"{name}: expected a number of pixels")
    return float(value)


def _stamp(name: str, value: object) -> int:
    """Nanoseconds as a text: they are more than a number of JavaScript can hold."""
    if not isinstance(value, str) or not (value.isascii() and value.isdigit()) or len(value) > 19:
        raise LightTrackError(f"{name}: expected nanoseconds, as a text of digits")
    stamp = int(value)
    if stamp >= 2**31 * 10**9:  # what fits into a header
        raise LightTrackError(f"{name}: expected nanoseconds, less than 2^31 seconds")
    return stamp


def _box(name: str, value: object) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise LightTrackError(f"{name}: expected left, top, width and height")
    box = Box(*(_number(name, side) for side in value))
    if box.width < 1 or box.height < 1:
        raise LightTrackError(f"{name}: expected a width and a height of at least 1 pixel")
    return box


_Reader = Callable[[str, object], Any]
_KINDS: dict[str, tuple[Callable[..., Message], dict[str, _Reader]]] = {
    "hello": (Hello, {"token": _text}),
    "watch": (Watch, {"on": _switch}),
    "seen": (Seen, {"number": _count}),
    "hold": (Hold, {"on": _switch}),
    "propose": (Propose, {"request": _count, "number": _count, "x": _number, "y": _number}),
    "track": (Track, {"request": _count, "stamp": _stamp, "box": _box, "target_id": _text}),
    "reset": (Reset, {"request": _count}),
    "remove": (Remove, {"request": _count, "target_id": _text}),
    "enable": (Enable, {"request": _count, "on": _switch}),
    "play": (Play, {"request": _count, "on": _switch}),
    "configure": (Configure, {"request": _count, "model": _text, "backend": _text, "image_topic": _text}),
}

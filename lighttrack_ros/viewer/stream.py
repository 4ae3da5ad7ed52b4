"""Pictures for one page over one link: how many may be on the way, how large they are; and their JPEGs."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

import cv2
import numpy as np

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import UInt8Array
from lighttrack_ros.viewer.board import Picture

# Longest side in pixels and JPEG quality, from a good link to a bad one.
RUNGS = ((1920, 85), (1280, 80), (1280, 65), (960, 60), (640, 60), (640, 40), (480, 35), (320, 30))
START = 5  # the rung to begin with: a small picture soon tells how long the way is

MOST_RATE = 30.0  # pictures a second
MOST_ON_THE_WAY = 40  # pictures: 30 a second over a link with a round trip of more than a second
MOST_BYTES = 8 << 20  # of pictures on the way

_QUEUE = 0.2  # seconds by which a round trip may be longer than the shortest one lately
_MEMORY = 20.0  # seconds for which the shortest round trip is remembered
_FEW = 10.0  # pictures a second: with fewer, smaller pictures are better than fewer still
_AGAIN = 3.0  # seconds: a jam so soon after another was not ended by sending fewer pictures
_ENOUGH = 3  # pictures that arrived well before larger ones are tried, at first
_CALM = 3.0  # seconds without a jam after which larger pictures are tried, later
_MOST_CALM = 60.0


@dataclass(frozen=True)
class Encoded:
    """A picture as JPEG; `width` and `height` are those of the camera's image."""

    jpeg: bytes
    width: int
    height: int


@dataclass
class _Sent:
    number: int
    time: float
    rung: int
    encoded: Encoded


class Link:
    """Flow control: the page acknowledges every picture that it has shown, and gets as many as it acknowledges.

    The number of pictures on the way grows until the round trips become longer, which means that pictures queue up
    somewhere. Then fewer are sent, and smaller ones if few are left; from time to time larger ones are tried again. All
    times are those of the caller's clock, seconds.
    """

    def __init__(self) -> None:
        self.rung = START
        self.window = 2
        self._on_the_way: deque[_Sent] = deque()
        self._bytes = 0
        self._shown: _Sent | None = None  # the newest that the page has acknowledged
        self._held: _Sent | None = None  # the one that stands still on its screen
        self._last_sent = -1.0
        self._trips: deque[tuple[float, float]] = deque()  # when, and how long; the shortest first
        self._seen_at: deque[float] = deque(maxlen=64)
        self._was_full = False
        self._learning = True  # no jam yet: everything may grow fast
        self._good = 0  # pictures of this rung that arrived well
        self._jam = -_AGAIN  # when the link was last found jammed
        self._grown = 0.0  # when the window last grew
        self._calm = _CALM
        self._climbed = 0.0  # when larger pictures were last tried
        self._drained: tuple[float, int] | None = None  # until when few are sent, and how many then

    def wait(self, now: float) -> float | None:
        """Seconds until the next picture may be sent; None: not before the page acknowledges one."""
        if len(self._on_the_way) >= self.window or self._bytes >= MOST_BYTES:
            return None
        # A tenth less, so that a camera of just that rate is not cut to half by jitter.
        return max(0.0, self._last_sent + 0.9 / MOST_RATE - now)

    def held_up(self) -> None:
        """There is a picture that may not be sent yet."""
        self._was_full = True

    def sent(self, number: int, encoded: Encoded, now: float) -> None:
        """A picture of the present rung goes on its way."""
        self._on_the_way.append(_Sent(number, now, self.rung, encoded))
        self._bytes += len(encoded.jpeg)
        self._last_sent = now

    def seen(self, number: int, now: float) -> None:
        """The page shows a picture; those sent before it are done with too."""
        sent = None
        while self._on_the_way and self._on_the_way[0].number <= number:
            sent = self._on_the_way.popleft()
            self._bytes -= len(sent.encoded.jpeg)
            self._seen_at.append(now)
        if sent is None:
            return
        self._shown = sent
        trip = now - sent.time
        self._remember(trip, now)
        shortest = self._trips[0][1]
        if trip - shortest > max(_QUEUE, 0.25 * shortest):
            if now - self._jam > trip:  # what was done about the last jam has taken effect
                self._relieve(now)
        elif self._drained is None:
            self._grow(sent, shortest, now)

    def hold(self, on: bool) -> None:
        """The picture on the page's screen stands still, and newer ones are acknowledged meanwhile."""
        self._held = self._shown if on else None

    def of_number(self, number: int) -> Encoded | None:
        """A picture that the page may have on its screen."""
        candidates = (self._held, self._shown, *self._on_the_way)
        return next((sent.encoded for sent in candidates if sent is not None and sent.number == number), None)

    def restart(self) -> None:
        """What is on the way will not be acknowledged: the page was out of sight."""
        self._on_the_way.clear()
        self._bytes = 0
        self._trips.clear()

    @property
    def trip(self) -> float | None:
        """Seconds from sending a picture to hearing that it is shown; None while none was."""
        return self._trips[-1][1] if self._trips else None

    def rate(self, now: float) -> float:
        """Pictures shown a second, over the last two."""
        return sum(now - seen < 2.0 for seen in self._seen_at) / 2.0

    def _remember(self, trip: float, now: float) -> None:
        if self._drained is not None and now > self._drained[0]:
            self.window, self._drained = self._drained[1], None
        if self._trips and now - self._trips[0][0] > _MEMORY:
            # The shortest has become old. All later ones may have queued: let the queue drain and measure again.
            self._trips.popleft()
            if self._drained is None and self.window > 2:
                self._drained = now + 1.5 * trip, max(2, round(0.9 * self.window))
                self.window = 2
        while self._trips and self._trips[-1][1] >= trip:
            self._trips.pop()
        self._trips.append((now, trip))

    def _grow(self, sent: _Sent, shortest: float, now: float) -> None:
        """All is well: more pictures, where there are more; larger ones, where there is room."""
        if self._was_full and self.window < MOST_ON_THE_WAY and (self._learning or now - self._grown > shortest / 4):
            self.window += 1
            self._grown = now
        # With enough pictures, or all that there are, larger ones may be had too.
        has_room = self.rate(now) > 1.5 * _FEW or not self._was_full
        self._was_full = False
        self._good += sent.rung == self.rung
        if not self.rung or self._good < _ENOUGH:
            return
        if self._learning or (has_room and min(now - self._jam, now - self._climbed) > self._calm):
            self.rung -= 1
            self._good = 0
            self._climbed = now

    def _relieve(self, now: float) -> None:
        """A jam: send fewer pictures, then smaller ones."""
        fewer_did_not_help = now - self._jam < _AGAIN and self.rate(now) < _FEW
        self._jam = now
        self._drained = None
        if self._learning or self.window <= 2 or fewer_did_not_help:
            self._good = 0
            if self.rung < len(RUNGS) - 1:
                self.rung += 1
            if now - self._climbed < 2 * self._calm and not self._learning:  # too much: do not try again soon
                self._calm = min(2 * self._calm, _MOST_CALM)
        else:
            self.window = max(2, round(0.7 * self.window))
        self._learning = False


class Encoder:
    """JPEGs of the newest pictures; each is made once for all pages that want the same. For one thread."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[int, int], Encoded] = OrderedDict()
        self._read: tuple[int, UInt8Array] | None = None

    def encode(self, picture: Picture, rung: int) -> Encoded:
        """A picture as JPEG.

        Raises:
            LightTrackError: its pixels cannot be read.
        """
        made = self._made.get((picture.number, rung))
        if made is None:
            if self._read is None or self._read[0] != picture.number:
                self._read = picture.number, picture.read()
            made = self._made[picture.number, rung] = _encode(self._read[1], *RUNGS[rung])
            if len(self._made) > len(RUNGS):
                self._made.popitem(last=False)
        return made

    def clear(self) -> None:
        """Nobody watches: keep no picture."""
        self._made.clear()
        self._read = None


def decode_jpeg(jpeg: bytes) -> UInt8Array:
    """(height, width, 3) uint8 BGR."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise LightTrackError("a JPEG cannot be decoded")
    return image.astype(np.uint8, copy=False)


def _encode(image: UInt8Array, side: int, quality: int) -> Encoded:
    height, width = image.shape[:2]
    scale = side / max(width, height)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise LightTrackError(f"an image of {width} x {height} cannot be written as JPEG")
    return Encoded(jpeg.tobytes(), width, height)

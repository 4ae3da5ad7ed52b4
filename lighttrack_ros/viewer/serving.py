"""A page served while a block runs, until somebody ends it."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.viewer.access import is_loopback, kept_token
from lighttrack_ros.viewer.source import Source

if TYPE_CHECKING:
    from lighttrack_ros.viewer.server import Server


@contextlib.contextmanager
def serving(source: Source, address: str, port: int | None) -> Iterator[Server]:
    """Serve the page of a source and print where it is.

    Raises:
        LightTrackError: the address or port cannot be had, or Tornado is not installed.
    """
    try:
        from lighttrack_ros.viewer.server import DEFAULT_PORT, Server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "tornado":
            raise
        raise LightTrackError(
            "the page needs the package tornado: pip install 'lighttrack_ros[viewer]', or apt install python3-tornado"
        ) from None
    token = None if is_loopback(address) else kept_token()
    with Server(source, address, DEFAULT_PORT if port is None else port, token, _log) as server:
        for url in server.urls:
            print(f"page: {url}", flush=True)
        yield server


@contextlib.contextmanager
def stopping(stop: Callable[[], object]) -> Iterator[None]:
    """Have a function called at SIGINT or SIGTERM; who presses Ctrl-C again gets a KeyboardInterrupt.

    `ros2 launch` sends two at once, which count as one.
    """
    first: list[float] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if first and time.monotonic() - first[0] > 1.0:
            signal.default_int_handler(number, frame)
        first.append(time.monotonic())
        stop()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, on_signal) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _log(words: str) -> None:
    print(f"viewer: {words}", file=sys.stderr, flush=True)

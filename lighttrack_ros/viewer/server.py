"""The page's server: its files over HTTP, all else over one WebSocket a page."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.viewer import access, protocol
from lighttrack_ros.viewer.access import Access
from lighttrack_ros.viewer.board import Picture
from lighttrack_ros.viewer.proposal import Proposer
from lighttrack_ros.viewer.source import Answer, Source
from lighttrack_ros.viewer.stream import Encoded, Encoder, Link, decode_jpeg

DEFAULT_PORT = 8520
MOST_PAGES = 8

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HELLO = 5.0  # seconds in which a page has to show its token
_PATIENCE = 60.0  # seconds for an answer of the source
_STATUS_PERIOD = 0.2  # seconds between two messages of the status
_PING = 10.0  # seconds; who answers none is gone
_MESSAGES = (150.0, 300)  # a second, and at once; from one page
_ORDERS = (5.0, 15)
_STRANGERS = 100  # addresses of which it is remembered that they were logged

# Codes of our own with which a connection is closed; the page knows them.
CLOSED_TOKEN, CLOSED_FULL, CLOSED_RULES = 4401, 4429, 4400


class Server:
    """Serves the page of one source, in a thread of its own, until it is closed.

    Args:
        source: what the page shows and orders.
        address: to listen on.
        port: 0 takes a free one.
        token: what every page has to show; None only on a loopback address.
        log: takes one line, of what somebody who runs the server should know.

    Attributes:
        urls: where the page is, the token among it.

    Raises:
        LightTrackError: the address or port cannot be had, or needs a token.
    """

    def __init__(
        self, source: Source, address: str, port: int, token: str | None, log: Callable[[str], object]
    ) -> None:
        self._hall = _Hall(source, Access(address, token), log)
        try:
            self._sockets = bind_sockets(port, address, family=socket.AF_UNSPEC)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise LightTrackError(
                f"address {address}, port {port}: cannot be listened on ({reason}); another --port, or 0 for a free one"
            ) from None
        self.port = int(self._sockets[0].getsockname()[1])
        self.urls = access.urls(address, self.port, token)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="viewer_server", daemon=True)

    def __enter__(self) -> Server:
        ready = threading.Event()
        self._loop.call_soon(ready.set)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        handlers: list[Any] = [
            (r"/link", _Page),
            (r"/(.*)", _File, {"files": _files()}),
        ]
        # A page pings nobody; a dead link is found out by ours.
        application = Application(
            handlers,
            hall=self._hall,
            websocket_ping_interval=_PING,
            websocket_max_message_size=protocol.LONGEST,
            log_function=lambda _: None,
        )
        server = HTTPServer(
            application,
            max_header_size=16 << 10,
            max_body_size=0,
            max_buffer_size=64 << 10,
            idle_connection_timeout=30,
            body_timeout=10,
        )
        server.add_sockets(self._sockets)
        self._hall.open(self._loop)
        self._loop.run_forever()
        server.stop()
        self._loop.run_until_complete(self._hall.close())
        self._loop.run_until_complete(server.close_all_connections())
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.close()


class _Hall:
    """What all pages share; but for `_wake`, in the server's thread."""

    def __init__(self, source: Source, rules: Access, log: Callable[[str], object]) -> None:
        self.source = source
        self.access = rules
        self._log = log
        self._pages: set[_Page] = set()
        self._encoder = Encoder()
        self._worker = ThreadPoolExecutor(1, "viewer_encoder")
        self._proposer = Proposer()
        self._proposals = ThreadPoolExecutor(1, "viewer_proposals")
        self._strangers: set[str] = set()
        self._watching = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.source.board.listen(self._wake)

    async def close(self) -> None:
        self._loop = None
        for page in list(self._pages):
            page.close(1001, "the viewer ends")
        self._worker.shutdown(cancel_futures=True)
        self._proposals.submit(self._proposer.close)
        self._proposals.shutdown()

    @property
    def is_full(self) -> bool:
        return len(self._pages) >= MOST_PAGES

    def enter(self, page: _Page) -> None:
        self._pages.add(page)

    def leave(self, page: _Page) -> None:
        self._pages.discard(page)
        self.look_who_watches()

    def look_who_watches(self) -> None:
        """Nothing is received or encoded while nobody watches."""
        watching = any(page.watches for page in self._pages)
        if watching != self._watching:
            self._watching = watching
            self.source.watch(watching)
            if watching:
                self._proposals.submit(self._proposer.load)  # before the first click
            else:
                self.source.board.clear_pictures()
                if self._loop is not None:
                    self._worker.submit(self._encoder.clear)

    def look_who_draws(self) -> None:
        self.source.hold(any(page.draws for page in self._pages))

    async def encode(self, picture: Picture, rung: int) -> Encoded:
        return await asyncio.wrap_future(self._worker.submit(self._encoder.encode, picture, rung))

    async def propose(self, encoded: Encoded, x: float, y: float) -> list[float]:
        """The box that goes with a point, in pixels of the camera's image."""

        def work() -> list[float]:
            image = decode_jpeg(encoded.jpeg)
            scale = image.shape[1] / encoded.width
            return [round(float(value) / scale, 1) for value in self._proposer.propose(image, x * scale, y * scale)]

        return await asyncio.wrap_future(self._proposals.submit(work))

    def turned_away(self, address: str) -> None:
        """Somebody had no token, or a wrong one; what was sent is not for a log."""
        if address not in self._strangers and len(self._strangers) < _STRANGERS:
            self._strangers.add(address)
            self._log(f"a page on {address} was turned away: it has no token, or a wrong one (said once an address)")

    def refused(self, address: str, words: str) -> None:
        self._log(f"the connection of a page on {address} was closed: {words}")

    def _wake(self) -> None:
        """From any thread."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is just being closed
                loop.call_soon_threadsafe(self._wake_pages)

    def _wake_pages(self) -> None:
        for page in self._pages:
            page.news.set()


class _Guarded(RequestHandler):
    """What holds for every request."""

    @property
    def _hall(self) -> _Hall:
        hall: _Hall = self.application.settings["hall"]
        return hall

    def prepare(self) -> None:
        if not self._hall.access.knows_host(self.request.host):
            raise HTTPError(421)

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        host = self.request.host if self._hall.access.knows_host(self.request.host) else ""
        # Some browsers do not count WebSockets as 'self'.
        link = f"'self' ws://{host} wss://{host}" if host else "'self'"
        rules = [
            "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", f"connect-src {link}",
            "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        ]  # fmt: skip
        self.set_header("Content-Security-Policy", "; ".join(rules))
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
        self.set_header("Cache-Control", "no-cache")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")


class _File(_Guarded):
    """One of the page's own files; no other path leads anywhere."""

    def initialize(self, files: dict[str, tuple[str, bytes]]) -> None:
        self._files = files

    def get(self, name: str) -> None:
        found = self._files.get(name or "index.html")
        if found is None:
            raise HTTPError(404)
        kind, content = found
        self.set_header("Content-Type", kind)
        self.write(content)

    head = get


class _Page(_Guarded, WebSocketHandler):
    """One page: what it sends is done, and one task sends it what there is, each message after the one before."""

    def open(self, *args: str, **kwargs: str) -> None:
        self.watches = self.draws = False
        self.news = asyncio.Event()
        self._admitted = False
        self._link = Link()
        self._messages, self._orders = _Allowance(*_MESSAGES), _Allowance(*_ORDERS)
        self._pending: set[asyncio.Task[None]] = set()
        self._answers: list[str] = []
        self._sender: asyncio.Task[None] | None = None
        if self._hall.is_full:
            self.close(CLOSED_FULL, f"{MOST_PAGES} pages are open already")
            return
        self._hall.enter(self)
        self.set_nodelay(True)
        asyncio.get_running_loop().call_later(_HELLO, self._be_impatient)

    def check_origin(self, origin: str) -> bool:
        return self._hall.access.is_own(origin, self.request.host)

    def on_message(self, text: str | bytes) -> None:
        now = time.monotonic()
        if self.close_code is not None or self.ws_connection is None:
            return
        if not self._messages.grants(now):
            self._refuse("too many messages")
            return
        try:
            message = protocol.parse(text)
        except LightTrackError as error:
            self._refuse(str(error))
            return
        if not self._admitted:
            self._greet(message)
        elif isinstance(message, protocol.Seen):
            self._link.seen(message.number, now)
            self.news.set()
        elif isinstance(message, protocol.Watch):
            self._watch(message.on)
        elif isinstance(message, protocol.Hold):
            self.draws = message.on
            self._link.hold(message.on)
            self._hall.look_who_draws()
        elif isinstance(message, protocol.Hello):
            self._refuse("a second hello")
        elif not self._orders.grants(now):
            self._answer(message.request, Answer(False, "too many orders at once, wait a moment"))
        else:
            task = asyncio.get_running_loop().create_task(self._do(message))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    def on_close(self) -> None:
        if not hasattr(self, "_sender"):
            return
        if self._sender is not None:
            self._sender.cancel()
        for task in self._pending:
            task.cancel()
        self.watches = False
        self._hall.leave(self)
        if self.draws:
            self.draws = False
            self._hall.look_who_draws()

    def _greet(self, message: protocol.Message) -> None:
        if not isinstance(message, protocol.Hello):
            self._refuse("no hello")
        elif not self._hall.access.admits(message.token):
            self._turn_away()
        else:
            self._admitted = True
            self._sender = asyncio.get_running_loop().create_task(self._send())
            self._watch(True)

    def _turn_away(self) -> None:
        self._hall.turned_away(str(self.request.remote_ip))
        self.close(CLOSED_TOKEN, "the token is missing or wrong")

    def _be_impatient(self) -> None:
        if not self._admitted and self.ws_connection is not None:
            self._turn_away()

    def _refuse(self, words: str) -> None:
        self._hall.refused(str(self.request.remote_ip), words)
        self.close(CLOSED_RULES, words[:120])

    def _watch(self, on: bool) -> None:
        self.watches = on
        self._link.restart()
        self._hall.look_who_watches()
        self.news.set()

    async def _do(self, order: protocol.Order) -> None:
        if isinstance(order, protocol.Propose):
            await self._propose(order)
            return
        try:
            future = asyncio.wrap_future(self._hall.source.order(order))
            answer = await asyncio.wait_for(future, _PATIENCE)
        except asyncio.TimeoutError:
            answer = Answer(False, f"no answer within {_PATIENCE:g} s")
        self._answer(order.request, answer)

    async def _propose(self, order: protocol.Propose) -> None:
        encoded = self._link.of_number(order.number)
        if encoded is None or not (0 <= order.x < encoded.width and 0 <= order.y < encoded.height):
            self._answer(order.request, Answer(False, "that picture is no longer there: click again"))
            return
        try:
            box = await self._hall.propose(encoded, order.x, order.y)
        except LightTrackError as error:
            self._answer(order.request, Answer(False, str(error)))
            return
        self._answer(order.request, Answer(True), box=box)

    def _answer(self, request: int, answer: Answer, **more: Any) -> None:
        self._answers.append(protocol.text_message("answer", request=request, ok=answer.ok, words=answer.words, **more))
        self.news.set()

    async def _send(self) -> None:
        """Everything that there is for this page, until it closes. What it does not take stays where it is."""
        version = events = picture = 0
        status_at = 0.0
        board = self._hall.source.board
        try:
            while True:
                self.news.clear()
                while self._answers:
                    await self.write_message(self._answers.pop(0))
                now = time.monotonic()
                waits = [1.0]
                if status := board.status(version):
                    if now - status_at >= _STATUS_PERIOD:
                        version, values = status
                        status_at = now
                        await self.write_message(protocol.text_message("status", values=values))
                    else:
                        waits.append(status_at + _STATUS_PERIOD - now)
                if happened := board.events(events):
                    events = happened[-1].number
                    await self.write_message(protocol.events_message(happened))
                newest, again = board.newest(picture) if self.watches else (None, None)
                if newest is not None:
                    wait = self._link.wait(time.monotonic())
                    if wait == 0:
                        picture = newest.number
                        await self._send_picture(newest)
                        continue
                    if wait is None:
                        self._link.held_up()
                    else:
                        waits.append(wait)
                elif again is not None:
                    waits.append(again)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.news.wait(), min(waits))
        except WebSocketClosedError:
            pass

    async def _send_picture(self, picture: Picture) -> None:
        try:
            encoded = await self._hall.encode(picture, self._link.rung)
        except LightTrackError as error:
            self._hall.source.board.set_status({"picture_error": str(error)})
            return
        self._hall.source.board.set_status({"picture_error": ""})
        message = protocol.picture_message(picture, encoded.width, encoded.height, encoded.jpeg, self._link.trip)
        self._link.sent(picture.number, encoded, time.monotonic())
        await self.write_message(message, binary=True)


class _Allowance:
    """So many a second, and so many at once."""

    def __init__(self, rate: float, most: int) -> None:
        self._rate, self._most = rate, most
        self._left, self._at = float(most), time.monotonic()

    def grants(self, now: float) -> bool:
        self._left = min(self._most, self._left + self._rate * (now - self._at)) - 1
        self._at = now
        self._left = max(self._left, -1.0)
        return self._left >= 0


def _files() -> dict[str, tuple[str, bytes]]:
    """The page's files by name, with their types."""
    return {path.name: (_TYPES[path.suffix], path.read_bytes()) for path in _PAGE.iterdir() if path.suffix in _TYPES}

"""The page's server as somebody outside sees it, who may be up to no good."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

pytest.importorskip("tornado", reason="needs tornado (pip install 'lighttrack_ros[viewer]')")

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.viewer import access, protocol
from lighttrack_ros.viewer.board import Board
from lighttrack_ros.viewer.server import CLOSED_FULL, CLOSED_RULES, CLOSED_TOKEN, MOST_PAGES, Server
from lighttrack_ros.viewer.source import Answer

TOKEN = "correct-horse-battery_"


class Scripted:
    """A source that does what it is told and remembers it."""

    def __init__(self) -> None:
        self.board = Board()
        self.watched: list[bool] = []
        self.orders: list[object] = []
        self.reads = 0

    def watch(self, on: bool) -> None:
        self.watched.append(on)

    def hold(self, on: bool) -> None:
        pass

    def order(self, order: object) -> Future:
        self.orders.append(order)
        answer: Future = Future()
        answer.set_result(Answer(True, "done"))
        return answer

    def show(self, stamp: int) -> None:
        def read():
            self.reads += 1
            return np.full((120, 160, 3), 90, np.uint8)

        self.board.put_picture(stamp, read)


@pytest.fixture
def source():
    return Scripted()


@pytest.fixture
def log():
    return []


@pytest.fixture
def server(source, log):
    with Server(source, "127.0.0.1", 0, None, log.append) as server:
        yield server


@pytest.fixture
def guarded(source, log):
    with Server(source, "127.0.0.1", 0, TOKEN, log.append) as server:
        yield server


def get(server, path, host="localhost", method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"{host}:{server.port}")
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


async def connect(server, token="", origin=None, hello=True, host=None):
    headers = {} if origin is None else {"Origin": origin}
    if host is not None:
        headers["Host"] = host
    page = await websocket_connect(HTTPRequest(f"ws://127.0.0.1:{server.port}/link", headers=headers))
    if hello:
        await page.write_message(json.dumps({"type": "hello", "token": token}))
    return page


async def closed(page) -> int:
    """The code with which the server closes it, soon."""
    while await asyncio.wait_for(page.read_message(), 10) is not None:
        pass
    return page.close_code


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_pages_own_files_are_served_and_nothing_else(server):
    for path, kind in (("/", "text/html"), ("/main.js", "text/javascript"), ("/style.css", "text/css")):
        status, headers, body = get(server, path)
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, kind)
        assert body
        rules = headers["Content-Security-Policy"]
        assert "default-src 'none'" in rules
        assert "script-src 'self'" in rules
        assert "unsafe" not in rules
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Server" not in headers
    for path in (
        "/../server.py",
        "/..%2fserver.py",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/setup.py",
        "/page/main.js",
        "/x" * 50,
    ):
        assert get(server, path)[0] == 404, path
    assert get(server, "/", method="POST", body=b"")[0] == 405
    with contextlib.suppress(ConnectionError):  # it is cut off
        assert get(server, "/", method="POST", body=b"x" * 100_000)[0] in (400, 413)
    assert get(server, "/link")[0] == 400  # no WebSocket


def test_a_name_that_was_made_to_lead_here_is_not_answered(server):
    for host in ("evil.example", "127.0.0.1.evil.example", "a b", ""):
        assert get(server, "/", host=host)[0] in (400, 421), host
    for host in ("localhost", "127.0.0.1", "LOCALHOST"):
        assert get(server, "/", host=host)[0] == 200

    async def rebound():
        name = f"evil.example:{server.port}"
        with pytest.raises(HTTPClientError) as refused:
            await connect(server, origin=f"http://{name}", host=name)
        assert refused.value.code == 421

    asyncio.run(rebound())


def test_a_foreign_page_gets_no_connection(server, source):
    async def try_origins():
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{server.port + 1}", "http://localhost"):
            with pytest.raises(HTTPClientError) as refused:
                await connect(server, origin=origin)
            assert refused.value.code == 403
        own = await connect(server, origin=f"http://127.0.0.1:{server.port}")
        assert json.loads(await asyncio.wait_for(own.read_message(), 10))["values"] == {"subject": "x"}
        own.close()

    source.board.set_status({"subject": "x"})
    asyncio.run(try_origins())


def test_a_wrong_token_is_logged_once_and_never_repeated(guarded, source, log):
    async def try_tokens():
        for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "é"):
            assert await closed(await connect(guarded, token)) == CLOSED_TOKEN
        page = await connect(guarded, hello=False)
        await page.write_message(json.dumps({"type": "reset", "request": 1}))
        assert await closed(page) == CLOSED_RULES
        source.board.set_status({"subject": "x"})
        page = await connect(guarded, TOKEN)
        assert await asyncio.wait_for(page.read_message(), 10)
        page.close()

    asyncio.run(try_tokens())
    turned_away = [line for line in log if "turned away" in line]
    assert len(turned_away) == 1
    assert not any("wrong" in line.replace("a wrong one", "") or TOKEN[:-1] in line for line in log)
    assert not source.orders


def test_others_reach_it_only_with_a_token(source, log):
    for address in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(LightTrackError, match="needs a token"):
            Server(source, address, 0, None, log.append)
    with pytest.raises(LightTrackError, match="expected an IP address"):
        Server(source, "robot", 0, TOKEN, log.append)
    with Server(source, "0.0.0.0", 0, TOKEN, log.append) as server:
        assert all(url.endswith(f"/#{TOKEN}") for url in server.urls)
        assert get(server, "/", host="robot.local")[0] == 200


def test_a_port_in_use_is_an_error_that_says_so(server, source, log):
    with pytest.raises(LightTrackError, match=rf"port {server.port}: cannot be listened on .*--port"):
        Server(source, "127.0.0.1", server.port, None, log.append)


def test_the_token_is_the_users_alone_and_stays(tmp_path):
    path = tmp_path / "kept" / "viewer_token"
    token = access.kept_token(path)
    assert len(token) == 22
    assert access.kept_token(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert access.kept_token(path) != token  # others may have read it


def test_pictures_come_as_they_are_acknowledged_and_only_while_somebody_watches(server, source):
    async def watch():
        page = await connect(server)
        heads = []

        async def next_picture():
            while True:
                message = await asyncio.wait_for(page.read_message(), 10)
                if isinstance(message, bytes):
                    head = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
                    heads.append(head)
                    return head

        for stamp in range(1, 30):
            source.show(stamp)
            await asyncio.sleep(0.03)
        await next_picture()
        last = await next_picture()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(page.read_message(), 0.3)  # none was acknowledged
        assert source.reads == 2
        await page.write_message(json.dumps({"type": "seen", "number": last["number"]}))
        assert (await next_picture())["stamp"] == "29"  # the newest
        await page.write_message(json.dumps({"type": "watch", "on": False}))
        page.close()

    asyncio.run(watch())
    until(lambda: source.watched == [True, False])
    source.show(40)
    time.sleep(0.1)
    assert source.reads == 3


def test_a_stalled_page_holds_nobody_up(server, source):
    async def watch():
        stalled = [await connect(server) for _ in range(2)]  # they never read
        page = await connect(server)
        seen = 0
        for stamp in range(1, 60):
            source.show(stamp)
            with contextlib.suppress(asyncio.TimeoutError):
                message = await asyncio.wait_for(page.read_message(), 0.05)
                if isinstance(message, bytes):
                    head = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
                    await page.write_message(json.dumps({"type": "seen", "number": head["number"]}))
                    seen += 1
        for one in (*stalled, page):
            one.close()
        return seen

    assert asyncio.run(watch()) > 20


def test_what_is_no_order_ends_the_connection_and_the_server_goes_on(server, source, log):
    async def misbehave():
        for text in ("x" * 100, '{"type":"seen"}', json.dumps({"type": "hello", "token": ""})):
            page = await connect(server)
            await page.write_message(text)
            assert await closed(page) == CLOSED_RULES
        page = await connect(server)
        with contextlib.suppress(Exception):
            await page.write_message("y" * (protocol.LONGEST + 1))
        assert await closed(page) == 1009
        page = await connect(server)
        for number in range(600):
            with contextlib.suppress(Exception):
                await page.write_message(json.dumps({"type": "seen", "number": number}))
        assert await closed(page) == CLOSED_RULES
        page = await connect(server)
        for request in range(40):
            await page.write_message(json.dumps({"type": "reset", "request": request}))
        answers = []
        while len(answers) < 40:
            message = json.loads(await asyncio.wait_for(page.read_message(), 10))
            if message["type"] == "answer":
                answers.append(message["ok"])
        assert answers.count(False) > 20  # too many at once
        assert answers.count(True) >= 10
        page.close()

    asyncio.run(misbehave())
    assert not any("xxx" in line for line in log)


def test_so_many_pages_and_no_more(server):
    async def crowd():
        pages = [await connect(server) for _ in range(MOST_PAGES)]
        assert await closed(await connect(server)) == CLOSED_FULL
        pages.pop().close()
        for _ in range(100):
            page = await connect(server)
            with contextlib.suppress(asyncio.TimeoutError):
                if await asyncio.wait_for(closed(page), 0.2) == CLOSED_FULL:
                    continue
            break
        else:
            pytest.fail("no place became free")
        for page in pages:
            page.close()

    asyncio.run(crowd())


def test_noise_on_the_port_harms_nobody(server):
    for noise in (b"\x00" * 100, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000, b"\x16\x03\x01"):
        with socket.create_connection(("127.0.0.1", server.port)) as connection, contextlib.suppress(OSError):
            connection.sendall(noise)
    assert get(server, "/")[0] == 200


def test_it_ends_with_pages_open(source, log):
    async def stay():
        with Server(source, "127.0.0.1", 0, None, log.append) as server:
            page = await connect(server)
        assert await closed(page) in (1001, None)

    asyncio.run(stay())
    assert "viewer_server" not in {thread.name for thread in threading.enumerate()}

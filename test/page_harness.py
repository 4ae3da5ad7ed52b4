"""The viewer in a process of its own, and a real browser in front of it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lighttrack_ros.geometry import Box

TIMEOUT = 60.0  # seconds: for a machine that does other things too, not a claim about speed
ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True, "device_scale_factor": 3}


def wait_for(condition: Callable[[], Any], what: str, said: Callable[[], str] = str) -> Any:
    """The condition's first true value; fails the test when none comes."""
    end = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {TIMEOUT} s in vain for {what}\n{said()}"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The system's browser, without a window; skips where there is none."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs a browser: sudo apt-get install --no-install-recommends chromium")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright (pip install 'lighttrack_ros[test]')"
    )
    with sync_api.sync_playwright() as playwright:
        # Chromium's sandbox cannot be had by root or in most containers; the page is our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Viewer:
    """`lighttrack view ...` in a process; everything it prints is kept."""

    def __init__(self, *arguments: str, port: int = 0, command: str = "view") -> None:
        self.output = ""
        whole = [sys.executable, "-m", "lighttrack_ros", command, *arguments, "--port", str(port)]
        self.process = subprocess.Popen(
            whole, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = self._wait_for_output(r"page: (http://\S+:(\d+)/\S*)")
        self.url, self.port = found[1], int(found[2])

    def _wait_for_output(self, pattern: str) -> re.Match[str]:
        wait_for(
            lambda: re.search(pattern, self.output) or self.process.poll() is not None, pattern, lambda: self.output
        )
        found = re.search(pattern, self.output)
        assert found, self.output
        return found

    def end(self) -> int:
        """SIGINT, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(2)
        return self.wait()

    def wait(self) -> int:
        try:
            return self.process.wait(TIMEOUT)
        finally:
            self.process.kill()
            self._reader.join(TIMEOUT)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line


class Operator:
    """Somebody in front of the page."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 1100, "height": 700}, **context})
        self.page = self._context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._on_console)
        self.page.goto(url)

    def _on_console(self, message: Any) -> None:
        # That a connection breaks is what some tests are about.
        if message.type == "error" and "WebSocket" not in message.text:
            self.complaints.append(message.text)

    def close(self) -> None:
        self._context.close()
        assert not self.complaints

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        return wait_for(condition, what, lambda: self.page.inner_text("body"))

    def shown(self) -> dict[str, Any]:
        """Of the picture on the screen: number, stamp, targets."""
        data = self.page.evaluate("({...document.querySelector('#stage').dataset})")
        targets = json.loads(data.get("targets", "[]"))
        return {"number": int(data["number"]), "stamp": int(data.get("stamp", 0)), "targets": targets}

    def wait_for_a_picture(self) -> dict[str, Any]:
        """Any: a film that stands still shows one, perhaps before this is asked."""
        self.wait(lambda: self.shown()["number"], "a picture")
        return self.shown()

    def wait_for_pictures(self, more: int = 1) -> dict[str, Any]:
        """So many newer ones than now."""
        wanted = self.shown()["number"] + more
        self.wait(lambda: self.shown()["number"] >= wanted, "pictures")
        return self.shown()

    def wait_for_state(self, *states: str) -> dict[str, Any]:
        """A target of one of these states on the screen."""
        return self.wait(
            lambda: next((target for target in self.shown()["targets"] if target["state"] in states), None),
            f"a target that is {' or '.join(states)}",
        )

    def at(self, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
        """Where a pixel of the camera's image, of that size, is on the screen."""
        frame = self.page.locator("#stage").bounding_box()
        scale = min(frame["width"] / size[0], frame["height"] / size[1])
        left = frame["x"] + (frame["width"] - scale * size[0]) / 2
        top = frame["y"] + (frame["height"] - scale * size[1]) / 2
        return left + scale * x, top + scale * y

    def press(self, x: float, y: float, size: tuple[int, int]) -> None:
        self.page.mouse.move(*self.at(x, y, size))
        self.page.mouse.down()

    def drag(self, box: Box, size: tuple[int, int]) -> None:
        """From the box's corner to the one across."""
        self.press(box.x, box.y, size)
        self.release(box, size)

    def release(self, box: Box, size: tuple[int, int]) -> None:
        self.page.mouse.move(*self.at(box.x + box.width, box.y + box.height, size), steps=3)
        self.page.mouse.up()

    def selected(self) -> Box | None:
        """The box that is being drawn."""
        if self.page.locator("#selection").is_hidden():
            return None
        label = self.page.get_attribute("#selection", "aria-label")
        return Box(*(float(number) for number in re.findall(r"\d+", label or "")))

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)


class SlowLink:
    """A TCP connection that takes its time, in both directions.

    Args:
        port: what is behind it, on this machine.
        delay: seconds in each direction.
    """

    def __init__(self, port: int, delay: float) -> None:
        self._target, self._delay = port, delay
        self._moving = threading.Event()
        self._moving.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Carry nothing any more."""
        self._moving.clear()

    def close(self) -> None:
        self._moving.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((near, far), (far, near)):
                    self._carry(one, other)

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        waiting: list[tuple[float, bytes]] = []
        news = threading.Condition()

        def receive() -> None:
            data = b"x"
            while data:
                try:
                    data = one.recv(65536)
                except OSError:
                    data = b""
                with news:
                    waiting.append((time.monotonic() + self._delay, data))
                    news.notify()

        def send() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with news:
                        news.wait_for(lambda: waiting)
                        due, data = waiting.pop(0)
                    time.sleep(max(0.0, due - time.monotonic()))
                    self._moving.wait()
                    if not data:
                        break
                    other.sendall(data)
            with contextlib.suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)
            other.close()

        for work in (receive, send):
            threading.Thread(target=work, daemon=True).start()

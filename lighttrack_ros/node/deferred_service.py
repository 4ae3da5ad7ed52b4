"""A service whose answer may come later than its callback's return, from any thread, while nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node


class Answer:
    """To one request: given once, the first counts; callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._response: Any = None
        self._send: Callable[[Any], None] | None = None

    def give(self, response: Any) -> None:
        with self._lock:
            if self._response is not None:
                return
            self._response = response
            send = self._send
        if send is not None:
            send(response)

    def send_by(self, send: Callable[[Any], None]) -> None:
        """How it gets to whoever asked; at once if it was given already."""
        with self._lock:
            self._send = send
            response = self._response
        if response is not None:
            send(response)


def create_deferred_service(node: Node, kind: Any, name: str, callback: Callable[[Any, Answer], None]) -> Any:
    """A service of rclpy's.

    A coroutine that awaits the answer would do the same, but keeps the executors of rclpy before Kilted turning for
    as long as it waits.

    Args:
        callback: called by the executor with the request and its Answer.
    """

    def on_request(request: Any, _: Any) -> Answer:
        answer = Answer()
        callback(request, answer)
        return answer

    service: Any = node.create_service(kind, name, on_request)
    send_response = service.send_response

    def send_later(answer: Answer, header: Any) -> None:
        """What executors call, from Humble to Kilted, with what the callback returned."""
        answer.send_by(lambda response: send_response(response, header))

    service.send_response = send_later
    return service

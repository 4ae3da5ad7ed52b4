"""What is behind the page: a tracker node, or a film."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from lighttrack_ros.viewer.board import Board
from lighttrack_ros.viewer.protocol import Configure, Enable, Play, Remove, Reset, Track


@dataclass(frozen=True)
class Answer:
    """What became of an order, in words for the operator; `ok` may come with words too."""

    ok: bool
    words: str = ""


class Source(Protocol):
    """Puts on its board what there is to see, and does what the page asks. Its methods return at once.

    Attributes:
        board: where it writes.
    """

    board: Board

    def watch(self, on: bool) -> None:
        """Somebody watches from now on, or nobody does any more: pictures may be left alone."""
        ...

    def hold(self, on: bool) -> None:
        """Somebody begins, or ceases, to draw on a picture."""
        ...

    def order(self, order: Track | Reset | Remove | Enable | Play | Configure) -> Future[Answer]:
        """Have something done; the future never raises."""
        ...

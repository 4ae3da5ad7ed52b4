"""Engines that search for two targets at once, made beside the tracking once there is a second target."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime import Engine, warm_up

_logger = logging.getLogger(__name__)


class Pairs:
    """One engine for two crops of each size; there are none before `make` has come that far.

    With one target nothing of this is made. Making takes a second, so that a thread of its own does it. What goes wrong
    is logged once, and the targets are searched one after the other from then on.

    Args:
        load: makes the engine for two crops of a side; in another thread.
        sides: of the crops.
    """

    def __init__(self, load: Callable[[int], Engine], sides: Sequence[int]) -> None:
        self._load, self._sides = load, sides
        self._engines: dict[int, Engine] = {}  # by side
        self._thread: threading.Thread | None = None
        self._closed = False

    def make(self) -> None:
        """Begin to make them; the first call counts."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._make, name="pair_engines", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Until they are made."""
        if self._thread is not None:
            self._thread.join()

    def engine(self, side: int) -> Engine | None:
        """The one for crops of this side, if there is one by now."""
        return None if self._closed else self._engines.get(side)

    def give_up(self, error: LightTrackError) -> None:
        """One of them failed: none is used any more."""
        self._closed = True
        _logger.warning("targets are searched one after the other from now on: %s", error)

    def close(self) -> None:
        """Free them; safe to call twice."""
        self._closed = True
        self.wait()
        for engine in self._engines.values():
            engine.close()
        self._engines = {}

    def _make(self) -> None:
        try:
            for side in self._sides:
                if self._closed:
                    return
                engine = self._load(side)
                warm_up(engine)
                self._engines[side] = engine
            _logger.info("two targets share a run of the network from now on, where both are searched at one size")
        except LightTrackError as error:
            self.give_up(error)

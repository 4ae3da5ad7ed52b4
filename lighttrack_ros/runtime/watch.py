"""Watch a model being loaded: what is being compiled, for how long, and a way to stop it.

The trackers between the caller who waits and the compiler know of neither, so a context variable carries the watch.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator

from lighttrack_ros.runtime.plan_cache import PlanKey


class Watch:
    """State of all loading inside `with watch()`; readable from any thread.

    Attributes:
        stop: set it to end a compilation in progress soon, with a LightTrackError.
        plans: keys of the plans loaded so far.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self.plans: list[PlanKey] = []
        self._doing, self._since = "", 0.0

    def status(self) -> str:
        """What is being done and for how long, e.g. "compiling nano/search.onnx, 12 s"; empty if nothing."""
        doing, since = self._doing, self._since
        return doing and f"{doing}, {time.monotonic() - since:.0f} s"

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        self._since = time.monotonic()
        self._doing = what
        try:
            yield
        finally:
            self._doing = ""


@contextlib.contextmanager
def watch(stop: threading.Event | None = None) -> Iterator[Watch]:
    """Watch what this thread loads; inside another watch, return the outer one."""
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    own = Watch(stop)
    token = _current.set(own)
    try:
        yield own
    finally:
        _current.reset(token)


_current: contextvars.ContextVar[Watch | None] = contextvars.ContextVar("lighttrack_ros watch", default=None)

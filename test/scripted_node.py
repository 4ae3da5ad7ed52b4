"""The node with a tracker that takes a step for every line on its standard input, and none before it comes.

A line "fail" is a backend that fails in that step, "hang" one that never comes back from it. "no file" is a model that
cannot be loaded the next time.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout's sources, as for every other process here

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame
from lighttrack_ros.node import loading
from lighttrack_ros.node.__main__ import main
from lighttrack_ros.trackers.base import Estimate, Tracker


class ScriptedTracker(Tracker):
    """Sure of the box that it was given."""

    backend = "script"
    target = Box(0.0, 0.0, 1.0, 1.0)

    def another(self):
        return type(self)()

    def init(self, frame: Frame, box: Box) -> None:
        self.target = box

    def update(self, frame: Frame) -> Estimate:
        word = sys.stdin.readline().strip()
        if word == "hang":
            threading.Event().wait()
        if word in ("fail", "no file"):
            if word == "no file":
                loading.create_tracker = cannot_be_loaded
            raise EngineError("the backend failed")
        return Estimate(self.target, 0.999)

    def close(self) -> None:
        pass


def cannot_be_loaded(*_: object) -> Tracker:
    loading.create_tracker = lambda *_: ScriptedTracker()  # the next time it can
    raise LightTrackError("no such file")


if __name__ == "__main__":
    loading.create_tracker = lambda *_: ScriptedTracker()
    sys.exit(main())

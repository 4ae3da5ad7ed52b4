"""What is reported of a target that is partly outside the frame: the visible part, and how much of it is not."""

import numpy as np
import pytest

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import SessionSettings
from lighttrack_ros.session import Session
from lighttrack_ros.trackers.base import Estimate

FRAME = from_bgr(np.zeros((240, 320, 3), np.uint8))


class Led:
    """A tracker that finds the target where it is told; its own report is moved into the frame at the left and top."""

    def __init__(self):
        self.target = Box(0, 0, 1, 1)

    def init(self, frame, box):
        self.target = box

    def update(self, frame):
        box = self.target
        return Estimate(Box(max(0.0, box.x), max(0.0, box.y), box.width, box.height), 0.99)

    def sight(self):
        return None


@pytest.mark.parametrize(
    ("whole", "visible", "outside"),
    [
        (Box(-30.0, 100.0, 80.0, 40.0), Box(0.0, 100.0, 50.0, 40.0), (30, 0, 0, 0)),
        (Box(270.0, 100.0, 80.0, 40.0), Box(270.0, 100.0, 50.0, 40.0), (0, 0, 30, 0)),
        (Box(100.0, -15.0, 80.0, 40.0), Box(100.0, 0.0, 80.0, 25.0), (0, 15, 0, 0)),
        (Box(100.0, 215.0, 80.0, 40.0), Box(100.0, 215.0, 80.0, 25.0), (0, 0, 0, 15)),
        (Box(-10.0, -10.0, 400.0, 300.0), Box(0.0, 0.0, 320.0, 240.0), (10, 10, 70, 50)),
        (Box(10.5, 20.25, 30.0, 40.0), Box(10.5, 20.25, 30.0, 40.0), (0, 0, 0, 0)),
    ],
)
def test_the_box_is_cut_alike_at_every_edge(whole, visible, outside):
    tracker = Led()
    session = Session(tracker, SessionSettings())
    started = session.start(FRAME, whole)
    tracker.target = whole
    for report in (started, session.step(FRAME)):
        assert report.box == visible
        assert report.outside == pytest.approx(outside)

"""A target among other targets: what lies in their boxes is not taken for it."""

import numpy as np
import pytest

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import SessionSettings
from lighttrack_ros.session import Session, SessionPool, State
from lighttrack_ros.session.neighbours import Neighbours
from lighttrack_ros.trackers.base import Estimate, Sight, Tracker

FRAME = from_bgr(np.zeros((480, 640, 3), np.uint8))
SETTINGS = SessionSettings(uncertain=0.4, sure=0.6, lost=0.4, lost_frames=3, again=0.6, found=0.6, found_frames=2)


def box_at(x: float, y: float = 100.0) -> Box:
    return Box(x, y, 40.0, 30.0)


class Seer(Tracker):
    """Goes to the thing that is named first of those in `things`, and sees the others beside it."""

    has_sight = True
    target = box_at(0.0)

    def __init__(self):
        self.things: list[Box] = []
        self.resets = 0

    def another(self):
        return type(self)()

    def init(self, frame, box):
        self.target = box

    def reset(self):
        self.resets += 1

    def update(self, frame):
        self.target = self.things[0]
        return Estimate(self.target, 0.99)

    def sight(self):
        count = len(self.things)
        return Sight(np.array(self.things), np.full(count, 4.0), np.ones((count, 4, 4, 1), np.float32), 0.0, 1.0)

    def close(self):
        pass


@pytest.fixture
def approaching():
    """A session whose target moves 10 pixels a frame towards another that stands still, until they meet."""
    tracker = Seer()
    session = Session(tracker, SETTINGS)
    session.start(FRAME, box_at(100.0))
    other = box_at(180.0)
    for x in range(110, 160, 10):
        tracker.things = [box_at(float(x)), other]
        assert session.step(FRAME, {"other": other}).state == State.TRACKING
    return tracker, session, other


def test_where_the_tracker_goes_over_to_another_target_its_own_candidate_is_taken():
    """It passes another by, and the tracker takes that one whenever it is near."""
    tracker = Seer()
    session = Session(tracker, SETTINGS)
    session.start(FRAME, box_at(100.0))
    other = box_at(180.0, 125.0)
    for x in range(110, 260, 10):
        own = box_at(float(x))
        tracker.things = [other, box_at(100.0, 200.0), own] if 140 < x < 220 else [own, other]
        report = session.step(FRAME, {"other": other})
        assert report.state == State.TRACKING
        assert report.box == own


def test_without_knowing_of_the_other_it_goes_over(approaching):
    tracker, session, other = approaching
    tracker.things = [other, box_at(166.0)]
    assert session.step(FRAME).box == other


def test_a_target_behind_another_is_moved_on_and_said_to_be_uncertain_until_it_is_seen(approaching):
    tracker, session, other = approaching
    tracker.things = [other]
    reports = [session.step(FRAME, {"other": other}) for _ in range(9)]
    for report in reports[-4:]:  # before that it might be the other that is behind it
        assert (report.state, report.confidence) == (State.UNCERTAIN, 0.0)
    places = [report.box.x for report in reports[-4:]]
    assert np.diff(places) == pytest.approx(10.0, abs=3.0)
    tracker.things = [other, reports[-1].box._replace(x=reports[-1].box.x + 10)]
    for _ in range(SETTINGS.found_frames + 1):
        report = session.step(FRAME, {"other": other})
        tracker.things[1] = tracker.things[1]._replace(x=tracker.things[1].x + 10)
    assert report.state == State.TRACKING
    assert report.box.x > other.x + 40


def test_a_target_that_stays_behind_another_is_lost_in_the_end(approaching):
    tracker, session, other = approaching
    tracker.things = [other]
    states = [session.step(FRAME, {"other": other}).state for _ in range(60)]
    assert State.LOST in states
    assert State.TRACKING not in states[10:]
    assert State.LOST not in states[:20]


def test_the_one_that_stands_still_keeps_its_place():
    """What comes over to it takes nothing away."""
    tracker = Seer()
    session = Session(tracker, SETTINGS)
    mine = box_at(180.0)
    session.start(FRAME, mine)
    for x in range(100, 180, 10):
        tracker.things = [mine, box_at(float(x))]
        report = session.step(FRAME, {"other": box_at(float(x))})
    tracker.things = [mine, box_at(230.0)]
    for _ in range(20):
        report = session.step(FRAME, {"other": mine})  # the other says that it is here
    assert (report.state, report.box) == (State.TRACKING, mine)


def test_a_lost_target_is_not_found_in_another_ones_box():
    tracker = Seer()
    session = Session(tracker, SETTINGS)
    session.start(FRAME, box_at(100.0))
    other = box_at(400.0)
    tracker.things = [box_at(100.0)]
    session.step(FRAME, {"other": other})
    tracker.sight = lambda: None
    tracker.update = lambda frame: Estimate(tracker.target, 0.01)
    while session.step(FRAME, {"other": other}).state != State.LOST:
        pass

    def find(frame):
        tracker.target = other
        return Estimate(other, 0.99)

    tracker.update = find
    assert all(session.step(FRAME, {"other": other}).state == State.LOST for _ in range(10))
    assert any(session.step(FRAME).state == State.TRACKING for _ in range(10)), "it could be found otherwise"


def test_a_rider_and_a_horse_overlap_for_ever():
    neighbours = Neighbours()
    rider, horse = Box(100.0, 100.0, 40.0, 80.0), Box(100.0, 120.0, 44.0, 80.0)
    for _ in range(50):
        neighbours.look({"horse": horse})
        neighbours.settle(rider)
    neighbours.look({"horse": horse})
    assert not neighbours.hold(horse)
    neighbours.look({"dog": horse})  # one that was never seen together with it
    assert neighbours.hold(horse)


def test_sessions_are_used_again_and_know_nothing_of_before():
    tracker = Seer()
    pool = SessionPool(Session(tracker, SETTINGS))
    first, second = pool.take(), pool.take()
    assert first is not second
    tracker.things = [box_at(100.0)]
    first.start(FRAME, box_at(100.0))
    pool.give_back(first)
    assert tracker.resets == 1
    assert pool.take() is first
    assert first.step(FRAME).state == State.IDLE

"""What there is to see: pictures with what was said of the very same image, and the story of every target."""

from __future__ import annotations

import numpy as np
import pytest

from lighttrack_ros.geometry import Box
from lighttrack_ros.session import State
from lighttrack_ros.viewer.board import RIPENING, Board, Target


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    return Board(clock)


def pixels():
    return np.zeros((16, 16, 3), np.uint8)


def target(name="dog", state=State.TRACKING, x=1.0, **more):
    return Target(name, state, Box(x, 2.0, 30.0, 40.0), 0.9, **more)


def test_a_picture_waits_for_its_own_targets_but_not_long(board, clock):
    board.put_targets(1, [target(x=1.0)])
    board.put_picture(1, pixels)
    first, _ = board.newest(0)
    assert [shown.box.x for shown in first.targets] == [1.0]
    board.put_picture(2, pixels)
    assert board.newest(first.number) == (None, pytest.approx(RIPENING))  # the tracker works on it
    board.put_targets(2, [target(x=2.0)])
    second, _ = board.newest(first.number)
    assert (second.stamp, second.targets[0].box.x) == (2, 2.0)
    board.put_picture(3, pixels)
    clock.now += 1.1 * RIPENING
    assert board.newest(second.number)[0].stamp == 3


def test_without_a_tracker_no_picture_waits(board):
    board.put_picture(1, pixels)
    assert board.newest(0)[0].stamp == 1


def test_only_the_newest_is_shown(board):
    for stamp in range(1, 6):
        board.put_picture(stamp, pixels)
        board.put_targets(stamp, [target(x=float(stamp))])
    picture, _ = board.newest(0)
    assert (picture.stamp, picture.targets[0].box.x) == (5, 5.0)
    assert board.newest(picture.number) == (None, None)


def test_lost_and_found_are_told_once(board):
    tracking, uncertain, lost = State.TRACKING, State.UNCERTAIN, State.LOST
    for stamp, state in enumerate([tracking, uncertain, lost, lost, uncertain, lost, uncertain, tracking]):
        board.put_targets(stamp, [target(state=state)])
    board.put_targets(9, [Target("dog", State.IDLE, end_reason="told to")])
    events = [(event.kind, event.target_id, event.words) for event in board.events(0)]
    assert events == [
        ("started", "dog", ""), ("lost", "dog", ""), ("found", "dog", ""), ("ended", "dog", "told to")
    ]  # fmt: skip
    assert board.events(3) == board.events(0)[3:]
    assert not board.targets


def test_a_target_that_is_pointed_anew_ends_and_starts(board):
    board.put_targets(1, [target(state=State.LOST)])
    board.put_targets(2, [target(end_reason="replaced by a new box")])
    assert [(event.kind, event.words) for event in board.events(1)] == [
        ("ended", "replaced by a new box"), ("started", "")
    ]  # fmt: skip


def test_a_target_without_news_stays_beside_one_with_news(board):
    board.put_targets(1, [target("dog"), target("cat")])
    board.put_targets(2, [target("cat", x=5.0)])
    assert {shown.target_id: shown.box.x for shown in board.targets} == {"dog": 1.0, "cat": 5.0}
    board.forget_targets("the node is gone")
    assert not board.targets
    assert [event.words for event in board.events(2)] == ["the node is gone"] * 2


def test_the_status_is_told_when_it_has_changed(board):
    news = []
    board.listen(lambda: news.append(1))
    board.set_status({"model": "nano"})
    version, values = board.status(0)
    assert values == {"model": "nano"}
    board.set_status({"model": "nano"})
    assert board.status(version) is None
    assert len(news) == 1

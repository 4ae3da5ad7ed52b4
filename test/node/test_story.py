"""How often a target was lost and found, as the diagnostics count it and the log tells it."""

from __future__ import annotations

import collections

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from lighttrack_ros.geometry import Box  # noqa: E402
from lighttrack_ros.node.story import Story  # noqa: E402
from lighttrack_ros.session import Report, State  # noqa: E402

BOX = Box(1, 2, 3, 4)


def test_a_target_is_counted_each_time_it_is_lost_and_found_and_not_on_the_frames_between():
    counts = collections.Counter()
    lines: list[str] = []
    story = Story("boat", lines.append, lambda name: counts.update([name]))
    story.began(BOX, "first", 0, 0.0)
    for letter in "TUULLULUTTUTULLUL":
        story.saw(Report({"T": State.TRACKING, "U": State.UNCERTAIN, "L": State.LOST}[letter], BOX, 0.5))
    assert counts == {"targets_lost": 2, "targets_found": 1}
    assert (story.lost, story.found) == (2, 1)
    assert [line.split()[2] for line in lines] == ["taken:", "uncertain,", "lost", "found", "lost"]


def test_a_target_that_ends_while_it_is_lost_was_not_found_by_the_next():
    counts = collections.Counter()
    story = Story("", lambda line: None, lambda name: counts.update([name]))
    for _ in range(2):
        story.began(BOX, "first", 0, 0.0)
        story.saw(Report(State.LOST, BOX, 0.1))
        story.ended("a new box")
    assert counts == {"targets_lost": 2}

"""Whose turn it is, without a node: fairness under overload, the newest image, catching up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

import itertools

from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer
from lighttrack_ros.node.messages import Stamped
from lighttrack_ros.node.turns import next_turn

PERIOD = 1 / 30


@dataclass(eq=False)
class Target:
    name: str
    done: int = 0
    served: int = 0
    catch_up_until: float = 0.0


class Work:
    """A camera, targets, and a clock that goes on by what each turn takes."""

    def __init__(self, targets: list[Target], step: float, decode: float = 0.0) -> None:
        self.targets, self.step, self.decode = targets, step, decode
        self.buffer = FrameBuffer(100.0, 10**9)
        self.now, self.images, self.turns = 0.0, 0, 0
        self.at_work = 0
        self.log: list[tuple[int, str]] = []
        self.decoded: list[int] = []

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while self.images * PERIOD <= self.now:
                self.images += 1
                self.buffer.append(Arrival(self.images, self.now, Stamped(self.images, "", 0, b"")))
            turn = next_turn(self.targets, self.buffer, self.at_work, self.now, self.step)
            if turn is None:
                self.now, self.at_work = self.images * PERIOD, 0
                continue
            number = turn.arrival.number
            if number != self.at_work:
                self.decoded.append(number)
                self.now += self.decode
            self.at_work = number
            self.turns += 1
            turn.target.done, turn.target.served = number, self.turns
            if turn.is_live:
                turn.target.catch_up_until = 0.0
            self.log.append((number, turn.target.name))
            self.now += self.step

    def images_of(self, name: str) -> list[int]:
        return [number for number, who in self.log if who == name]


def targets(count: int) -> list[Target]:
    return [Target(str(index)) for index in range(count)]


@pytest.mark.parametrize("count", [1, 2, 16])
def test_while_there_is_time_every_target_has_every_image_and_each_is_decoded_once(count):
    work = Work(targets(count), step=0.9 * PERIOD / count)
    work.run(2.0)
    whole = work.images - 1
    for target in work.targets:
        assert work.images_of(target.name)[:whole] == list(range(1, whole + 1))
    assert work.decoded == sorted(set(work.decoded))


@pytest.mark.parametrize("step", [0.4 * PERIOD, 1.5 * PERIOD, 10 * PERIOD])
def test_under_overload_nobody_starves_and_the_newest_image_is_next(step):
    work = Work(targets(5), step)
    work.run(300 * step)
    shares = Counter(name for _, name in work.log)
    assert max(shares.values()) - min(shares.values()) <= 1
    for target in work.targets:
        turns = [index for index, (_, name) in enumerate(work.log) if name == target.name]
        assert max(after - before for before, after in itertools.pairwise(turns)) <= 2 * len(work.targets) - 1
        numbers = work.images_of(target.name)
        assert numbers == sorted(set(numbers)), "an image twice, or out of order"
    # Each turn was on the image that was the newest when it began.
    for index, (number, _) in enumerate(work.log):
        assert number >= int(index * step / PERIOD)
    assert work.decoded == sorted(set(work.decoded))


def test_a_target_given_on_an_old_image_catches_up_and_the_others_miss_nothing():
    work = Work(targets(2), step=0.2 * PERIOD)
    work.run(1.0)
    late = Target("late", done=work.images - 20, served=work.turns, catch_up_until=work.now + 0.5)
    work.targets.append(late)
    before = work.images
    work.run(1.0)
    for name in ("0", "1"):
        numbers = work.images_of(name)
        assert numbers == list(range(1, numbers[-1] + 1))
    numbers = work.images_of("late")
    assert numbers == sorted(set(numbers))
    assert numbers[0] <= before - 15
    assert numbers[-1] >= work.images - 1
    assert not late.catch_up_until


def test_without_time_catching_up_ends_all_the_same_and_starves_nobody():
    work = Work(targets(3), step=0.8 * PERIOD)
    work.run(1.0)
    late = Target("late", done=work.images - 20, served=work.turns, catch_up_until=work.now + 0.5)
    work.targets.append(late)
    begin = len(work.log)
    work.run(3.0)
    assert not late.catch_up_until
    shares = Counter(name for _, name in work.log[begin:])
    assert max(shares.values()) - min(shares.values()) <= 2
    assert work.images_of("late")[-1] >= work.images - 5


def test_targets_that_catch_up_together_share_the_decoded_images():
    work = Work([], step=0.1 * PERIOD)
    work.targets = [Target(str(index), done=5, served=index, catch_up_until=0.5) for index in range(4)]
    work.images, work.turns = 30, 4
    for number in range(1, 31):
        work.buffer.append(Arrival(number, 0.0, Stamped(number, "", 0, b"")))
    work.run(0.5)
    taken = {target.name: work.images_of(target.name) for target in work.targets}
    assert all(numbers[0] == taken["0"][0] for numbers in taken.values())
    assert len(work.decoded) <= len(taken["0"]) + 4


def test_without_images_or_targets_there_is_no_turn():
    buffer = FrameBuffer(1.0, 100)
    assert next_turn(targets(2), buffer, 0, 0.0, 0.01) is None
    buffer.append(Arrival(1, 0.0, Stamped(1, "", 0, b"")))
    assert next_turn([], buffer, 0, 0.0, 0.01) is None

"""Flow control over simulated links: the clock is simulated too."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from lighttrack_ros.viewer.board import Picture
from lighttrack_ros.viewer.stream import MOST_ON_THE_WAY, RUNGS, START, Encoded, Encoder, Link, decode_jpeg

SIZES = (180_000, 90_000, 60_000, 30_000, 16_000, 10_000, 6_000, 3_000)  # bytes of a picture, by rung


def send_for(seconds: float, delay: float, bandwidth: float, answers: bool = True) -> tuple[Link, float, float, int]:
    """A 30 Hz camera over a link.

    Returns:
        The link, pictures shown a second and their mean age in the last half of the time, and the most on the way.
    """
    link, now, free, camera, sent = Link(), 0.0, 0.0, 0, 0
    acknowledgements: list[tuple[float, int]] = []
    shown: list[float] = []
    most = waiting = 0
    while now < seconds:
        camera = int(30 * now)
        while acknowledgements and acknowledgements[0][0] <= now:
            link.seen(heapq.heappop(acknowledgements)[1], now)
            waiting -= 1
        if camera > sent:
            wait = link.wait(now)
            if wait is None:
                link.held_up()
            elif wait == 0:
                link.sent(camera, Encoded(b"", 1, 1), now)
                sent, waiting = camera, waiting + 1
                most = max(most, waiting)
                free = max(free, now) + SIZES[link.rung] / bandwidth
                if now > seconds / 2:
                    shown.append(free + delay - now)
                if answers:
                    heapq.heappush(acknowledgements, (free + 2 * delay, camera))
        now += 0.001
    return link, len(shown) / (seconds / 2), float(np.mean(shown)) if shown else 0.0, most


@pytest.mark.parametrize(
    ("delay", "bandwidth", "rate", "age", "rungs"),
    [
        (0.001, 1e8, 25, 0.1, {0}),  # a cable
        (0.5, 1e7, 10, 0.7, {0, 1}),  # a long way
        (0.05, 3e5, 10, 0.8, {3, 4, 5}),  # 2.4 Mbit/s
        (0.05, 5e4, 5, 1.0, {6, 7}),  # 400 kbit/s
    ],
)
def test_pictures_are_as_many_and_as_large_as_the_link_takes(delay, bandwidth, rate, age, rungs):
    link, shown, old, most = send_for(60.0, delay, bandwidth)
    assert shown > rate
    assert old < age
    assert link.rung in rungs
    assert most <= MOST_ON_THE_WAY


def test_a_page_that_acknowledges_nothing_gets_two_pictures():
    link, _, _, most = send_for(5.0, 0.01, 1e8, answers=False)
    assert most == link.window == 2


def test_a_page_out_of_sight_is_not_taken_for_a_jam():
    link, *_ = send_for(5.0, 0.001, 1e8)
    rung = link.rung
    link.sent(1000, Encoded(b"", 1, 1), 5.0)
    link.restart()
    assert link.wait(300.0) == 0.0
    link.sent(1001, Encoded(b"", 1, 1), 300.0)
    link.seen(1001, 300.01)
    assert link.rung <= rung


def test_a_picture_that_stands_still_is_kept_though_newer_ones_are_acknowledged():
    link = Link()
    pictures = [Encoded(bytes([number]), 1, 1) for number in range(3)]
    for number, picture in enumerate(pictures):
        link.sent(number, picture, 0.0)
    link.seen(0, 0.1)
    link.hold(True)
    link.seen(2, 0.2)
    assert [link.of_number(number) for number in range(3)] == [pictures[0], None, pictures[2]]
    link.hold(False)
    assert link.of_number(0) is None


def test_a_picture_is_read_once_and_encoded_once_a_size():
    reads = []
    image = np.full((1000, 2400, 3), 90, np.uint8)

    def read():
        reads.append(1)
        return image

    encoder, picture = Encoder(), Picture(1, 1, 0.0, read)
    large = encoder.encode(picture, 0)
    assert encoder.encode(picture, 0) is large
    small = encoder.encode(picture, START)
    assert len(reads) == 1
    assert (large.width, large.height) == (small.width, small.height) == (2400, 1000)
    for encoded, (side, _) in ((large, RUNGS[0]), (small, RUNGS[START])):
        pixels = decode_jpeg(encoded.jpeg)
        assert pixels.shape == (round(1000 * side / 2400), side, 3)
        assert abs(float(pixels.mean()) - 90) < 3

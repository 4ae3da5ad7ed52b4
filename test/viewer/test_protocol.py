"""What a page may say, and what it hears."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.session import State
from lighttrack_ros.viewer import protocol
from lighttrack_ros.viewer.board import Picture, Target

TRACK = {"type": "track", "request": 3, "stamp": "1700000000033333333", "box": [1, 2.5, 30, 40], "target_id": "dog"}


def test_an_order_arrives_whole_with_every_nanosecond():
    order = protocol.parse(json.dumps(TRACK))
    assert order == protocol.Track(3, 1700000000033333333, Box(1.0, 2.5, 30.0, 40.0), "dog")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "null",
        "[" * 4000,
        '{"type":"track"}',
        '{"type":["track"]}',
        '{"type":"__init__"}',
        b'{"type":"reset","request":1}',
        json.dumps({**TRACK, "more": 1}),
        json.dumps({**TRACK, "stamp": 17}),
        json.dumps({**TRACK, "stamp": "-1"}),
        json.dumps({**TRACK, "stamp": "٣"}),
        json.dumps({**TRACK, "stamp": "9" * 19}),
        json.dumps({**TRACK, "box": [1, 2, 3]}),
        json.dumps({**TRACK, "box": [1, 2, 0.5, 40]}),
        json.dumps({**TRACK, "box": [1, 2, math.nan, 40]}),
        json.dumps({**TRACK, "box": [1, 2, 1e300, 40]}),
        json.dumps({**TRACK, "box": [True, 2, 30, 40]}),
        json.dumps({**TRACK, "target_id": "x" * 300}),
        json.dumps({**TRACK, "target_id": "a\nb"}),
        json.dumps({**TRACK, "request": -1}),
        json.dumps({**TRACK, "request": 1.5}),
        json.dumps({"type": "enable", "request": 1, "on": 1}),
        " " * 5000,
    ],
)
def test_what_is_no_order_is_refused_and_not_repeated(text):
    with pytest.raises(LightTrackError) as refused:
        protocol.parse(text)
    assert len(str(refused.value)) < 250
    assert "xxx" not in str(refused.value)


def test_a_picture_carries_its_stamp_size_and_targets():
    targets = (Target("dog", State.LOST, Box(1.0, 2.0, 3.0, math.inf), math.nan, None),)
    picture = Picture(7, 1700000000033333333, 0.0, lambda: np.zeros((4, 4, 3), np.uint8), targets)
    message = protocol.picture_message(picture, 640, 480, b"jpeg", 0.25)
    (length,) = struct.unpack_from("<I", message)
    head = json.loads(message[4 : 4 + length])
    assert message[4 + length :] == b"jpeg"
    assert (head["number"], head["stamp"], head["width"], head["height"]) == (7, "1700000000033333333", 640, 480)
    assert head["targets"] == [
        {"id": "dog", "state": "lost", "box": [1.0, 2.0, 3.0, None], "confidence": None, "latency": None}
    ]

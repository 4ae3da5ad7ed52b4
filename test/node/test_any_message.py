"""Properties that hold for any message that somebody sends, well-formed or not."""

from __future__ import annotations

import contextlib
import struct
from array import array

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from lighttrack_ros.errors import LightTrackError  # noqa: E402
from lighttrack_ros.geometry import Box, clip_box  # noqa: E402
from lighttrack_ros.msg import TrackedTarget  # noqa: E402
from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer  # noqa: E402
from lighttrack_ros.node.loss import LossMeter  # noqa: E402
from lighttrack_ros.node.messages import (  # noqa: E402
    Stamped,
    encoding_of,
    read_compressed_image,
    read_header,
    read_image,
    target_message,
)
from lighttrack_ros.node.stream_watch import StreamWatch  # noqa: E402
from lighttrack_ros.session import Report, State  # noqa: E402

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
seconds, nanoseconds = st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)
uint32 = st.integers(0, 2**32 - 1)
stamps = st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1)


@given(words, seconds, nanoseconds, words, uint32, uint32, uint32, st.integers(0, 255), st.binary(max_size=200))
@settings(max_examples=300)
def test_any_image_message_is_read_as_rclpy_wrote_it(frame_id, sec, nanosec, encoding, width, height, step, big, data):
    message = Image(encoding=encoding, width=width, height=height, step=step, is_bigendian=big)
    message.data = array("B", data)
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
    serialised = serialize_message(message)
    try:
        read = read_header(serialised)
    except LightTrackError as error:
        assert nanosec >= 10**9, error  # noqa: PT017 - only such stamps may be refused
        return
    assert (read.frame_id, read.stamp) == (frame_id, sec * 10**9 + nanosec)
    assert encoding_of(read, compressed=False) == encoding
    try:
        frame = read_image(read)
    except LightTrackError:
        return
    assert (frame.width, frame.height) == (width, height)


def read_all(data: bytes) -> None:
    """As the node does, up to the message that it publishes."""
    header = read_header(data)
    box = Box(1.0, 2.0, 3.0, 4.0)
    answer = target_message(header, Report(State.TRACKING, box, 0.5, whole=box), "id", "model")
    again = deserialize_message(serialize_message(answer), TrackedTarget)
    assert again.header.stamp.sec * 10**9 + again.header.stamp.nanosec == header.stamp
    for read in (read_image, read_compressed_image):
        try:
            frame = read(header)
        except LightTrackError:
            continue
        assert frame.bgr().shape == (frame.height, frame.width, 3)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_a_message_or_an_error_of_ours(data):
    for begin in (b"", b"\0\1\0\0", b"\0\0\0\0"):
        with contextlib.suppress(LightTrackError):
            read_all(begin + data)


@given(
    st.lists(st.tuples(st.integers(0, 120), st.one_of(st.binary(min_size=1, max_size=4), st.just(b"\xff" * 4)))),
    st.booleans(),
)
@settings(max_examples=400)
def test_a_good_message_with_any_bytes_changed(changes, compressed):
    if compressed:
        whole = serialize_message(CompressedImage(format="png", data=bytes(100)))
    else:
        pixels = np.arange(16 * 16 * 3, dtype=np.uint8).tobytes()
        whole = serialize_message(Image(encoding="bgr8", width=16, height=16, step=48, data=pixels))
    data = bytearray(whole)
    for place, replacement in changes:
        data[place : place + len(replacement)] = replacement
    with contextlib.suppress(LightTrackError):
        read_all(bytes(data))


def test_a_stamp_that_no_message_can_carry_is_refused():
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = 2**31 - 1, 2**32 - 1
    with pytest.raises(LightTrackError, match="stamp"):
        read_all(serialize_message(message))


def test_a_length_that_announces_gigabytes_is_refused_before_anything_is_taken():
    for length in (2**31, 2**32 - 1):
        with pytest.raises(LightTrackError, match="ends after"):
            read_header(b"\0\1\0\0" + struct.pack("<iII", 1, 2, length) + b"camera")


@given(
    seconds=st.floats(0, 3),
    size=st.integers(1, 1000),
    images=st.lists(st.tuples(st.floats(0, 1), stamps, st.integers(0, 500)), max_size=40),
    asked=stamps,
)
@settings(max_examples=300)
def test_the_buffer_stays_in_its_bounds_whatever_stamps_come(seconds, size, images, asked):
    buffer, now = FrameBuffer(seconds, size), 0.0
    for number, (passed, stamp, length) in enumerate(images, 1):
        now += passed
        buffer.append(Arrival(number, now, Stamped(stamp, "", 0, bytes(length))))
        assert buffer.newest.number == number
        kept = buffer.after(0)
        assert buffer.bytes == sum(len(arrival.message.data) for arrival in kept)
        assert len(kept) == 1 or buffer.bytes <= size
        assert all(now - arrival.time <= seconds for arrival in kept[:-1])
        assert buffer.of_stamp(stamp).message.stamp == stamp
    nearest, found = buffer.nearest(asked), buffer.of_stamp(asked)
    assert (nearest is None) == (not images)
    assert found is None or found is nearest


@given(st.lists(st.tuples(stamps, st.sampled_from(["", "front", "rear"])), max_size=80), st.integers(0, 5))
@settings(max_examples=200)
def test_any_run_of_stamps_is_watched(headers, publishers):
    watch, loss = StreamWatch(), LossMeter()
    for stamp, frame_id in headers:
        watch.add(stamp, frame_id)
        assert loss.add(stamp) >= 0
        assert 0 <= loss.lost_share <= 1
    assert isinstance(watch.complaint(publishers), str)


@given(
    st.builds(Box, *[st.floats(-1e4, 1e4)] * 2, *[st.floats(0, 1e4)] * 2), st.integers(16, 4000), st.integers(16, 4000)
)
def test_what_sticks_out_and_what_is_visible_make_the_whole_box(whole, width, height):
    visible = clip_box(whole, width, height)
    report = Report(State.TRACKING, visible, 0.5, whole=whole)
    message = target_message(Stamped(0, "", 0, b""), report, "", "model")
    outside = (message.outside_left, message.outside_top, message.outside_right, message.outside_bottom)
    assert all(value >= 0 for value in outside)
    if visible.area:
        assert message.width + message.outside_left + message.outside_right == pytest.approx(whole.width, abs=1e-6)
        assert message.height + message.outside_top + message.outside_bottom == pytest.approx(whole.height, abs=1e-6)

"""The node's parts without DDS: messages read from their bytes, the frame buffer, the loop's choice of images."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import ROOT, image_message, wait_for  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402

from lighttrack_ros.errors import LightTrackError  # noqa: E402
from lighttrack_ros.geometry import Box  # noqa: E402
from lighttrack_ros.image import from_bgr  # noqa: E402
from lighttrack_ros.node.deferred_service import Answer  # noqa: E402
from lighttrack_ros.node.diagnostics import Health  # noqa: E402
from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer  # noqa: E402
from lighttrack_ros.node.init_boxes import InitBox, InitBoxes  # noqa: E402
from lighttrack_ros.node.messages import Stamped, read_compressed_image, read_header, read_image  # noqa: E402
from lighttrack_ros.node.sender import Sender  # noqa: E402
from lighttrack_ros.node.target import Outcome  # noqa: E402
from lighttrack_ros.node.tracking_loop import TrackingLoop  # noqa: E402
from lighttrack_ros.session import Report, SessionPool, State  # noqa: E402

IMAGE = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)


@pytest.mark.parametrize("encoding", ["bgr8", "8UC3"])
@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd", "kamera/öäü"])
def test_an_image_is_read_from_its_bytes(frame_id, encoding):
    message = image_message(IMAGE, encoding)
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = -5, 999_999_999
    read = read_header(serialize_message(message))
    assert (read.frame_id, read.stamp) == (frame_id, -5 * 10**9 + 999_999_999)
    np.testing.assert_array_equal(read_image(read).bgr(), IMAGE)


def test_a_compressed_image_is_read_from_its_bytes():
    import cv2

    message = CompressedImage(format="png", data=cv2.imencode(".png", IMAGE)[1].tobytes())
    np.testing.assert_array_equal(read_compressed_image(read_header(serialize_message(message))).bgr(), IMAGE)


def test_a_big_endian_message_is_read():
    def text(value: bytes) -> bytes:
        return struct.pack(">I", len(value) + 1) + value + b"\0"

    data = b"\0\0\0\0" + struct.pack(">iI", 7, 8) + text(b"abc") + struct.pack(">II", 24, 32) + text(b"bgr8")
    data += b"\0" + b"\0" * (-(len(data) + 1) % 4) + struct.pack(">II", 96, IMAGE.size) + IMAGE.tobytes()
    read = read_header(data)
    assert (read.stamp, read.frame_id) == (7 * 10**9 + 8, "abc")
    np.testing.assert_array_equal(read_image(read).bgr(), IMAGE)


def test_every_truncation_is_an_error_of_ours():
    whole = serialize_message(image_message(IMAGE))
    for length in range(len(whole)):
        try:
            read_image(read_header(whole[:length]))
        except LightTrackError:
            continue
        # Only the padding that some implementations put at the end may be missing.
        assert length >= len(whole) - 3


@pytest.mark.parametrize("begin", [b"", b"\0", b"\x01\0\0\0", b"\0\x02\0\0", b"\xff\xff\xff\xff"])
def test_another_representation_is_refused(begin):
    with pytest.raises(LightTrackError, match="expected plain CDR"):
        read_header(begin + bytes(40 if len(begin) == 4 else 0))


def arrival(number: int, time: float, size: int = 10) -> Arrival:
    return Arrival(number, time, Stamped(number * 1000, "", 0, bytes(size)))


def test_the_buffer_is_bounded_in_age_and_in_bytes_and_keeps_the_newest():
    buffer = FrameBuffer(seconds=1.0, size=100)
    for number in range(1, 31):
        buffer.append(arrival(number, number / 20))
        assert len(buffer) <= 10
        assert buffer.bytes == 10 * len(buffer)
    assert [kept.number for kept in buffer.after(0)] == list(range(21, 31))
    assert [kept.number for kept in buffer.after(28)] == [29, 30]
    assert buffer.of_stamp(25_000).number == 25
    assert buffer.of_stamp(20_000) is None
    buffer.append(arrival(31, 2.44))
    assert [kept.number for kept in buffer.after(0)] == [29, 30, 31]
    buffer.append(arrival(32, 9.0, size=1000))
    assert [kept.number for kept in buffer.after(0)] == [32]
    buffer.append(arrival(33, 9.0))
    assert (len(buffer), buffer.bytes) == (1, 10)


class Script:
    """Stands in for tracker and session: every step waits until it is let go."""

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.idle = 0
        self.suggested = []
        self.in_pairs = False

    def start(self, frame, box):
        return Report(State.TRACKING, box, 1.0)

    def another(self):
        return self

    def look_ahead(self, frame, other):
        return self.in_pairs

    def step(self, frame, others):
        assert self.steps.acquire(timeout=60)
        return Report(State.TRACKING, Box(0.0, 0.0, 9.0, 9.0), 0.9)

    def suggest(self, boxes):
        self.suggested.append(boxes)

    def reset(self):
        pass

    def idle_work(self, seconds):
        self.idle += 1
        return self.idle % 4 != 0


class LoopBench:
    """A loop, what it publishes, and images by their numbers."""

    def __init__(self, buffer: FrameBuffer) -> None:
        self.script = Script()
        self.warnings: list[str] = []
        self.health = Health(self.warnings.append)
        self.outcomes: list[Outcome] = []
        self.of_images: list[tuple[int, list[Outcome]]] = []
        self.loop = TrackingLoop(
            SessionPool(self.script),
            buffer,
            lambda _: from_bgr(IMAGE),
            self.outcomes.append,
            lambda arrival, outcomes: self.of_images.append((arrival.message.stamp, list(outcomes))),
            self.health,
        )

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.loop.put(Stamped(number, "", 0, bytes(10)))

    def wait_for(self, *numbers: int) -> None:
        wait_for(lambda: self.stamps() == list(numbers), f"{list(numbers)}", lambda: str(self.stamps()))

    def wait_for_newest(self, number: int) -> None:
        """Whatever came before it was taken up or not."""
        wait_for(lambda: self.stamps()[-1:] == [number], f"{number}", lambda: str(self.stamps()))

    def stamps(self) -> list[int]:
        return [outcome.arrival.message.stamp for outcome in self.outcomes]


@pytest.fixture
def bench():
    bench = LoopBench(FrameBuffer(100.0, 10**6))
    yield bench
    bench.script.steps.release(10**6)
    bench.loop.stop("the test ends")
    assert bench.health.counts()["internal_errors"] == 0, bench.warnings


def begin_with(bench: LoopBench, stamp: int) -> None:
    bench.put(stamp)
    wait_for(lambda: bench.stamps() == [stamp], "the idle image")
    bench.loop.track(Box(1.0, 1.0, 9.0, 9.0), stamp, "it")
    wait_for(lambda: bench.stamps() == [stamp, stamp], "the start")
    bench.outcomes.clear()


def test_the_newest_image_is_always_the_next_and_the_others_are_counted(bench):
    begin_with(bench, 1)
    bench.put(2)
    wait_for(lambda: bench.health.counts()["images_decoded"] == 2, "the loop to take the image")
    bench.put(3, 4, 5)  # while it works
    bench.script.steps.release()
    bench.wait_for(2)
    wait_for(lambda: bench.health.counts()["images_decoded"] == 3, "the loop to take the image")
    bench.put(6, 7)
    bench.script.steps.release()
    bench.wait_for(2, 5)
    bench.script.steps.release()
    bench.wait_for(2, 5, 7)
    assert [outcome.dropped for outcome in bench.outcomes] == [0, 2, 1]
    assert bench.health.counts()["images_dropped"] == 3
    assert bench.health.counts()["images_processed"] == 5
    assert bench.health.counts()["images_received"] == 7


@pytest.mark.parametrize(("in_pairs", "expected"), [(True, [3, 3, 4, 4, 4]), (False, [3, 4, 4, 4])])
def test_a_target_whose_network_has_run_ahead_is_next_though_a_newer_image_has_come(bench, in_pairs, expected):
    begin_with(bench, 1)
    for target_id in ("second", "third"):
        bench.loop.track(Box(1.0, 1.0, 9.0, 9.0), 1, target_id)
    bench.put(2)
    bench.script.steps.release(3)
    bench.wait_for(1, 1, 2, 2, 2)  # from here on all have caught up
    bench.outcomes.clear()
    bench.script.in_pairs = in_pairs
    decoded = bench.health.counts()["images_decoded"]
    bench.put(3)
    wait_for(lambda: bench.health.counts()["images_decoded"] > decoded, "the loop to take the image")
    bench.put(4)  # while the first has its turn
    bench.script.steps.release(100)
    bench.wait_for(*expected)
    assert [outcome.target_id for outcome in bench.outcomes[:3]] == ["it", "second", "third"]  # by age


def test_what_a_detector_sees_comes_to_the_session_once_with_the_next_image(bench):
    bench.loop.suggest([Box(5.0, 5.0, 5.0, 5.0)])  # before there is a target: nobody wants it
    begin_with(bench, 1)
    bench.script.steps.release(3)
    bench.loop.suggest([Box(1.0, 1.0, 9.0, 9.0)])
    bench.loop.suggest([Box(2.0, 2.0, 9.0, 9.0)])  # in the place of the one before
    bench.put(2)
    bench.wait_for(2)
    bench.put(3)
    bench.wait_for(2, 3)
    assert bench.script.suggested == [[Box(2.0, 2.0, 9.0, 9.0)]]


def test_catching_up_takes_every_image_while_there_is_time(bench):
    bench.put(*range(1, 21))
    bench.wait_for_newest(20)
    bench.outcomes.clear()
    bench.script.steps.release(1000)
    bench.loop.track(Box(1.0, 1.0, 9.0, 9.0), 11, "it")
    wait_for(lambda: bench.outcomes and bench.stamps()[-1] == 20, "the newest")
    assert bench.stamps()[0] == 11
    assert bench.stamps() == sorted(set(bench.stamps()))
    assert not bench.outcomes[0].live
    bench.put(21)
    bench.wait_for(*bench.stamps()[: bench.stamps().index(20) + 1], 21)
    assert bench.outcomes[-1].live


def test_catching_up_skips_evenly_when_it_is_slow_and_ends_with_the_newest(bench, monkeypatch):
    from lighttrack_ros.node import image_at_work, tracking_loop

    clock = [0.0]
    for module in (image_at_work, tracking_loop):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=lambda: 0.0))
    bench.loop._step_time = 0.05  # so ten steps may be had in the half second
    bench.put(*range(1, 101))
    bench.wait_for_newest(100)
    bench.outcomes.clear()
    bench.loop.track(Box(1.0, 1.0, 9.0, 9.0), 1, "it")
    arriving = 100
    while not bench.outcomes or bench.stamps()[-1] != arriving:
        clock[0] += 0.05  # every step takes that, and meanwhile another image comes
        bench.loop._step_time = 0.05
        if len(bench.outcomes) < 30:
            arriving += 1
            bench.put(arriving)
        count = len(bench.outcomes)
        bench.script.steps.release()
        wait_for(lambda count=count: len(bench.outcomes) > count, "a step")
    stamps = bench.stamps()
    assert stamps[0] == 1
    assert 8 <= len(stamps) <= 32, "it must not chase the camera for ever"
    gaps = np.diff(stamps[:9])
    assert gaps.min() > 0
    assert gaps.max() <= 2 * gaps.min() + 2, "not evenly spaced"


def test_idle_work_is_done_only_when_no_image_waits_and_until_there_is_none(bench):
    begin_with(bench, 1)
    wait_for(lambda: bench.script.idle == 4, "the idle work after the start")
    bench.put(2)
    wait_for(lambda: bench.health.counts()["images_decoded"] == 2, "the loop to take the image")
    bench.put(3)
    bench.script.steps.release()
    bench.wait_for(2)
    assert bench.script.idle == 4, "an image was waiting"
    bench.script.steps.release()
    bench.wait_for(2, 3)
    wait_for(lambda: bench.script.idle == 8, "the idle work when all is done")


def test_a_stamp_far_ahead_starts_on_the_newest(bench):
    bench.put(1, 2)
    bench.wait_for_newest(2)
    bench.outcomes.clear()
    bench.loop.track(Box(1.0, 1.0, 9.0, 9.0), 3600 * 10**9, "it")
    bench.wait_for(2)
    assert "s newer than the newest" in bench.warnings[-1]
    assert bench.health.counts()["stamps_gone"] == 1


def test_after_a_pause_of_the_camera_a_box_waits_for_the_first_image():
    buffer, boxes = FrameBuffer(1.0, 1000), InitBoxes()
    buffer.append(Arrival(1, 10.0, Stamped(10 * 10**9, "", 0, bytes(10))))
    boxes.add(InitBox(Box(1.0, 1.0, 9.0, 9.0), 15 * 10**9, "it", 1, 20.0, lambda _: None))
    assert boxes.take_ready(buffer, 15.0) is None  # five seconds of silence
    buffer.append(Arrival(2, 15.1, Stamped(15 * 10**9, "", 0, bytes(10))))
    arrival, init_box = boxes.take_ready(buffer, 15.1)
    assert (arrival.number, init_box.note) == (2, "")
    # Of another clock: no such pause explains the stamp.
    boxes.add(InitBox(Box(1.0, 1.0, 9.0, 9.0), 20 * 10**9, "it", 2, 20.0, lambda _: None))
    arrival, init_box = boxes.take_ready(buffer, 15.5)
    assert arrival.number == 2
    assert "another clock" in init_box.note


def test_a_tracker_that_fails_is_reported_and_asked_again(bench, monkeypatch):
    begin_with(bench, 1)
    results = iter([ZeroDivisionError("of all things"), LightTrackError("the engine is broken"), None])

    def step(frame, others):
        error = next(results)
        if error:
            raise error
        return Report(State.TRACKING, Box(0.0, 0.0, 9.0, 9.0), 0.9)

    monkeypatch.setattr(bench.script, "step", step)
    for stamp, count in ((2, "internal_errors"), (3, "tracker_errors")):
        bench.put(stamp)
        wait_for(lambda count=count: bench.health.counts()[count] == 1, count)
    bench.put(4)
    bench.wait_for(4)
    assert any("of all things" in line for line in bench.warnings)
    assert any("the engine is broken" in line for line in bench.warnings)
    bench.health = Health(bench.warnings.append)  # the fixture's last word is not meant for this test


def test_problems_are_logged_once_in_a_while_and_all_counted(monkeypatch):
    from lighttrack_ros.node import diagnostics

    clock = [100.0]
    monkeypatch.setattr(diagnostics, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    lines: list[str] = []
    health = Health(lines.append)
    for _ in range(1000):
        health.problem("bad_images", "no good")
    health.problem("bad_boxes", "no good either")
    assert lines == ["image not used: no good", "init box not used: no good either"]
    clock[0] += diagnostics.LOG_PERIOD
    health.problem("bad_images", "no good")
    assert lines[2:] == ["image not used: no good (999 more like this since the last such line)"]
    assert health.counts()["bad_images"] == 1001


def test_percentiles_and_rates(monkeypatch):
    from lighttrack_ros.node import diagnostics

    clock = [100.0]
    monkeypatch.setattr(diagnostics, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    health = Health(print)
    assert set(health.percentiles().values()) == {"unknown"}
    for index in range(101):
        clock[0] += 0.05
        health.count("images_received")
        health.latency(index / 1000, 0.002)
    assert health.percentiles() == {
        "latency_p50_ms": "50.00",
        "latency_p95_ms": "95.00",
        "latency_p99_ms": "99.00",
        "processing_p50_ms": "2.00",
        "processing_p95_ms": "2.00",
        "processing_p99_ms": "2.00",
    }
    assert health.rates() == {"images_received_hz": 20.0, "images_processed_hz": 0.0}
    health.latency(3600.0, 0.002)  # a bag of last year
    assert health.percentiles()["latency_p50_ms"] == "unknown"
    assert health.percentiles()["processing_p50_ms"] == "2.00"
    clock[0] += 60
    assert health.rates()["images_received_hz"] == 0.0


def test_an_answer_is_sent_once_whichever_comes_first():
    for given_first in (True, False):
        answer, sent = Answer(), []
        if given_first:
            answer.give("first")
            answer.give("second")
        answer.send_by(sent.append)
        answer.give("third")
        answer.give("fourth")
        assert sent == (["first"] if given_first else ["third"])


def test_a_message_that_the_middleware_does_not_take_is_counted_and_costs_nothing_else():
    from rclpy.impl.implementation_singleton import rclpy_implementation

    class Publisher:
        topic_name = "/tracker/target"

        def publish(self, message):
            raise rclpy_implementation.RCLError(
                "Failed to publish: cannot publish data, at /project/rmw_publish.cpp:68"
            )

    warnings: list[str] = []
    health = Health(warnings.append)
    Sender(Publisher(), health).publish("anything")
    assert health.counts()["messages_lost"] == 1
    assert warnings == ["message not sent: on /tracker/target: Failed to publish: cannot publish data"]


def test_little_shared_memory_is_warned_of(monkeypatch):
    from lighttrack_ros.node import transport

    for size, warned in ((64 << 20, True), (512 << 20, False)):
        monkeypatch.setattr(
            transport.os, "statvfs", lambda _, size=size: SimpleNamespace(f_frsize=4096, f_blocks=size // 4096)
        )
        assert ("--shm-size=512m" in transport.little_shared_memory()) == warned


def test_scheduling_is_as_it_was_unless_asked_for():
    """In a process of its own: nice and affinity are the whole process's."""
    code = """
import os, sys
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.node.scheduling import Scheduling
import threading
waiting = threading.Event()
thread = threading.Thread(target=waiting.wait); thread.start()
scheduling, cpus = Scheduling(), os.sched_getaffinity(0)
assert scheduling.arrange(0, 0, "all") == "", "nothing is asked for that is so already"
one = min(cpus)
assert scheduling.arrange(5, 0, str(one)) == ""
for number in (threading.get_native_id(), thread.native_id):
    assert os.getpriority(os.PRIO_PROCESS, number) == 5 and os.sched_getaffinity(number) == {one}
assert scheduling.arrange(5, 0, "all") == "" and os.sched_getaffinity(thread.native_id) == cpus
for wrong in ("99999", "", "a", "0,", "0-1"):
    try:
        scheduling.arrange(0, 0, wrong)
    except LightTrackError as error:
        assert "parameter cpus is" in str(error)
    else:
        sys.exit(wrong)
os.setpriority = lambda *_: (_ for _ in ()).throw(PermissionError())
os.sched_setscheduler = os.setpriority
words = scheduling.arrange(-5, 10, "all")
assert "nice -5" in words and "ulimit -e 25" in words and "ulimit -r 10" in words and "SYS_NICE" in words
waiting.set()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr

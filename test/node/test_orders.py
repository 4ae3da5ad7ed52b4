"""What people order and what they are told: boxes by topic and by service, the log, the end of a target."""

from __future__ import annotations

import math
import re
import time

import cv2
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import HEIGHT, WIDTH, box_of, stamp_of  # noqa: E402

from lighttrack_ros.geometry import Box  # noqa: E402
from lighttrack_ros.msg import TrackedTarget  # noqa: E402
from lighttrack_ros.srv import TrackTarget  # noqa: E402


@pytest.fixture
def tracker(start):
    tracker = start()
    tracker.wait_until_connected()
    return tracker


def request(box: Box, stamp: int = 0, target_id: str = "") -> TrackTarget.Request:
    asked = TrackTarget.Request(x=box.x, y=box.y, width=box.width, height=box.height, target_id=target_id)
    asked.header.stamp.sec, asked.header.stamp.nanosec = divmod(stamp, 10**9)
    return asked


def lines(tracker, words: str) -> list[str]:
    return [line for line in tracker.process.output.splitlines() if words in line]


def test_a_box_gets_an_answer(tracker, clip):
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[0], stamp)
    answer = tracker.call(TrackTarget, "track", request(clip.boxes[0], stamp, "asked for"))
    assert (answer.accepted, answer.stamp.sec * 10**9 + answer.stamp.nanosec, answer.message) == (True, stamp, "")
    target = tracker.track(clip.images[1], clip.fresh_stamp())
    assert (target.target_id, target.state) == ("asked for", TrackedTarget.STATE_TRACKING)

    for box, words in (
        (Box(math.nan, 1.0, 20.0, 20.0), "expected finite numbers"),
        (Box(1.0, 1.0, 0.5, 20.0), "at least 1 pixel"),
        (Box(WIDTH + 1.0, 1.0, 20.0, 20.0), f"outside the frame of {WIDTH} x {HEIGHT}"),
    ):
        now = clip.fresh_stamp()
        tracker.track(clip.images[2], now)
        answer = tracker.call(TrackTarget, "track", request(box, now))
        assert not answer.accepted
        assert words in answer.message
    # Three within a second, and each is in the log: nothing that people order is refused in silence.
    tracker.wait_for(lambda: len(lines(tracker, "init box not used")) == 3, "three lines")
    assert tracker.track(clip.images[3], clip.fresh_stamp()).target_id == "asked for"

    # A stamp that is gone: taken on the newest, and said so.
    answer = tracker.call(TrackTarget, "track", request(clip.boxes[3], stamp - 60 * 10**9, "asked for"))
    assert answer.accepted
    assert "starting on the newest" in answer.message
    assert tracker.track(clip.images[4], clip.fresh_stamp()).target_id == "asked for"


def test_a_box_without_an_image_is_refused_aloud_and_the_next_one_counts(tracker, clip):
    tracker.track(clip.images[0], clip.fresh_stamp())
    first = tracker.ask(TrackTarget, "track", request(clip.boxes[0], 0, "one"))
    time.sleep(0.3)
    assert not first.done()
    second = tracker.ask(TrackTarget, "track", request(clip.boxes[0], 0, "one"))
    tracker.wait_for(first.done, "the answer to the first")
    assert (first.result().accepted, first.result().message) == (False, "another box came before its image did")
    tracker.reset()  # other services are answered meanwhile, and this one ends the wait
    tracker.wait_for(second.done, "the answer to the second")
    assert not second.result().accepted
    third = tracker.call(TrackTarget, "track", request(clip.boxes[0], 0, "one"))
    assert (third.accepted, third.message) == (False, "no image came in 3 s")
    tracker.enable(False)
    assert tracker.call(TrackTarget, "track", request(clip.boxes[0])).message == "the node is disabled"
    tracker.enable(True)
    assert tracker.track(clip.images[0], clip.fresh_stamp()).state == TrackedTarget.STATE_IDLE
    assert tracker.change_state("deactivate")
    assert tracker.call(TrackTarget, "track", request(clip.boxes[0])).message == "the node is not active"


def test_the_end_of_a_target_is_published_and_logged_with_its_reason(tracker, clip):
    def end() -> str:
        return tracker.wait_for(lambda: next((t for t in tracker.targets if t.end_reason), None), "the end")

    tracker.start_on(clip, 0, "ordered away")
    tracker.targets.clear()
    tracker.start_on(clip, 1, "ordered away")
    assert (end().target_id, end().end_reason) == ("ordered away", "replaced by a new box")
    tracker.targets.clear()
    tracker.reset()  # no image follows
    assert (end().state, box_of(end()), end().end_reason) == (0, (0, 0, 0, 0), "told to forget it (reset)")
    assert end().target_id == "ordered away"

    tracker.start_on(clip, 2, "of another size")
    tracker.targets.clear()
    for image in clip.images[:3]:
        tracker.show(cv2.resize(image, (WIDTH // 2, HEIGHT // 2)), clip.fresh_stamp())
        tracker.wait_for(lambda: tracker.counts()["images_received"], "a moment")
    assert end().state == 0
    assert f"the image is {WIDTH // 2} x {HEIGHT // 2}" in end().end_reason

    tracker.start_on(clip, 3, "deactivated")
    tracker.targets.clear()
    assert tracker.change_state("deactivate")
    assert end().end_reason == "the node was deactivated"
    for name, words in {
        "ordered away": "told to forget it",
        "of another size": "3 times; send a new box",
        "deactivated": "the node was deactivated",
    }.items():
        assert lines(tracker, f"target '{name}' taken: box x ")
        assert re.search(f"target '{name}' ended: .*{re.escape(words)}", tracker.process.output)


def test_every_image_has_its_targets_in_one_message(tracker, clip):
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[0], stamp)
    assert not tracker.all_of(stamp).targets  # there is none, and the image is told of all the same
    tracker.start_on(clip, 0, "one")
    stamp = clip.fresh_stamp()
    target = tracker.track(clip.images[1], stamp)
    assert tracker.all_of(stamp).header == target.header
    assert list(tracker.all_of(stamp).targets) == [target]
    tracker.of_images.clear()
    tracker.reset()
    ended = tracker.wait_for(lambda: tracker.of_images, "the end")[0]
    assert [(one.state, one.end_reason) for one in ended.targets] == [(0, "told to forget it (reset)")]


def test_the_log_tells_the_story(tracker, clip):
    tracker.process.wait_for_output(f"first image on /{tracker.name.split('/')[0]}/image: {WIDTH} x {HEIGHT}, bgr8")
    tracker.start_on(clip, 0, "seen")
    for image in clip.images[1:10]:
        tracker.track(image, clip.fresh_stamp())
    empty = cv2.GaussianBlur(clip.images[30], (0, 0), 25)
    tracker.wait_for(
        lambda: tracker.track(empty, clip.fresh_stamp()).state == TrackedTarget.STATE_LOST, "the target's loss"
    )
    tracker.wait_for(
        lambda: tracker.track(clip.images[9], clip.fresh_stamp()).state == TrackedTarget.STATE_TRACKING, "its return"
    )
    tracker.enable(False)
    tracker.enable(True)
    tracker.reset()
    tracker.process.wait_for_output("told to forget the target")
    for words in (
        "target 'seen' taken: box x 60.0",
        "target 'seen' uncertain, confidence 0.",
        "target 'seen' lost ",
        "target 'seen' found at box x ",
        "told to be disabled",
        "told to be enabled",
        "images on /",  # with the rate
    ):
        assert lines(tracker, words), words
    assert "TensorRT" in tracker.process.output
    assert all(len(line) < 200 for line in lines(tracker, "TensorRT"))


def test_a_camera_that_falls_silent_and_one_that_never_was(tracker, start, clip, world):
    topic = tracker.camera.topic_name
    tracker.process.wait_for_output("no images: no images on ")
    assert "(1 publishers" in lines(tracker, "no images: ")[-1]
    lonely = start()
    world.node.destroy_publisher(lonely.camera)
    lonely.process.wait_for_output(f"images are published on {topic}")  # the first warning may come before discovery
    assert "(0 publishers" in lines(lonely, f"images are published on {topic}")[-1]


def test_whoever_looks_at_annotated_gets_the_cameras_rate(start, clip, world):
    from sensor_msgs.msg import Image

    tracker = start()
    tracker.wait_until_connected()
    for publisher in (tracker.init_box, tracker.init_roi):
        world.node.destroy_publisher(publisher)
    images: list[Image] = []
    subscription = world.node.create_subscription(Image, f"{tracker.name}/annotated", images.append, 10)

    def drawn_of_twenty() -> int:
        images.clear()
        for _ in range(20):
            tracker.show(clip.images[0], clip.fresh_stamp())
            time.sleep(0.03)
        return len(images)

    try:
        tracker.wait_for(lambda: drawn_of_twenty() >= 15, "all images, though nobody advertises a box")
    finally:
        world.node.destroy_subscription(subscription)


def test_a_client_of_track_has_every_image_kept(start, clip, world):
    tracker = start(reliability="reliable")
    tracker.wait_until_connected()
    for publisher in (tracker.init_box, tracker.init_roi):
        world.node.destroy_publisher(publisher)
    tracker.ask(TrackTarget, "track", request(Box(0.0, 0.0, 0.0, 0.0)))  # the client stays

    def all_are_taken() -> bool:
        tracker.targets.clear()
        stamps = [clip.fresh_stamp() for _ in range(10)]
        for stamp in stamps:
            tracker.show(clip.images[0], stamp)
            time.sleep(0.02)
        tracker.wait_for_target(stamps[-1])
        return {stamp_of(target) for target in tracker.targets} >= set(stamps)

    tracker.wait_for(all_are_taken, "every image")

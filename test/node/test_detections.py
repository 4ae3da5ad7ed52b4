"""vision_msgs in and out, in another process, over DDS; where that package is installed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from node_harness import HEIGHT, WIDTH, box_of, stamp_of

pytest.importorskip("vision_msgs", reason="needs vision_msgs, which has no wheel (apt has it)")

from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from lighttrack_ros.geometry import Box, intersection_over_union
from lighttrack_ros.msg import TrackedTarget
from lighttrack_ros.node.messages import to_time


def detection(box: Box, target_id: str = "", stamp: int = 0, score: float = 0.9) -> Detection2D:
    message = Detection2D(id=target_id)
    message.header.stamp = to_time(stamp)
    message.bbox.center.position.x, message.bbox.center.position.y = box.centre
    message.bbox.size_x, message.bbox.size_y = box.width, box.height
    result = ObjectHypothesisWithPose()
    result.hypothesis.score = score
    message.results = [result]
    return message


@pytest.fixture
def tracker(start):
    tracker = start()
    tracker.wait_until_connected()
    return tracker


@pytest.fixture
def publish(world, tracker):
    """Publishes a message on a topic beside the node."""
    publishers = {}

    def publish(topic: str, message: object) -> None:
        name = f"{tracker.name.split('/')[0]}/{topic}"
        if name not in publishers:
            publishers[name] = world.node.create_publisher(type(message), name, 1)
            tracker.wait_for(publishers[name].get_subscription_count, f"a subscriber of {name}")
        publishers[name].publish(message)

    yield publish
    for publisher in publishers.values():
        world.node.destroy_publisher(publisher)


def test_a_detection_starts_a_target_and_one_of_its_id_starts_it_anew(tracker, clip, publish):
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[0], stamp)
    publish("init_detection", detection(clip.boxes[0], "car", stamp))
    tracker.wait_for(lambda: tracker.targets[-1].target_id == "car", "the start")
    assert box_of(tracker.targets[-1]) == pytest.approx(clip.boxes[0])
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[0], stamp)
    other = Box(200.0, 20.0, 30.0, 30.0)
    array = Detection2DArray(detections=[detection(other, "car")])
    array.header.stamp = to_time(stamp)  # the array's counts where a detection has none
    publish("init_detections", array)
    tracker.wait_for(lambda: box_of(tracker.targets[-1]) == pytest.approx(other), "the new box")


def test_an_array_starts_several_targets(tracker, clip, publish):
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[0], stamp)
    boxes = {"car": clip.boxes[0], "bush": Box(200.0, 20.0, 30.0, 30.0)}
    array = Detection2DArray(detections=[detection(box, target_id) for target_id, box in boxes.items()])
    array.header.stamp = to_time(stamp)
    publish("init_detections", array)
    stamp = clip.fresh_stamp()
    tracker.wait_for(lambda: {"car", "bush"} <= {target.target_id for target in tracker.targets}, "both")
    tracker.show(clip.images[1], stamp)
    assert {target.target_id for target in tracker.all_of(stamp).targets} == {"car", "bush"}


def test_targets_in_sight_are_published_as_detections(tracker, clip, world):
    heard: list[Detection2DArray] = []
    topic = f"{tracker.name}/detections"
    subscription = world.node.create_subscription(Detection2DArray, topic, heard.append, 100)
    try:
        tracker.wait_for(lambda: world.node.count_publishers(topic), "the topic")
        stamp = clip.fresh_stamp()
        tracker.track(clip.images[0], stamp)
        none = tracker.wait_for(lambda: next((m for m in heard if stamp_of(m) == stamp), None), "the image's")
        assert list(none.detections) == []
        tracker.start_on(clip, 0, "car")
        stamp = clip.fresh_stamp()
        target = tracker.track(clip.images[1], stamp)
        message = tracker.wait_for(lambda: next((m for m in heard if stamp_of(m) == stamp), None), "the image's")
        assert message.header == target.header
        (found,) = message.detections
        assert (found.id, found.header) == ("car", target.header)
        x, y = box_of(target).centre
        assert (found.bbox.center.position.x, found.bbox.center.position.y) == pytest.approx((x, y))
        assert (found.bbox.size_x, found.bbox.size_y) == pytest.approx((target.width, target.height))
        assert found.results[0].hypothesis.score == pytest.approx(target.confidence)
    finally:
        world.node.destroy_subscription(subscription)


def test_a_detection_that_looks_like_the_lost_target_takes_it_up(tracker, clip, publish):
    tracker.start_on(clip, 0, "car")
    for index in range(1, 12):
        tracker.track(clip.images[index], clip.fresh_stamp())
    ground = cv2.GaussianBlur(np.random.default_rng(9).integers(60, 160, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 4)
    tracker.wait_for(
        lambda: tracker.track(ground, clip.fresh_stamp()).state == TrackedTarget.STATE_LOST, "the loss of the target"
    )
    # A detector is mistaken: nothing is there that looks like the target.
    wrong = Detection2DArray(detections=[detection(Box(250.0, 30.0, 36.0, 30.0))])
    for _ in range(10):
        publish("detections", wrong)
        assert tracker.track(ground, clip.fresh_stamp()).state == TrackedTarget.STATE_LOST
    x, y, width, height = map(round, clip.boxes[0])
    back = ground.copy()
    back[190 : 190 + height, 270 : 270 + width] = clip.images[0][y : y + height, x : x + width]
    right = Detection2DArray(detections=[detection(Box(272.0, 192.0, 34.0, 28.0))])
    for _ in range(10):
        publish("detections", right)
        found = tracker.track(back, clip.fresh_stamp())
        if found.state == TrackedTarget.STATE_TRACKING:
            break
    assert found.state == TrackedTarget.STATE_TRACKING
    assert intersection_over_union(box_of(found), Box(270.0, 190.0, 36.0, 30.0)) > 0.5


def test_bad_detections_are_refused_and_the_node_lives(tracker, clip, publish):
    nan = float("nan")
    publish("init_detection", detection(Box(nan, nan, nan, nan)))
    tracker.process.wait_for_output("init box not used")
    publish("detections", Detection2DArray(detections=[detection(Box(0.0, 0.0, nan, -1.0)), Detection2D()]))
    tracker.process.wait_for_output("detection not used")
    tracker.start_on(clip, 0, "car")

"""Several targets in one node, over real DDS: added, removed, refused, under overload, and as distractors."""

from __future__ import annotations

import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import (  # noqa: E402
    HEIGHT,
    ROOT,
    WIDTH,
    Clip,
    NodeProcess,
    Tracker,
    World,
    box_of,
    node_command,
    stamp_of,
)
from test_orders import lines, request  # noqa: E402

from lighttrack_ros.geometry import Box, intersection_over_union  # noqa: E402
from lighttrack_ros.media.scene import Scene  # noqa: E402
from lighttrack_ros.msg import TrackedTarget  # noqa: E402
from lighttrack_ros.node.tracking_loop import CATCH_UP  # noqa: E402
from lighttrack_ros.srv import RemoveTarget, TrackTarget  # noqa: E402

STILL = Box(250.0, 40.0, 40.0, 40.0)  # a piece of the clip's ground


@pytest.fixture
def tracker(start) -> Tracker:
    tracker = start(reliability="reliable")
    tracker.wait_until_connected()
    return tracker


def add(tracker: Tracker, clip: Clip, index: int, **boxes: Box) -> int:
    """Show an image and point at things on it; returns its stamp."""
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[index], stamp)
    for target_id, box in boxes.items():
        answer = tracker.call(TrackTarget, "track", request(box, stamp, target_id))
        assert answer.accepted, answer.message
    return stamp


def all_on(tracker: Tracker, clip: Clip, index: int) -> dict[str, TrackedTarget]:
    """What the node says of all targets on the clip's image."""
    stamp = clip.fresh_stamp()
    tracker.show(clip.images[index], stamp)
    return {target.target_id: target for target in tracker.all_of(stamp).targets}


def remove(tracker: Tracker, target_id: str) -> RemoveTarget.Response:
    return tracker.call(RemoveTarget, "remove", RemoveTarget.Request(target_id=target_id))


def test_targets_are_added_followed_retargeted_and_removed_one_by_one(tracker, clip):
    add(tracker, clip, 0, patch=clip.boxes[0])
    begin = add(tracker, clip, 1, still=STILL)
    for index in range(2, 12):
        targets = all_on(tracker, clip, index)
        assert set(targets) == {"patch", "still"}
        assert intersection_over_union(box_of(targets["patch"]), clip.boxes[index]) > 0.5
        assert intersection_over_union(box_of(targets["still"]), STILL) > 0.5
    # The same messages, one by one.
    one_by_one = [(target.target_id, stamp_of(target)) for target in tracker.targets if stamp_of(target) > begin]
    assert len(one_by_one) == len(set(one_by_one)) == 20

    # A known id is re-targeted, the other goes on.
    elsewhere = STILL._replace(y=150.0)
    add(tracker, clip, 12, still=elsewhere)
    targets = all_on(tracker, clip, 13)
    assert intersection_over_union(box_of(targets["still"]), elsewhere) > 0.5
    assert intersection_over_union(box_of(targets["patch"]), clip.boxes[13]) > 0.5
    ended = [(target.target_id, target.end_reason) for target in tracker.targets if target.end_reason]
    assert ended == [("still", "replaced by a new box")]
    values = tracker.counts()
    assert (values["targets"], values["state"]) == ("2", "tracking")
    assert (values["target 'patch' state"], values["target 'still' images_dropped"]) == ("tracking", "0")
    assert int(values["target 'patch' images_processed"]) >= 12

    answer = remove(tracker, "nobody")
    assert not answer.success
    assert "'patch', 'still'" in answer.message
    assert remove(tracker, "patch").success
    tracker.wait_for(lambda: tracker.targets[-1].end_reason.startswith("told to forget it (remove)"), "the end")
    assert (tracker.targets[-1].target_id, tracker.targets[-1].state) == ("patch", TrackedTarget.STATE_IDLE)
    tracker.wait_for(lambda: [target.target_id for target in tracker.of_images[-1].targets] == ["patch"], "its image")
    assert set(all_on(tracker, clip, 14)) == {"still"}
    assert not remove(tracker, "patch").success
    assert "target 'patch' state" not in tracker.counts()

    add(tracker, clip, 15, again=clip.boxes[15])
    tracker.of_images.clear()
    assert tracker.reset().message == "2 targets forgotten"
    ended = tracker.wait_for(lambda: tracker.of_images, "the end of all")[0].targets
    assert {target.target_id for target in ended} == {"still", "again"}
    assert all_on(tracker, clip, 16) == {}
    assert tracker.targets[-1].target_id == ""  # idle, and still one message an image


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_targets_that_share_runs_of_the_network_are_followed_all_the_same(start, clip, backend):
    """Over DDS, as a robot with several cores does it; that the boxes are equal: test/trackers/test_pairs.py."""
    pytest.importorskip("onnx")
    pytest.importorskip(backend)
    tracker = start(reliability="reliable", backend=backend, threads=2)
    tracker.wait_until_connected()
    add(tracker, clip, 0, patch=clip.boxes[0])
    add(tracker, clip, 1, still=STILL, again=STILL)
    tracker.wait_for(lambda: lines(tracker, "two targets share a run of the network from now on"), "the engines")
    for index in range(2, 12):
        targets = all_on(tracker, clip, index)
        assert set(targets) == {"patch", "still", "again"}
        assert intersection_over_union(box_of(targets["patch"]), clip.boxes[index]) > 0.5
        assert intersection_over_union(box_of(targets["again"]), STILL) > 0.5
    assert tracker.counts()["internal_errors"] == tracker.counts()["tracker_errors"] == "0"


def test_the_seventeenth_is_refused_aloud_and_a_place_is_free_again_after_removal(tracker, clip):
    boxes = {f"t{index}": Box(10.0 + 18 * index, 10.0 + 12 * index, 24.0, 24.0) for index in range(16)}
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[0], stamp)
    for target_id, box in boxes.items():
        tracker.point_at(box, stamp, target_id)  # all at once, on the topic
    tracker.wait_for(lambda: tracker.counts()["targets"] == "16", "all of them")
    answer = tracker.call(TrackTarget, "track", request(STILL, 0, "one more"))
    assert not answer.accepted
    assert answer.message.startswith("there are 16 targets, the most there may be ('t0', 't1', 't10'")
    assert "forget one first" in answer.message
    assert lines(tracker, "init box not used: box x 250.0, y 40.0, 40.0 x 40.0: there are 16 targets")
    stamp = clip.fresh_stamp()
    tracker.show(clip.images[1], stamp)
    tracker.wait_for(lambda: len({t.target_id for t in tracker.targets if stamp_of(t) == stamp}) == 16, "16 targets")
    assert remove(tracker, "t7").success
    add(tracker, clip, 2, another=STILL)
    assert set(all_on(tracker, clip, 3)) == set(boxes) - {"t7"} | {"another"}
    assert tracker.counts()["internal_errors"] == "0"


def test_a_box_on_an_old_image_catches_up_beside_a_target_that_misses_nothing(tracker, clip):
    assert tracker.set_parameter("buffer_seconds", 10.0).successful
    add(tracker, clip, 0, still=STILL)
    stamps = [clip.fresh_stamp() for _ in range(15)]
    for image, stamp in zip(clip.images, stamps, strict=False):
        tracker.track(image, stamp)
    begin = len(tracker.targets)
    tracker.point_at(clip.boxes[4], stamps[4], "late")
    tracker.wait_for(
        lambda: [t for t in tracker.targets[begin:] if (t.target_id, stamp_of(t)) == ("late", stamps[-1])], "the newest"
    )
    late = [stamps.index(stamp_of(t)) for t in tracker.targets[begin:] if t.target_id == "late"]
    assert late[0] == 4
    assert late == sorted(set(late))
    assert [t for t in tracker.targets[begin:] if t.target_id == "still"] == []  # it was on all of them before
    targets = all_on(tracker, clip, 15)
    assert set(targets) == {"still", "late"}
    assert intersection_over_union(box_of(targets["late"]), clip.boxes[15]) > 0.5


def test_all_targets_are_drawn_each_in_its_own_colour(tracker, clip, world):
    from sensor_msgs.msg import Image

    from lighttrack_ros.pictures.target import TARGET_COLOURS

    add(tracker, clip, 0, patch=clip.boxes[0], still=STILL)
    images: list[Image] = []
    subscription = world.node.create_subscription(Image, f"{tracker.name}/annotated", images.append, 10)
    try:
        shown: list[int] = []

        def annotated() -> Image | None:
            shown.append(clip.fresh_stamp())
            tracker.track(clip.images[1], shown[-1])
            return next((image for image in images if stamp_of(image) in shown), None)

        message = tracker.wait_for(annotated, "an annotated image")
        image = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
        for colour in TARGET_COLOURS[:2]:
            assert (image == colour).all(axis=2).sum() > 50, colour
        assert not (image == TARGET_COLOURS[2]).all(axis=2).any()
    finally:
        world.node.destroy_subscription(subscription)


def test_a_tracker_that_is_too_slow_for_all_goes_round_and_starves_none(world, model, clip):
    """With a tracker that takes a step only when it is told to: one of three targets for every image."""
    command = node_command("slow_targets", model=model, reliability="reliable", diagnostics_period=0.1)
    script = [command[0], str(ROOT / "test/scripted_node.py"), *command[command.index("--ros-args") :]]
    process = NodeProcess(script)
    tracker = Tracker(world, "slow_targets", process)

    def let_go(steps: int = 1) -> None:
        process.process.stdin.write("\n" * steps)
        process.process.stdin.flush()

    try:
        let_go(3)  # the steps of its warming up
        tracker.wait_until_connected()
        ids = ["a", "b", "c"]
        add(tracker, clip, 0, **{target_id: STILL._replace(x=20.0 + 90 * index) for index, target_id in enumerate(ids)})
        time.sleep(CATCH_UP)
        arrived, begin = int(tracker.counts()["images_received"]), len(tracker.targets)
        stamps = [clip.fresh_stamp() for _ in range(10)]
        for number, stamp in enumerate(stamps):
            tracker.show(clip.images[1], stamp)
            arrived += 1
            tracker.wait_for(lambda: int(tracker.counts()["images_received"]) == arrived, "arrival")  # noqa: B023
            if number:  # it is at work on the image before
                let_go()
                tracker.wait_for(lambda: len(tracker.targets) == begin + number, "a step")  # noqa: B023
        turns = [(target.target_id, stamp_of(target)) for target in tracker.targets[begin:]]
        assert turns == list(zip(ids * 3, stamps, strict=False))
        # An image's message holds the one that was updated on it, and no other as if it were fresh.
        of_images = {stamp_of(one): [t.target_id for t in one.targets] for one in tracker.of_images}
        assert [of_images[stamp] for stamp in stamps[:8]] == [[target_id] for target_id in (ids * 3)[:8]]
        dropped = dict.fromkeys(ids, 0)
        for target in tracker.targets[begin:]:
            dropped[target.target_id] += target.frames_dropped
        assert dropped == {"a": 4, "b": 5, "c": 6}
    finally:
        process.process.stdin.close()  # whatever it waits for
        tracker.close()


@pytest.fixture(scope="module")
def crossing():
    """Frames of a scene in which the target meets a vehicle that looks the same, from when both are in view."""
    scene = Scene(3)
    return [scene[index] for index in range(122, 182)]


def test_two_look_alikes_that_cross_are_both_followed(world: World, start, clip, crossing):
    """Without knowing of each other, the one that goes on is lost to the other on this scene."""
    tracker = start(reliability="reliable")
    tracker.wait_until_connected()
    stamp = clip.fresh_stamp()
    tracker.track(crossing[0].image, stamp)
    for target_id, box in (("one", crossing[0].box), ("other", crossing[0].look_alike)):
        assert tracker.call(TrackTarget, "track", request(box, stamp, target_id)).accepted
    good = {"one": [], "other": []}
    for frame in crossing[1:]:
        stamp = clip.fresh_stamp()
        tracker.show(frame.image, stamp)
        for target in tracker.all_of(stamp).targets:
            truth = frame.box if target.target_id == "one" else frame.look_alike
            if truth is not None:
                good[target.target_id].append(intersection_over_union(box_of(target), truth) > 0.5)
    assert len(good["one"]) == len(crossing) - 1
    assert np.mean(good["one"]) > 0.75
    assert np.mean(good["other"]) > 0.9

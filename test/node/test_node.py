"""The node in its own process, over real DDS: what it tracks, when it starts, what it survives."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import HEIGHT, WIDTH, Clip, NodeProcess, Tracker, World, box_of, image_message, node_command, stamp_of  # noqa: E402
from sensor_msgs.msg import RegionOfInterest  # noqa: E402

from lighttrack_ros.geometry import Box, intersection_over_union  # noqa: E402
from lighttrack_ros.image import Intensities, decode, encodings, from_bgr  # noqa: E402
from lighttrack_ros.models import load_model  # noqa: E402
from lighttrack_ros.msg import InitBox, TrackedTarget  # noqa: E402
from lighttrack_ros.session import Session  # noqa: E402
from lighttrack_ros.trackers import create_tracker  # noqa: E402


@pytest.fixture(scope="module")
def running(world: World, model: Path):
    """A node that many tests use, one after the other."""
    # Reliable, so that the image that was sent last always arrives.
    command = node_command("shared_node", model=model, threads=1, reliability="reliable", diagnostics_period=0.1)
    tracker = Tracker(world, "shared_node", NodeProcess(command))
    tracker.wait_until_connected()
    yield tracker
    assert tracker.process.process.poll() is None, tracker.process.output
    assert tracker.process.interrupt() == 0, tracker.process.output
    tracker.close()


@pytest.fixture
def tracker(running: Tracker, clip: Clip) -> Tracker:
    """The shared node, without a target, after an image that marks the beginning of the test."""
    assert running.process.process.poll() is None, running.process.output
    running.enable(True)
    running.reset()
    assert running.track(clip.images[0], clip.fresh_stamp()).state == TrackedTarget.STATE_IDLE
    return running


@pytest.fixture(scope="module")
def expected_boxes(model: Path):
    """The library's own boxes: expected_boxes(images, first box) -> one box an image after the first."""
    loaded = load_model(model)
    tracker = create_tracker(loaded, threads=1)
    session = Session.of(tracker, loaded)

    def boxes(images: list[np.ndarray], box: Box) -> list[Box]:
        session.start(from_bgr(images[0]), box)
        found = []
        for image in images[1:]:
            while tracker.idle_work():
                pass
            found.append(session.step(from_bgr(image)).box)
        return found

    yield boxes
    tracker.close()


def test_every_box_is_the_librarys_and_every_header_the_cameras(tracker, clip, expected_boxes):
    tracker.start_on(clip, target_id="the patch")
    targets = [tracker.track(image, clip.fresh_stamp()) for image in clip.images[1:]]
    for target, expected in zip(targets, expected_boxes(clip.images, clip.boxes[0]), strict=True):
        np.testing.assert_allclose(box_of(target), expected, atol=1e-6)
        assert target.header.frame_id == "camera_optical"
        assert target.target_id == "the patch"
        assert target.model
        assert 0 < target.confidence <= 1
        assert 0 < target.processing_time < 60
        assert target.frames_dropped == 0
    overlaps = [intersection_over_union(box_of(t), b) for t, b in zip(targets, clip.boxes[1:], strict=True)]
    assert np.mean(overlaps) > 0.6  # the clip is one that can be followed


def test_woman(tracker, clip, shared, expected_boxes):
    """A real sequence, fast: whatever images the node took, its boxes are the library's on just those."""
    names = sorted((shared / "sequences/woman").rglob("*.jpg"))[:90]
    if not names:
        pytest.skip("needs the frames of shared/sequences/woman")
    images = [cv2.imread(str(name)) for name in names]
    first = Box(*np.load(shared / "golden/lighttrack/woman.npz")["init_box"])
    stamps = [clip.fresh_stamp() for _ in images]
    tracker.track(images[0], stamps[0])
    tracker.point_at(first, stamps[0])
    tracker.wait_for(lambda: stamp_of(tracker.targets[-1]) == stamps[0] and tracker.targets[-1].state, "the start")
    begin = len(tracker.targets)
    for image, stamp in zip(images[1:], stamps[1:], strict=True):
        tracker.show(image, stamp)
        time.sleep(0.005)
    tracker.wait_for_target(stamps[-1])
    targets = tracker.targets[begin:]
    taken = [stamps.index(stamp_of(target)) for target in targets]
    assert taken == sorted(set(taken)), "an image twice, or out of order"
    assert taken[-1] == len(images) - 1
    expected = expected_boxes([images[0]] + [images[index] for index in taken], first)
    np.testing.assert_allclose([box_of(target) for target in targets], expected, atol=1e-6)
    skipped = np.diff([0, *taken]) - 1
    # What the middleware itself lost never arrived, and is in nobody's count.
    assert all(target.frames_dropped <= count for target, count in zip(targets, skipped, strict=True))


def test_without_a_target_no_image_is_decoded(tracker, clip):
    before = tracker.counts()
    for image in clip.images[:10]:
        target = tracker.track(image, clip.fresh_stamp())
        assert target.state == TrackedTarget.STATE_IDLE
        assert box_of(target) == (0, 0, 0, 0)
    after = tracker.counts()
    assert int(after["images_processed"]) - int(before["images_processed"]) == 10
    assert after["images_decoded"] == before["images_decoded"]
    assert after["state"] == "idle"
    assert after["backend"] in ("onnxruntime", "tensorrt")  # what runs in fact, not "auto"


def test_while_nobody_can_draw_a_box_few_images_are_taken(start, clip, world):
    tracker = start(reliability="reliable")
    tracker.wait_until_connected()
    topic = tracker.init_box.topic_name
    for publisher in (tracker.init_box, tracker.init_roi):
        world.node.destroy_publisher(publisher)

    def received_of_forty() -> int:
        before = int(tracker.counts()["images_received"])
        for _ in range(40):
            stamp = clip.fresh_stamp()
            tracker.show(clip.images[0], stamp)
            time.sleep(0.01)
        assert tracker.wait_for_target(stamp).state == TrackedTarget.STATE_IDLE, "the newest is always among them"
        return int(tracker.counts()["images_received"]) - before

    tracker.wait_for(lambda: received_of_forty() <= 20, "a node that leaves images alone")
    tracker.init_box = world.node.create_publisher(InitBox, topic, 1)
    tracker.wait_for(tracker.init_box.get_subscription_count, "the node's subscription")
    tracker.start_on(clip)
    for image, box in zip(clip.images[1:10], clip.boxes[1:10], strict=True):
        target = tracker.track(image, clip.fresh_stamp())
        assert intersection_over_union(box_of(target), box) > 0.5
        assert target.frames_dropped == 0


def test_a_box_without_a_stamp_is_for_the_next_image(tracker, clip):
    tracker.point_at(clip.boxes[3], target_id="next")
    # The box and the image travel on two topics: send images until the box has overtaken one.
    target = tracker.wait_for(lambda: (t := tracker.track(clip.images[3], clip.fresh_stamp())).state and t, "a target")
    assert box_of(target) == clip.boxes[3]
    assert (target.target_id, target.confidence) == ("next", 1.0)


def test_a_region_of_interest_is_a_box_too(tracker, clip):
    x, y, width, height = map(int, clip.boxes[3])
    tracker.init_roi.publish(RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height))
    target = tracker.wait_for(lambda: (t := tracker.track(clip.images[3], clip.fresh_stamp())).state and t, "a target")
    assert box_of(target) == clip.boxes[3]


def test_a_second_box_retargets_at_once(tracker, clip, expected_boxes):
    tracker.start_on(clip, 0, "one")
    assert tracker.track(clip.images[1], clip.fresh_stamp()).target_id == "one"
    other = Box(200.0, 30.0, 40.0, 40.0)
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[2], stamp)
    tracker.point_at(other, stamp, "one")
    tracker.wait_for(lambda: tracker.targets[-1].end_reason, "the second box")
    assert (stamp_of(tracker.targets[-1]), box_of(tracker.targets[-1])) == (stamp, other)
    target = tracker.track(clip.images[3], clip.fresh_stamp())
    assert target.target_id == "one"
    assert len(tracker.all_of(stamp_of(target)).targets) == 1
    np.testing.assert_allclose(box_of(target), expected_boxes(clip.images[2:4], other)[0], atol=1e-6)


def test_a_box_on_an_old_image_starts_there_and_catches_up(tracker, clip, expected_boxes):
    stamps = [clip.fresh_stamp() for _ in range(15)]
    for image, stamp in zip(clip.images, stamps, strict=False):
        tracker.track(image, stamp)
    begin = len(tracker.targets)
    tracker.point_at(clip.boxes[4], stamps[4], "old")
    tracker.wait_for(
        lambda: tracker.targets[begin:] and stamp_of(tracker.targets[-1]) == stamps[14], "the newest image"
    )
    targets = tracker.targets[begin:]
    taken = [stamps.index(stamp_of(target)) for target in targets]
    assert taken[0] == 4
    assert taken == sorted(set(taken))
    assert len(taken) > 1
    assert {target.target_id for target in targets} == {"old"}
    assert box_of(targets[0]) == clip.boxes[4]
    expected = expected_boxes([clip.images[index] for index in taken], clip.boxes[4])
    np.testing.assert_allclose([box_of(target) for target in targets[1:]], expected, atol=1e-6)


def test_a_box_on_an_image_that_is_gone_starts_on_the_newest_and_says_so(tracker, clip):
    gone = clip.fresh_stamp()
    stamp = clip.fresh_stamp()
    tracker.track(clip.images[5], stamp)
    before = int(tracker.counts()["stamps_gone"])
    tracker.point_at(clip.boxes[5], gone, "late")
    tracker.wait_for(lambda: tracker.targets[-1].target_id == "late", "the start")
    assert (stamp_of(tracker.targets[-1]), box_of(tracker.targets[-1])) == (stamp, clip.boxes[5])
    tracker.process.wait_for_output("starting on the newest")
    assert int(tracker.counts()["stamps_gone"]) == before + 1


def test_a_box_that_comes_before_its_image_waits_for_it(tracker, clip):
    tracker.start_on(clip, 0, "one")
    early, stamp = clip.fresh_stamp(), clip.fresh_stamp()
    tracker.point_at(clip.boxes[7], stamp, "one")
    time.sleep(0.3)  # the box's way; were it slower, it would find its image among the kept ones
    assert not tracker.track(clip.images[1], early).end_reason
    tracker.show(clip.images[7], stamp)
    tracker.wait_for(lambda: tracker.targets[-1].end_reason, "the awaited image")
    assert (stamp_of(tracker.targets[-1]), box_of(tracker.targets[-1])) == (stamp, clip.boxes[7])


def test_reset_forgets_the_target(tracker, clip):
    tracker.start_on(clip, 0, "to be forgotten")
    response = tracker.reset()
    assert response.success, response.message
    target = tracker.track(clip.images[1], clip.fresh_stamp())
    assert (target.state, target.target_id, box_of(target)) == (TrackedTarget.STATE_IDLE, "", (0, 0, 0, 0))


def test_disabled_it_leaves_images_alone_and_keeps_the_target(tracker, clip, expected_boxes):
    tracker.start_on(clip, 0, "kept")
    assert tracker.enable(False).success
    before, begin = tracker.counts(), len(tracker.targets)
    for image in clip.images[10:15]:
        tracker.show(image, clip.fresh_stamp())
    tracker.wait_for(lambda: int(tracker.counts()["images_received"]) > int(before["images_received"]), "images")
    assert tracker.counts()["images_decoded"] == before["images_decoded"]
    assert len(tracker.targets) == begin
    assert tracker.enable(True).success
    target = tracker.track(clip.images[1], clip.fresh_stamp())
    assert (target.target_id, target.frames_dropped) == ("kept", 0)
    np.testing.assert_allclose(box_of(target), expected_boxes(clip.images[:2], clip.boxes[0])[0], atol=1e-6)


def test_annotated_is_drawn_for_those_who_look(tracker, clip, world):
    from sensor_msgs.msg import Image

    tracker.start_on(clip)
    images: list[Image] = []
    subscription = world.node.create_subscription(Image, f"{tracker.name}/annotated", images.append, 10)
    try:
        tracker.wait_for(lambda: world.node.count_publishers(f"/{tracker.name}/annotated"), "the annotated topic")
        tracker.wait_for(lambda: tracker.track(clip.images[1], clip.fresh_stamp()) and images, "an annotated image")
        image = images[-1]
        assert (image.width, image.height, image.encoding, image.step) == (WIDTH, HEIGHT, "bgr8", 3 * WIDTH)
        assert image.header.frame_id == "camera_optical"
        difference = np.frombuffer(image.data, np.uint8).reshape(clip.images[1].shape) != clip.images[1]
        assert 0 < difference.any(axis=2).mean() < 0.3  # a box was drawn on this very picture
    finally:
        world.node.destroy_subscription(subscription)


def test_annotated_comes_as_jpeg_too(tracker, clip, world):
    from sensor_msgs.msg import CompressedImage

    tracker.start_on(clip)
    images: list[CompressedImage] = []
    topic = f"{tracker.name}/annotated/compressed"
    subscription = world.node.create_subscription(CompressedImage, topic, images.append, 10)
    try:
        tracker.wait_for(lambda: world.node.count_publishers(f"/{topic}"), "the annotated topic")
        tracker.wait_for(lambda: tracker.track(clip.images[1], clip.fresh_stamp()) and images, "an annotated image")
        image = images[-1]
        assert (image.format, image.header.frame_id) == ("bgr8; jpeg compressed bgr8", "camera_optical")
        picture = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == clip.images[1].shape
        difference = np.abs(picture.astype(int) - clip.images[1]).max(axis=2) > 60
        assert 0 < difference.mean() < 0.3  # a box was drawn on this very picture
    finally:
        world.node.destroy_subscription(subscription)


@pytest.mark.parametrize("encoding", encodings())
def test_every_encoding(tracker, clip, encoding, expected_boxes):
    """The same pixels by the library and over the wire, in the camera's own encoding and with padded rows."""
    frames = [encoded(image, encoding) for image in clip.images[:2]]
    stamps = [clip.fresh_stamp(), clip.fresh_stamp()]
    changes = [dict(zip(("encoding", "step", "data", "is_bigendian"), frame, strict=True)) for frame in frames]
    tracker.show(clip.images[0], stamps[0], **changes[0])
    tracker.wait_for_target(stamps[0])
    tracker.point_at(clip.boxes[0], stamps[0], encoding)
    tracker.wait_for(lambda: tracker.targets[-1].target_id == encoding, "the start")
    tracker.show(clip.images[1], stamps[1], **changes[1])
    target = tracker.wait_for_target(stamps[1])
    intensities = Intensities()
    intensities.start(clip.boxes[0])  # as the node does where a target begins
    images = [
        decode(frame[0], WIDTH, HEIGHT, frame[1], bool(frame[3]), frame[2], intensities).bgr() for frame in frames
    ]
    np.testing.assert_allclose(box_of(target), expected_boxes(images, clip.boxes[0])[0], atol=1e-6)


def encoded(image: np.ndarray, encoding: str) -> tuple[str, int, bytes, int]:
    """BGR pixels in another encoding, as good as a test needs it: encoding, step, data, is_bigendian."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if encoding.startswith(("nv", "yu", "uy")):
        planes = np.concatenate([grey, np.full((HEIGHT // 2, WIDTH), 120, np.uint8)])
        rows = planes if encoding.startswith("nv") else np.dstack([grey, np.full_like(grey, 120)])
        rows = rows[..., ::-1] if encoding in ("uyvy", "yuv422") else rows
    elif encoding == "32FC1":
        rows = grey.astype(">f4").view(np.uint8)
    elif encoding.endswith("16") or encoding.startswith("16"):
        channels = {"bgr16": 3, "rgb16": 3, "16UC3": 3, "bgra16": 4, "rgba16": 4}.get(encoding, 1)
        deep = grey.astype(np.uint16) * (127 if encoding == "16SC1" else 257)
        rows = np.repeat(deep[..., None], channels, axis=2).astype(">u2").view(np.uint8)
    elif encoding.startswith(("mono", "bayer")) or encoding == "8UC1":
        rows = grey
    elif encoding in ("bgra8", "rgba8", "8UC4"):
        rows = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA if encoding != "rgba8" else cv2.COLOR_BGR2RGBA)
    else:
        rows = image[..., ::-1] if encoding == "rgb8" else image
    padded = np.pad(rows.reshape(rows.shape[0], -1), ((0, 0), (0, 12)))
    return encoding, padded.shape[1], padded.tobytes(), int("16" in encoding or encoding == "32FC1")


def malformed_images(image: np.ndarray) -> dict[str, dict[str, object]]:
    """Changes to a good message, by what they make of it."""
    return {
        "empty": {"data": [], "width": 0, "height": 0, "step": 0},
        "no data": {"data": []},
        "step too short": {"step": 1},
        "step too long": {"step": WIDTH * 3 + 1},
        "data cut off": {"data": image.tobytes()[:-1]},
        "unknown encoding": {"encoding": "nonsense"},
        "no encoding": {"encoding": ""},
        "depth": {"encoding": "16UC1", "step": WIDTH},
        "1 x 1": {"width": 1, "height": 1, "step": 3, "data": [1, 2, 3]},
        "huge size": {"width": 2**32 - 1, "height": 2**32 - 1},
        "wrong encoding": {"encoding": "mono16", "is_bigendian": 1, "step": WIDTH},
        "odd yuv": {"encoding": "nv12", "width": WIDTH - 1},
        "another size": {"width": WIDTH // 2, "height": HEIGHT, "step": WIDTH * 3},
    }


MALFORMED_BOXES = [
    (math.nan, 10, 20, 20),
    (10, math.inf, 20, 20),
    (10, 10, math.nan, 20),
    (10, 10, -math.inf, math.inf),
    (10, 10, -20, 20),
    (10, 10, 20, -20),
    (10, 10, 0, 20),
    (10, 10, 0, 0),
    (10, 10, 1e-320, 1e-320),
    (1e300, 10, 20, 20),
    (WIDTH, 10, 20, 20),
    (-50, -50, 20, 20),
    (10, HEIGHT + 1, 20, 20),
]


def test_a_thousand_malformed_messages_and_then_it_tracks_on(tracker, clip, expected_boxes):
    tracker.start_on(clip, 0, "survivor")
    before, begin = tracker.counts(), len(tracker.targets)
    rng = random.Random(3)
    images = malformed_images(clip.images[0])
    kinds = [*images, *MALFORMED_BOXES]
    sent = kinds * (1000 // len(kinds) + 1)
    rng.shuffle(sent)
    sent_images, strangers, good = 0, 0, 0
    for kind in sent:
        if not isinstance(kind, str):
            tracker.init_box.publish(InitBox(**dict(zip(("x", "y", "width", "height"), map(float, kind), strict=True))))
            continue
        if kind == "another size":  # two in a row are a fault of the camera, more a change of the camera
            strangers += 1
            if strangers % 2 == 0:
                tracker.track(clip.images[0], clip.fresh_stamp())
                good += 1
        tracker.show(clip.images[0], clip.fresh_stamp(), **images[kind])
        sent_images += 1
        if sent_images % 5 == 0:
            time.sleep(0.002)  # the queues are short; what is lost there frightens nobody
    last = tracker.track(clip.images[1], clip.fresh_stamp())
    assert last.target_id == "survivor"
    after = tracker.counts()
    assert int(after["bad_images"]) > int(before["bad_images"]) + 10
    assert int(after["bad_boxes"]) > int(before["bad_boxes"])
    assert after["internal_errors"] == "0", tracker.process.output
    assert after["tracker_errors"] == "0", tracker.process.output
    targets = tracker.targets[begin:]
    assert len(targets) == good + 1, "a malformed image was tracked on"
    assert all(t.state != TrackedTarget.STATE_IDLE for t in targets)
    assert tracker.process.output.count("image not used") < 60, "the log was flooded"
    # The thousand left no trace in the tracker: its boxes are those of the good images alone.
    followed = [clip.images[0]] * (good + 1) + [clip.images[1]]
    np.testing.assert_allclose(box_of(last), expected_boxes(followed, clip.boxes[0])[-1], atol=1e-6)


@pytest.mark.parametrize("kind", malformed_images(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
def test_each_malformed_image_is_counted(tracker, clip, kind):
    tracker.start_on(clip)
    before = int(tracker.counts()["bad_images"])
    stamp = clip.fresh_stamp()
    tracker.show(clip.images[0], stamp, **malformed_images(clip.images[0])[kind])
    tracker.wait_for(lambda: int(tracker.counts()["bad_images"]) == before + 1, "the count")
    assert tracker.track(clip.images[1], clip.fresh_stamp()).state != TrackedTarget.STATE_IDLE
    assert not any(stamp_of(target) == stamp for target in tracker.targets)


@pytest.mark.parametrize("box", MALFORMED_BOXES)
def test_each_malformed_box_is_counted_and_the_target_stays(tracker, clip, box):
    tracker.start_on(clip, 0, "stays")
    before = int(tracker.counts()["bad_boxes"])
    tracker.point_at(Box(*map(float, box)), stamp_of(tracker.targets[-1]))
    tracker.wait_for(lambda: int(tracker.counts()["bad_boxes"]) == before + 1, "the count")
    assert tracker.track(clip.images[1], clip.fresh_stamp()).target_id == "stays"


def test_an_id_of_a_megabyte_is_refused_and_the_target_stays(tracker, clip):
    tracker.start_on(clip, 0, "stays")
    before = int(tracker.counts()["bad_boxes"])
    tracker.point_at(clip.boxes[0], stamp_of(tracker.targets[-1]), "x" * 10**6)
    tracker.wait_for(lambda: int(tracker.counts()["bad_boxes"]) == before + 1, "the count")
    assert "target_id has 1000000 characters" in tracker.process.output
    assert tracker.track(clip.images[1], clip.fresh_stamp()).target_id == "stays"


def test_a_box_for_an_image_that_cannot_be_read_starts_on_the_next(tracker, clip):
    stamp = clip.fresh_stamp()
    tracker.show(clip.images[0], stamp, encoding="nonsense")
    tracker.wait_for_target(stamp)  # idle: not decoded
    tracker.point_at(clip.boxes[2], stamp, "patient")
    tracker.wait_for(lambda: "encoding is 'nonsense'" in tracker.process.output, "the log")
    target = tracker.wait_for(lambda: (t := tracker.track(clip.images[2], clip.fresh_stamp())).state and t, "the start")
    assert (target.target_id, box_of(target)) == ("patient", clip.boxes[2])


def test_a_camera_that_changes_its_resolution_ends_the_track_with_a_word(tracker, clip):
    tracker.start_on(clip, 0, "before the change")
    smaller = [cv2.resize(image, (WIDTH // 2, HEIGHT // 2)) for image in clip.images[:6]]
    for image in smaller[:3]:
        tracker.show(image, stamp := clip.fresh_stamp())
        tracker.wait_for(lambda: int(tracker.counts()["bad_images"]) and True, "the count")
    assert tracker.wait_for_target(stamp).state == TrackedTarget.STATE_IDLE
    stamp = clip.fresh_stamp()
    assert tracker.track(smaller[3], stamp).state == TrackedTarget.STATE_IDLE
    half = Box(*(value / 2 for value in clip.boxes[3]))
    tracker.point_at(half, stamp, "after the change")
    tracker.wait_for(lambda: tracker.targets[-1].target_id == "after the change", "the new start")
    assert tracker.track(smaller[4], clip.fresh_stamp()).target_id == "after the change"


def test_bytes_that_are_no_message_are_survived(tracker, clip):
    """Serialised by hand, truncated at every length: DDS carries any bytes."""
    from rclpy.serialization import serialize_message

    whole = serialize_message(image_message(clip.images[0]))
    for length in [*range(0, 64), len(whole) - 1]:
        tracker.camera.publish(whole[:length])
    tracker.camera.publish(b"\xff" * 100)
    assert tracker.track(clip.images[0], clip.fresh_stamp()).state == TrackedTarget.STATE_IDLE
    tracker.start_on(clip, 0, "alive")
    assert tracker.track(clip.images[1], clip.fresh_stamp()).target_id == "alive"


def test_compressed_images(start, clip, expected_boxes):
    tracker = start(image_transport="compressed")
    tracker.wait_until_connected()
    tracker.start_on(clip)
    targets = [tracker.track(image, clip.fresh_stamp()) for image in clip.images[1:6]]
    expected = expected_boxes(clip.images[:6], clip.boxes[0])  # PNG loses nothing
    np.testing.assert_allclose([box_of(target) for target in targets], expected, atol=1e-6)
    before = int(tracker.counts()["bad_images"])
    for changes in ({"data": []}, {"data": [255, 216, 1, 2]}, {"format": "16UC1; compressedDepth png"}):
        tracker.show(clip.images[6], clip.fresh_stamp(), **changes)
        before += 1
        tracker.wait_for(lambda: int(tracker.counts()["bad_images"]) == before, "the count")  # noqa: B023
    assert tracker.track(clip.images[6], clip.fresh_stamp()).state != TrackedTarget.STATE_IDLE

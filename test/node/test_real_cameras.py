"""What real cameras and operators send: rounded stamps, more than 8 bits, two cameras on a topic, clocks that stand."""

from array import array

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import PERIOD, box_of, stamp_of
from sensor_msgs.msg import Image

from lighttrack_ros.geometry import intersection_over_union
from lighttrack_ros.msg import TrackedTarget
from lighttrack_ros.node.frame_buffer import Arrival, FrameBuffer
from lighttrack_ros.node.messages import Stamped
from lighttrack_ros.node.stream_watch import StreamWatch

BASE = 1_700_000_000_123_456_789


def buffer_of(*stamps):
    buffer = FrameBuffer(10.0, 10**9)
    for number, stamp in enumerate(stamps):
        buffer.append(Arrival(number, 0.0, Stamped(stamp, "", 0, b"")))
    return buffer


@pytest.mark.parametrize(
    "rounded",
    [
        lambda stamp: stamp,
        lambda stamp: stamp // 1000 * 1000,
        lambda stamp: round(stamp / 1e9 * 1e9),
        lambda stamp: stamp // 10**6 * 10**6,
        lambda stamp: (stamp // 10**6 + 1) * 10**6,
    ],
    ids=["exact", "microseconds", "double", "milliseconds", "rounded up"],
)
def test_a_rounded_stamp_means_the_image_it_was_of(rounded):
    stamps = [BASE + index * PERIOD for index in range(15)]
    for index in (0, 5, 14):
        assert buffer_of(*stamps).of_stamp(rounded(stamps[index])).number == index


def test_a_stamp_between_images_or_ahead_means_none_of_them():
    buffer = buffer_of(BASE, BASE + PERIOD, BASE + 3 * PERIOD)
    assert buffer.of_stamp(BASE + 2 * PERIOD) is None  # one that was lost
    assert buffer.of_stamp(BASE + 3 * PERIOD + PERIOD // 3) is None  # one that is to come
    assert buffer.of_stamp(BASE - PERIOD) is None
    assert buffer_of().of_stamp(BASE) is None
    assert buffer_of(BASE).of_stamp(BASE).number == 0


def watch(headers, publishers=1):
    watch = StreamWatch()
    for stamp, frame_id in headers:
        watch.add(stamp, frame_id)
    return watch.complaint(publishers)


def test_what_is_strange_about_a_stream():
    fine = [(BASE + index * PERIOD, "front") for index in range(60)]
    assert watch(fine) == watch([]) == watch(fine, publishers=2) == ""
    assert watch(fine[:30] + fine[:30]) == ""  # a bag that began again
    both = [header for index in range(30) for header in (fine[index], (fine[index][0] + 1, "rear"))]
    assert watch(both, 2).startswith("images of 2 frame_ids take turns ('front', 'rear')")
    shifted = [header for index in range(30) for header in (fine[index], (fine[index][0] - 5 * PERIOD, "front"))]
    assert "2 publishers, and stamps that jump back" in watch(shifted, 2)
    assert "run backwards" in watch(fine[::-1])
    assert "stand still at 0.000 s" in watch([(0, "front")] * 10)


def test_rounded_stamps_deep_images_and_two_cameras(start, clip, world):
    tracker = start(buffer_seconds=10.0)  # a busy machine takes longer than the default second to show the images
    tracker.wait_until_connected()
    base = clip.fresh_stamp() // 10**9 * 10**9 + 123_456_789
    for index in range(15):
        stamp = base + index * PERIOD
        # The first may be lost while the subscription takes the publisher's reliability.
        tracker.wait_for(
            lambda stamp=stamp, index=index: (
                tracker.show(clip.images[index], stamp)
                or any(stamp_of(target) == stamp for target in tracker.targets[-9:])
            ),
            "an image to be seen",
        )
    tracker.point_at(clip.boxes[5], (base + 5 * PERIOD) // 10**6 * 10**6, "in milliseconds")
    first = tracker.wait_for(lambda: [t for t in tracker.targets if t.target_id], "the start")[0]
    assert (stamp_of(first), box_of(first)) == (base + 5 * PERIOD, clip.boxes[5])

    # The same scene in 8 bits, and in the 500 counts that a thermal camera makes of it.
    grey = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in clip.images]
    counts = [(7300 + image.astype(np.uint32) * 500 // 255).astype(np.uint16) for image in grey]
    overlaps = {}
    for encoding, images in (("mono8", grey), ("mono16", counts), ("16UC1", counts)):
        overlaps[encoding] = []
        tracker.reset()  # several targets on one thing would tell each other where they are
        for index in range(0, 40, 3):
            stamp = base + (len(overlaps) * 45 - 25 + index) * PERIOD  # less than a second ahead of the newest
            data = images[index]
            fields = {"encoding": encoding, "step": data.strides[0], "data": array("B", data.tobytes())}
            if index == 0:
                tracker.point_at(clip.boxes[0], stamp, encoding)
            tracker.show(clip.images[index], stamp, **fields)
            # The image may overtake the box, and is first answered for the earlier target.
            target = tracker.wait_for(
                lambda stamp=stamp, encoding=encoding: next(
                    (one for one in tracker.targets[::-1] if (stamp_of(one), one.target_id) == (stamp, encoding)), None
                ),
                f"the {encoding} target",
            )
            overlaps[encoding].append(intersection_over_union(box_of(target), clip.boxes[index]))
    means = {encoding: np.mean(values) for encoding, values in overlaps.items()}
    assert means["mono8"] > 0.7
    assert means["mono16"] == pytest.approx(means["mono8"], abs=0.05)
    assert means["16UC1"] == pytest.approx(means["mono8"], abs=0.05)

    rear = world.node.create_publisher(Image, tracker.camera.topic_name, 5)
    tracker.wait_for(lambda: rear.get_subscription_count() >= 1, "the second camera")
    stamp = base + 1000 * PERIOD

    def warned():
        nonlocal stamp
        stamp += PERIOD
        tracker.show(clip.images[0], stamp)
        message = tracker.last_shown
        message.header.frame_id = "rear"
        rear.publish(message)
        return tracker.status is not None and "frame_ids take turns" in tracker.status.message

    tracker.wait_for(warned, "a warning of two cameras")
    assert tracker.status.level == DiagnosticStatus.WARN
    world.node.destroy_publisher(rear)


def test_a_simulations_clock_that_nobody_tells(start, clip):
    tracker = start(use_sim_time=True)
    tracker.wait_for(lambda: tracker.status, "diagnostics without a clock")
    tracker.wait_until_connected()
    stamps = iter(range(10**9, 10**12, PERIOD))

    def warned():
        tracker.show(clip.images[0], next(stamps))
        return "nobody publishes /clock" in tracker.status.message

    tracker.wait_for(warned, "a warning of the clock")
    assert tracker.track(clip.images[0], next(stamps)).state == TrackedTarget.STATE_IDLE


def test_a_picture_without_grey_levels_is_warned_of(start, clip):
    tracker = start(intensity_range="0,65535")
    tracker.wait_until_connected()
    counts = (7300 + cv2.cvtColor(clip.images[0], cv2.COLOR_BGR2GRAY).astype(np.uint16)).astype(np.uint16)
    stamp = clip.fresh_stamp()
    tracker.point_at(clip.boxes[0], stamp)
    tracker.show(clip.images[0], stamp, encoding="mono16", step=counts.strides[0], data=array("B", counts.tobytes()))
    tracker.wait_for_target(stamp)
    tracker.process.wait_for_output("grey levels, hardly any to track by")

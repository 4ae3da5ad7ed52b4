"""~/bearing: directions by the camera_info beside the images, in another process, over DDS."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import rclpy
from node_harness import HEIGHT, WIDTH, Clip, stamp_of
from sensor_msgs.msg import CameraInfo

from lighttrack_ros.msg import TargetBearings, TrackedTarget
from lighttrack_ros.node.camera_info import camera_info_topic, takes_rectified
from lighttrack_ros.node.messages import to_time

CLOSE = math.radians(0.05)
MATRIX = np.array([[250.0, 0, 161.0], [0, 252.0, 118.0], [0, 0, 1]])
LENS = {"distortion_model": "plumb_bob", "d": [-0.2, 0.04, 1e-3, -1e-3, 0.0]}
FISHEYE = {"distortion_model": "equidistant", "d": [0.02, -0.01, 0.003, 0.0]}


def camera_info(matrix: np.ndarray = MATRIX, width: int = WIDTH, height: int = HEIGHT, **changes: object) -> CameraInfo:
    given = {"k": matrix.ravel().tolist(), "width": width, "height": height, **LENS, **changes}
    info = CameraInfo(**given)
    info.header.frame_id = "camera_optical"
    return info


def ray_of(target: TrackedTarget, info: CameraInfo) -> np.ndarray:
    """As OpenCV has it."""
    middle = np.array([[[target.x + target.width / 2 - 0.5, target.y + target.height / 2 - 0.5]]])
    matrix, coefficients = np.array(info.k).reshape(3, 3), np.array(info.d)
    if info.distortion_model == "equidistant":
        x, y = cv2.fisheye.undistortPoints(middle, matrix, coefficients)[0, 0]
    else:
        criteria = (cv2.TERM_CRITERIA_COUNT, 300, 0)
        x, y = cv2.undistortPointsIter(middle, matrix, coefficients, None, None, criteria)[0, 0]
    return np.array((x, y, 1)) / np.linalg.norm((x, y, 1))


class Steering:
    """Somebody who steers by a tracker's bearings, and the camera's calibration."""

    def __init__(self, world, tracker, info_topic="camera_info"):
        self._node = world.node
        self._tracker = tracker
        namespace = tracker.name.split("/")[0]
        self.heard: list[TargetBearings] = []
        self._infos = self._node.create_publisher(CameraInfo, f"{namespace}/{info_topic}", 10)
        self._subscription = self._node.create_subscription(
            TargetBearings, f"{tracker.name}/bearing", self.heard.append, 1000
        )
        tracker.wait_for(self._infos.get_subscription_count, "a subscriber of camera_info")
        probe = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        tracker.wait_for(lambda: tracker.show(probe, 1) or self.heard, "what the node says of an image")

    def close(self):
        self._node.destroy_publisher(self._infos)
        self._node.destroy_subscription(self._subscription)

    def calibrate(self, info: CameraInfo, stamp: int = 1) -> None:
        info.header.stamp = to_time(stamp)
        self._infos.publish(info)

    def calibrate_for(self, clip: Clip, info: CameraInfo) -> None:
        """There is a target, and the calibration has come: the node may not have met its publisher yet."""
        _show_until(self._tracker, clip, lambda: self.calibrate(info) or self.heard[-1].targets)

    def of(self, stamp: int) -> TargetBearings:
        return self._tracker.wait_for(
            lambda: next((message for message in self.heard if stamp_of(message) == stamp), None),
            f"the bearings of the image of {stamp}",
        )


@pytest.fixture
def tracker(start):
    tracker = start()
    tracker.wait_until_connected()
    return tracker


@pytest.fixture
def steering(world, tracker):
    steering = Steering(world, tracker)
    yield steering
    steering.close()


def test_every_image_has_the_directions_of_its_targets(tracker, steering, clip):
    stamp = clip.fresh_stamp()
    steering.calibrate(camera_info(), stamp)
    tracker.track(clip.images[0], stamp)
    assert list(steering.of(stamp).targets) == []  # there is none, and whoever steers hears so
    tracker.start_on(clip, 0, "one")
    rates = []
    for index in range(1, 12):
        stamp = clip.fresh_stamp()
        info = camera_info(**(LENS if index % 2 else FISHEYE))  # as a lens that zooms: another one for every image
        steering.calibrate(info, stamp)
        tracker.wait_for(lambda: tracker.counts(), "the calibration to have come")
        target = tracker.track(clip.images[index], stamp)
        message = steering.of(stamp)
        assert message.header == target.header
        (bearing,) = message.targets
        assert (bearing.target_id, bearing.state) == ("one", target.state)
        assert bearing.confidence == target.confidence
        ray = np.array((bearing.ray.x, bearing.ray.y, bearing.ray.z))
        assert np.linalg.norm(ray - ray_of(target, info)) < CLOSE
        assert bearing.azimuth == pytest.approx(math.atan2(ray[0], ray[2]))
        assert bearing.elevation == pytest.approx(-math.asin(ray[1]))
        assert bearing.angular_width == pytest.approx(target.width / 250, rel=0.3)
        assert bearing.angular_height == pytest.approx(target.height / 250, rel=0.3)
        rates.append(bearing.azimuth_rate)
    assert len([m for m in steering.heard if stamp_of(m) == stamp]) == 1
    assert all(map(math.isfinite, rates[1:]))
    tracker.reset()
    tracker.wait_for(lambda: not steering.heard[-1].targets, "the word that there is no target any more")


def test_the_rates_are_those_of_the_target(tracker, steering, clip):
    info = camera_info(d=[0.0] * 5)
    tracker.start_on(clip)
    steering.calibrate_for(clip, info)
    first = clip.images[0]
    for index in range(1, 15):  # three pixels to the right an image
        stamp = clip.fresh_stamp()
        tracker.track(np.roll(first, 3 * index, axis=1), stamp)
    (bearing,) = steering.of(stamp).targets
    assert bearing.azimuth_rate == pytest.approx(3 * 30 / 250, rel=0.25)
    assert abs(bearing.elevation_rate) < 0.1


def test_without_a_calibration_the_log_says_why_and_the_node_lives(tracker, steering, clip):
    tracker.start_on(clip)
    tracker.process.wait_for_output("no bearing: no camera_info came on /")
    steering.calibrate(camera_info(distortion_model="omni"))
    # Reasons are logged every five seconds, and counted for every image.
    before = int(tracker.counts()["no_bearings"])
    _show_until(tracker, clip, lambda: "distortion model is 'omni', known are plumb_bob" in tracker.process.output)
    assert int(tracker.counts()["no_bearings"]) > before
    assert not [message for message in steering.heard if message.targets]
    steering.calibrate(camera_info(), clip.fresh_stamp())
    _show_until(tracker, clip, lambda: steering.heard and steering.heard[-1].targets)


def _show_until(tracker, clip, condition) -> None:
    tracker.wait_for(lambda: tracker.track(clip.images[0], clip.fresh_stamp()) and condition(), "what the image brings")


def test_an_image_that_somebody_resized(tracker, steering, clip):
    large = np.diag((2.0, 2.0, 1.0)) @ MATRIX + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    tracker.start_on(clip)
    steering.calibrate_for(clip, camera_info(large, 2 * WIDTH, 2 * HEIGHT))
    tracker.process.wait_for_output(f"is for images of {2 * WIDTH} x {2 * HEIGHT}, these are {WIDTH} x {HEIGHT}")
    stamp = clip.fresh_stamp()
    target = tracker.track(clip.images[1], stamp)
    (bearing,) = steering.of(stamp).targets
    ray = np.array((bearing.ray.x, bearing.ray.y, bearing.ray.z))
    assert np.linalg.norm(ray - ray_of(target, camera_info())) < CLOSE


def test_rectified_images_have_the_matrix_of_p(start, world, clip):
    tracker = start(rectification="rectified")
    tracker.wait_until_connected()
    tracker.process.wait_for_output("for rectified images")
    steering = Steering(world, tracker)
    try:
        p = [300.0, 0.0, 160.0, 0.0, 0.0, 300.0, 120.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        tracker.start_on(clip)
        steering.calibrate_for(clip, camera_info(p=p))
        stamp = clip.fresh_stamp()
        target = tracker.track(clip.images[1], stamp)
        (bearing,) = steering.of(stamp).targets
        expected = math.atan((target.x + target.width / 2 - 160.5) / 300)
        assert bearing.azimuth == pytest.approx(expected, abs=1e-6)
    finally:
        steering.close()


@pytest.mark.parametrize(
    ("image", "remapped", "topic"),
    [
        ("/camera/image_raw", "", "/camera/camera_info"),
        ("/camera/image_raw/compressed", "", "/camera/camera_info"),
        ("/left/image_rect_color", "", "/left/camera_info"),
        ("/image", "", "/camera_info"),
        ("/camera/image_raw", "camera_info:=/calibration", "/calibration"),
        ("/camera/image_raw", "/camera/camera_info:=/calibration", "/calibration"),
    ],
)
def test_the_calibration_is_where_image_transport_has_it(world, image, remapped, topic):
    arguments = ["--ros-args", "-r", remapped] if remapped else []
    node = rclpy.create_node("named", namespace="/robot", context=world.context, cli_args=arguments)
    try:
        assert camera_info_topic(node, image) == topic
    finally:
        node.destroy_node()


def test_rectified_images_are_told_by_their_name():
    assert takes_rectified("auto", "/left/image_rect_color/compressed")
    assert not takes_rectified("auto", "/rect/image_raw")
    assert takes_rectified("rectified", "/image_raw")
    assert not takes_rectified("raw", "/image_rect")

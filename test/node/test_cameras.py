"""Cameras as they come: what they offer, what is lost on the way, clocks; and errors at the start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import NodeProcess, image_message, node_command, wait_for  # noqa: E402
from rclpy.impl.implementation_singleton import rclpy_implementation  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from lighttrack_ros.node import image_stream  # noqa: E402


def test_reliability_follows_the_publishers(start, clip, world):
    tracker = start(reliability="auto")
    tracker.wait_until_connected()
    tracker.wait_for(lambda: tracker.counts()["reliability"] == "reliable", "reliable, as the one camera is")
    topic = tracker.camera.topic_name
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    other = world.node.create_publisher(tracker.camera.msg_type, topic, qos)
    tracker.wait_for(lambda: tracker.counts()["reliability"] == "best_effort", "what serves both")
    reliable, tracker.camera = tracker.camera, other
    # In best effort nothing is sent twice, so it is the test that repeats itself.
    tracker.targets.clear()
    tracker.wait_for(lambda: tracker.show(clip.images[0], clip.fresh_stamp()) or tracker.targets, "the other's image")
    tracker.camera = reliable
    world.node.destroy_publisher(other)
    tracker.wait_for(lambda: tracker.counts()["reliability"] == "reliable", "reliable again")
    tracker.wait_until_connected()
    tracker.start_on(clip, target_id="after three subscriptions")
    for image in clip.images[1:6]:
        assert tracker.track(image, clip.fresh_stamp()).frames_dropped == 0


def test_an_image_of_which_the_wait_does_not_tell_is_taken(world, clip, monkeypatch):
    """Fast DDS goes on to wake who leaves it: a busy loop, until the camera's next image or for ever."""

    class Silent(rclpy_implementation.WaitSet):
        def get_ready_entities(self, kind):
            return []

    real = SimpleNamespace(**{**vars(rclpy_implementation), "WaitSet": Silent})
    monkeypatch.setattr(image_stream, "rclpy_implementation", real)
    taken = []
    stream = image_stream.ImageStream(world.node, Image, "silent/image", "reliable", taken.append, lambda _: None)
    stream.start()
    camera = world.node.create_publisher(Image, "silent/image", 1)
    try:
        wait_for(camera.get_subscription_count, "the stream")
        camera.publish(image_message(clip.images[0]))
        wait_for(lambda: taken, "the image")
    finally:
        stream.stop()
        world.node.destroy_publisher(camera)


def test_qos_overrides(world, start, tmp_path):
    namespace = "overridden"
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text(
        "/**: {ros__parameters: {qos_overrides: {"
        f"/{namespace}/image: {{subscription: {{reliability: best_effort, depth: 3}}}}, "
        f"/{namespace}/tracker/target: {{publisher: {{reliability: best_effort, depth: 4}}}}}}}}}}"
    )
    process = NodeProcess(node_command(namespace, overrides, threads=1, reliability="reliable"))
    try:
        (image,) = wait_for(lambda: world.node.get_subscriptions_info_by_topic(f"/{namespace}/image"), "the camera's")
        (target,) = wait_for(lambda: world.node.get_publishers_info_by_topic(f"/{namespace}/tracker/target"), "ours")
        assert image.qos_profile.reliability == target.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    finally:
        process.interrupt()
    overrides.write_text(overrides.read_text().replace("reliability: best_effort, depth: 3", "reliability: perhaps"))
    process = NodeProcess(node_command(namespace, overrides, threads=1))
    process.wait_for_output("subscription.reliability is 'perhaps', expected auto, best_effort or reliable")
    process.wait_for_output("not activated")
    assert process.interrupt() == 0, "it lives on, inactive"


def test_images_that_are_lost_on_the_way_are_told_of_with_the_remedy(start, clip):
    tracker = start()
    tracker.wait_until_connected()
    tracker.start_on(clip)
    for index in range(90):
        stamp = clip.fresh_stamp()
        if index % 7 not in (2, 3, 5):  # what the middleware loses is irregular
            tracker.show(clip.images[0], stamp)
            time.sleep(0.01)
    tracker.process.wait_for_output("images lost: ")
    (line,) = (line for line in tracker.process.output.splitlines() if "images lost: " in line)
    assert "(30.0 Hz by their stamps)" in line
    assert "fastdds_shm.xml" in line
    tracker.wait_for(lambda: int(tracker.counts()["images_lost"]) > 10, "the count")


def test_simulated_time_without_a_clock(start, clip, world):
    from diagnostic_msgs.msg import DiagnosticArray

    tracker = start(use_sim_time=True)
    tracker.wait_until_connected()
    tracker.wait_for(lambda: tracker.status, "diagnostics, though nobody publishes /clock")
    tracker.start_on(clip)
    told: list[dict[str, str]] = []

    def on_timing(message: DiagnosticArray) -> None:
        told.append({item.key: item.value for item in message.status[0].values})

    subscription = world.node.create_subscription(DiagnosticArray, f"/{tracker.name}/timing", on_timing, 10)
    try:
        tracker.wait_for(lambda: tracker.track(clip.images[1], time.time_ns()) and told, "a timing")
        assert told[-1]["transport_ms"] == "unknown"
        assert float(told[-1]["network_ms"]) > 0
        assert tracker.counts()["latency_p50_ms"] == "unknown"
    finally:
        world.node.destroy_subscription(subscription)


def test_a_node_that_was_shut_down_says_so(start):
    tracker = start(autostart=False)
    assert tracker.change_state("shutdown")
    tracker.wait_for(lambda: tracker.counts() and tracker.status.message == "finalized", "the word")


def test_an_error_at_the_start_goes_to_rosout(world):
    from rcl_interfaces.msg import Log

    lines: list[Log] = []
    qos = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # as rqt_console listens
    subscription = world.node.create_subscription(Log, "/rosout", lines.append, qos)
    try:

        def start_wrongly() -> list[Log]:
            """More than once where need be: a machine that is very busy finds no node within a second and a half."""
            process = NodeProcess(node_command("wrong_from_the_start", threads=99))
            assert process.wait() == 1
            return [line for line in lines if "parameter threads: expected" in line.msg]

        error, *_ = wait_for(start_wrongly, "the error on /rosout")
        assert (error.level, error.name) == (40, "wrong_from_the_start.tracker")
    finally:
        world.node.destroy_subscription(subscription)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "--ros-args -r image:=/camera/image_raw"),
        (["--model", "lighttrack_nano"], 2, "unrecognized arguments: --model"),
        (["--ros-args", "--params-file", "/no/such/file.yaml"], 1, "/no/such/file.yaml"),
        (["--ros-args", "--nonsense"], 1, "--nonsense"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said_in_a_line(world, arguments, status, words):
    process = NodeProcess([sys.executable, "-m", "lighttrack_ros.node", *arguments])
    assert process.wait() == status, process.output
    assert words in process.output
    assert "Traceback" not in process.output


def test_a_forwarded_line_names_its_own_place(tmp_path):
    code = (
        "import logging, rclpy.logging, lighttrack_ros.node.logs as logs\n"
        "logs.forward_logs(rclpy.logging.get_logger('x'))\nlogging.getLogger('lighttrack_ros.runtime').warning('compiled')\n"
    )
    (tmp_path / "the_place.py").write_text(code)
    environment = {**os.environ, "RCUTILS_CONSOLE_OUTPUT_FORMAT": "{file_name}:{line_number} {message}"}

    command = [sys.executable, str(tmp_path / "the_place.py")]
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert f"{tmp_path}/the_place.py:3 compiled" in done.stderr + done.stdout

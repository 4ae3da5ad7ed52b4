"""The node's life: parameters, lifecycle transitions, QoS, signals; each in processes of its own."""

from __future__ import annotations

import dataclasses
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import ROOT, NodeProcess, node_command  # noqa: E402

from lighttrack_ros.node.parameters import Parameters  # noqa: E402
from lighttrack_ros.node.transport import (  # noqa: E402
    CAMERA_PROFILE,
    TRACKER_PROFILE,
    fastdds_profile,
    transport_environment,
)


def test_transitions_there_and_back_twice(start, clip):
    tracker = start(autostart=False)
    assert tracker.state() == "unconfigured"
    assert not tracker.reset().success
    for _ in range(2):
        assert tracker.change_state("configure")
        assert tracker.state() == "inactive"
        assert tracker.change_state("activate")
        assert tracker.state() == "active"
        tracker.wait_until_connected()
        tracker.start_on(clip)
        assert tracker.track(clip.images[1], clip.fresh_stamp()).state
        assert tracker.change_state("deactivate")
        assert tracker.state() == "inactive"
        tracker.wait_for(lambda: not tracker.camera.get_subscription_count(), "the end of the subscription")
        assert tracker.change_state("activate")
        tracker.wait_until_connected()
        assert tracker.track(clip.images[2], clip.fresh_stamp()).state == 0  # deactivate forgot the target
        assert tracker.change_state("deactivate")
        assert tracker.change_state("cleanup")
        assert tracker.state() == "unconfigured"
        tracker.targets.clear()
    assert not tracker.change_state("activate")  # not from here
    assert tracker.state() == "unconfigured"
    assert tracker.change_state("configure")
    assert tracker.change_state("activate")
    assert tracker.change_state("shutdown")
    assert tracker.state() == "finalized"
    assert tracker.process.interrupt() == 0, tracker.process.output


def test_a_model_that_is_missing_is_named_and_another_can_be_tried(start, model):
    tracker = start(model="no_such_model")
    tracker.process.wait_for_output("not configured: model 'no_such_model'")
    assert tracker.state() == "unconfigured"
    tracker.wait_for(lambda: tracker.status, "diagnostics")
    assert tracker.status.level == b"\x02"
    assert "no_such_model" in tracker.status.message
    assert not tracker.change_state("configure")
    assert tracker.set_parameter("model", str(model)).successful
    assert tracker.change_state("configure")
    assert tracker.change_state("activate")
    refused = tracker.set_parameter("model", "other")
    assert not refused.successful
    assert "only while the node is unconfigured" in refused.reason
    assert "Traceback" not in tracker.process.output


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("threads", 65, ("0", "64", "65")),
        ("threads", -1, ("0", "64", "-1")),
        ("buffer_seconds", 11.5, ("0", "10", "11.5")),
        ("buffer_megabytes", 0, ("1", "4096", "0")),
        ("diagnostics_period", 0.01, ("0.1", "60")),
        ("reliability", "sometimes", ("auto", "best_effort", "reliable", "sometimes")),
        ("image_transport", "h264", ("raw", "compressed", "h264")),
        ("backend", "abacus", ("auto", "onnxruntime", "abacus")),
        ("model", "''", ("model", "a text")),
        ("threads", "many", ("a whole number from 0 to 64", "many")),
        ("buffer_seconds", 2, ("a number with a decimal point from 0.0 to 10.0", "2")),
        ("autostart", "perhaps", ("true or false", "perhaps")),
    ],
)
def test_a_bad_value_at_the_start_ends_it_with_one_line(world, name, value, words):
    process = NodeProcess(node_command("refused", **{name: value}))
    assert process.wait() == 1, process.output
    assert "Traceback" not in process.output
    (line,) = (line for line in process.output.splitlines() if "[ERROR]" in line)
    assert f"]: parameter {name}" in line
    for word in words:
        assert word in line


def test_a_bad_value_at_run_time_is_refused_with_the_range(start):
    tracker = start(autostart=False)
    for name, value, words in [
        ("threads", 65, ("0", "64", "65")),
        ("buffer_seconds", 11.5, ("0", "10", "11.5")),
        ("buffer_seconds", float("nan"), ("0", "10")),
        ("buffer_megabytes", 5000, ("1", "4096", "5000")),
        ("reliability", "sometimes", ("auto, best_effort, reliable", "sometimes")),
        ("image_topic", "no topic", ("expected the name of a topic", "no topic")),
        ("autostart", False, ("read-only",)),
    ]:
        result = tracker.set_parameter(name, value)
        assert not result.successful, name
        for word in words:
            assert word in result.reason, name
    assert tracker.set_parameter("reliability", "reliable").successful
    assert tracker.set_parameter("buffer_seconds", 2.5).successful
    reliability, seconds = tracker.get_parameters(["reliability", "buffer_seconds"])
    assert (reliability.string_value, seconds.double_value) == ("reliable", 2.5)


def test_every_parameter_says_what_it_is(start):
    tracker = start(autostart=False)
    names = [field.name for field in dataclasses.fields(Parameters)]
    for descriptor in tracker.describe(names):
        assert len(descriptor.description) > 10, descriptor.name
        assert "expected" not in descriptor.additional_constraints
        assert any(word in descriptor.additional_constraints for word in ("at any time", "unconfigured", "once"))


def test_the_configuration_file_holds_every_default():
    file = yaml.safe_load((ROOT / "config/tracker.yaml").read_text(encoding="utf-8"))
    assert file["/**"]["ros__parameters"] == dataclasses.asdict(Parameters())


def test_the_configuration_file_is_taken(start, world, tmp_path):
    tracker = start(parameters_file=ROOT / "config/tracker.yaml")  # and the test's own model
    tracker.wait_until_connected()
    broken = tmp_path / "tracker.yaml"
    broken.write_text("/**: {ros__parameters: {threads: 99}}", encoding="utf-8")
    process = NodeProcess(node_command("configured", parameters_file=broken))
    assert process.wait() == 1
    assert "parameter threads: expected a whole number from 0 to 64" in process.output


def test_a_publisher_that_cannot_serve_is_reported_with_the_fix(start):
    tracker = start(camera="best_effort", reliability="reliable")
    tracker.process.wait_for_output("set this node's parameter reliability to best_effort")
    tracker.wait_for(lambda: int(tracker.counts()["incompatible_publishers"]), "the count")
    assert tracker.status.level == b"\x01"
    assert "no images on" in tracker.status.message


@pytest.mark.parametrize("camera", ["best_effort", "reliable"])
def test_by_default_every_publisher_serves(start, clip, camera):
    tracker = start(camera=camera)
    tracker.wait_until_connected()
    # Nothing is sent twice in best effort, so it is the test that repeats itself.
    tracker.wait_for(lambda: tracker.show(clip.images[0], clip.fresh_stamp()) or tracker.targets, "an idle target")
    assert tracker.counts()["incompatible_publishers"] == "0"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_end_it_cleanly_in_the_middle_of_work(start, clip, number):
    ours = shared_memory("self")
    tracker = start()
    tracker.wait_until_connected()
    tracker.start_on(clip)
    segments = shared_memory(tracker.process.process.pid) - ours
    assert any("/fast" in name for name in segments), "this test looks for the wrong files"
    for image in clip.images[:10]:
        tracker.show(image, clip.fresh_stamp())
    tracker.process.process.send_signal(number)
    time.sleep(0.02)
    tracker.process.process.send_signal(number)
    assert tracker.process.wait() == 0, tracker.process.output
    assert "Traceback" not in tracker.process.output
    assert not [name for name in segments if Path(name).exists()], "shared memory left behind"


@pytest.mark.parametrize("moment", [0.05, 0.3, 1.0])
def test_a_signal_while_it_starts_ends_it_too(world, model, moment):
    process = NodeProcess(node_command("hasty", model=model))
    time.sleep(moment)
    process.interrupt()  # whatever its status: until Python is up, the signal is not ours to handle
    assert "waiting for images" not in process.output.split("KeyboardInterrupt")[-1] or process.process.returncode == 0


def test_a_transition_that_is_not_possible_does_not_end_the_node(start):
    tracker = start(autostart=False)
    for label in ("deactivate", "activate", "cleanup", "nonsense"):
        assert not tracker.change_state(label)
    assert tracker.state() == "unconfigured"
    assert tracker.process.process.poll() is None


def test_the_transport_environment_leaves_a_choice_alone():
    assert fastdds_profile(CAMERA_PROFILE).read_bytes() == (ROOT / "config/fastdds_shm.xml").read_bytes()
    profile = {name for name in transport_environment({}) if name.endswith("PROFILES_FILE")}
    assert len(profile) == 1
    for chosen in ("FASTDDS_BUILTIN_TRANSPORTS", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        added = transport_environment({chosen: "mine"})
        assert not {name for name in added if "FAST" in name}
        assert added["MALLOC_MMAP_THRESHOLD_"] == str(32 << 20)


def test_the_tracker_takes_its_own_profile_where_the_cameras_is_set_for_all():
    for_all = transport_environment({})
    variables = [name for name in for_all if name.endswith("PROFILES_FILE")]
    for environment in ({}, for_all, {"FASTRTPS_DEFAULT_PROFILES_FILE": for_all[variables[0]]}):
        added = transport_environment(environment, TRACKER_PROFILE)
        (chosen,) = (Path(added[name]) for name in variables)
        assert chosen.read_bytes() == (ROOT / "config/fastdds_tracker.xml").read_bytes()


@pytest.mark.parametrize("name", [CAMERA_PROFILE, TRACKER_PROFILE])
def test_a_profiles_segment_has_room_for_its_largest_message(name):
    # Fast DDS leaves shared memory out altogether where it has not, without a word.
    text = (ROOT / "config" / name).read_text(encoding="utf-8")
    room, message = (int(re.search(f"<{tag}>([0-9]+)<", text)[1]) for tag in ("segment_size", "maxMessageSize"))
    assert room >= message


def shared_memory(process: int | str) -> set[str]:
    """Segments in /dev/shm that a process has mapped; but ports, which live as long as anybody may write to them."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    files = {line.split(maxsplit=5)[5] for line in lines if "/dev/shm/" in line}
    return {name for name in files if "_port" not in name}

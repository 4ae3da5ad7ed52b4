"""Whatever fails around the node or in it, in real processes: it says so, loses nothing else, and goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import ROOT, NodeProcess, Tracker, node_command, stamp_of
from rosgraph_msgs.msg import Clock

from lighttrack_ros.msg import TrackedTarget
from lighttrack_ros.srv import TrackTarget

ERROR = b"\x02"


@pytest.fixture
def scripted(world, model, clip, request):
    """A node whose tracker takes a step a line, connected; and what gives it lines."""
    namespace = f"scripted{abs(hash(request.node.name)) % 10**6}"
    command = node_command(namespace, model=model, reliability="reliable", diagnostics_period=0.1)
    process = NodeProcess([command[0], str(ROOT / "test/scripted_node.py"), *command[command.index("--ros-args") :]])
    tracker = Tracker(world, namespace, process)

    def give(*lines: str) -> None:
        process.process.stdin.write("".join(f"{line}\n" for line in lines))
        process.process.stdin.flush()

    give("", "", "")  # the steps of its warming up
    tracker.wait_until_connected()
    yield tracker, give
    process.process.stdin.close()  # whatever it waits for
    tracker.close()


def test_a_backend_that_fails_is_loaded_anew_and_the_target_ends_with_the_reason(scripted, clip):
    tracker, give = scripted
    tracker.start_on(clip, target_id="first")
    give("fail", "fail", "")  # two in a row may pass
    for image in clip.images[1:4]:
        tracker.show(image, stamp := clip.fresh_stamp())
        decoded = int(tracker.counts()["images_decoded"])
        tracker.wait_for(lambda decoded=decoded: int(tracker.counts()["images_decoded"]) >= decoded, "the image")
    assert tracker.wait_for_target(stamp).target_id == "first"

    give("fail", "fail", "fail", "", "", "")  # and the steps of warming up again
    for image in clip.images[4:7]:
        errors = int(tracker.counts()["tracker_errors"])
        tracker.show(image, clip.fresh_stamp())
        tracker.wait_for(lambda errors=errors: int(tracker.counts()["tracker_errors"]) > errors, "the failure")
    ended = tracker.wait_for(lambda: next((t for t in tracker.targets if t.end_reason), None), "the end")
    assert "the backend failed" in ended.end_reason
    assert ended.state == TrackedTarget.STATE_IDLE
    tracker.process.wait_for_output("loaded anew")
    tracker.start_on(clip, target_id="second")
    give("")
    assert tracker.track(clip.images[1], clip.fresh_stamp()).target_id == "second"


def test_a_backend_that_cannot_be_loaded_anew_is_tried_again_with_the_next_box(scripted, clip):
    tracker, give = scripted
    tracker.start_on(clip, target_id="first")
    give("fail", "fail", "no file")
    for image in clip.images[1:4]:
        errors = int(tracker.counts()["tracker_errors"])
        tracker.show(image, clip.fresh_stamp())
        tracker.wait_for(lambda errors=errors: int(tracker.counts()["tracker_errors"]) > errors, "the failure")
    tracker.process.wait_for_output("cannot be loaded anew (no such file)")
    assert tracker.track(clip.images[4], clip.fresh_stamp()).state == TrackedTarget.STATE_IDLE
    give("", "", "")
    tracker.start_on(clip, target_id="second")


def test_a_backend_that_hangs_is_said_boxes_are_answered_and_the_node_ends(scripted, clip):
    tracker, give = scripted
    tracker.start_on(clip)
    give("hang")
    tracker.show(clip.images[1], clip.fresh_stamp())
    tracker.wait_for(lambda: tracker.status and tracker.status.level == ERROR, "an error in the diagnostics")
    assert "the backend hangs" in tracker.status.message
    request = TrackTarget.Request(x=10.0, y=10.0, width=20.0, height=20.0)
    answer = tracker.call(TrackTarget, "track", request)
    assert not answer.accepted
    assert "at one image" in answer.message
    assert tracker.reset().success
    assert tracker.process.interrupt() == 0, tracker.process.output
    assert "Traceback" not in tracker.process.output


@pytest.mark.parametrize("begin", [0, 10**18], ids=["from zero", "in the future"])
def test_stamps_that_jump_back_stand_still_or_are_ahead(start, clip, begin):
    """A bag in a loop, a simulation's reset, a camera without a clock: every image is followed by its own stamp."""
    tracker = start(reliability="reliable")
    tracker.wait_until_connected()
    period = 33_333_333
    first = begin + 10 * period
    tracker.track(clip.images[0], first)
    tracker.point_at(clip.boxes[0], first, "it")
    tracker.wait_for(lambda: tracker.targets[-1].target_id == "it", "the start")
    jumps = [11, 12, 3, 4, 5, 5, 5, 2, 30, 6]  # periods: forwards, a loop, standing still, backwards, ahead, back
    for number, jump in enumerate(jumps, 1):
        seen = len(tracker.targets)
        tracker.show(clip.images[number], begin + jump * period)
        target = tracker.wait_for(lambda seen=seen: tracker.targets[seen:], "an answer")[-1]
        assert (stamp_of(target), target.target_id) == (begin + jump * period, "it")
        assert target.state != TrackedTarget.STATE_IDLE
    # A box on an image from before the jump.
    stamp = begin + 30 * period
    tracker.point_at(clip.boxes[9], stamp, "again")
    start_again = tracker.wait_for(lambda: next((t for t in tracker.targets if t.target_id == "again"), None), "it")
    assert stamp_of(start_again) == stamp


def test_a_camera_that_dies_and_returns(start, clip, world):
    tracker = start(reliability="auto")
    tracker.wait_until_connected()
    tracker.start_on(clip, target_id="it")
    tracker.track(clip.images[1], clip.fresh_stamp())
    topic, qos = tracker.camera.topic_name, tracker.camera.qos_profile
    world.node.destroy_publisher(tracker.camera)
    tracker.wait_for(lambda: tracker.status and "0 publishers" in tracker.status.message, "a word on the camera")
    tracker.camera = world.node.create_publisher(type(tracker.last_shown), topic, qos)
    tracker.wait_for(tracker.camera.get_subscription_count, "the node to find the camera again")
    target = tracker.wait_for(
        lambda: (
            tracker.show(clip.images[2], clip.fresh_stamp()) or (tracker.targets[-1].target_id and tracker.targets[-1])
        ),
        "the target",
    )
    assert target.target_id == "it"
    tracker.wait_for(
        lambda: tracker.show(clip.images[2], clip.fresh_stamp()) or "no images" not in tracker.status.message,
        "the all-clear",
    )


def test_a_simulations_clock_that_is_reset(start, clip, world):
    tracker = start(reliability="reliable", use_sim_time=True)
    clock = world.node.create_publisher(Clock, "/clock", 10)
    tracker.wait_until_connected()
    try:
        for begin in (1000, 1, 500):  # seconds: as it was, a reset, ahead
            for number, image in enumerate(clip.images[:6]):
                now = begin * 10**9 + number * 33_333_333
                message = Clock()
                message.clock.sec, message.clock.nanosec = divmod(now, 10**9)
                clock.publish(message)
                if number == 0 and begin == 1000:
                    tracker.track(image, now)
                    tracker.point_at(clip.boxes[0], now, "it")
                    tracker.wait_for(lambda: tracker.targets[-1].target_id == "it", "the start")
                else:
                    tracker.targets.clear()
                    assert tracker.track(image, now).target_id == "it"
        assert tracker.counts()["internal_errors"] == "0"
        assert tracker.process.process.poll() is None
    finally:
        world.node.destroy_publisher(clock)


def test_a_node_that_was_killed_comes_back_under_its_name(world, model, clip):
    """As a supervisor restarts it; what it left in shared memory is in nobody's way."""
    command = node_command("killed", model=model, threads=1, reliability="reliable", diagnostics_period=0.1)
    tracker = Tracker(world, "killed", NodeProcess(command))
    try:
        for target_id in ("before", "after", "once more"):
            tracker.wait_until_connected()
            tracker.start_on(clip, target_id=target_id)
            assert tracker.track(clip.images[1], clip.fresh_stamp()).target_id == target_id
            tracker.process.process.kill()
            tracker.process.wait()
            tracker.targets.clear()
            tracker.process = NodeProcess(command)
    finally:
        tracker.close()


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a file system of its own, without a free byte."""
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]).returncode
    ):
        pytest.skip("needs to mount a small file system")
    try:
        with contextlib.suppress(OSError), (tmp_path / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk_costs_the_log_files_and_the_caches_only(full_disk, world, model, clip):
    """Plans, the measured threads, logs: what a node writes has no room."""
    folders = [f"{name}={full_disk}/{name}" for name in ("HOME", "XDG_CACHE_HOME", "ROS_LOG_DIR", "ROS_HOME")]
    command = node_command("full", model=model, threads=1, reliability="reliable", diagnostics_period=0.1)
    tracker = Tracker(world, "full", NodeProcess(["env", *folders, *command]))
    try:
        tracker.wait_until_connected()
        tracker.start_on(clip, target_id="it")
        assert tracker.track(clip.images[1], clip.fresh_stamp()).target_id == "it"
        assert tracker.counts()["internal_errors"] == "0"
        assert tracker.process.interrupt() == 0, tracker.process.output
    finally:
        tracker.close()


def test_two_nodes_in_one_namespace_follow_their_own_targets(world, model, clip):
    """Remapped names are what tells them apart; one that dies leaves the other alone."""
    commands = [
        [*node_command("both", model=model, threads=1, reliability="reliable", diagnostics_period=0.1), *remapped]
        for remapped in (["-r", "__node:=left"], ["-r", "__node:=right", "-r", "init_box:=init_right"])
    ]
    processes = [NodeProcess(command) for command in commands]
    found: dict[str, list[TrackedTarget]] = {"left": [], "right": []}
    for name, targets in found.items():
        world.node.create_subscription(TrackedTarget, f"both/{name}/target", targets.append, 100)
    tracker = Tracker(world, "both", processes[0])
    try:
        tracker.wait_for(lambda: tracker.camera.get_subscription_count() == 2, "both nodes")
        # The log has the names as they are after remapping.
        processes[1].wait_for_output("waiting for images on /both/image and for a box on /both/init_right, ")
        assert "/both/right/track" in processes[1].output
        tracker.wait_for(lambda: tracker.show(clip.images[0], 1) or all(found.values()), "both to see images")
        stamp = clip.fresh_stamp()
        tracker.show(clip.images[0], stamp)
        tracker.wait_for(tracker.init_box.get_subscription_count, "the box's subscriber")
        tracker.point_at(clip.boxes[0], stamp, "of the left one")
        tracker.wait_for(lambda: found["left"][-1].target_id, "the start")
        stamp = clip.fresh_stamp()
        tracker.show(clip.images[1], stamp)
        for name, expected in (("left", "of the left one"), ("right", "")):
            target = tracker.wait_for(
                lambda name=name, stamp=stamp: next((t for t in found[name] if stamp_of(t) == stamp), None), name
            )
            assert target.target_id == expected
        assert processes[1].interrupt() == 0
        stamp = clip.fresh_stamp()
        tracker.show(clip.images[2], stamp)
        tracker.wait_for(lambda: stamp_of(found["left"][-1]) == stamp, "the other one to go on")
    finally:
        tracker.close()
        for process in processes:
            if process.process.poll() is None:
                process.interrupt()

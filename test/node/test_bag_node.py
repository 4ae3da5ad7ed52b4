"""A bag of the generated scene through the node, each in its own process: what has to be the same in every run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("mcap", reason="needs the extra [bags]")
pytest.importorskip("rosbags.rosbag2", reason="needs the extra [bags]")

from node_harness import ROOT, NodeProcess, Tracker, World, box_of, node_command, stamp_of  # noqa: E402

from lighttrack_ros.evaluation.metrics import overlaps  # noqa: E402
from lighttrack_ros.geometry import Box  # noqa: E402
from lighttrack_ros.media.bag import ImageBag  # noqa: E402
from lighttrack_ros.media.scene import Scene  # noqa: E402
from lighttrack_ros.media.scene_files import save_scene_as_bag  # noqa: E402
from lighttrack_ros.media.truth import read_boxes  # noqa: E402
from lighttrack_ros.models import load_model  # noqa: E402
from lighttrack_ros.msg import TrackedTarget  # noqa: E402
from lighttrack_ros.node.messages import read_header, read_image  # noqa: E402
from lighttrack_ros.session import Session  # noqa: E402
from lighttrack_ros.trackers import create_tracker  # noqa: E402

FRAMES = 45


class RecordedScene:
    """What is in the bag."""

    def __init__(self, path: Path) -> None:
        self.path = path
        bag = ImageBag(path)
        self.messages = [message for _, message in bag]
        bag.close()
        self.stamps = [read_header(message).stamp for message in self.messages]
        self.truth = [Box(*box) for box in read_boxes(path / "groundtruth.txt")]

    def index_of(self, target: TrackedTarget) -> int:
        return self.stamps.index(stamp_of(target))

    def of(self, targets: list[TrackedTarget]) -> list[TrackedTarget]:
        """Those that are of its images, not of the ones by which the node was awaited."""
        return [target for target in targets if stamp_of(target) in self.stamps]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedScene:
    folder = tmp_path_factory.mktemp("bag") / "scene"
    save_scene_as_bag(islice(Scene(width=320, height=240, fps=30), FRAMES), 30, folder)
    return RecordedScene(folder)


@pytest.fixture(scope="module")
def librarys_boxes(recorded: RecordedScene, model: Path):
    """librarys_boxes(indices of frames, box on the first of them): the library's own."""
    loaded = load_model(model)
    tracker = create_tracker(loaded, threads=1)
    session = Session.of(tracker, loaded)

    def boxes(indices: list[int], box: Box) -> list[Box]:
        frames = [read_image(read_header(recorded.messages[index])) for index in indices]
        return [session.start(frames[0], box).box] + [session.step(frame).box for frame in frames[1:]]

    yield boxes
    tracker.close()


@contextmanager
def replay(recorded: RecordedScene, tracker: Tracker, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    topic = f"/{tracker.name.removesuffix('/tracker')}/image"
    command = [sys.executable, "-m", "lighttrack_ros", "replay", str(recorded.path), "--publish-as", topic]
    with subprocess.Popen([*command, "--keep-stamps", "--preload", *options], cwd=ROOT) as process:
        try:
            yield process
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.fixture(params=["plain process", "ros2 launch"])
def tracker(request: pytest.FixtureRequest, world: World, model: Path):
    """A node, by itself and as the launch file starts it."""
    namespace = f"bag_{request.param.split()[0]}"
    command = node_command(
        namespace, model=model, threads=1, reliability="reliable", diagnostics_period=0.1, buffer_seconds=10.0
    )
    if request.param == "ros2 launch":
        pytest.importorskip("launch_ros.actions", reason="needs launch and launch_ros (they come with an apt ROS)")
        if shutil.which("ros2") is None:
            pytest.skip("needs the command ros2")
        launch_file = ROOT / "launch/tracker.launch.py"
        command = ["ros2", "launch", str(launch_file), f"namespace:=/{namespace}", f"image_topic:=/{namespace}/image"]
        command += [f"model:={model}", "reliability:=reliable"]
    tracker = Tracker(world, namespace, NodeProcess(command))
    tracker.wait_until_connected()
    wait_until_quiet(tracker)
    yield tracker
    tracker.close()


def wait_until_quiet(tracker: Tracker) -> dict[str, str]:
    """The counts after the last of the images by which the node was awaited: what is next is the bag's."""

    def quiet() -> dict[str, str] | None:
        counts = tracker.counts()
        return counts if counts["images_received"] == tracker.counts()["images_received"] else None

    return tracker.wait_for(quiet, "the end of the images by which it was awaited")


def assert_each_once_and_in_order(targets: list[TrackedTarget], recorded: RecordedScene) -> None:
    """Stamps are the bag's own, none twice, none out of order."""
    indices = [recorded.index_of(target) for target in targets]
    assert all(before < after for before, after in pairwise(indices)), indices
    assert {target.header.frame_id for target in targets} <= {"camera"}


def test_every_box_is_answered_and_followed(tracker, recorded, librarys_boxes):
    drawn = {}  # on which image, by the target's id
    with replay(recorded, tracker, "--rate", "10"):
        for least in (0, 12, 24, 36):
            passed = tracker.wait_for(
                lambda least=least: [t for t in recorded.of(tracker.targets) if recorded.index_of(t) >= least],
                f"a target of frame {least} or later",
            )
            index = drawn[f"on {least}"] = recorded.index_of(passed[0])
            tracker.point_at(recorded.truth[index], recorded.stamps[index], f"on {least}")
            tracker.wait_for(lambda least=least: tracker.targets[-1].target_id == f"on {least}", "the start")
    tracker.wait_for_target(recorded.stamps[-1])
    targets = recorded.of(tracker.targets)
    for target_id in drawn:
        answers = [target for target in targets if target.target_id == target_id]
        assert answers, f"the box {target_id} was never answered"
        assert_each_once_and_in_order(answers, recorded)
        indices = [recorded.index_of(target) for target in answers]
        assert indices[0] == drawn[target_id]
        box = recorded.truth[drawn[target_id]]
        assert (box_of(answers[0]), answers[0].confidence) == (box, 1)
        boxes = np.array([box_of(target) for target in answers])
        np.testing.assert_allclose(boxes, librarys_boxes(indices, box), atol=1e-3)
        truth = np.array([recorded.truth[index] for index in indices])
        assert overlaps(boxes, truth).mean() > 0.5


def test_what_is_dropped_is_counted_exactly(tracker, recorded):
    before = wait_until_quiet(tracker)
    tracker.point_at(recorded.truth[0], target_id="fast")
    with replay(recorded, tracker, "--rate", "max"):
        pass

    def settled() -> dict[str, int] | None:
        after = tracker.counts()
        new = {name: int(after[name]) - int(before[name]) for name in after if name.startswith("images_")
               and not name.endswith("hz")}  # fmt: skip
        done = new["images_received"] == new["images_processed"] + new["images_dropped"]
        return new if new["images_received"] and done else None

    counts = tracker.wait_for(settled, "the last image")
    tracker.wait_for(lambda: len(recorded.of(tracker.targets)) == counts["images_processed"], "its target")
    targets = recorded.of(tracker.targets)
    assert_each_once_and_in_order(targets, recorded)
    assert sum(target.frames_dropped for target in targets) == counts["images_dropped"]
    assert counts["images_received"] <= FRAMES
    gaps = np.diff([-1, *(recorded.index_of(target) for target in targets)]) - 1
    # What the middleware itself lost never arrived, and is in nobody's count.
    assert all(target.frames_dropped <= gap for target, gap in zip(targets, gaps, strict=True))


def test_a_tracker_too_slow_takes_the_newest_and_counts_the_others(world, model, clip):
    command = node_command("slow_node", model=model, reliability="reliable", diagnostics_period=0.1)
    script = [command[0], str(ROOT / "test/scripted_node.py"), *command[command.index("--ros-args") :]]
    process = NodeProcess(script)
    tracker = Tracker(world, "slow_node", process)

    def let_go(steps: int = 1) -> None:
        process.process.stdin.write("\n" * steps)
        process.process.stdin.flush()

    try:
        let_go(3)  # the steps of its warming up
        tracker.wait_until_connected()
        tracker.start_on(clip)
        before = tracker.counts()
        begin, shown, expected = len(tracker.targets), 0, []
        for burst in (1, 5, 1, 9, 2):  # images that come while it is at work on the one before
            for _ in range(burst):
                newest = clip.fresh_stamp()
                tracker.show(clip.images[shown % len(clip.images)], newest)
                shown += 1
                arrived = int(before["images_received"]) + shown
                tracker.wait_for(lambda arrived=arrived: int(tracker.counts()["images_received"]) == arrived, "arrival")
            expected.append((newest, burst - 1))
            if len(expected) > 1:  # it is at work on an image of the burst before
                let_go()
            decoded = int(before["images_decoded"]) + len(expected)
            tracker.wait_for(lambda decoded=decoded: int(tracker.counts()["images_decoded"]) == decoded, "the next one")
        let_go()
        tracker.wait_for_target(newest)
        assert [(stamp_of(target), target.frames_dropped) for target in tracker.targets[begin:]] == expected
        after = tracker.counts()
        assert int(after["images_dropped"]) - int(before["images_dropped"]) == sum(skipped for _, skipped in expected)
        assert int(after["images_processed"]) - int(before["images_processed"]) == len(expected)
        assert process.process.poll() is None
    finally:
        process.process.stdin.close()  # whatever it waits for
        tracker.close()


def test_the_timing_of_an_image_adds_up(world, start, clip):
    from diagnostic_msgs.msg import DiagnosticArray

    tracker = start(reliability="reliable")
    tracker.wait_until_connected()
    tracker.start_on(clip)
    told: dict[int, dict[str, str]] = {}

    def on_timing(message: DiagnosticArray) -> None:
        told[stamp_of(message)] = {item.key: item.value for item in message.status[0].values}

    subscription = world.node.create_subscription(DiagnosticArray, f"/{tracker.name}/timing", on_timing, 10)
    try:
        tracker.wait_for(lambda: world.node.count_publishers(f"/{tracker.name}/timing"), "the topic")
        target = tracker.wait_for(
            lambda: stamp_of(t := tracker.track(clip.images[1], clip.fresh_stamp())) in told and t, "a timing"
        )
        assert told[stamp_of(target)]["transport_ms"] == "unknown"  # the clip's stamps are of 2023
        now = time.time_ns()
        target = tracker.wait_for(
            lambda: stamp_of(t := tracker.track(clip.images[1], now)) in told and t, "the timing of a fresh image"
        )
        assert told[now].pop("target_id") == target.target_id
        parts = {name: float(value) for name, value in told[now].items()}
        assert 0 < parts["transport_ms"] < 60e3
        assert set(parts) == {"transport_ms", "wait_ms", "crop_ms", "network_ms", "decode_ms"}
        step = parts["crop_ms"] + parts["network_ms"] + parts["decode_ms"]
        assert step == pytest.approx(1e3 * target.processing_time, abs=0.01)
        assert min(parts["wait_ms"], parts["crop_ms"], parts["network_ms"], parts["decode_ms"]) > 0
    finally:
        world.node.destroy_subscription(subscription)

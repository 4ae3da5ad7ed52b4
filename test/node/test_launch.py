"""The launch file: its arguments, and a real launch with images and a box, where ROS's launch is installed."""

from __future__ import annotations

import py_compile
import re
import shutil
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import ROOT, NodeProcess, Tracker, World  # noqa: E402

from lighttrack_ros.node.parameters import Parameters  # noqa: E402

LAUNCH_FILE = ROOT / "launch/tracker.launch.py"
ARGUMENTS = {"image_topic", "namespace", "model", "backend", "image_transport", "reliability", "autostart"}


@pytest.fixture
def launch():
    """ROS's launch, not this repository's folder of that name."""
    pytest.importorskip("launch_ros.actions", reason="needs launch and launch_ros (they come with an apt ROS)")
    return pytest.importorskip("launch.actions", reason="needs launch (it comes with an apt ROS)")


def test_it_compiles_and_names_parameters_that_exist(tmp_path):
    py_compile.compile(str(LAUNCH_FILE), cfile=str(tmp_path / "compiled"), doraise=True)
    section = LAUNCH_FILE.read_text(encoding="utf-8").split("PARAMETERS = {")[1].split("}")[0]
    named = set(re.findall(r'^    "(\w+)":', section, re.MULTILINE))
    assert named == ARGUMENTS - {"image_topic", "namespace"}
    assert named <= set(Parameters.__dataclass_fields__)


def test_every_argument_is_described(launch):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(LAUNCH_FILE))
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(arguments) == ARGUMENTS
    assert all(len(argument.description) > 10 for argument in arguments.values())


def test_a_launched_node_tracks(launch, world: World, model: Path, clip):
    if shutil.which("ros2") is None:
        pytest.skip("needs the command ros2")
    command = ["ros2", "launch", str(LAUNCH_FILE), "namespace:=/launched", "image_topic:=/launched/image"]
    tracker = Tracker(world, "launched", NodeProcess([*command, f"model:={model}"]))
    try:
        tracker.wait_until_connected()
        tracker.start_on(clip, target_id="launched")
        for image in clip.images[1:5]:
            assert tracker.track(image, clip.fresh_stamp()).target_id == "launched"
    finally:
        tracker.close()

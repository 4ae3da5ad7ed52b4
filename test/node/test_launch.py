"""The launch file: its arguments, and a real launch with images and a box, where ROS's launch is installed."""

from __future__ import annotations

import contextlib
import os
import py_compile
import re
import shutil
import signal
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import ROOT, NodeProcess, Tracker  # noqa: E402

from lighttrack_ros.node.parameters import Parameters  # noqa: E402
from lighttrack_ros.node.transport import transport_environment  # noqa: E402

LAUNCH_FILE = ROOT / "launch/tracker.launch.py"
OF_THE_VIEWER = {"viewer", "viewer_address", "viewer_port"}
OF_THE_LAUNCH = {"image_topic", "namespace", "params_file", "log_level", "respawn", *OF_THE_VIEWER}
OF_THE_NODE = {"model", "backend", "threads", "image_transport", "reliability", "autostart"}


@pytest.fixture
def launch():
    """ROS's launch, not this repository's folder of that name."""
    pytest.importorskip("launch_ros.actions", reason="needs launch and launch_ros (they come with an apt ROS)")
    return pytest.importorskip("launch.actions", reason="needs launch (it comes with an apt ROS)")


def test_it_compiles_and_names_parameters_that_exist(tmp_path):
    py_compile.compile(str(LAUNCH_FILE), cfile=str(tmp_path / "compiled"), doraise=True)
    section = LAUNCH_FILE.read_text(encoding="utf-8").split("PARAMETERS = {")[1].split("}")[0]
    named = set(re.findall(r'^    "(\w+)":', section, re.MULTILINE))
    assert named == OF_THE_NODE | {"use_sim_time"}
    assert set(Parameters.__dataclass_fields__) >= OF_THE_NODE


def test_every_argument_is_described(launch):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(LAUNCH_FILE))
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(arguments) == OF_THE_LAUNCH | OF_THE_NODE | {"use_sim_time"}
    for name in ("image_transport", "reliability"):
        field = Parameters.__dataclass_fields__[name]
        assert arguments[name].choices == ["", *field.metadata["among"]]
    assert all(len(argument.description) > 10 for argument in arguments.values())


PARENT = """
from launch import LaunchDescription
from launch.actions import ExecuteProcess, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import SetParametersFromFile


def include(name, **arguments):
    source = PythonLaunchDescriptionSource(f"{folder}/{name}")
    return IncludeLaunchDescription(source, launch_arguments=arguments.items())


def environment(name):
    return ExecuteProcess(cmd=["sh", "-c", f"env > {place}/{name}.part && mv {place}/{name}.part {place}/{name}"])


folder, place, model = {arguments!r}


def generate_launch_description():
    return LaunchDescription([
        GroupAction([
            SetParametersFromFile(f"{place}/parent.yaml"),
            include("tracker.launch.py", namespace="/launched", image_topic="/launched/image", model=model,
                    params_file=f"{place}/own.yaml", reliability="reliable", respawn="true", viewer="true",
                    viewer_port="0"),
        ]),
        GroupAction([include("camera_environment.launch.py"), environment("camera")]),
        environment("after"),
    ])
"""


def test_launched_by_a_parent_it_tracks_and_comes_back_when_killed(launch, world, model, clip, tmp_path, monkeypatch):
    """Parameters from four places, each where it should count; the viewer's page; environments; kill -9."""
    pytest.importorskip("tornado", reason="needs tornado (pip install 'lighttrack_ros[viewer]')")
    if shutil.which("ros2") is None:
        pytest.skip("needs the command ros2")
    for name in transport_environment({}):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "parent.yaml").write_text(
        "/**: {ros__parameters: {buffer_seconds: 2.5, reliability: best_effort, buffer_megabytes: 11}}"
    )
    (tmp_path / "own.yaml").write_text("/**: {ros__parameters: {buffer_megabytes: 12, threads: 1}}")
    arguments = (str(LAUNCH_FILE.parent), str(tmp_path), str(model))
    (tmp_path / "parent.launch.py").write_text(PARENT.replace("{arguments!r}", repr(arguments)))
    process = NodeProcess(["ros2", "launch", str(tmp_path / "parent.launch.py")])
    tracker = Tracker(world, "launched", process)
    try:
        tracker.wait_until_connected()
        process.wait_for_output("page: http://127.0.0.1:")
        names = ["buffer_seconds", "buffer_megabytes", "reliability", "threads", "spin"]
        seconds, megabytes, reliability, threads, spin = tracker.get_parameters(names)
        assert (seconds.double_value, megabytes.integer_value) == (2.5, 12)
        assert (reliability.string_value, threads.integer_value, spin.bool_value) == ("reliable", 1, False)
        for place in ("camera", "after"):
            tracker.wait_for((tmp_path / place).exists, f"the environment of {place}")
        variables = {name for name in transport_environment({}) if "FAST" in name}
        assert all(f"{name}=" in (tmp_path / "camera").read_text() for name in variables)
        assert not any(f"{name}=" in (tmp_path / "after").read_text() for name in variables)
        tracker.start_on(clip, target_id="before")
        (pid,) = node_pids("/launched")
        os.kill(pid, signal.SIGKILL)
        tracker.wait_for(lambda: (pids := node_pids("/launched")) and pids != [pid], "the node's next process")
        tracker.targets.clear()
        tracker.wait_until_connected()
        tracker.start_on(clip, target_id="after")
        for image in clip.images[1:5]:
            assert tracker.track(image, clip.fresh_stamp()).target_id == "after"
    finally:
        tracker.close()


def node_pids(namespace: str) -> list[int]:
    """Of the trackers that were started in a namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if f"__ns:={namespace}" in words and any(word.endswith("tracker_node") for word in words):
                found.append(int(path.parent.name))
    return found

"""The node while its model is compiled."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from lifecycle_msgs.srv import ChangeState  # noqa: E402
from node_harness import NodeProcess, Tracker, node_command  # noqa: E402


@pytest.mark.parametrize("autostart", [True, False])
@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_a_compilation_is_in_the_diagnostics_and_ends_with_the_node(world, tmp_path, monkeypatch, backend, autostart):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    namespace = f"compiling_{backend}_{autostart}".lower()
    parameters = {"backend": backend, "autostart": autostart, "diagnostics_period": 0.1}
    python, _, _, *arguments = node_command(namespace, **parameters)
    process = NodeProcess([python, str(Path(__file__).parents[1] / "node_on_double.py"), *arguments])
    assert python == sys.executable
    tracker = Tracker(world, namespace, process)
    try:
        if not autostart:
            configure = ChangeState.Request()
            configure.transition.label = "configure"
            tracker.ask(ChangeState, "change_state", configure)
        shown = re.compile(r"configuring: compiling lighttrack_nano/template\.onnx for Double in fp16, [1-9]\d* s")
        tracker.wait_for(lambda: tracker.status and shown.fullmatch(tracker.status.message), shown.pattern)
        assert tracker.status.level == b"\x00"
        assert process.interrupt(times=2) == 0, process.output
        assert "the compilation stops soon" in process.output
        assert "nothing is left on the GPU" in process.output
        assert "Traceback" not in process.output
    finally:
        tracker.close()
    assert not list(tmp_path.rglob("*.plan"))

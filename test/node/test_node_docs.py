"""docs/node.md and config/tracker.yaml list what the code declares, and the node has just that."""

from __future__ import annotations

import re
import runpy

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import ROOT

from lighttrack_ros.node import interface
from lighttrack_ros.node.detections import INSTALLED
from lighttrack_ros.node.diagnostics import VALUES

EVERY_NODES = re.compile(  # what rclpy gives each lifecycle node
    r"/rosout|/parameter_events|.*/(transition_event|change_state|get_state|get_available_states|"
    r"get_available_transitions|get_transition_graph|get_type_description|\w*_parameters|\w*_parameters_atomically|"
    r"get_parameter_types)"
)


def test_the_tables_are_as_the_code_has_them():
    script = runpy.run_path(str(ROOT / "scripts/node_docs.py"))
    page, config = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/node.md", "config/tracker.yaml"))
    assert script["with_tables"](page) == page, "docs/node.md is not what the code declares: run `make docs`"
    assert script["config"]() == config, "config/tracker.yaml is not what the code declares: run `make docs`"


def test_the_node_has_every_declared_topic_and_service_and_no_other(start, world):
    tracker = start()
    tracker.wait_until_connected()
    namespace, name = tracker.name.split("/")
    found: dict[str, str] = {}
    for ask in (
        world.node.get_publisher_names_and_types_by_node,
        world.node.get_subscriber_names_and_types_by_node,
        world.node.get_service_names_and_types_by_node,
    ):
        found.update({topic: types[0] for topic, types in ask(name, f"/{namespace}")})
    ours = {
        topic.replace(f"/{tracker.name}/", "~/").replace(f"/{namespace}/", ""): kind
        for topic, kind in found.items()
        if not EVERY_NODES.fullmatch(topic)
    }
    declared = [item for item in vars(interface).values() if isinstance(item, interface.Declared)]
    assert ours == {
        item.name: item.type
        for item in declared
        if item is not interface.COMPRESSED_IMAGE and (INSTALLED or not item.type.startswith("vision_msgs/"))
    }


def test_the_diagnostics_hold_every_declared_value_and_no_other(start, clip):
    tracker = start()
    tracker.wait_until_connected()
    tracker.start_on(clip, target_id="dog")
    found = {key.replace("'dog'", "'NAME'") for key in tracker.counts()}
    assert found == set(VALUES) - {"stopped_at_exit_N"}  # of networks with exits

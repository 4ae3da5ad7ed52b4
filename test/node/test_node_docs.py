"""docs/node.md lists what the node really has: topics, services, parameters, diagnostics; names, types and defaults."""

from __future__ import annotations

import dataclasses
import re

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import ROOT

from lighttrack_ros.node.parameters import ANY_TIME, AT_START, UNCONFIGURED, Parameters

TEXT = (ROOT / "docs/node.md").read_text(encoding="utf-8")
EVERY_NODES = re.compile(  # what rclpy gives each lifecycle node
    r"/rosout|/parameter_events|.*/(transition_event|change_state|get_state|get_available_states|"
    r"get_available_transitions|get_transition_graph|get_type_description|\w*_parameters|\w*_parameters_atomically|"
    r"get_parameter_types)"
)


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented() -> dict[str, str]:
    """Topic or service -> its type, as the document writes it."""
    return {name: row[1].split(",")[0] for row in rows("Topics and services") for name in names(row[0])[:1]}


def test_every_topic_and_service_is_in_the_table_with_its_type(start, world):
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
    table = documented()
    ours = {topic: kind for topic, kind in found.items() if not EVERY_NODES.fullmatch(topic)}
    assert len(ours) >= 9
    for topic, kind in ours.items():
        short = topic.replace(f"/{tracker.name}/", "~/").replace(f"/{namespace}/", "")
        assert short in table, f"{topic} is missing in docs/node.md"
        assert table[short] == re.sub("/(msg|srv)/", "/", kind), short


def test_every_topic_and_service_in_the_table_is_in_the_code():
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lighttrack_ros/node").glob("*.py"))
    for name in documented():
        assert f'"{name}"' in code or f'"{name.split("/")[0]}"' in code, name


def test_the_table_of_parameters_has_every_default_and_when_it_may_be_changed():
    table = {name: row for row in rows("Parameters") for name in names(row[0])[:1]}
    fields = {field.name: field for field in dataclasses.fields(Parameters)}
    assert {name for name in table if "<topic>" not in name} == set(fields)
    whens = {ANY_TIME: "any time", UNCONFIGURED: "unconfigured", AT_START: "at the start"}
    for name, field in fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        assert re.match(rf"`?{re.escape(default)}\b", table[name][1]), name
        assert table[name][2] == whens[field.metadata["when"]], name


def test_every_value_of_the_diagnostics_is_in_the_table(start):
    tracker = start()
    tracker.wait_until_connected()
    known = {name for row in rows("Diagnostics") for name in names(row[0])}
    found = set(tracker.counts())
    assert found <= known, found - known
    assert {name for name in known if "N" not in name} <= found, known - found

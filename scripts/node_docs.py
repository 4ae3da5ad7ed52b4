"""`make docs`: write the tables of docs/node.md, and config/tracker.yaml, from what the node's code declares."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rclpy.qos import ReliabilityPolicy

from lighttrack_ros.node import interface
from lighttrack_ros.node.diagnostics import VALUES
from lighttrack_ros.node.parameters import ANY_TIME, AT_START, UNCONFIGURED, Parameters, expected

PAGE = Path(__file__).resolve().parents[1] / "docs/node.md"
CONFIG = Path(__file__).resolve().parents[1] / "config/tracker.yaml"
WHEN = {ANY_TIME: "any time", UNCONFIGURED: "unconfigured", AT_START: "at the start"}
RELIABILITY = {
    ReliabilityPolicy.RELIABLE: "reliable",
    ReliabilityPolicy.BEST_EFFORT: "best effort",
    None: "parameter `reliability`",
}


def with_tables(page: str) -> str:
    """The page with every table between its markers as the code has it now.

    Raises:
        ValueError: the page lacks the markers of a table, or has them twice.
    """
    for name, make in (("topics", topics), ("parameters", parameters), ("diagnostics", diagnostics)):
        begin, end = f"<!-- generated: {name}, by `make docs` -->\n", "<!-- end -->\n"
        if page.count(begin) != 1 or end not in page.partition(begin)[2]:
            raise ValueError(f"{PAGE}: expected once {begin.strip()} and later {end.strip()}")
        before, _, after = page.partition(begin)
        page = before + begin + make() + end + after.partition(end)[2]
    return page


def topics() -> str:
    rows = []
    for declared in vars(interface).values():
        if isinstance(declared, interface.Declared):
            way, qos = "service", ""
            if isinstance(declared, interface.Topic):
                way = "in" if isinstance(declared, interface.Subscribed) else "out"
                qos = f"{RELIABILITY[declared.reliability]}, depth {declared.depth}"
            rows.append((f"`{declared.name}` ({way})", declared.type, qos, declared.what))
    return table(("name", "type", "QoS", "what"), rows)


def parameters() -> str:
    rows = []
    for field in dataclasses.fields(Parameters):
        what, when = field.metadata["description"], WHEN[field.metadata["when"]]
        rows.append((f"`{field.name}`", f"`{default_of(field)}`", expected(field), what, when))
    return table(("parameter", "default", "values", "what", "may be changed"), rows)


def config() -> str:
    """config/tracker.yaml: every parameter at its default, with its table row as a comment."""
    lines = [
        "# The tracker's parameters, all at their defaults; written by `make docs`.",
        "# ros2 run lighttrack_ros tracker_node --ros-args --params-file tracker.yaml",
        "/**:",
        "  ros__parameters:",
    ]
    for field in dataclasses.fields(Parameters):
        comment = f"{field.metadata['description']} ({expected(field)}; may be changed: {WHEN[field.metadata['when']]})"
        lines += [f"    # {line}" for line in textwrap.wrap(comment, 114)]
        lines.append(f"    {field.name}: {default_of(field)}")
    return "\n".join(lines) + "\n"


def default_of(field: dataclasses.Field[Any]) -> str:
    """As YAML writes it."""
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def diagnostics() -> str:
    return table(("key", "what"), [(f"`{key}`", what) for key, what in VALUES.items()])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ("---",) * len(head), *rows))


if __name__ == "__main__":
    CONFIG.write_text(config(), encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

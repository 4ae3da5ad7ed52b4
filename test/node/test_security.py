"""config/sros2_policy.xml allows what a running node does, so that it starts with security enforced, and no more."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from node_harness import ROOT

CAMERA = "/camera/image_raw"
MAYBE = {  # where other parameters, a simulation's clock, or vision_msgs are
    f"{CAMERA}/compressed",
    "/clock",
    "init_detection",
    "init_detections",
    "detections",
    "~/detections",
}


def allowed(kind: str, way: str) -> set[str]:
    profile = ElementTree.parse(ROOT / "config/sros2_policy.xml").find(".//profile[@node='tracker']")
    assert profile is not None
    return {str(item.text) for group in profile.findall(f"{kind}[@{way}='ALLOW']") for item in group}


def test_the_policy_allows_what_the_node_does_and_no_more(start, world):
    tracker = start()
    tracker.wait_until_connected()
    namespace, name = tracker.name.split("/")

    def found(ask) -> set[str]:
        short = set()
        for topic, _ in ask(name, f"/{namespace}"):
            written = topic.replace(f"/{tracker.name}/", "~/").replace(
                f"/{namespace}/camera_info", "/camera/camera_info"
            )
            written = written.replace(f"/{namespace}/image", CAMERA)
            short.add(written.replace(f"/{namespace}/", ""))
        return short

    for kind, way, ask in (
        ("topics", "subscribe", world.node.get_subscriber_names_and_types_by_node),
        ("topics", "publish", world.node.get_publisher_names_and_types_by_node),
        ("services", "reply", world.node.get_service_names_and_types_by_node),
    ):
        does = found(ask)
        assert does <= allowed(kind, way), does - allowed(kind, way)
        assert allowed(kind, way) - does <= MAYBE | {"/parameter_events"}, allowed(kind, way) - does

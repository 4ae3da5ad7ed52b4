"""Python's logging into a node's log, through rclpy's own logger."""

import logging

import pytest

rclpy_logging = pytest.importorskip("rclpy.logging")


def test_every_level_arrives_and_more_than_once(capfd, monkeypatch):
    from lighttrack_ros.node.logs import forward_logs

    package = logging.getLogger("lighttrack_ros")
    monkeypatch.setattr(package, "handlers", [])
    monkeypatch.setattr(package, "level", package.level)
    forward_logs(rclpy_logging.get_logger("logs_test"))
    for _ in range(2):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("lighttrack_ros.runtime.tensorrt").log(level, "compiled in %.1f s", level)
    output = "".join(capfd.readouterr())
    assert [output.count(f"compiled in {level}.0 s") for level in (10, 20, 30, 40)] == [0, 2, 2, 2]
    assert "WARN" in output
    assert "logs_test" in output

"""The example in its closed loop: tracker, follower and drone, three processes."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

from node_harness import NodeProcess, free_domain, wait_for

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples/follow_me"


def test_the_target_stays_in_the_middle_third(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the checkout's sources
    command = [sys.executable, str(FOLDER / "closed_loop.py"), "--seconds", "5", "--size", "320x240", "--rate", "12"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    inside, tracked = map(float, re.search(r"third: ([\d.]+) % .* tracked: ([\d.]+) %", done.stdout).groups())
    assert inside == 100
    assert tracked > 90


def test_it_stops_when_it_hears_nothing_more(world):
    from geometry_msgs.msg import TwistStamped

    from lighttrack_ros.msg import TargetBearing, TargetBearings
    from lighttrack_ros.node.messages import to_time

    heard: list[TwistStamped] = []
    subscription = world.node.create_subscription(TwistStamped, "/stopping/cmd_vel", heard.append, 100)
    bearings = world.node.create_publisher(TargetBearings, "/stopping/bearing", 1)
    arguments = ["--ros-args", "-r", "__ns:=/stopping", "-p", "silence:=0.2", "-p", "max_acceleration:=100.0"]
    node = NodeProcess([sys.executable, str(FOLDER / "follow_me.py"), *arguments])
    try:
        wait_for(bearings.get_subscription_count, "the node", lambda: node.output)
        target = TargetBearing(state=TargetBearing.STATE_TRACKING, azimuth=-0.1, elevation=0.1)
        message = TargetBearings(targets=[target])
        stamps = itertools.count(10**9, 50_000_000)

        def show() -> bool:
            message.header.stamp = to_time(next(stamps))
            bearings.publish(message)
            return bool(heard) and heard[-1].twist.linear.x > 1 and heard[-1].twist.angular.z > 0

        wait_for(show, "a command to follow", lambda: node.output)
        assert heard[-1].header.frame_id == "base_link"
        wait_for(lambda: heard[-1].twist.linear.x == heard[-1].twist.angular.z == 0, "a stop", lambda: node.output)
    finally:
        node.interrupt()
        world.node.destroy_subscription(subscription)
        world.node.destroy_publisher(bearings)

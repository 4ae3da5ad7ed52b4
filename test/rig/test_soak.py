"""A short soak: every act once, then at random; nothing grows, every good box is taken, no internal error."""

import json

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from lighttrack_ros import commands
from lighttrack_ros.rig.soak import Soaked, Window, grown_between


def test_nothing_grows_and_every_box_is_taken(tmp_path, capsys):
    path = tmp_path / "soak.json"
    commands.main(["soak", "--minutes", "0.2", "--json", str(path)])  # its status is also of the time that things took
    shown = capsys.readouterr()
    assert path.exists(), shown.err
    document = json.loads(path.read_text())
    assert document["faults"] == [], shown.out
    assert 1 <= len(document["windows"]) <= 3  # fewer where an act outlasts one
    assert sum(window["sent"] for window in document["windows"]) > 0
    assert document["boxes_answered"] == document["boxes"] >= 8  # every act was played once
    assert int(document["counts"]["bad_images"]) >= 5
    assert all(window["memory_mb"] > 50 and window["threads"] > 3 for window in document["windows"])


def test_what_grew_is_a_fault():
    first = Window(memory=250_000_000, descriptors=26, threads=23)
    assert grown_between(first, Window(memory=262_000_000, descriptors=26, threads=22)) == []
    grown = grown_between(first, Window(memory=280_000_000, descriptors=27, threads=24))
    assert grown == ["descriptors grew from 26 to 27", "threads grew from 23 to 24", "memory grew from 250 to 280 MB"]
    soaked = Soaked([Window(), Window()], {}, 3, 2, {"internal_errors": "1"}, ["threads grew from 3 to 4"], False)
    assert soaked.faults == ["threads grew from 3 to 4", "internal_errors: 1", "1 of 3 good boxes were not taken"]


@pytest.mark.parametrize(("arguments", "words"), [(["--minutes", "0"], "--minutes is 0"), (["--seed", "-1"], "--seed")])
def test_wrong_arguments(arguments, words, capsys):
    assert commands.main(["soak", *arguments]) == 1
    assert words in capsys.readouterr().err

"""The demo as a whole: camera, node and observer in three processes, over DDS; its results; its end."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from lighttrack_ros import commands
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.video import VideoFile, VideoWriter
from lighttrack_ros.rig import demo


class ShortScene(Scene):
    """A second and a half of the scene."""

    def __len__(self):
        return 45


def test_the_demo_follows_the_generated_scene(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "Scene", ShortScene)
    assert commands.main(["demo", "--model", str(model), "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert figures["frames"]["sent"] == 45
    assert figures["frames"]["answered"] + figures["frames"]["dropped"] == 45
    assert figures["accuracy"]["iou"] > 0.6
    assert 0 < figures["processing_ms"]["p50"] < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    assert figures["states"]["tracking"] > 0
    assert len(list(VideoFile(tmp_path / "demo.mp4"))) == 45
    sheet = cv2.imread(str(tmp_path / "demo.png"))
    assert sheet.shape[1] == 1600
    shown = capsys.readouterr().out
    for name in ("demo.mp4", "demo.png", "demo.json"):
        assert str(tmp_path / name) in shown


def test_the_users_own_video_needs_no_truth(model, shared, tmp_path):
    clip = tmp_path / "clip.avi"
    with VideoWriter(clip, 480, 360, 25) as writer:
        for frame in islice(VideoFile(shared / "sequences/bag/bag.avi"), 20):
            writer.write(frame)
    arguments = ["demo", "--model", str(model), "--out", str(tmp_path), "--video", str(clip), "--rate", "15"]
    assert commands.main([*arguments, "--box", "316,140,112,116"]) == 0
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert figures["frames"]["sent"] == 20
    assert figures["accuracy"] is None
    assert figures["hidden"] is None
    assert (tmp_path / "demo.png").is_file()


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_ctrl_c_leaves_no_process_behind(model, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    for index in range(200):
        cv2.imwrite(str(frames / f"{index}.png"), noise)
    command = [
        sys.executable,
        "-m",
        "lighttrack_ros",
        "demo",
        "--video",
        frames,
        "--box",
        "50,40,40,40",
        "--rate",
        "10",
    ]
    command += ["--model", model, "--out", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not (tmp_path / "stamps.csv").is_file():  # the camera has begun
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.1)
    children = children_of(process.pid)
    assert len(children) == 2
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not [child for child in children if os.path.exists(f"/proc/{child}")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no_such_model"], "no_such_model"),
        (["--box", "1,2,3,4"], "--box goes with --video"),
        (["--size", "10"], "--size is '10'"),
        (["--rate", "0"], "--rate is 0"),
        (["--video", "{tmp}/absent.mp4", "--box", "1,2,3,4"], "no such file"),
        (["--video", "{clip}"], "--box is missing"),
        (["--video", "{clip}", "--box", "500,2,3,4"], "lies outside the 64x48 frame"),
        (["--out", "{clip}"], "cannot be written"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(model, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr("lighttrack_ros.commands.demo.run_processes", lambda *_: pytest.fail("started"))
    clip = tmp_path / "clips" / "clip"
    clip.mkdir(parents=True)
    cv2.imwrite(str(clip / "1.png"), np.zeros((48, 64, 3), np.uint8))
    if "{clip}" in arguments[-1] and arguments[0] == "--out":
        clip = clip / "1.png"
    filled = [argument.format(clip=clip, tmp=tmp_path) for argument in arguments]
    defaults = ["--model", str(model), "--out", str(tmp_path / "out")]
    assert commands.main(["demo", *defaults, *filled]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_matplotlib_is_said_before_anything_is_started(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lighttrack_ros.commands.demo.run_processes", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("lighttrack_ros.pictures.plot_file.find_spec", lambda name: None)
    assert commands.main(["demo", "--model", str(model), "--out", str(tmp_path)]) == 1
    assert "pip install 'matplotlib>=3.5'" in capsys.readouterr().err

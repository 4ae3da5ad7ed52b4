"""`lighttrack track`: a video in, boxes and an annotated video out, and every fault found before the run."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lighttrack_ros import commands
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.video import VideoFile, VideoWriter
from lighttrack_ros.pictures.target import STATE_COLOURS, draw_target
from lighttrack_ros.session import State


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Twenty frames of a generated scene as a video, and its true boxes."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    scene = Scene(11, 640, 480)
    frames = [scene[index] for index in range(20)]
    with VideoWriter(path, 640, 480, 30) as writer:
        for frame in frames:
            writer.write(frame.image)
    return path, np.array([frame.box for frame in frames])


def test_the_target_is_followed_and_drawn(clip, model, tmp_path, capsys):
    path, truth = clip
    out, document = tmp_path / "results" / "out.mp4", tmp_path / "results" / "out.json"
    box = ",".join(str(value) for value in truth[0])
    arguments = ["track", path, "--box", box, "--model", model, "--out", out, "--json", document]
    assert commands.main([str(argument) for argument in arguments]) == 0
    records = json.loads(document.read_text())
    assert [record["index"] for record in records["frames"]] == list(range(20))
    boxes = np.array([record["box"] for record in records["frames"]])
    assert metrics.overlaps(boxes, truth).min() > 0.6
    assert {record["state"] for record in records["frames"]} == {"tracking"}
    assert records["step_ms"]["p50"] > 0
    frames = list(VideoFile(out))
    assert len(frames) == 20
    x, y = round(boxes[10][0]), round(boxes[10][1])
    corner = frames[10][y - 2 : y + 3, x - 2 : x + 3].astype(int)
    assert np.abs(corner - STATE_COLOURS[State.TRACKING]).sum(axis=2).min() < 100  # drawn, but for the codec's loss
    shown = capsys.readouterr()
    assert "20 frames: 20 tracking" in shown.out
    assert shown.err == ""  # no progress bar without a terminal


def test_sources_that_know_their_target_need_no_box(model, tmp_path, shared):
    document = tmp_path / "out.json"
    for source in ("scene:3", shared / "sequences/crossing", shared / "sequences/bag/bag.avi"):
        arguments = ["track", source, "--frames", 3, "--model", model, "--json", document]
        assert commands.main([str(argument) for argument in arguments]) == 0
        assert len(json.loads(document.read_text())["frames"]) == 3
    assert json.loads(document.read_text())["frames"][0]["box"] == [316, 140, 112, 116]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{clip}"], "--box is missing"),
        (["{clip}", "--box", "1,2,3"], "--box is '1,2,3'"),
        (["{clip}", "--box", "1,2,3,nan"], "--box is '1,2,3,nan'"),
        (["{clip}", "--box", "10,10,0,20"], "--box is '10,10,0,20'"),
        (["{clip}", "--box", "700,10,20,20"], "700"),
        (["{clip}", "--box", "1,2,30,40", "--out", "{tmp}/a.gif"], "must end in one of"),
        (["{clip}", "--box", "1,2,30,40", "--out", "{clip}/a.mp4"], "cannot be written"),
        (["{clip}", "--box", "1,2,30,40", "--json", "{tmp}"], "cannot be written"),
        (["{clip}", "--box", "1,2,30,40", "--frames", "-1"], "--frames is -1"),
        (["{clip}", "--box", "1,2,30,40", "--model", "no_such_model"], "no_such_model"),
        (["{tmp}/absent.avi", "--box", "1,2,30,40"], "no such file"),
        (["{tmp}", "--box", "1,2,30,40"], "no images"),
        (["{tmp}/broken.mp4", "--box", "1,2,30,40"], "cannot be opened as a video"),
        (["973", "--box", "1,2,30,40"], "camera 973: cannot be opened"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(clip, model, tmp_path, capsys, arguments, message):
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(200))
    before = sorted(os.listdir(tmp_path))
    filled = [argument.format(clip=clip[0], tmp=tmp_path) for argument in arguments]
    if "--model" not in filled:
        filled += ["--model", str(model)]
    assert commands.main(["track", *filled]) == 1
    assert message in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == before


def test_ctrl_c_keeps_what_was_tracked(model, shared, tmp_path):
    document, out = tmp_path / "out.json", tmp_path / "out.avi"
    command = [sys.executable, "-m", "lighttrack_ros", "track", shared / "sequences/woman", "--model", model]
    process = subprocess.Popen([*command, "--json", document, "--out", out], stdout=subprocess.PIPE, text=True)
    limit = time.monotonic() + 30
    while sum(path.stat().st_size for path in tmp_path.glob(".out.*.part.avi")) <= 200_000:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    tracked = len(json.loads(document.read_text())["frames"])
    assert 0 < tracked < 597
    assert len(list(VideoFile(out))) == tracked


def test_ctrl_c_while_a_frame_is_written_ends_after_it(model, shared, tmp_path, monkeypatch):
    write = VideoWriter.write

    def interrupted(self, image, time):
        signal.raise_signal(signal.SIGINT)
        write(self, image, time)

    monkeypatch.setattr(VideoWriter, "write", interrupted)
    arguments = ["track", str(shared / "sequences/woman"), "--model", str(model)]
    assert commands.main([*arguments, "--json", str(tmp_path / "out.json"), "--out", str(tmp_path / "out.avi")]) == 130
    assert len(json.loads((tmp_path / "out.json").read_text())["frames"]) == 1
    assert len(list(VideoFile(tmp_path / "out.avi"))) == 1


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    "box",
    [Box(20, 20, 30, 40), Box(-50, -50, 30, 30), Box(90, 70, 500, 500), Box(5, 5, 0, 0), Box(*[float("nan")] * 4)],
)
def test_any_state_and_any_box_can_be_drawn(state, box):
    for size in ((64, 96), (1, 1), (720, 1280)):
        image = np.zeros((*size, 3), np.uint8)
        draw_target(image, box, state, float("nan") if state == State.IDLE else 0.5, "target 1")
        if size[0] > 64:
            assert (image == STATE_COLOURS[state]).all(axis=2).any()  # at least the name of the state

"""The command line as people use it: pipes, odd names, odd boxes, interruptions, outputs that would cost data."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from lighttrack_ros import commands
from lighttrack_ros.media.video import VideoFile, VideoWriter

BOX = "163.64,88.99,31.40,26.44"


@pytest.fixture
def clip(shared, tmp_path):
    """The scene of the cases, in a folder of its own."""
    shutil.copy(shared / "cases/base_clip.mp4", tmp_path / "clip.mp4")
    return tmp_path / "clip.mp4"


def run(*arguments, **options):
    command = [sys.executable, "-m", "lighttrack_ros", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, **options)


@pytest.mark.parametrize(
    "outputs",
    [
        ["--out", "{clip}"],
        ["--json", "{clip}"],
        ["--out", "{folder}/./../{name}/clip.mp4"],
        ["--json", "{folder}/link.mp4"],
        ["--out", "{folder}/o.mp4", "--json", "{folder}/o.mp4"],
        ["--json", "{folder}/groundtruth.txt"],
    ],
)
def test_no_output_costs_an_input(clip, capsys, outputs):
    folder = clip.parent
    (folder / "link.mp4").symlink_to(clip)
    (folder / "groundtruth.txt").write_text(f"{BOX}\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    filled = [text.format(clip=clip, folder=folder, name=folder.name) for text in outputs]
    assert commands.main(["track", str(clip), "--box", BOX, *filled]) == 1
    assert "is an input" in (error := capsys.readouterr().err) or "written twice" in error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_of_ones_own_is_no_place_for_a_scene(tmp_path, capsys):
    (tmp_path / "img").mkdir()
    cv2.imwrite(str(tmp_path / "img/0001.jpg"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "groundtruth.txt").write_text("1,2,3,4\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert commands.main(["scene", str(tmp_path), "--first", "1"]) == 1
    assert "holds what no scene wrote" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_import_replaces_no_folder_but_a_model(tmp_path, capsys):
    pytest.importorskip("torch", reason="needs torch to import a checkpoint")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.txt").write_text("mine")
    (tmp_path / "x.pth").touch()
    for words, model in (("is no model folder", False), ("holds mine.txt", True)):
        if model:
            (tmp_path / "data/model.yaml").touch()
        arguments = ["import", str(tmp_path / "x.pth"), "--name", "data", "--output", str(tmp_path)]
        assert commands.main(arguments) == 1
        assert words in capsys.readouterr().err
        assert (tmp_path / "data/mine.txt").read_text() == "mine"


def test_the_result_lasts_as_long_as_the_recording(shared, tmp_path, capsys):
    source, out, document = shared / "cases/01_webm_1000fps/screen.webm", tmp_path / "o.mp4", tmp_path / "o.json"
    arguments = ["track", source, "--box", BOX, "--out", out, "--json", document]
    assert commands.main([str(argument) for argument in arguments]) == 0
    times = [time for time, _ in VideoFile(source).timed()]
    np.testing.assert_allclose([time for time, _ in VideoFile(out).timed()], times, atol=0.002)
    records = json.loads(document.read_text())["frames"]
    np.testing.assert_allclose([record["time"] for record in records], times, atol=1e-5)
    assert capsys.readouterr().err == ""


def test_a_damaged_video_says_how_much_was_read(shared, capsys):
    assert commands.main(["track", str(shared / "cases/23_truncated/mid.mp4"), "--box", BOX]) == 0
    shown = capsys.readouterr()
    assert "46 frames: " in shown.out
    assert "46 of the 60 frames that the file announces could be decoded" in shown.err


def test_a_sequence_damaged_in_its_middle_is_named_and_the_others_are_evaluated(tmp_path, capsys):
    for name, count in (("one", 1), ("good", 3), ("bad", 3)):
        (tmp_path / name).mkdir()
        for index in range(count):
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), np.full((64, 64, 3), 40 * index, np.uint8))
        (tmp_path / name / "groundtruth.txt").write_text("10,10,20,20\n" * count)
    (tmp_path / "bad/1.png").write_bytes(b"cut off")
    assert commands.main(["evaluate", "--sequences", str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    shown = capsys.readouterr()
    assert "left out: " in shown.err
    assert "bad/1.png: cannot be decoded" in shown.err
    assert " nan" not in shown.out
    assert sorted(json.loads((tmp_path / "out.json").read_text())["sequences"]) == ["good", "one"]
    assert commands.main(["evaluate", "--sequences", str(tmp_path / "bad")]) == 1


def test_a_box_may_begin_left_of_the_frame_and_one_frame_is_enough(tmp_path, capsys):
    with VideoWriter(tmp_path / "one.mp4", 320, 240, 30) as writer:
        writer.write(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))
    for box in (["--box", "-10,20,64,48"], ["--box=-10,20,64,48"]):
        assert commands.main(["track", str(tmp_path / "one.mp4"), *box]) == 0
        assert capsys.readouterr().out == "1 frames: 1 tracking\n"


def test_names_that_are_not_utf_8(clip, tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    clip.rename(tmp_path / name)
    done = run("track", name, "--box", BOX, "--frames", "3", "--out", os.fsdecode(b"o_\xe9.mp4"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"o_\xe9.mp4" in done.stdout
    assert (tmp_path / os.fsdecode(b"o_\xe9.mp4")).is_file()


def test_no_home_and_nobody_who_reads_to_the_end(clip):
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    assert run("track", clip, "--box", BOX, "--frames", "3", env=environment).returncode == 0
    command = f"'{sys.executable}' -m lighttrack_ros --help | head -1; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("usage: lighttrack")
    assert done.stderr.strip() in ("0", "141")  # whether the pipe was closed in time


@pytest.mark.parametrize(
    "arguments",
    [
        ["track", "{shared}/sequences/woman", "--out", "{folder}/o.mp4"],
        ["scene", "{folder}/scene", "--size", "1920x1080"],
        ["evaluate", "--sequences", "{shared}/sequences"],
        ["bench", "models"],
    ],
)
def test_ctrl_c_is_answered_quietly(clip, shared, arguments):
    if arguments[0] == "bench":
        pytest.importorskip("torch", reason="needs torch")
    filled = [text.format(clip=clip, folder=clip.parent, shared=shared) for text in arguments]
    process = subprocess.Popen([sys.executable, "-m", "lighttrack_ros", *filled], stdout=-1, stderr=-1)
    time.sleep(1.5)  # Python itself has started by then
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert b"Traceback" not in error
    # What a shell shows as 130: a compiled module that is being loaded ends the process by the signal itself.
    assert process.returncode in (130, -signal.SIGINT)
    assert not list(clip.parent.glob(".*.part*"))


def test_a_password_is_in_no_error_and_no_document(shared, tmp_path):
    folder = shared / "cases/02_vfr_count/ts"
    done = run("track", "rtsp://admin:hunter2@127.0.0.1:9/stream1", "--box", BOX)
    assert done.returncode == 1
    assert b"rtsp://***@127.0.0.1:9/stream1" in done.stderr
    serve = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    server = subprocess.Popen(
        [*serve[:1], "-u", *serve[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = server.stdout.readline().split("port ")[1].split()[0]
        address = f"http://admin:hunter2@127.0.0.1:{port}/clip.ts"
        streamed = run("track", address, "--box", BOX, "--frames", "3", "--json", tmp_path / "o.json")
    finally:
        server.kill()
        server.wait()
    assert streamed.returncode == 0, streamed.stderr
    assert json.loads((tmp_path / "o.json").read_text())["source"] == f"http://***@127.0.0.1:{port}/clip.ts"
    assert b"hunter2" not in done.stdout + done.stderr + streamed.stdout + streamed.stderr


def test_replay_says_what_is_missing_in_a_recording(shared, tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    pytest.importorskip("rosbags", reason="needs the extra [bags]")
    bag = tmp_path / "bag"
    shutil.copytree(shared / "cases/06_sqlite_wal/bag", bag)
    for path in bag.glob("*-*"):
        path.unlink()  # without the log, 25 of the 40 are left
    arguments = ["replay", bag, "--no-wait", "--rate", "max"]
    done = run(*arguments)
    assert (done.returncode, b"25 of the 40 images on /camera/image_raw" in done.stderr) == (1, True)
    assert run(*arguments, "--partial").returncode == 0


def test_replay_keeps_the_pace_of_a_video_of_varying_rate(shared, tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    source, log = shared / "cases/01_webm_1000fps/screen.webm", tmp_path / "log.csv"
    assert run("replay", source, "--no-wait", "--log", log).returncode == 0
    stamps = [int(line.split(",")[1]) / 1e9 for line in Path(log).read_text().split()]
    assert len(stamps) == 60
    assert stamps[-1] - stamps[0] > 1.9  # recorded in 1.953 s

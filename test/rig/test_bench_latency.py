"""`lighttrack bench latency` as a whole: a bag, a camera, the node, an echo and this process, over DDS."""

import json
import math
import os
import shutil
import subprocess
import sys
from itertools import islice

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("rosbags.rosbag2", reason="needs the extra [bags]")

from node_harness import ROOT, free_domain

from lighttrack_ros import commands
from lighttrack_ros.commands import bench_latency
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.latency import PARTS, Run
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.scene_files import save_scene_as_bag
from lighttrack_ros.rig import latency_bench


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bag") / "scene"
    save_scene_as_bag(islice(Scene(width=320, height=240, fps=30), 15), 30, folder)
    return folder


def bench(*arguments, environment):
    """In a process of its own: figures of this one's memory and time would be pytest's."""
    command = [sys.executable, "-m", "lighttrack_ros", "bench", "latency", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def environment():
    return {**os.environ, "ROS_DOMAIN_ID": str(free_domain())}


def test_a_bag_gives_figures_that_add_up_and_a_picture(bag, model, tmp_path, environment):
    out = bench(
        "--bag", bag, "--model", model, "--rate", "10", "--runs", "1", "--seconds", "2",
        "--load", "1", "--viewer", "--threads", "1",
        "--json", tmp_path / "figures.json", "--plot", tmp_path / "plot.png", environment=environment,
    )  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["load"] == 1
    assert "pictures a second" in figures["page"]
    for who in ("node", "echo", "loaded", "viewed"):
        frames, latency = figures[who]["frames"], figures[who]["latency_ms"]
        assert frames["sent"] == frames["received"] + frames["missed"]
        assert 10 <= frames["sent"] <= 21
        assert 0 < latency["min"] <= latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
        viewer = {"viewer"} if who == "viewed" else set()
        who_works = "echo" if who == "echo" else "node"
        assert set(figures[who]["cpu_percent"]) == {"camera", who_works, "observer", "others", *viewer}
        assert all(size > 20 for size in figures[who]["memory_mb"].values())
    parts = figures["node"]["parts_ms"]
    assert list(parts) == list(PARTS)
    # The parts are told of all images but those whose word was still on its way.
    assert sum(part["mean"] for part in parts.values()) == pytest.approx(figures["node"]["latency_ms"]["mean"], rel=0.2)
    added = figures["added_ms"]
    assert added["all"] == pytest.approx(added["network"] + added["rest"])
    assert cv2.imread(str(tmp_path / "plot.png")).shape[1] == 1600
    for words in (
        "node beside 1 busy processes",
        "with somebody at the viewer the node's latency is, times the other: p50",
        "times the other: p50",
        "the node adds to the transport",
        "end-to-end latency, node",
        "jitter",
        "figures.json",
        "plot.png",
    ):
        assert words in out


def test_overload_counts_what_it_drops(bag, model, tmp_path, environment):
    bench(
        "--bag", bag, "--model", model, "--overload", "5", "--seconds", "2",
        "--json", tmp_path / "figures.json", "--plot", tmp_path / "plot.svg", environment=environment,
    )  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())
    (row,) = figures["overload"]
    assert row["factor"] == 5
    assert row["frames"]["skipped"] <= row["frames"]["missed"] < row["frames"]["sent"]
    assert row["frames"]["missed"] > 0
    assert len(row["over_time"]["latency_p50_ms"]) == len(row["over_time"]["node_memory_mb"]) == 5
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_further_targets_have_a_row_each(bag, model, tmp_path, environment):
    out = bench(
        "--bag", bag, "--model", model, "--rate", "5", "--runs", "1", "--seconds", "2", "--threads", "1",
        "--targets", "3", "1", "--json", tmp_path / "figures.json", environment=environment,
    )  # fmt: skip
    rows = json.loads((tmp_path / "figures.json").read_text())["targets"]
    assert [row["targets"] for row in rows] == [1, 3]
    for row in rows:
        assert 0 < row["boxes_share"] <= 1
        assert row["latency_ms"]["p50"] > 0
    assert "a further one" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "0"], "--targets is [0], expected numbers from 1 to 16"),
        (["--targets", "17"], "--targets is [17]"),
        (["--targets", "2", "--load", "1"], "--targets goes with"),
        (["--targets", "2", "--rate", "max"], "--targets goes with"),
        (["--rate", "fast"], "--rate is 'fast'"),
        (["--rate", "0"], "--rate is '0'"),
        (["--overload", "-1"], "--overload is"),
        (["--runs", "0"], "--runs is 0"),
        (["--load", "-1"], "--load is -1"),
        (["--load", "1", "--overload", "2"], "--load and --overload"),
        (["--seconds", "nan"], "--seconds is nan"),
        (["--size", "7"], "--size is '7'"),
        (["--model", "no_such_model"], "no_such_model"),
        (["--bag", "{tmp}/absent"], "cannot be read as a rosbag2"),
        (["--bag", "{bag}", "--topic", "/nothing"], "no images on /nothing"),
        (["--topic", "/image"], "--topic goes with --bag"),
        (["--box", "1,2,3,4"], "--box goes with"),
        (["--bag", "{bag}", "--box", "400,2,9,9"], "lies outside the frame of 320 x 240"),
        (["--sequence", "{clip}", "--box", "400,2,9,9"], "lies outside the frame of 64 x 48"),
        (["--sequence", "{tmp}"], "no groundtruth.txt"),
        (["--plot", "{tmp}/plot.bmp"], "must end in one of .png, .svg, .pdf"),
        (["--plot", "{tmp}/plot"], "must end in one of .png, .svg, .pdf"),
        (["--json", "{tmp}"], "cannot be written"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(bag, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(bench_latency, "Rig", lambda *_: pytest.fail("started"))
    clip = tmp_path / "clips" / "clip"
    clip.mkdir(parents=True)
    cv2.imwrite(str(clip / "1.png"), np.zeros((48, 64, 3), np.uint8))
    (clip / "init_box.txt").write_text("1,2,3,4\n")
    filled = [argument.format(bag=bag, tmp=tmp_path, clip=clip) for argument in arguments]
    assert commands.main(["bench", "latency", *filled]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_matplotlib_is_said_before_anything_is_started(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_latency, "Rig", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("lighttrack_ros.pictures.plot_file.find_spec", lambda name: None)
    assert commands.main(["bench", "latency", "--plot", str(tmp_path / "plot.png")]) == 1
    assert "pip install 'matplotlib>=3.5'" in capsys.readouterr().err


def test_why_the_node_cannot_start_is_said_at_once(bag, model, tmp_path, monkeypatch, capsys, environment):
    """The node stays up, unconfigured, and tells its diagnostics; nothing else would end the waiting."""
    monkeypatch.setenv("ROS_DOMAIN_ID", environment["ROS_DOMAIN_ID"])
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "search.onnx").write_bytes(b"no graph")
    assert commands.main(["bench", "latency", "--bag", str(bag), "--model", str(broken)]) == 1
    error = capsys.readouterr().err
    assert "the node is not configured: " in error
    assert "broken/search.onnx" in error


def test_a_bag_without_its_box_is_told_so(bag, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_latency, "Rig", lambda *_: pytest.fail("started"))
    for name in ("metadata.yaml", "scene.mcap"):
        (tmp_path / name).symlink_to(bag / name)
    assert commands.main(["bench", "latency", "--bag", str(tmp_path)]) == 1
    assert "--box is missing" in capsys.readouterr().err


class FakeRig:
    """A tracker that can do so many frames a second, and a camera that can send so many."""

    def __init__(self, can, camera=10_000.0):
        self.can, self.camera, self.asked = can, camera, []

    def measure(self, who, rate, seconds):
        self.asked.append(rate)
        sent = np.arange(0, seconds, 1 / min(rate, self.camera))
        answered = sent[:: max(1, math.ceil(min(rate, self.camera) / self.can))]
        stamps = (answered * 1e9).astype(np.int64)
        parts = np.tile([1e-3, 0, 0.1 / self.can, 0.8 / self.can, 0.1 / self.can], (len(stamps), 1))
        return Run((sent * 1e9).astype(np.int64), stamps, stamps + 10**7, 0, parts)


@pytest.mark.parametrize("can", [8.3, 100.0, 431.0])
def test_the_peak_is_found_to_a_twentieth(can):
    rig = FakeRig(can)
    assert 0.94 * can < latency_bench._peak_throughput(rig, print) <= 1.01 * can
    assert len(rig.asked) < 15


def test_where_the_camera_is_the_limit_it_is_said(capsys):
    assert latency_bench._peak_throughput(FakeRig(500.0, camera=120.0), print) == pytest.approx(120, rel=0.01)
    assert "the camera's process sends no more than" in capsys.readouterr().out


def test_a_machine_too_busy_for_a_peak_is_told_so():
    rig = FakeRig(100.0)
    slow = FakeRig(0.5)
    rig.measure = lambda who, rate, seconds: FakeRig.measure(rig if rate == 15 else slow, who, rate, seconds)
    with pytest.raises(LightTrackError, match="too busy"):
        latency_bench._peak_throughput(rig, print)

"""What is said of a DyTrack's exits: ways that do not disturb each other, thresholds that keep to a budget, tables."""

import dataclasses
import importlib
import json
import math

import cv2
import numpy as np
import pytest
import torch

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import evaluate_sequence
from lighttrack_ros.evaluation.exits import fixed_exits, modes_of, record
from lighttrack_ros.evaluation.tune_exits import best_thresholds, first_stops
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.sequences import load_sequence
from lighttrack_ros.models import load_model, save_model
from lighttrack_ros.networks.dytrack import Architecture, DyTrack
from lighttrack_ros.trackers import Estimate
from lighttrack_ros.trackers.dytrack import DyTrackTracker
from lighttrack_ros.training import exit_figures
from lighttrack_ros.training.exit_figures import macs_of_exits

TINY = Architecture(channels=64, exit_channels=16, exits=(1, 2, 3), template_size=32, search_size=64)
FRAMES = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("exits")
    torch.manual_seed(0)
    network = DyTrack(TINY).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    torch.save(network.state_dict(), place / "dytrack.pth")
    assert main(["import", str(place / "dytrack.pth"), "--name", "tiny", "--output", str(place / "engines")]) == 0
    return load_model(place / "engines/tiny")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two of noise; in one the target is hidden for a frame."""
    place = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        (place / name / "img").mkdir(parents=True)
        lines = [f"{60 + 2 * number},50,30,24" for number in range(FRAMES)]
        lines[4] = "nan,nan,nan,nan" if name == "two" else lines[4]
        (place / name / "groundtruth.txt").write_text("\n".join(lines))
        for number in range(FRAMES):
            noise = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
            cv2.imwrite(str(place / name / f"img/{number:04d}.jpg"), noise)
    return place


def test_ways_that_share_engines_do_not_disturb_each_other(model, videos):
    # Guards and thresholds such that frames stop here and there.
    settings = dataclasses.replace(model.hyper_parameters, modes={"balanced": (0.5, 0.5)}, doubt=0.0)
    model = dataclasses.replace(model, hyper_parameters=settings)
    sequences = [load_sequence(videos / name) for name in ("one", "two")]
    ways = fixed_exits(model) | modes_of(model)
    tracker = DyTrackTracker(model, threads=1)
    records = record(tracker, ways, sequences)
    tracker.close()
    for index in range(3):
        assert {stop for each in records for stop in each.tracks[f"exit {index}"].exits} == {index}
    for name, parameters in ways.items():
        alone = DyTrackTracker(dataclasses.replace(model, hyper_parameters=parameters), threads=1)
        for each in records:
            expected = evaluate_sequence(alone, each.sequence)
            np.testing.assert_array_equal(np.array(each.tracks[name].boxes), expected.boxes)
            assert len(each.tracks[name].seconds) == len(each.tracks[name].step_seconds) == FRAMES - 1
        alone.close()


class _Scripted:
    """Says the same three boxes for every frame, and notes where it was to look."""

    def __init__(self, boxes):
        self.boxes, self.looked = boxes, []

    def init(self, frame, box):
        self.target = box

    def answers(self, frame):
        self.looked.append(self.target)
        return [Estimate(box, 0.1 * index, exit_index=index) for index, box in enumerate(self.boxes)]


def test_the_probe_goes_the_way_of_the_last_exit_and_begins_again_where_that_is_lost(videos):
    sequence = load_sequence(videos / "two")
    last = Box(64, 50, 30, 24)  # right in frame 2, far off later
    tracker = _Scripted([Box(0, 0, 10, 10), Box(66, 50, 30, 24), last])
    probe = record(tracker, {}, [sequence])[0].probe
    truth = [Box(*row) for row in sequence.truth.tolist()]
    assert tracker.looked[::2][:4] == [truth[0], *[last] * 3]  # beside it, from the truth
    assert probe.qualities[0].tolist() == pytest.approx([0, 0.1, 0.2])
    assert probe.overlaps[1].tolist() == pytest.approx([0, 28 / 32, 1])
    assert np.isnan(probe.overlaps[3]).all()

    tracker = _Scripted([last, last, Box(0, 0, 10, 10)])
    record(tracker, {}, [sequence])
    # Looks of the probe, and from the truth, in turn; nobody knows where the target was in frame 4.
    expected = [truth[0], truth[0], truth[1], truth[1], truth[2], truth[2], truth[3], truth[3]]
    assert tracker.looked == [*expected, Box(0, 0, 10, 10), truth[5], truth[5], truth[6], truth[6]]


QUALITIES = np.array([[0.9, 0.9], [0.8, 0.9], [0.3, 0.9], [0.2, 0.9]])
OVERLAPS = np.array([[0.8, 0.8], [0.7, 0.8], [0.1, 0.8], [0.5, 0.8]])


@pytest.mark.parametrize(
    ("budget", "stops"),
    [(1.0, [0, 1, 1, 1]), (0.8, [0, 0, 1, 1]), (0.74, [0, 0, 0, 1]), (0.5, [0, 0, 0, 0])],
    ids=["all", "a half", "a quarter: not what would help most, the threshold cannot pick it", "none"],
)
def test_thresholds_buy_the_most_overlap_that_the_budget_allows(budget, stops):
    thresholds = best_thresholds(QUALITIES, OVERLAPS, np.array([0.5, 1.0]), budget)
    assert first_stops(QUALITIES, thresholds).tolist() == stops


def test_thresholds_do_not_rise_and_the_last_exit_always_stops():
    rng = np.random.default_rng(0)
    overlaps = rng.random((50, 3)) ** [3, 2, 1]
    thresholds = best_thresholds(rng.random((50, 3)), overlaps, np.array([0.3, 0.6, 1.0]), 0.7)
    assert sorted(thresholds, reverse=True) == list(thresholds)
    assert first_stops(np.zeros((2, 3)), (math.inf, math.inf)).tolist() == [2, 2]
    with pytest.raises(LightTrackError, match=r"the first exit alone costs 0\.3"):
        best_thresholds(rng.random((50, 3)), overlaps, np.array([0.3, 0.6, 1.0]), 0.2)


def test_tuned_thresholds_are_in_the_model(model, videos, capsys):
    before = model.hyper_parameters
    assert main(["tune-exits", str(model.folder), "--sequences", str(videos), "--only", "two", "--threads", "1"]) == 0
    assert "6 frames; overlap at each exit" in capsys.readouterr().out  # neither the first nor the hidden one
    after = load_model(model.folder).hyper_parameters
    assert set(after.modes) == {"fast", "balanced", "accurate"}
    assert after.modes != before.modes
    assert dataclasses.replace(after, modes=before.modes) == before
    save_model(model)


@pytest.mark.parametrize(
    ("module", "work", "command"),
    [
        ("tune_exits", "record", ["tune-exits", "{model}", "--sequences", "{videos}"]),
        ("fit_session", "harvest", ["fit-session", "{model}", "--sequences", "{videos}", "--write"]),
    ],
)
def test_a_model_that_cannot_be_written_is_told_before_the_work(
    model, videos, monkeypatch, capsys, module, work, command
):
    """Permissions do not stop root, so the refusal is made up."""
    module = importlib.import_module(f"lighttrack_ros.commands.{module}")

    def refuse(path):
        raise LightTrackError(f"{path}: refused")

    monkeypatch.setattr(module, "check_writable", refuse)
    monkeypatch.setattr(module, work, lambda *_: pytest.fail("followed"))
    assert main([part.format(model=model.folder, videos=videos) for part in command]) == 1
    assert "model.yaml: refused" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["tune-exits"], ["bench", "exits"]])
def test_sequences_without_truth_are_left_out_and_missed_where_there_are_no_others(model, tmp_path, capsys, command):
    untold = tmp_path / "untold"
    untold.mkdir()
    cv2.imwrite(str(untold / "1.jpg"), np.zeros((60, 80, 3), np.uint8))
    (untold / "init_box.txt").write_text("1,2,30,40")
    assert main([*command, str(model.folder), "--sequences", str(tmp_path)]) == 1
    assert "no sequence with ground truth in it" in capsys.readouterr().err


def test_what_to_compare_with_is_looked_at_before_the_work(model, videos, monkeypatch, capsys):
    monkeypatch.setattr(exit_figures, "_record", lambda *_: pytest.fail("recorded"))
    assert main(["bench", "exits", str(model.folder), "--sequences", str(videos), "--against", "lighttrack_nano"]) == 1
    assert "a model for the tracker 'lighttrack', not for 'dytrack'" in capsys.readouterr().err


def test_the_tables_of_a_model_against_itself(model, videos, tmp_path, capsys):
    report = tmp_path / "exits.json"
    command = ["bench", "exits", str(model.folder), "--sequences", str(videos), "--against", str(model.folder)]
    assert main([*command, "--threads", "1", "--json", str(report)]) == 0
    assert "by chance, equal shares" in capsys.readouterr().out
    figures = json.loads(report.read_text())
    assert [row["macs_m"] for row in figures["exits"]] == pytest.approx(macs_of_exits(TINY))
    assert figures["exits"][2]["macs_share"] == figures["exits"][2]["time_share"] == 1
    for row in figures["modes"] + figures["stopping"]:
        assert sum(row["shares"]) == pytest.approx(1)
        expected = np.dot(row.get("shares"), [each["network_ms"] for each in figures["exits"]])
        assert row.get("expected_ms", expected) == pytest.approx(expected)
    oracle = figures["stopping"][-1]
    assert oracle["overlap"] >= figures["exits"][2]["overlap"] - 0.05
    assert sum(row["frames"] for row in figures["difficulty"] if row["measure"] == "miss") == 2 * FRAMES - 3
    assert sum(row["frames"] for row in figures["difficulty"] if row["measure"] == "motion") == 2 * FRAMES - 4
    for row in figures["against"]["exits"]:
        assert row["auc"] == row["other_auc"]
        assert row["overlap"] == row["other_overlap"]
        assert row["sequences_better"] == 0


def test_work_rises_by_the_blocks_of_each_stage():
    first, second, third = macs_of_exits(TINY)
    block = 16 * 12 * 64**2 + 2 * 16 * (16 + 4) * 64  # layers, then queries by keys and weights by values
    assert second - first == pytest.approx(third - second)
    assert (second - first) * 1e6 > block
    deeper = macs_of_exits(dataclasses.replace(TINY, exits=(1, 2, 4)))
    assert (deeper[2] - third) * 1e6 == pytest.approx(block)

"""One-pass evaluation: what is compared with what, and the file that it leaves."""

import json

import cv2
import numpy as np
import pytest

from lighttrack_ros import commands
from lighttrack_ros.commands import evaluate
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import Evaluation, evaluate_sequence
from lighttrack_ros.media.sequences import load_sequence
from lighttrack_ros.trackers.base import Estimate, Tracker


class ShiftingTracker(Tracker):
    """Answers the first box moved right by one pixel a frame; the work it puts off is two steps."""

    target = None  # the evaluation leaves it alone
    backend = "numpy"

    def __init__(self):
        self.log = []
        self.waiting = 0

    def another(self):
        return type(self)()

    def init(self, frame, box):
        self.log.append("init")
        self.box, self.frames = box, 0

    def update(self, frame):
        assert self.waiting == 0, "a frame came before the work of the last one was done"
        self.log.append("update")
        self.frames += 1
        self.waiting = 2
        return Estimate(self.box._replace(x=self.box.x + self.frames), 0.5)

    def idle_work(self, seconds=float("inf")):
        self.waiting -= self.waiting > 0
        return self.waiting > 0

    def close(self):
        self.log.append("close")


def write_sequence(folder, boxes):
    (folder / "img").mkdir(parents=True)
    for index in range(len(boxes)):
        cv2.imwrite(str(folder / "img" / f"{index + 1:04d}.png"), np.full((60, 80, 3), index, np.uint8))
    (folder / "groundtruth.txt").write_text("".join(",".join(map(str, box)) + "\n" for box in boxes))


@pytest.fixture
def sequences(tmp_path):
    """One that the tracker follows exactly, one that it loses by ten pixels and that hides its target once."""
    write_sequence(tmp_path / "exact", [(10 + index, 10, 20, 20) for index in range(5)])
    still = [(10, 10, 10, 10)] * 21
    still[20] = ("nan",) * 4
    write_sequence(tmp_path / "still", still)
    (tmp_path / "untold").mkdir()
    cv2.imwrite(str(tmp_path / "untold" / "1.png"), np.zeros((60, 80, 3), np.uint8))
    (tmp_path / "untold" / "init_box.txt").write_text("1,1,5,5")
    return tmp_path


def test_the_first_box_counts_and_hidden_frames_do_not(sequences):
    tracker = ShiftingTracker()
    steps = []
    results = [
        evaluate_sequence(tracker, load_sequence(sequences / name), lambda: steps.append(1))
        for name in ("exact", "still")
    ]
    assert tracker.log == ["init", *["update"] * 4, "init", *["update"] * 20]
    assert len(steps) == 5 + 21
    exact, still = results
    assert exact.accuracy.iou == 1.0
    assert exact.accuracy.frames == 5
    assert exact.boxes[0].tolist() == [10, 10, 20, 20]
    assert len(exact.step_seconds) == 4
    # Overlaps of a 10-pixel box moved by 0, 1, .. 9 pixels, then none.
    expected = [(10 - shift) / (10 + shift) for shift in range(10)] + [0] * 10
    assert still.accuracy.frames == 20
    assert still.accuracy.iou == pytest.approx(np.mean(expected))
    # The mean weighs sequences, not frames.
    assert Evaluation(results).mean.iou == pytest.approx((1 + np.mean(expected)) / 2)
    assert len(Evaluation(results).as_json()["sequences"]) == 2


def test_a_sequence_without_truth_cannot_be_evaluated(sequences):
    with pytest.raises(LightTrackError, match="untold: no ground truth"):
        evaluate_sequence(ShiftingTracker(), load_sequence(sequences / "untold"))


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command line, with the tracker above for every model."""
    tracker = ShiftingTracker()
    monkeypatch.setattr(evaluate, "create_tracker", lambda *_: tracker)
    monkeypatch.setattr(
        evaluate, "load_model", lambda name: type("Model", (), {"name": name, "folder": tmp_path / "model"})
    )

    def run(*arguments):
        return commands.main(["evaluate", "--model", "shifting", *map(str, arguments)])

    run.tracker = tracker
    return run


def test_the_command_writes_exactly_the_promised_figures(command, sequences, capsys):
    path = sequences / "figures" / "out.json"
    assert command("--sequences", sequences, "--json", path) == 0
    document = json.loads(path.read_text())
    assert set(document) == {"mean", "sequences"}
    assert set(document["sequences"]) == {"exact", "still"}
    for figures in (document["mean"], *document["sequences"].values()):
        assert set(figures) == {"auc", "iou", "sr50", "precision20", "step_ms"}
        assert set(figures["step_ms"]) == {"p50", "p95", "p99"}
    shown = capsys.readouterr()
    assert shown.out.startswith("shifting on numpy, ")  # what runs it, where "auto" was asked for
    assert "left out, without ground truth: untold" in shown.out
    assert [line.split()[0] for line in shown.out.splitlines()[-4:-1]] == ["exact", "still", "mean"]
    assert shown.err == ""  # no progress bar without a terminal
    assert command.tracker.log[-1] == "close"


def test_sequences_can_be_chosen_and_left_out(command, sequences, capsys):
    path = sequences / "out.json"
    assert command("--sequences", sequences, "--skip", "still", "untold", "--json", path) == 0
    assert set(json.loads(path.read_text())["sequences"]) == {"exact"}
    assert command("--sequences", sequences / "exact", "--json", path) == 0
    assert "exact" in capsys.readouterr().out


def test_a_clip_of_one_frame_has_no_step_times(command, tmp_path):
    write_sequence(tmp_path / "single", [(1, 1, 5, 5)])
    assert command("--sequences", tmp_path, "--json", tmp_path / "out.json") == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["mean"]["step_ms"] == {"p50": None, "p95": None, "p99": None}
    assert figures["mean"]["auc"] == pytest.approx(20 / 21)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sequences", "{}/absent"], "no such folder"),
        (["--sequences", "{}/untold"], "no sequence with ground truth"),
        (["--sequences", "{}", "--only", "nothing"], "no sequence named nothing"),
        (["--sequences", "{}", "--json", "{}"], "cannot be written"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_tracked(command, sequences, capsys, arguments, message):
    assert command(*(argument.format(sequences) for argument in arguments)) == 1
    assert message in capsys.readouterr().err
    assert "init" not in command.tracker.log


def test_the_published_weights_keep_their_accuracy(mobile, shared, tmp_path):
    """Two short sequences, with the figures of the whole run in docs/models.md."""
    path = tmp_path / "out.json"
    arguments = ["evaluate", "--model", str(mobile), "--sequences", str(shared / "sequences")]
    assert commands.main([*arguments, "--only", "car-shadow", "boat1", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())["sequences"]
    assert figures["car-shadow"]["auc"] == pytest.approx(0.877, abs=0.01)
    assert figures["boat1"]["auc"] == pytest.approx(0.884, abs=0.01)

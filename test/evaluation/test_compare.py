"""`lighttrack bench compare`: who takes part, what is counted, and that every frame reaches everybody in turn."""

import dataclasses
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.compare import Entrant, compare, count_failures
from lighttrack_ros.evaluation.opencv_trackers import CLASSICAL, CONTRIB, OpenCvTracker
from lighttrack_ros.evaluation.plain_lighttrack import plain_lighttrack
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.sequences import load_sequence, resized, save_scene
from lighttrack_ros.models import load_model
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.base import Estimate


class Scripted:
    """Says what it is told, and writes down that it was asked."""

    def __init__(self, name, log, boxes, confidence=0.5):
        self.name, self.log, self.boxes, self.confidence = name, log, boxes, confidence

    def init(self, frame, box):
        self.log.append(f"{self.name} init")
        self.rest = iter(self.boxes[1:])

    def update(self, frame):
        self.log.append(self.name)
        return Estimate(Box(*next(self.rest)), self.confidence)

    def idle_work(self):
        return False

    def close(self):
        self.log.append(f"{self.name} close")


def write_sequence(folder, boxes):
    (folder / "img").mkdir(parents=True)
    for index in range(len(boxes)):
        cv2.imwrite(str(folder / "img" / f"{index + 1:04d}.png"), np.full((60, 80, 3), index, np.uint8))
    (folder / "groundtruth.txt").write_text("".join(",".join(map(str, box)) + "\n" for box in boxes))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two short clips of the generated scene."""
    folder = tmp_path_factory.mktemp("sequences")
    for name, seed in (("first", 20), ("second", 3)):
        save_scene(Scene(seed, 320, 240, 30.0), folder / name)
        for part in ("groundtruth.txt", "visible.txt"):
            lines = (folder / name / part).read_text().splitlines(keepends=True)
            (folder / name / part).write_text("".join(lines[:12]))
        for path in sorted((folder / name / "img").iterdir())[12:]:
            path.unlink()
    return folder


def test_everybody_gets_every_frame_and_nobody_always_the_first(tmp_path):
    truth = [(10, 10, 20, 20)] * 4
    write_sequence(tmp_path / "clip", truth)
    log = []
    entrants = [
        Entrant("exact", True, "a", Scripted("exact", log, truth)),
        Entrant("off", False, "b", Scripted("off", log, [(10, 10, 20, 20), (50, 40, 5, 5)] + [(15, 10, 20, 20)] * 2)),
        Entrant("gone", False, "b", Scripted("gone", log, truth, confidence=0.0)),
    ]
    frames = []
    exact, off, gone = compare(entrants, [load_sequence(tmp_path / "clip")], lambda: frames.append(1))
    assert log == [
        *("exact init", "off init", "gone init"),
        *("off", "gone", "exact"),
        *("gone", "exact", "off"),
        *("exact", "off", "gone"),
    ]
    assert len(frames) == 4
    assert (exact.evaluation.mean.iou, exact.failures) == (1.0, {"clip": 0})
    assert off.evaluation.mean.iou == pytest.approx((1 + 0 + 0.6 + 0.6) / 4)
    assert off.failures == {"clip": 1}
    assert len(exact.evaluation.results[0].step_seconds) == 2, "the first step is left out"
    assert np.isfinite(exact.cpu_ms)
    assert not gone.evaluation.results[0].step_seconds, "who gives up is not fast"
    assert np.isnan(gone.cpu_ms)


def test_a_failure_is_a_box_that_stops_touching_its_target():
    on, off, hidden = (0.0, 0.0, 9.0, 9.0), (50.0, 0.0, 9.0, 9.0), (np.nan,) * 4
    truth = np.array([on, on, hidden, on, on, on, on])
    boxes = np.array([on, off, off, off, on, off, on])
    assert count_failures(boxes, truth) == 2
    assert count_failures(truth, truth) == 0
    assert count_failures(np.array([off, on]), np.array([on, on])) == 1


def test_opencv_giving_up_keeps_the_last_box():
    answers = iter([(True, (3, 4, 9, 9)), (False, (0, 0, 0, 0)), cv2.error("what now"), (True, (5, 4, 9, 9))])
    starts = []

    def update(image):
        answer = next(answers)
        if isinstance(answer, cv2.error):
            raise answer
        return answer

    tracker = OpenCvTracker("it", lambda: SimpleNamespace(init=lambda *given: starts.append(given[1]), update=update))
    frame = from_bgr(np.zeros((60, 80, 3), np.uint8))
    tracker.init(frame, Box(-2.4, 50.6, 10.0, 30.0))
    assert starts == [(0, 51, 8, 9)], "rounded, and inside the image"
    estimates = [tracker.update(frame) for _ in range(4)]
    assert [estimate.box.x for estimate in estimates] == [3, 3, 3, 5]
    assert [estimate.confidence for estimate in estimates] == [1, 0, 0, 1]


def test_a_comparison_leaves_a_table_figures_and_a_picture(scenes, model, tmp_path, capsys):
    threads = cv2.getNumThreads()
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.png"
    arguments = ["bench", "compare", "--sequences", str(scenes), "--models", str(model), f"{model}@onnxruntime"]
    assert main([*arguments, "--json", str(figures), "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    document = json.loads(figures.read_text())
    here = [name for name, maker in CLASSICAL.items() if hasattr(cv2, maker)]
    assert document["missing"] == [name for name in CLASSICAL if name not in here]
    for name in document["missing"]:
        assert name in said
        assert CONTRIB in said
    first, second, *others = document["trackers"]
    assert second["name"] == f"{first['name']} (onnxruntime)"
    assert [entry["name"] for entry in others] == here
    for ours in (first, second):
        assert ours["mean"]["auc"] == first["mean"]["auc"] > 0.4, "the same model, the same boxes"
        assert set(ours["sequences"]) == {"first", "second"}
    for entry in document["trackers"]:
        assert entry["name"] in said
        assert entry["mean"]["failures"] >= 0
    assert cv2.imread(str(plot)).shape == (740, 1132, 3)
    assert cv2.getNumThreads() == threads, "what others have set is left as it was"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peers", "nowhere"], "nowhere: holds no ONNX files, expected those of a tracker"),
        (["--peers", "{folder}"], "{folder}: holds letter.onnx, expected those of a tracker (nanotrack: *backbone*"),
        (["--peers", "{vit}"], "{vit}/vit.onnx: ONNX Runtime cannot load it"),
        (["--peers", "{vit}@opencv"], "{vit}/vit.onnx: OpenCV cannot load vittrack from it"),
        (["--peers", "{vit}@abacus"], "backend 'abacus', expected onnxruntime or opencv"),
        (["--models", "nobody"], "nobody"),
        (["--models", "{model}@abacus"], "abacus"),
        (["--threads", "0"], "--threads is 0"),
        (["--only", "third"], "no sequence named third"),
        (["--plot", "{text}/plot.png"], "{text}"),
        (["--plot", "plot.bmp"], "plot.bmp: its name must end in one of .png, .svg, .pdf"),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(arguments, words, scenes, model, tmp_path, capsys):
    text, vit = tmp_path / "letter.onnx", tmp_path / "vit"
    vit.mkdir()
    for path in (text, vit / "vit.onnx"):
        path.write_text("Dear Sir or Madam")
    fill = {"text": text, "folder": tmp_path, "vit": vit, "model": model}
    arguments = [argument.format(**fill) for argument in arguments]
    if "--models" not in arguments:
        arguments += ["--models", str(model)]
    assert main(["bench", "compare", "--sequences", str(scenes), *arguments]) == 1
    assert words.format(**fill) in capsys.readouterr().err


def test_a_tracker_that_is_asked_for_and_missing_is_an_error(scenes, model, monkeypatch, capsys):
    monkeypatch.delattr(cv2, CLASSICAL["csrt"], raising=False)
    arguments = ["bench", "compare", "--sequences", str(scenes), "--models", str(model), "--opencv", "csrt"]
    assert main(arguments) == 1
    assert f"{CONTRIB} has it" in capsys.readouterr().err


def test_frames_and_truth_of_different_number_are_refused(tmp_path):
    write_sequence(tmp_path / "clip", [(10, 10, 20, 20)] * 4)
    sequence = load_sequence(tmp_path / "clip")
    (tmp_path / "clip/img/0004.png").unlink()
    sequence.frames.__init__(tmp_path / "clip")
    entrant = Entrant("it", True, "a", Scripted("it", [], [(10, 10, 20, 20)] * 4))
    with pytest.raises(LightTrackError, match="3 frames decoded, 4 lines of truth"):
        compare([entrant], [sequence], lambda: None)


def test_the_plain_port_is_the_same_tracker(scenes, model):
    pytest.importorskip("onnx", reason="needs onnx")
    loaded = load_model(model)
    parameters = dataclasses.replace(loaded.hyper_parameters, near_size=0, middle_size=0, whole_interval=0)
    loaded = dataclasses.replace(loaded, hyper_parameters=parameters)
    plain, ours = plain_lighttrack(loaded, 1), create_tracker(loaded, threads=1)
    sequence = load_sequence(scenes / "first")
    frames = [from_bgr(image) for image in sequence.frames]
    for tracker in (plain, ours):
        tracker.init(frames[0], sequence.init_box)
    for frame in frames[1:]:
        assert plain.update(frame).box == pytest.approx(ours.update(frame).box, abs=0.05)


def test_frames_and_boxes_are_resized_together(scenes):
    sequence = load_sequence(scenes / "first")
    wide = resized(sequence, 640, 120)
    assert {image.shape for image in wide.frames} == {(120, 640, 3)}
    np.testing.assert_allclose(wide.truth, sequence.truth * [2, 0.5, 2, 0.5])
    assert wide.init_box == pytest.approx(wide.truth[0])

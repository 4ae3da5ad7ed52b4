"""lighttrack fit-session: absences that are ones, thresholds that part the two, a model.yaml that says so."""

import dataclasses
import json
import math
import shutil

import cv2
import numpy as np
import pytest

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import absence, fit_session
from lighttrack_ros.evaluation.fit_session import Record
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.sequences import find_sequences
from lighttrack_ros.models import SessionSettings, load_model, save_model
from lighttrack_ros.trackers import Estimate

LENGTH, WIDE, HIGH = 31, 320, 300


def patch_of(seed):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (36, 30), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three sequences of a patch that wanders over a ground."""
    place = tmp_path_factory.mktemp("sequences")
    for seed in range(3):
        rng = np.random.default_rng(seed + 10)
        ground = cv2.GaussianBlur(rng.integers(0, 256, (HIGH, WIDE, 3), np.uint8), (0, 0), 4)
        ground = cv2.normalize(ground, None, 60, 160, cv2.NORM_MINMAX)
        (place / f"walk{seed}").mkdir()
        lines = []
        for index in range(LENGTH):
            x, y = 60 + 3 * index, round(60 + 20 * seed + 10 * math.sin(index / 5))
            image = ground.copy()
            image[y : y + 30, x : x + 36] = patch_of(seed)
            cv2.imwrite(str(place / f"walk{seed}/{index:04d}.png"), image)
            lines.append(f"{x},{y},36,30")
        (place / f"walk{seed}/boxes.txt").write_text("\n".join(lines))
    return place


@pytest.mark.parametrize("kind", absence.KINDS)
def test_a_staged_target_is_gone_where_the_truth_says_so_and_nowhere_else(folder, kind):
    (sequence, other), *_ = absence.others(find_sequences(folder))
    staged = absence.stage(sequence, kind, other)
    assert (staged.gone, len(staged.frames), len(staged.truth)) == (LENGTH // 3, LENGTH, LENGTH)
    hidden = np.isnan(staged.truth).any(axis=1)
    assert hidden[staged.gone : staged.gone + absence.GONE].all()
    assert not hidden[: staged.gone - absence.GONE // 3].any()
    assert not hidden[-1]
    for index, frame in enumerate(staged.frames):
        seen = cv2.matchTemplate(frame, patch_of(0), cv2.TM_CCOEFF_NORMED)
        if staged.gone <= index < staged.gone + absence.GONE:
            assert seen.max() < 0.6
        elif not hidden[index] and tuple(staged.truth[index, 2:]) == (36, 30):
            _, best, _, place = cv2.minMaxLoc(seen)
            assert best > 0.99
            assert place == tuple(staged.truth[index, :2])


def test_what_cannot_be_staged_is_left_out(folder):
    (sequence, other), *_ = absence.others(find_sequences(folder))
    sequence.truth[LENGTH // 2] = np.nan
    assert absence.stage(sequence, "covered", other) is None
    large = find_sequences(folder)[0]
    large.truth[:] = (10, 10, 300, 220)
    assert absence.stage(large, "left", other) is None


def test_the_regression_finds_what_made_the_labels():
    rng = np.random.default_rng(0)
    values = rng.normal((3, 40), (2, 15), (200_000, 2))
    wanted = np.array([1.5, -0.2, 2.0])
    labels = rng.random(len(values)) < 1 / (1 + np.exp(-(values @ wanted[:2] + wanted[2])))
    got = fit_session.logistic_regression(values, labels)
    np.testing.assert_allclose(got[:2], wanted[:2], rtol=0.03)
    # Both classes weigh the same, as if there were as many of each.
    assert got[2] == pytest.approx(wanted[2] - np.log(labels.mean() / (1 - labels.mean())), abs=0.1)


def records(unlike_when_gone, seed=0):
    """Clips of 30 frames, the last 15 without target."""
    rng = np.random.default_rng(seed)
    overlap = np.r_[np.full(15, 0.8), np.full(15, np.nan)]
    made = []
    for _ in range(60):
        estimates = []
        for gone in np.isnan(overlap):
            score = 1 / (1 + np.exp(-rng.normal(3 if gone else 6, 2)))
            angle = np.arccos(1 - (unlike_when_gone if gone else 0.05)) + rng.normal(0, 0.1)
            looks = np.array([np.cos(angle), np.sin(angle)], np.float32)
            estimates.append(Estimate(Box(0, 0, 9, 9), score, appearance=looks))
        made.append(Record(estimates, overlap))
    return made


@pytest.mark.parametrize("unlike", [0.05, 0.5])
def test_thresholds_keep_what_they_promise(unlike):
    made = records(unlike)
    settings = fit_session.fit(made)
    assert (settings.unlikeness > 3) == (unlike == 0.5)
    confidence = np.concatenate([fit_session.confidence(settings, fit_session.evidence(one, settings)) for one in made])
    gone = np.isnan(np.concatenate([one.overlap for one in made]))
    assert np.mean(confidence[~gone] < settings.uncertain) <= fit_session.MAY_DOUBT + 0.02
    assert np.mean(confidence[~gone] >= settings.found) >= fit_session.MUST_RETURN - 0.02
    kept = np.mean(confidence[gone] >= settings.uncertain)
    assert kept < 0.1 if unlike == 0.5 else kept > 0.5
    assert settings.uncertain < settings.found


def test_too_little_to_fit_on_and_scores_that_say_nothing_are_refused():
    with pytest.raises(LightTrackError, match="expected 50"):
        fit_session.fit(records(0.5)[:2])
    backwards = [
        Record([Estimate(seen.box, 1 - seen.confidence) for seen in one.estimates], one.overlap) for one in records(0.5)
    ]
    with pytest.raises(LightTrackError, match="no higher with a target"):
        fit_session.fit(backwards)


def test_the_command_fits_judges_and_writes(folder, model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "mine")
    bare = load_model(tmp_path / "mine")
    save_model(dataclasses.replace(bare, session=SessionSettings()))
    arguments = ["fit-session", str(tmp_path / "mine"), "--sequences", str(folder), "--threads", "1"]
    assert main([*arguments, "--test", "walk0", "--write", "--json", str(tmp_path / "fit.json")]) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "fit.json").read_text())
    fitted = load_model(tmp_path / "mine").session
    assert figures["session"] == dataclasses.asdict(fitted)
    assert fitted != SessionSettings()
    assert fitted.unlikeness > 0
    as_it_is, *staged = figures["kinds"]
    assert (as_it_is["clips"], as_it_is["followed_frames"]) == (1, LENGTH - 1)
    assert as_it_is["frames_lost"] == 0
    for row in staged:
        assert row["kind"] in shown
        assert row["clips"] == 1
        assert row["absent_tracking_late"] == 0
        assert row["ended_lost"] == 1
    # Judged again, it is the same; nothing is written.
    before = (tmp_path / "mine/model.yaml").read_bytes()
    assert main([*arguments, "--keep", "--only", "walk0", "walk1", "--json", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["session"] == figures["session"]
    assert (tmp_path / "mine/model.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--keep", "--write"], "nothing to write"),
        (["--test", "nobody"], "nobody"),
        (["--only", "walk0"], "1 sequences with ground truth besides --test, expected at least 2"),
    ],
)
def test_wrong_arguments_are_told(folder, model, capsys, more, complaint):
    assert main(["fit-session", str(model), "--sequences", str(folder), *more]) == 1
    assert complaint in capsys.readouterr().err

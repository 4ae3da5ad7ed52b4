"""lighttrack fit-session: folds that part recordings, a regression that finds what made the labels, files it writes."""

import dataclasses
import json
import math
import shutil

import cv2
import numpy as np
import pytest

from lighttrack_ros import commands
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import fit_session, metrics
from lighttrack_ros.evaluation import harvest as harvest_of
from lighttrack_ros.evaluation.harvest import Records, Track, harvest, harvest_backwards, harvest_turned
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.sequences import find_sequences
from lighttrack_ros.models import SessionSettings, load_model, save_model
from lighttrack_ros.session.verifier import Verifier
from lighttrack_ros.trackers import create_tracker

LENGTH, WIDE, HIGH = 100, 320, 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four sequences of a patch that wanders over a ground, is gone for a while and comes back elsewhere."""
    place = tmp_path_factory.mktemp("sequences")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        ground = cv2.GaussianBlur(rng.integers(0, 256, (HIGH, WIDE, 3), np.uint8), (0, 0), 4)
        ground = cv2.normalize(ground, None, 60, 160, cv2.NORM_MINMAX)
        patch = cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (36, 30), interpolation=cv2.INTER_CUBIC)
        (place / f"walk{seed}").mkdir()
        lines = []
        for index in range(LENGTH):
            x, y = 60 + index, round(60 + 20 * seed + 10 * math.sin(index / 5))
            image = ground.copy()
            gone = 40 <= index < 80
            if not gone:
                image[y : y + 30, x : x + 36] = patch
            cv2.imwrite(str(place / f"walk{seed}/{index:04d}.png"), image)
            lines.append("nan,nan,nan,nan" if gone else f"{x},{y},36,30")
        (place / f"walk{seed}/groundtruth.txt").write_text("\n".join(lines))
    return place


def test_what_was_filmed_together_stays_together():
    names = ["car_1", "car_1_win", "dog", "box", "lemming_win", "lemming", "owl", "owl_win"]
    fold = fit_session.folds(names, [("box", "lemming")], 3)
    assert fold["car_1"] == fold["car_1_win"]
    assert fold["box"] == fold["lemming"] == fold["lemming_win"]
    assert fold["owl"] == fold["owl_win"]
    assert sorted(list(fold.values()).count(part) for part in range(3)) == [2, 3, 3]


def test_the_regression_finds_what_made_the_labels():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (100_000, 2))
    wanted = np.array([1.5, -0.7, 0.6])
    labels = rng.random(len(values)) < 1 / (1 + np.exp(-(values @ wanted[:2] + wanted[2])))
    np.testing.assert_allclose(fit_session.logistic_regression(values, labels, 0.0), wanted, atol=0.04)
    shrunk = fit_session.logistic_regression(values, labels, 1.0)
    assert np.abs(shrunk[:2]).sum() < np.abs(wanted[:2]).sum() / 2


def test_a_track_is_what_the_tracker_said_and_is_read_as_it_was_written(folder, model, tmp_path):
    sequence = find_sequences(folder)[0]
    tracker = create_tracker(load_model(model), threads=1)
    track = harvest(tracker, sequence)
    tracker.close()
    plain = create_tracker(load_model(model), threads=1)
    frames = iter(sequence.frames)
    plain.init(from_bgr(next(frames)), sequence.init_box)
    for row in range(1, 9):  # up to the first look elsewhere nothing differs
        estimate = plain.update(from_bgr(next(frames)))
        assert track.followed.estimate(row).box == estimate.box
        np.testing.assert_allclose(track.followed.sight(row).logits, plain.sight().logits)
    plain.init(from_bgr(next(iter(sequence.frames))), sequence.init_box)
    surroundings = plain.surroundings(from_bgr(next(iter(sequence.frames))))
    np.testing.assert_array_equal(track.surroundings, surroundings.astype(np.float16))
    plain.close()
    assert len(track.followed.frames) == LENGTH
    assert len(track.looked.frames) == (LENGTH - 1) // 8
    track.save(tmp_path / "walk0.npz")
    again = Track.load(tmp_path / "walk0.npz")
    assert (again.name, again.size) == ("walk0", (WIDE, HIGH))
    for name, array in vars(track.followed).items():
        np.testing.assert_array_equal(getattr(again.followed, name), array)
    np.testing.assert_array_equal(again.surroundings, track.surroundings)
    (tmp_path / "cut.npz").write_bytes(b"PK")
    with pytest.raises(LightTrackError, match=r"cut.npz: not the records of a track"):
        Track.load(tmp_path / "cut.npz")


def test_a_track_backwards_begins_where_the_target_is_seen_last(folder, model):
    sequence = find_sequences(folder)[0]
    truth = sequence.truth.copy()
    truth[35:] = np.nan
    sequence = dataclasses.replace(sequence, truth=truth)
    tracker = create_tracker(load_model(model), threads=1)
    track = harvest_backwards(tracker, sequence)
    np.testing.assert_array_equal(track.followed.truth, truth[34::-1])
    frames = list(sequence.frames)
    tracker.init(from_bgr(frames[34]), Box(*truth[34]))
    assert track.name == "walk0_backwards"
    assert track.followed.estimate(1).box == tracker.update(from_bgr(frames[33])).box
    tracker.close()
    with pytest.raises(LightTrackError, match="walk0: 100 frames decoded, 150 lines of truth"):
        harvest_backwards(tracker, dataclasses.replace(sequence, truth=np.tile((9.0, 9, 9, 9), (150, 1))))


def test_a_track_of_a_picture_that_turns_knows_where_the_target_is(folder, model, monkeypatch):
    sequence = find_sequences(folder)[0]
    truth = sequence.truth.copy()
    truth[5:8] = np.nan
    sequence = dataclasses.replace(sequence, truth=truth)
    tracker = create_tracker(load_model(model), threads=1)
    monkeypatch.setattr(harvest_of, "_FURTHEST", (90.0, 90.0))
    monkeypatch.setattr(harvest_of, "_PERIOD", (40.0, 40.0))  # frames: the tenth is turned by a right angle
    track = harvest_turned(tracker, sequence)
    tracker.close()
    assert track.name == "walk0_turned"
    turned = track.followed.truth
    np.testing.assert_allclose(turned[0], sequence.truth[0])
    np.testing.assert_array_equal(np.isnan(turned), np.isnan(truth))
    assert turned[10, 2:] == pytest.approx(truth[10, :1:-1])  # width and height change places
    overlap = metrics.overlaps(track.followed.estimates, turned)
    assert np.median(overlap[1:5]) > 0.5  # the tracker finds it where the truth is said to be


def scored(right, seed):
    """A track with a score alone."""
    rng = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-np.where(right, 2.0, -2.0) - rng.normal(0, 1, len(right))))
    truth = np.where(right[:, None], (0, 0, 9, 9), np.nan)
    rows = len(right)
    records = Records(
        frames=np.arange(rows),
        truth=truth,
        estimates=np.tile((0.0, 0, 9, 9), (rows, 1)),
        scores=scores,
        boxes=np.full((rows, 3, 4), np.nan),
        logits=np.full((rows, 3), np.nan),
        levels=np.zeros((rows, 2)),
        patches=np.zeros((rows, 0, 4, 4, 0), np.float16),
    )
    return Track(f"clip{seed}", (99, 99), records, records, np.zeros((0, 0, 0, 0), np.float16))


def test_a_tracker_with_a_score_alone_gets_midpoint_and_slope():
    right = np.r_[np.ones(150, bool), np.zeros(80, bool), np.ones(70, bool)]
    tracks = [scored(right, seed) for seed in range(8)]
    learned = fit_session.fit(tracks, [seed % 4 for seed in range(8)])
    assert learned.verifier is None
    # Two normal distributions at +-2 of deviation 1: log odds 4 x, and a bias for there being more of the right.
    assert learned.settings.slope == pytest.approx(4, rel=0.2)
    assert learned.settings.midpoint == pytest.approx(-np.log(220 / 80) / 4, abs=0.15)
    backwards = [
        dataclasses.replace(
            track, followed=dataclasses.replace(track.followed, scores=1 - track.followed.scores), looked=track.looked
        )
        for track in tracks
    ]
    with pytest.raises(LightTrackError, match="no higher where the tracker is right"):
        fit_session.fit(backwards, [seed % 4 for seed in range(8)])
    with pytest.raises(LightTrackError, match="at least 2 recordings"):
        fit_session.fit(tracks[:1], [0])


def test_what_may_be_doubted_is_measured_on_what_was_filmed():
    right = np.r_[np.ones(150, bool), np.zeros(50, bool)]
    tracks = [scored(right, seed) for seed in range(4)]
    chances = [1 / (1 + np.exp(-fit_session._score_odds(track.followed))) for track in tracks]
    filmed = fit_session._thresholds(tracks, chances, chances, [right] * 4)
    turned = [dataclasses.replace(track, name=f"{track.name}_turned") for track in tracks]
    doubtful = [chance / 9 for chance in chances]
    both = fit_session._thresholds(tracks + turned, chances + doubtful, chances + doubtful, [right] * 8)
    assert both == filmed


def test_the_command_learns_judges_and_writes(folder, model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "mine")
    (tmp_path / "mine/verifier.npz").unlink(missing_ok=True)
    bare = load_model(tmp_path / "mine")
    save_model(dataclasses.replace(bare, session=SessionSettings()))
    arguments = ["fit-session", str(tmp_path / "mine"), "--sequences", str(folder), "--threads", "1"]
    kept = ["--records", str(tmp_path / "records")]
    assert commands.main([*arguments, *kept, "--judge", "--write", "--json", str(tmp_path / "fit.json")]) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "fit.json").read_text())
    fitted = load_model(tmp_path / "mine")
    assert figures["session"] == dataclasses.asdict(fitted.session)
    assert fitted.session != SessionSettings()
    assert fitted.verifier is not None
    assert len(Verifier.load(fitted.verifier).cell_mean) == 96
    assert sorted(figures["sequences"]) == [f"walk{seed}" for seed in range(4)]
    assert figures["all"]["auroc"] > 0.9
    assert figures["all"]["disappearances"] == 4
    for name in ("walk0", "over all folds"):
        assert name in shown
    # From what was kept, the same comes out, and nothing is written.
    before = (tmp_path / "mine/model.yaml").read_bytes()
    assert commands.main([*arguments, *kept, "--judge", "walk2", "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert list(again["sequences"]) == ["walk2"]
    assert again["session"] == figures["session"]
    assert (tmp_path / "mine/model.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--folds", "1"], "--folds: is 1, expected at least 2"),
        (["--folds", "2", "--judge"], "at least 3 with --judge"),
        (["--judge", "walk9"], "--judge: no sequence named walk9"),
        (["--only", "walk0"], "at least 2 recordings"),
    ],
)
def test_wrong_arguments_are_told(folder, model, capsys, more, complaint):
    assert commands.main(["fit-session", str(model), "--sequences", str(folder), *more]) == 1
    assert complaint in capsys.readouterr().err

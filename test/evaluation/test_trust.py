"""What a session's word is worth: figures worked out by hand, and the command that prints them."""

import json
import math

import cv2
import numpy as np
import pytest

from lighttrack_ros import commands
from lighttrack_ros.evaluation import trust
from lighttrack_ros.evaluation.trust import Account, measure
from lighttrack_ros.session import State

T, U, L = State.TRACKING, State.UNCERTAIN, State.LOST
HERE, GONE, OFF = (10, 10, 20, 20), (math.nan,) * 4, (500, 10, 20, 20)


def account(truth, boxes, states, confidences=None, plain=None, name="clip"):
    if confidences is None:
        confidences = [0.9 if state == T else 0.1 for state in states]
    return Account(
        name,
        np.array(truth, float),
        np.array(boxes if plain is None else plain, float),
        np.array(boxes, float),
        np.array(confidences, float),
        np.array([int(state) for state in states]),
    )


def test_a_disappearance_and_a_return_are_timed():
    truth = [HERE] * 5 + [GONE] * 20 + [HERE] * 40
    states = [T] * 5 + [T] * 3 + [U] * 2 + [L] * 14 + [T] + [L] * 12 + [T] * 28
    figures = measure([account(truth, [HERE] * 65, states)])
    assert (figures.disappearances, figures.frames_to_lost, figures.lost_soon) == (1, 5, 1)
    assert figures.absent_tracking == pytest.approx(1 / 15)  # the last of those past the fifth
    assert (figures.returns, figures.frames_to_tracking, figures.back_right, figures.back_wrong) == (1, 12, 1, 0)
    assert (figures.good_frames, figures.good_lost, figures.good_uncertain) == (44, 12 / 44, 0)
    assert (figures.frames, figures.absent_frames) == (64, 20)


@pytest.mark.parametrize(
    ("back", "right", "wrong", "judged"),
    [
        ([(OFF, T)] * 40, 0, 1, 1),  # it never noticed
        ([(OFF, L)] * 40, 0, 0, 1),
        ([(OFF, L)] * 8, None, None, 0),  # gone again before anybody could tell
        ([(OFF, L)] * 35 + [(HERE, T)] * 5, 0, 0, 1),  # too late
        ([(OFF, L)] * 5 + [(OFF, T)] * 35, 0, 1, 1),
        ([(OFF, L)] * 5 + [(HERE, T)] * 2, 1, 0, 1),
    ],
)
def test_a_return_is_to_the_right_target_or_a_wrong_one(back, right, wrong, judged):
    boxes, states = zip(*back, strict=True)
    truth = [HERE] * 3 + [GONE] * 12 + [HERE] * len(back)
    figures = measure([account(truth, [HERE] * 3 + [OFF] * 12 + list(boxes), [T] * 3 + [L] * 12 + list(states))])
    assert (figures.returns, figures.back_right, figures.back_wrong) == (judged, right, wrong)


def test_what_is_never_called_lost_is_said_to_be_never():
    one = account([HERE] * 3 + [GONE] * 12, [HERE] * 15, [T] * 15)
    short = account([HERE] * 3 + [GONE] * 4 + [HERE], [HERE] * 8, [T] * 8)
    figures = measure([one, short])
    assert (figures.disappearances, figures.frames_to_lost, figures.lost_soon) == (1, math.inf, 0)
    assert (figures.as_json()["frames_to_lost"], figures.absent_tracking) == ("never", 1)
    json.dumps(figures.as_json(), allow_nan=False)


def test_misses_and_the_two_trackers_are_told_apart():
    truth = [HERE] * 11
    session = account(truth, [HERE] + [OFF] * 10, [T] * 5 + [L] * 6, plain=[HERE] * 6 + [OFF] * 5)
    figures = measure([session])
    assert (figures.missed_frames, figures.missed_tracking) == (10, 0.4)
    assert (figures.good_frames, figures.good_lost) == (5, 0.2)  # what the plain tracker had counts as good
    assert figures.auc == pytest.approx(20 / 21 / 11)  # the given box
    assert figures.plain_auc == pytest.approx(20 / 21 * 6 / 11)


def test_long_term_figures_are_those_of_vot():
    # Half of the frames without target; overlap 1 on those with one.
    truth = [HERE] * 6 + [GONE] * 5
    sure = account(truth, [HERE] * 11, [T] * 6 + [L] * 5)
    figures = measure([sure])
    assert (figures.precision, figures.recall, figures.f_score, figures.state_f_score) == (1, 1, 1, 1)
    deaf = account(truth, [HERE] * 11, [T] * 11)
    figures = measure([deaf])
    assert (figures.state_precision, figures.state_recall) == (0.5, 1)
    assert figures.state_f_score == pytest.approx(2 / 3)
    silent = account(truth, [HERE] * 11, [T] + [L] * 10)
    figures = measure([silent])
    assert (figures.state_precision, figures.state_recall, figures.state_f_score) == (1, 0, 0)


def test_confidence_is_held_against_what_came_true():
    # 0.75 and right three times of four, 0.25 and right once of four: calibrated. Then 0.95 for the same.
    boxes = [HERE] * 4 + [OFF, HERE, OFF, OFF, OFF]
    calibrated = account([HERE] * 9, boxes, [T] * 9, [1] + [0.75] * 4 + [0.25] * 4)
    figures = measure([calibrated])
    assert figures.ece == pytest.approx(0, abs=1e-9)
    assert figures.auroc == pytest.approx(12 / 16)  # 3 x 3 pairs won, 3 x 1 + 1 x 3 ties at half
    assert figures.reliability[7] == (4, 0.75, 0.75)
    assert [row[0] for row in figures.reliability] == [0, 0, 4, 0, 0, 0, 0, 4, 0, 0]
    boastful = account([HERE] * 9, boxes, [T] * 9, [1] + [0.95] * 8)
    assert measure([boastful]).ece == pytest.approx(0.45)
    assert measure([boastful]).auroc == 0.5
    assert measure([account([HERE] * 3, [HERE] * 3, [T] * 3)]).auroc is None


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 9, 200).astype(float), rng.random(200) < 0.4
    difference = scores[labels][:, None] - scores[~labels][None]
    assert trust.auroc(scores, labels) == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A patch that wanders over a ground, and is gone for 15 frames."""
    place = tmp_path_factory.mktemp("clips")
    for seed in range(2):
        rng = np.random.default_rng(seed)
        ground = cv2.GaussianBlur(rng.integers(0, 256, (240, 320, 3), np.uint8), (0, 0), 4)
        patch = cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (36, 30), interpolation=cv2.INTER_CUBIC)
        (place / f"walk{seed}").mkdir()
        lines = []
        for index in range(45):
            x, y = 60 + 3 * index, round(90 + 10 * math.sin(index / 5))
            image = ground.copy()
            gone = 15 <= index < 30
            if not gone:
                image[y : y + 30, x : x + 36] = patch
            cv2.imwrite(str(place / f"walk{seed}/{index:04d}.png"), image)
            lines.append("nan,nan,nan,nan" if gone else f"{x},{y},36,30")
        (place / f"walk{seed}/groundtruth.txt").write_text("\n".join(lines))
    return place


def test_the_command_measures_the_session_and_the_plain_tracker(clips, model, tmp_path, capsys):
    arguments = ["evaluate", "--model", str(model), "--sequences", str(clips), "--threads", "1"]
    results = ["--json", str(tmp_path / "session.json"), "--plot", str(tmp_path / "session.svg")]
    assert commands.main([*arguments, "--session", *results]) == 0
    assert b"calibration error" in (tmp_path / "session.svg").read_bytes()
    shown = capsys.readouterr().out
    assert commands.main([*arguments, "--json", str(tmp_path / "plain.json")]) == 0
    session, plain = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("session", "plain"))
    assert list(session["sequences"]) == ["walk0", "walk1"]
    assert session["all"]["plain_auc"] == pytest.approx(plain["mean"]["auc"])
    assert session["all"]["absent_frames"] == 30
    assert session["all"]["disappearances"] == 2
    assert session["all"]["session_step_ms"]["p50"] > 0
    for name in ("walk0", "walk1", "all", "in sight, the session adds"):
        assert name in shown


def test_a_plot_of_the_confidence_needs_a_session(clips, tmp_path, capsys):
    assert commands.main(["evaluate", "--sequences", str(clips), "--plot", str(tmp_path / "plot.png")]) == 1
    assert "--plot goes with --session" in capsys.readouterr().err

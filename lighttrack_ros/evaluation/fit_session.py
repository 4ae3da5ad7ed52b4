"""What a model's session should believe, learned from the tracker's own successes and failures (`harvest`).

Thresholds are read off predictions for recordings that the predictor was not fitted on: the recordings are parted into
folds, and each fold is judged by what was learned on the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.evaluation.harvest import Records, Track
from lighttrack_ros.evaluation.trust import GRACE, MISSED, RIGHT, SOON, stretches
from lighttrack_ros.models import SessionSettings
from lighttrack_ros.session.evidence import SMOOTHED, Evidence, likeness_features
from lighttrack_ros.session.judge import NEVER, score_log_odds
from lighttrack_ros.session.verifier import (
    LOOK_NUMBERS,
    SAME_RATE,
    Acquaintance,
    Regression,
    Verifier,
    known_distractors,
)

MAY_DOUBT = 0.03  # share of the good frames that may lie under `uncertain`
MAY_LOSE = 0.015  # share of the good frames that may count as lost
MAY_MISTAKE = 0.001  # share of other things, seen on looks elsewhere, that may reach `found`
FOUND_FRAMES = 3
LOST_FRAMES = range(2, 13)
LOST_PARTS = (1.0, 0.8, 0.6, 0.45, 0.3)  # of `uncertain`, tried for `lost`
_EVERY = 6  # frames of a track of which the candidates teach what is the same and what is not
_SHRINKAGE = 0.3  # of the covariances towards the identity; recordings are few
_PENALTY = 1e-2  # on the weights of the regression over SMOOTHED
_LOOK_PENALTY = 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """What was learned of a model; `verifier` is None where its tracker gives no sight."""

    settings: SessionSettings
    verifier: Verifier | None


def recordings(names: Iterable[str], together: Iterable[Iterable[str]] = ()) -> dict[str, str]:
    """The recording of each sequence: the first part of its name, before any "_".

    Args:
        together: names of recordings that are one in truth.
    """
    same = {name: sorted(group)[0] for group in map(list, together) for name in group}
    return {name: same.get(name.split("_")[0], name.split("_")[0]) for name in names}


def folds(names: Iterable[str], together: Iterable[Iterable[str]], count: int) -> dict[str, int]:
    """The fold of each sequence, 0 .. count - 1; those of one recording share it, and folds are about equally large."""
    of = recordings(names, together)
    sizes = {recording: list(of.values()).count(recording) for recording in set(of.values())}
    members, chosen = [0] * count, {}
    for recording in sorted(sizes, key=lambda recording: (-sizes[recording], recording)):
        chosen[recording] = members.index(min(members))
        members[chosen[recording]] += sizes[recording]
    return {name: chosen[recording] for name, recording in of.items()}


def fit(tracks: Sequence[Track], fold: Sequence[int]) -> Fit:
    """Learn from tracks.

    Args:
        fold: of each track.

    Raises:
        LightTrackError: too few frames that are right, or wrong, in some fold's complement; or scores that say nothing.
    """
    parts = sorted(set(fold))
    right = [_overlap(track.followed) > RIGHT for track in tracks]
    for part in parts:
        others = [labels for labels, of in zip(right, fold, strict=True) if of != part]
        hits, rows = sum(int(labels.sum()) for labels in others), sum(map(len, others))
        if min(hits, rows - hits) < 50:
            raise LightTrackError(
                "too little to fit on: expected sequences of at least 2 recordings, with at least 50 frames that the "
                "tracker gets right and 50 that it does not beside those of any fold; add sequences that are harder"
            )
    if not tracks[0].followed.patches.shape[-1]:
        return _fit_scores(tracks, right)
    numbers = [evidence_numbers(track) for track in tracks]
    right_odds: list[Floats] = [np.zeros(0)] * len(tracks)
    looks: dict[int, Looks] = {}
    for rest, held in _splits(fold):
        regression = _regress([numbers[i] for i in rest], [right[i] for i in rest], _PENALTY)
        maps = learn_maps([tracks[i] for i in rest])
        for index in held:
            right_odds[index] = regression.log_odds(numbers[index])
            looks[index] = look_numbers(tracks[index], maps, right_odds[index] >= 0)
    two: list[Floats] = [np.zeros(0)] * len(tracks)
    wrong_odds = []
    for rest, held in _splits(fold):
        regression = _regress([looks[i].numbers for i in rest], [looks[i].same for i in rest], _LOOK_PENALTY)
        for index in held:
            odds = regression.log_odds(looks[index].numbers)
            odds[known_distractors(looks[index].numbers)] = NEVER
            wrong_odds.append(odds[~looks[index].same & looks[index].elsewhere])
            smoothed = _running_mean(regression.log_odds(looks[index].followed), SAME_RATE)
            two[index] = np.column_stack((right_odds[index], smoothed))
    confidences: list[Floats] = [np.zeros(0)] * len(tracks)
    for rest, held in _splits(fold):
        regression = _regress([two[i] for i in rest], [right[i] for i in rest], _LOOK_PENALTY)
        for index in held:
            confidences[index] = _sigmoid(regression.log_odds(two[index]))
    found = float(np.quantile(_sigmoid(np.concatenate(wrong_odds)), 1 - MAY_MISTAKE))
    settings = dataclasses.replace(
        _thresholds(tracks, confidences, right), found=min(max(found, 0.02), 0.98), found_frames=FOUND_FRAMES
    )
    verifier = dataclasses.replace(
        learn_maps(tracks),
        right=_regress(numbers, right, _PENALTY),
        same=_regress(
            [looks[i].numbers for i in range(len(tracks))], [looks[i].same for i in range(len(tracks))], _LOOK_PENALTY
        ),
        both=_regress(two, right, _LOOK_PENALTY),
    )
    return Fit(_rounded(settings), verifier)


def _splits(fold: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Of each fold, the indices of the others' tracks and of its own."""
    for part in sorted(set(fold)):
        yield (
            [index for index, of in enumerate(fold) if of != part],
            [index for index, of in enumerate(fold) if of == part],
        )


def evidence_numbers(track: Track) -> Floats:
    """What a session would know on each frame, (frames, SMOOTHED)."""
    records = track.followed
    sight = records.sight(0)
    assert sight is not None
    evidence = Evidence(records.estimate(0), sight)
    rows = np.empty((len(records.frames), SMOOTHED))
    for row in range(len(rows)):
        sight = records.sight(row)
        assert sight is not None
        rows[row] = evidence.add(track.size, records.estimate(row), sight)
    return rows


@dataclass(frozen=True)
class Looks:
    """What candidates look like to a session that follows a track.

    Attributes:
        numbers: (n, LOOK_NUMBERS) float64, of the candidates on all looks elsewhere and on every _EVERY-th frame; what
            overlaps the target a little is left out.
        same: (n,) bool, whether it is the target.
        elsewhere: (n,) bool, whether it was seen on a look elsewhere.
        followed: (frames, LOOK_NUMBERS) float64, of the followed box on every frame.
    """

    numbers: Floats
    same: NDArray[np.bool_]
    elsewhere: NDArray[np.bool_]
    followed: Floats


def look_numbers(track: Track, verifier: Verifier, believed: NDArray[np.bool_]) -> Looks:
    """Go along a track with what is learned of the target on the way.

    Args:
        believed: (frames,) bool, on which the session learns how the target looks.
    """
    followed, looked = track.followed, track.looked
    start = followed.sight(0)
    assert start is not None
    acquaintance = Acquaintance(verifier, followed.estimate(0), start)
    elsewhere = {int(number): row for row, number in enumerate(looked.frames)}
    rows: list[Floats] = []
    same: list[NDArray[np.bool_]] = []
    away: list[bool] = []
    own = np.empty((len(followed.frames), len(LOOK_NUMBERS)))

    def take(numbers: Floats, boxes: Floats, truth: Floats, is_away: bool) -> None:
        overlap = metrics.overlaps(boxes, np.broadcast_to(truth, boxes.shape))
        clear = (overlap > RIGHT) | (overlap < MISSED)
        rows.append(numbers[clear])
        same.append(overlap[clear] > RIGHT)
        away.extend([is_away] * int(clear.sum()))

    for row, number in enumerate(followed.frames.tolist()):
        sight = followed.sight(row)
        assert sight is not None
        numbers = acquaintance.numbers(sight)
        own[row] = numbers[0]
        if row % _EVERY == 0:
            take(numbers, sight.boxes, followed.truth[row], False)
        other = looked.sight(elsewhere[number]) if number in elsewhere else None
        if other is not None:
            take(acquaintance.numbers(other), other.boxes, looked.truth[elsewhere[number]], True)
        if believed[row]:
            acquaintance.learn(followed.estimate(row), sight)
    return Looks(np.concatenate(rows), np.concatenate(same), np.array(away), own)


def learn_maps(tracks: Sequence[Track]) -> Verifier:
    """The linear maps: differences between a target and itself at another time become small and round.

    The regressions of what is returned are empty.
    """
    cell_changes, look_changes, all_cells, all_looks = [], [], [], []
    for track in tracks:
        for records in (track.followed, track.looked):
            start = track.followed.sight(0)
            assert start is not None
            first_cells, first_looks = (features[0] for features in likeness_features(start))
            for row in range(0, len(records.frames), 3):
                sight = records.sight(row)
                if sight is None:
                    continue
                cells, looks = likeness_features(sight)
                overlap = metrics.overlaps(sight.boxes, np.broadcast_to(records.truth[row], sight.boxes.shape))
                cell_changes.append((cells[overlap > RIGHT] - first_cells).reshape(-1, cells.shape[-1]))
                look_changes.append(looks[overlap > RIGHT] - first_looks)
                all_cells.append(cells.mean(axis=(0, 1)))
                all_looks.append(looks.mean(axis=0))
    nothing = Regression(*(np.zeros(1, np.float32) for _ in range(4)))
    return Verifier(
        np.mean(all_cells, axis=0),
        _whitening(cell_changes),
        np.mean(all_looks, axis=0),
        _whitening(look_changes),
        nothing,
        nothing,
        nothing,
    )


def logistic_regression(values: Floats, labels: NDArray[np.bool_], penalty: float) -> Floats:
    """Weights and, last, the bias, that part the labels best: Newton's method on the penalised likelihood.

    Args:
        values: (n, d) float64, standardised.
        labels: (n,) bool.
        penalty: on half the squared weights, the bias left out; the likelihood is a mean over n.
    """
    inputs = np.column_stack((values, np.ones(len(values))))
    strengths = np.append(np.full(values.shape[1], penalty), 1e-9)
    weights = np.zeros(inputs.shape[1])
    for _ in range(40):
        chances = _sigmoid(inputs @ weights)
        gradient = inputs.T @ (labels - chances) / len(labels) - strengths * weights
        curvature = (inputs * (chances * (1 - chances))[:, None]).T @ inputs / len(labels) + np.diag(strengths)
        step = np.clip(np.linalg.solve(curvature, gradient), -3, 3)
        weights += step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def _regress(values: Sequence[Floats], labels: Sequence[NDArray[np.bool_]], penalty: float) -> Regression:
    rows = np.concatenate(values)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    nothing = Regression(
        mean.astype(np.float32), deviation.astype(np.float32), np.zeros(len(mean), np.float32), np.zeros(1, np.float32)
    )
    weights = logistic_regression(nothing.standard(rows), np.concatenate(labels), penalty).astype(np.float32)
    return dataclasses.replace(nothing, weights=weights[:-1], bias=weights[-1:])


def _whitening(changes: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(channels, channels) float32: the inverse root of the covariance of changes."""
    rows = np.concatenate(changes).astype(np.float64)
    covariance = rows.T @ rows / len(rows)
    channels = len(covariance)
    values, vectors = np.linalg.eigh(covariance + _SHRINKAGE * np.trace(covariance) / channels * np.eye(channels))
    map_ = vectors / np.sqrt(values)
    return np.asarray(map_ / np.abs(map_).max(), np.float32)  # only directions count


def _thresholds(
    tracks: Sequence[Track], confidences: Sequence[Floats], right: Sequence[NDArray[np.bool_]]
) -> SessionSettings:
    """When to doubt and when to call the target lost, by predictions on recordings not fitted on."""
    good = np.concatenate([confidence[labels] for confidence, labels in zip(confidences, right, strict=True)])
    uncertain = float(np.quantile(good, MAY_DOUBT))
    best = (-1.0, uncertain, LOST_FRAMES[-1])
    for part in LOST_PARTS:
        for frames in LOST_FRAMES:
            lost = [_lost(confidence, part * uncertain, frames, uncertain) for confidence in confidences]
            wrongly = np.concatenate([flags[labels] for flags, labels in zip(lost, right, strict=True)]).mean()
            if wrongly <= MAY_LOSE:
                best = max(best, (_soon(tracks, lost), part * uncertain, frames))
    _, lost_under, lost_frames = best
    return SessionSettings(uncertain=uncertain, sure=uncertain, lost=lost_under, lost_frames=lost_frames)


def _lost(confidence: Floats, under: float, frames: int, back: float) -> NDArray[np.bool_]:
    """On which frames a target would count as lost, if it were found where its confidence is `back` again."""
    flags = np.zeros(len(confidence), bool)
    doubtful, lost = 0, False
    for index, value in enumerate(confidence.tolist()):
        doubtful = doubtful + 1 if value < under else 0
        lost = (lost and value < back) or doubtful >= frames
        flags[index] = lost
    return flags


def _soon(tracks: Sequence[Track], lost: Sequence[NDArray[np.bool_]]) -> float:
    """How soon lost is said: mean of its shares of absent frames past GRACE, and of absences within SOON frames."""
    late, events = [], []
    for track, flags in zip(tracks, lost, strict=True):
        for begin, end in stretches(np.asarray(~np.isfinite(track.followed.truth).all(axis=1))):
            late.append(flags[begin + GRACE : end])
            if end - begin >= SOON or flags[begin:end].any():
                events.append(bool(flags[begin : begin + SOON + 1].any()))
    if not events:
        return 0.0
    return float(np.concatenate(late).mean() + np.mean(events)) / 2


def _fit_scores(tracks: Sequence[Track], right: Sequence[NDArray[np.bool_]]) -> Fit:
    """For trackers that give a score alone."""
    odds = [_score_odds(track.followed)[:, None] for track in tracks]
    regression = _regress(odds, right, 0.0)
    slope = float(regression.weights[0] / regression.deviation[0])
    if slope <= 0:
        raise LightTrackError("the network's score is no higher where the tracker is right than where it is not")
    midpoint = float(regression.mean[0] - regression.bias[0] / slope)
    settings = SessionSettings(midpoint=min(max(midpoint, -100.0), 100.0), slope=min(max(slope, 0.01), 100.0))

    def confidence(records: Records) -> Floats:
        return _sigmoid(settings.slope * (_score_odds(records) - settings.midpoint))

    chosen = _thresholds(tracks, [confidence(track.followed) for track in tracks], right)
    elsewhere = np.concatenate([confidence(track.looked)[_overlap(track.looked) < MISSED] for track in tracks])
    found = float(np.quantile(elsewhere, 1 - MAY_MISTAKE)) if len(elsewhere) else 0.9
    return Fit(
        _rounded(
            dataclasses.replace(
                chosen,
                midpoint=settings.midpoint,
                slope=settings.slope,
                found=min(max(found, chosen.uncertain), 0.98),
                found_frames=FOUND_FRAMES,
            )
        ),
        None,
    )


def _score_odds(records: Records) -> Floats:
    return np.array([score_log_odds(records.estimate(row)) for row in range(len(records.frames))])


def _overlap(records: Records) -> Floats:
    """Of the tracker's boxes with the truth, (n,); 0 where there is no target."""
    return metrics.overlaps(records.estimates, records.truth)


def _running_mean(values: Floats, rate: float) -> Floats:
    """As a session smooths over the frames."""
    means = np.empty(len(values))
    mean = 0.0
    for index, value in enumerate(values.tolist()):
        mean += (value - mean) * max(rate, 1 / (index + 1))
        means[index] = mean
    return means


def _rounded(settings: SessionSettings) -> SessionSettings:
    """As people write them."""
    reals = {name: float(f"{value:.3g}") for name, value in vars(settings).items() if isinstance(value, float)}
    return SessionSettings(**reals, lost_frames=settings.lost_frames, found_frames=settings.found_frames)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -50, 50))))

"""What a model's session should believe, learned from the tracker's own successes and failures (`harvest`).

Thresholds are read off predictions for recordings that the predictor was not fitted on: the recordings are parted into
folds, and each fold is judged by what was learned on the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.evaluation.harvest import TURNED, Records, Track
from lighttrack_ros.evaluation.trust import MISSED, RIGHT
from lighttrack_ros.models import SessionSettings
from lighttrack_ros.session.evidence import RECENT, SMOOTHED, Evidence
from lighttrack_ros.session.judge import NEVER, score_log_odds
from lighttrack_ros.session.start_filter import StartFilter
from lighttrack_ros.session.verifier import (
    Acquaintance,
    Regression,
    Verifier,
    known_distractors,
)

MAY_DOUBT = 0.02  # share of the good frames that may lie under `uncertain`, and under `again`
MAY_BE_UNSURE = 0.04  # likewise under `sure`
MAY_LOSE = 0.01  # share of the good frames that may count as lost
MAY_MISTAKE = 0.003  # share of other things, seen on looks elsewhere, that may reach `found`
FOUND_FRAMES = 3
LOST_FRAMES = 3
LOST_SHARES = np.geomspace(0.05, 0.0005, 40)  # of the good frames that lie under `lost`, tried
_FEW = 50  # frames of a kind: too few to learn from
_EVERY = 6  # frames of a track of which the candidates teach what is the same and what is not
_SHRINKAGE = 0.3  # of the covariances towards the identity; recordings are few
_PENALTY = 5e-2  # on the weights of the regressions over SMOOTHED
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
        if min(hits, rows - hits) < _FEW:
            raise LightTrackError(
                f"too little to fit on: expected sequences of at least 2 recordings, with at least {_FEW} frames that "
                f"the tracker gets right and {_FEW} that it does not beside those of any fold; add sequences that are "
                "harder"
            )
    if not tracks[0].followed.patches.shape[-1]:
        return _fit_scores(tracks, right)
    numbers = [evidence_numbers(track) for track in tracks]
    recent, present = _presence(tracks, numbers, right)
    confidences, presences, looks = _unseen(tracks, fold, numbers, right, recent, present)
    wrong_odds = []
    for rest, held in _splits(fold):
        regression = _regress([looks[i].numbers for i in rest], [looks[i].same for i in rest], _LOOK_PENALTY)
        for index in held:
            odds = regression.log_odds(looks[index].numbers)
            odds[known_distractors(looks[index].numbers)] = NEVER
            wrong_odds.append(odds[~looks[index].same & looks[index].elsewhere])
    found = float(np.quantile(_sigmoid(np.concatenate(wrong_odds)), 1 - MAY_MISTAKE))
    settings = dataclasses.replace(
        _thresholds(tracks, confidences, presences, right),
        found=min(max(found, 0.02), 0.98),
    )
    verifier = dataclasses.replace(
        learn_maps(tracks),
        right=_regress(numbers, right, _PENALTY),
        present=_regress(recent, present, _PENALTY),
        same=_regress([one.numbers for one in looks], [one.same for one in looks], _LOOK_PENALTY),
    )
    return Fit(_rounded(settings), verifier)


def _presence(
    tracks: Sequence[Track], numbers: Sequence[Floats], right: Sequence[NDArray[np.bool_]]
) -> tuple[list[Floats], list[NDArray[np.bool_]]]:
    """What the presence of a target is learned from: RECENT numbers of each track, and whether it is in view.

    Frames on which the tracker is right, against those without a target. Where it misses a target in view it may see
    a part of it, so these are left out, unless there are too few without.
    """
    absent = [_absent(track) for track in tracks]
    if sum(int(flags.sum()) for flags in absent) < _FEW:
        absent = [flags | (_overlap(one.followed) < MISSED) for flags, one in zip(absent, tracks, strict=True)]
    kept = [flags | labels for flags, labels in zip(absent, right, strict=True)]
    return (
        [rows[mask, :RECENT] for rows, mask in zip(numbers, kept, strict=True)],
        [labels[mask] for labels, mask in zip(right, kept, strict=True)],
    )


def _unseen(
    tracks: Sequence[Track],
    fold: Sequence[int],
    numbers: Sequence[Floats],
    right: Sequence[NDArray[np.bool_]],
    recent: Sequence[Floats],
    present: Sequence[NDArray[np.bool_]],
) -> tuple[list[Floats], list[Floats], list[Looks]]:
    """Of each track, by what was learned on the other folds: confidence and presence on its frames, and its looks."""
    confidences: list[Floats] = [np.zeros(0)] * len(tracks)
    presences: list[Floats] = [np.zeros(0)] * len(tracks)
    looks: dict[int, Looks] = {}
    for rest, held in _splits(fold):
        of_right = _regress([numbers[i] for i in rest], [right[i] for i in rest], _PENALTY)
        of_presence = _regress([recent[i] for i in rest], [present[i] for i in rest], _PENALTY)
        maps = learn_maps([tracks[i] for i in rest])
        for index in held:
            confidences[index] = _sigmoid(of_right.log_odds(numbers[index]))
            presences[index] = _sigmoid(of_presence.log_odds(numbers[index][:, :RECENT]))
            looks[index] = look_numbers(tracks[index], maps, confidences[index] >= 0.5)
    return confidences, presences, [looks[index] for index in range(len(tracks))]


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
    evidence = Evidence(records.estimate(0), sight, StartFilter(track.surroundings))
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
    """

    numbers: Floats
    same: NDArray[np.bool_]
    elsewhere: NDArray[np.bool_]


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

    def take(numbers: Floats, boxes: Floats, truth: Floats, is_away: bool) -> None:
        overlap = metrics.overlaps(boxes, np.broadcast_to(truth, boxes.shape))
        clear = (overlap > RIGHT) | (overlap < MISSED)
        rows.append(numbers[clear])
        same.append(overlap[clear] > RIGHT)
        away.extend([is_away] * int(clear.sum()))

    for row, number in enumerate(followed.frames.tolist()):
        sight = followed.sight(row)
        assert sight is not None
        if row % _EVERY == 0:
            take(acquaintance.numbers(sight), sight.boxes, followed.truth[row], False)
        other = looked.sight(elsewhere[number]) if number in elsewhere else None
        if other is not None:
            take(acquaintance.numbers(other), other.boxes, looked.truth[elsewhere[number]], True)
        if believed[row]:
            acquaintance.learn(followed.estimate(row), sight)
    return Looks(np.concatenate(rows), np.concatenate(same), np.array(away))


def learn_maps(tracks: Sequence[Track]) -> Verifier:
    """The linear maps: differences between a target and itself at another time become small and round.

    The regressions of what is returned are empty.
    """
    cell_changes, look_changes, all_cells, all_looks = [], [], [], []
    for track in tracks:
        for records in (track.followed, track.looked):
            start = track.followed.sight(0)
            assert start is not None
            for row in range(0, len(records.frames), 3):
                sight = records.sight(row)
                if sight is None:
                    continue
                overlap = metrics.overlaps(sight.boxes, np.broadcast_to(records.truth[row], sight.boxes.shape))
                cell_changes.append((sight.cells[overlap > RIGHT] - start.cells[0]).reshape(-1, sight.cells.shape[-1]))
                look_changes.append(sight.looks[overlap > RIGHT] - start.looks[0])
                all_cells.append(sight.cells.mean(axis=(0, 1)))
                all_looks.append(sight.looks.mean(axis=0))
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
    tracks: Sequence[Track],
    confidences: Sequence[Floats],
    presences: Sequence[Floats],
    right: Sequence[NDArray[np.bool_]],
) -> SessionSettings:
    """When to doubt and when to call the target lost, by predictions on recordings not fitted on, as filmed."""
    filmed = [not track.name.endswith(TURNED) for track in tracks]
    right = list(compress(right, filmed))
    confidences, presences = list(compress(confidences, filmed)), list(compress(presences, filmed))
    uncertain, sure = np.quantile(_where(confidences, right), (MAY_DOUBT, MAY_BE_UNSURE)).tolist()
    in_view = _where(presences, right)
    again = float(np.quantile(in_view, MAY_DOUBT))
    for share in LOST_SHARES:
        under = float(np.quantile(in_view, share))
        lost = [_lost(presence, under, again) for presence in presences]
        if _where(lost, right).mean() <= MAY_LOSE:
            break
    return SessionSettings(
        uncertain=uncertain,
        sure=sure,
        lost=under,
        lost_frames=LOST_FRAMES,
        again=max(again, under),
        found_frames=FOUND_FRAMES,
    )


def _where(values: Iterable[NDArray[Any]], masks: Iterable[NDArray[np.bool_]]) -> NDArray[Any]:
    """Of all tracks, where the masks are true."""
    return np.concatenate([one[mask] for one, mask in zip(values, masks, strict=True)])


def _lost(presence: Floats, under: float, again: float) -> NDArray[np.bool_]:
    """On which frames a session would call the target lost, (n,), if it found it nowhere else."""
    flags = np.zeros(len(presence), bool)
    doubtful, convincing, lost = 0, 0, False
    for index, chance in enumerate(presence.tolist()):
        doubtful = doubtful + 1 if chance < under else 0
        convincing = convincing + 1 if chance >= again else 0
        lost = (lost and convincing < FOUND_FRAMES) or doubtful >= LOST_FRAMES
        flags[index] = lost
    return flags


def _absent(track: Track) -> NDArray[np.bool_]:
    """On which frames followed there is no target, (n,)."""
    return np.asarray(~np.isfinite(track.followed.truth).all(axis=1))


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

    confidences = [confidence(track.followed) for track in tracks]
    chosen = _thresholds(tracks, confidences, confidences, right)
    elsewhere = np.concatenate([confidence(track.looked)[_overlap(track.looked) < MISSED] for track in tracks])
    found = float(np.quantile(elsewhere, 1 - MAY_MISTAKE)) if len(elsewhere) else 0.9
    return Fit(
        _rounded(
            dataclasses.replace(
                chosen,
                midpoint=settings.midpoint,
                slope=settings.slope,
                found=min(max(found, chosen.uncertain), 0.98),
            )
        ),
        None,
    )


def _score_odds(records: Records) -> Floats:
    return np.array([score_log_odds(records.estimate(row)) for row in range(len(records.frames))])


def _overlap(records: Records) -> Floats:
    """Of the tracker's boxes with the truth, (n,); 0 where there is no target."""
    return metrics.overlaps(records.estimates, records.truth)


def _rounded(settings: SessionSettings) -> SessionSettings:
    """As people write them."""
    reals: dict[str, Any] = {
        name: float(f"{value:.3g}") for name, value in vars(settings).items() if isinstance(value, float)
    }
    return dataclasses.replace(settings, **reals)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -50, 50))))

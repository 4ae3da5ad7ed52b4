"""From what confidence on a model's target may be believed, found out on sequences.

The tracker follows every sequence as it is, and again with the target taken out for a while (`absence`). A
logistic regression parts the frames that it follows well from those without a target; the session's thresholds
are read off the two distributions; then real sessions go through all of it once more, to see what that is worth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import absence
from lighttrack_ros.geometry import Box, intersection_over_union
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media import sequences
from lighttrack_ros.media.frames import FrameSource
from lighttrack_ros.models import SessionSettings
from lighttrack_ros.session import Looks, Session, State, log_odds
from lighttrack_ros.trackers.base import Estimate, Tracker

AS_IT_IS = "as it is"
FOLLOWED, MISSED = 0.4, 0.1  # overlap with the truth from which a target is followed, and under which it is not
MAY_DOUBT = 0.02  # share of the followed frames that may be uncertain
MAY_LOSE = 0.005  # share of the followed frames on which the doubt may have lasted until the target counts as lost
MUST_RETURN = 0.9  # share of the followed frames that must be good enough to be believed again; as few as may be others
MOST_UNLIKENESS = 90.0  # of what it may take away, lest a target that turns be refused
LOST_FRAMES = range(3, 16)
SOON = 5  # frames that a session may take until it doubts, and 2 SOON to find the target again

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Clip:
    """A sequence to follow, as it is or staged; `gone` is the first frame of a staged absence, else the last frame."""

    kind: str
    name: str
    frames: list[absence.Pixels] | FrameSource
    truth: Floats
    gone: int


@dataclass(frozen=True)
class Record:
    """What a tracker said of one clip, a row a frame from the second on.

    Attributes:
        estimates: as far as the target has been gone for so long that it would count as lost.
        overlap: (frames,) float64 with the truth; nan where there is no target.
    """

    estimates: Sequence[Estimate]
    overlap: Floats


def record(tracker: Tracker, clip: Clip) -> Record:
    """Follow a clip without a session."""
    estimates, overlaps = [], []
    for index, (frame, truth) in enumerate(zip(clip.frames, clip.truth, strict=False)):
        if index == 0:
            tracker.init(from_bgr(frame), Box(*map(float, truth)))
            continue
        if index >= clip.gone + absence.GONE:
            break
        estimates.append(tracker.update(from_bgr(frame)))
        overlaps.append(_overlap(tracker.target, truth))
        while tracker.idle_work():
            pass
    return Record(estimates, np.array(overlaps))


def fit(records: Sequence[Record]) -> SessionSettings:
    """Settings that part followed frames from those without a target.

    Raises:
        LightTrackError: too few of either, or the score is no higher with a target than without.
    """
    overlap = np.concatenate([record.overlap for record in records])
    followed, absent = overlap > FOLLOWED, np.isnan(overlap)
    if min(followed.sum(), absent.sum()) < 50:
        raise LightTrackError(
            f"{followed.sum()} frames on which the target is followed and {absent.sum()} without it, expected 50 of "
            "each at least: give more sequences, or a model that follows them"
        )
    # How the target is taken to look depends on what is believed, and so on the settings.
    settings = _fit(records, [evidence(record, None) for record in records])
    for _ in range(3):
        settings = _fit(records, [evidence(record, settings) for record in records])
    return settings


def evidence(record: Record, settings: SessionSettings | None) -> Floats:
    """(frames, 2) float64: log odds of the score, and how unlike itself the target looks.

    Args:
        settings: a frame is believed by these, as in a session; None: by the truth.
    """
    looks, rows = Looks(), []
    for estimate, overlap in zip(record.estimates, record.overlap, strict=True):
        row = log_odds(estimate), looks.unlike(estimate)
        rows.append(row)
        if overlap > FOLLOWED if settings is None else confidence(settings, np.array([row]))[0] >= settings.uncertain:
            looks.learn(estimate)
    return np.array(rows)


def confidence(settings: SessionSettings, evidence: Floats) -> Floats:
    """The session's, (frames,), of evidence (frames, 2)."""
    scores = evidence[:, 0] - settings.unlikeness * evidence[:, 1] - settings.midpoint
    return np.asarray(1 / (1 + np.exp(-settings.slope * scores)), np.float64)


def _fit(records: Sequence[Record], evidences: Sequence[Floats]) -> SessionSettings:
    together, overlap = np.concatenate(evidences), np.concatenate([record.overlap for record in records])
    followed = overlap > FOLLOWED
    kept = followed | np.isnan(overlap)
    weight, unlike, _ = map(float, logistic_regression(together[kept], followed[kept]))
    # Looking unlike must not speak for the target, nor be all that counts.
    unlikeness = 0.0 if unlike >= 0 else MOST_UNLIKENESS if weight <= 0 else min(-unlike / weight, MOST_UNLIKENESS)
    unlikeness = round(unlikeness, 1)
    both = together[kept] @ (1, -unlikeness)
    slope, offset = map(float, logistic_regression(both[:, None], followed[kept]))
    if slope <= 0:
        raise LightTrackError(
            "the network's score is no higher with a target than without: it cannot tell when the target is lost"
        )
    settings = SessionSettings(unlikeness=unlikeness, midpoint=round(-offset / slope, 2), slope=round(slope, 3))
    believed = [confidence(settings, rows) for rows in evidences]
    of_followed = np.concatenate(believed)[followed]
    uncertain = round(min(max(float(np.quantile(of_followed, MAY_DOUBT)), 0.02), 0.6), 2)
    found = float(np.quantile(of_followed, 1 - MUST_RETURN))
    found = round(min(max(found, uncertain + 0.05), 0.98), 2)
    doubts = np.concatenate(
        [
            _in_a_row(values < uncertain)[record.overlap > FOLLOWED]
            for values, record in zip(believed, records, strict=True)
        ]
    )
    lost_frames = next((n for n in LOST_FRAMES if np.mean(doubts >= n) <= MAY_LOSE), LOST_FRAMES[-1])
    return dataclasses.replace(settings, uncertain=uncertain, found=found, lost_frames=lost_frames)


def logistic_regression(values: Floats, labels: NDArray[np.bool_]) -> Floats:
    """Weights, one a column, and last the offset; both classes count the same.

    Args:
        values: (N, columns).
        labels: (N,), both kinds among them.
    """
    mean, spread = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-9)
    inputs = np.column_stack([(values - mean) / spread, np.ones(len(values))])
    share = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):  # Newton's steps, no longer than 2, with a breath of shrinkage for classes that part cleanly
        predicted = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (share * (predicted - labels)) + 1e-4 * weights
        curvature = (inputs * (share * predicted * (1 - predicted))[:, None]).T @ inputs + 1e-4 * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights -= step * min(1.0, 2 / max(float(np.abs(step).max()), 1e-12))
    weights[:-1] /= spread
    weights[-1] -= weights[:-1] @ mean
    return np.asarray(weights, np.float64)


@dataclass(frozen=True)
class Verdict:
    """What a session said of one clip, a row a frame from the second on; `gone` counts rows."""

    kind: str
    states: NDArray[np.int64]
    overlap: Floats  # with the truth; nan where there is no target
    gone: int


def judge(tracker: Tracker, settings: SessionSettings, clip: Clip) -> Verdict:
    """Send a session through a clip."""
    session = Session(tracker, settings)
    states, overlaps = [], []
    for index, (frame, truth) in enumerate(zip(clip.frames, clip.truth, strict=False)):
        if index == 0:
            session.start(from_bgr(frame), Box(*map(float, truth)))
            continue
        report = session.step(from_bgr(frame))
        states.append(int(report.state))
        overlaps.append(_overlap(report.box, truth))
        while tracker.idle_work():
            pass
    return Verdict(clip.kind, np.array(states), np.array(overlaps), clip.gone - 1)


def clips_to_follow(found: Sequence[sequences.Sequence], names: Sequence[str], what: str) -> Iterator[Clip]:
    """Every clip of some sequences; what is seen instead of a target may come from all."""
    pairs = [(sequence, other) for sequence, other in absence.others(found) if sequence.name in names]
    for sequence, other in tqdm(pairs, desc=what, unit="sequence", leave=False, disable=None):
        assert sequence.truth is not None
        yield Clip(AS_IT_IS, sequence.name, sequence.frames, sequence.truth, len(sequence.truth))
        for kind in absence.KINDS:
            staged = absence.stage(sequence, kind, other)
            if staged is not None:
                yield Clip(kind, sequence.name, staged.frames, staged.truth, staged.gone)


def figures(kind: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Of one kind of clips: shares of frames or clips, None where there are none of these."""
    clips = [verdict for verdict in verdicts if verdict.kind == kind]
    if kind == AS_IT_IS:
        states = np.concatenate([clip.states for clip in clips])
        overlap = np.concatenate([clip.overlap for clip in clips])
        followed, missed, absent = states[overlap > FOLLOWED], states[overlap < MISSED], states[np.isnan(overlap)]
        return {
            "kind": kind,
            "clips": len(clips),
            "followed_frames": len(followed),
            "followed_uncertain": _share(followed == State.UNCERTAIN),
            # Where it is lost the box stays; so these are such by chance of where it was.
            "followed_lost": _share(followed == State.LOST),
            "frames_lost": _share(states == State.LOST),
            "missed_frames": int(np.sum((overlap < MISSED) & (states != State.LOST))),
            "missed_tracking": _share(missed[missed != State.LOST] == State.TRACKING),
            "absent_tracking": _share(absent == State.TRACKING),
            "mean_overlap": float(np.nanmean(overlap)),
        }
    during = [clip.states[clip.gone : clip.gone + absence.GONE] for clip in clips]
    after = [
        (clip.states[clip.gone + absence.GONE :][: 2 * SOON], clip.overlap[clip.gone + absence.GONE :][: 2 * SOON])
        for clip in clips
        if len(clip.states) > clip.gone + absence.GONE
    ]
    return {
        "kind": kind,
        "clips": len(clips),
        "absent_tracking": _share(np.concatenate([states == State.TRACKING for states in during] or [np.zeros(0)])),
        "absent_tracking_late": _share(
            np.concatenate([states[SOON:] == State.TRACKING for states in during] or [np.zeros(0)])
        ),
        "ended_lost": _share(np.array([states[-1] == State.LOST for states in during])),
        "found_again": _share(
            np.array([bool(np.any((states == State.TRACKING) & (overlap > FOLLOWED))) for states, overlap in after])
        ),
        "found_wrong": _share(
            np.array([bool(states[-1] == State.TRACKING and overlap[-1] < MISSED) for states, overlap in after])
        ),
    }


def _share(of: NDArray[np.bool_]) -> float | None:
    return float(np.mean(of)) if len(of) else None


def _in_a_row(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many have been set in a row, up to each."""
    counts = np.zeros(len(flags), np.int64)
    for index, flag in enumerate(flags):
        counts[index] = (counts[index - 1] if index else 0) + 1 if flag else 0
    return counts


def _overlap(box: Box, truth: Floats) -> float:
    return intersection_over_union(box, Box(*map(float, truth))) if np.isfinite(truth).all() else float("nan")

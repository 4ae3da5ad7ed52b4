"""What a session's word is worth: its boxes, its confidence and its states against the truth, absences included.

Long-term precision, recall and F-score are those of VOT-LT (Lukezic et al.: Performance Evaluation Methodology for
Long-Term Visual Object Tracking, IEEE Transactions on Cybernetics 2021).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.evaluation import metrics
from lighttrack_ros.session import State

RIGHT = 0.5  # overlap over which a box is right: what confidence is the probability of
MISSED = 0.1  # overlap under which it is not on the target at all
BINS = 10  # of confidence, equally wide, for the calibration error
THRESHOLDS = 100  # confidences tried for the best F-score, as in the VOT toolkit
SOON = 10  # frames from a disappearance within which the target should be called lost
GRACE = 5  # frames of an absence in which it may still be called tracked
BACK = 30  # frames from a return within which the target should be tracked again

Floats = NDArray[np.float64]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Account:
    """A session's word on one sequence beside the plain tracker's boxes, a row a frame; row 0 is the given box.

    Attributes:
        name: the sequence's.
        truth: (n, 4) float64, x, y, width, height in pixels; nan where the target cannot be seen.
        plain: (n, 4) float64, the tracker's boxes without a session, from one pass.
        boxes: (n, 4) float64, the session's.
        confidences: (n,) float64.
        states: (n,) int64, values of `State`.
    """

    name: str
    truth: Floats
    plain: Floats
    boxes: Floats
    confidences: Floats
    states: NDArray[np.int64]

    @property
    def present(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.truth).all(axis=1))

    @property
    def overlap(self) -> Floats:
        """Of the session's boxes with the truth, (n,); 0 where there is no target."""
        return metrics.overlaps(self.boxes, self.truth)


@dataclass(frozen=True)
class Trust:
    """The figures of some sequences; None where there is nothing to measure them on.

    Frame 0, where the box was given, counts in the AUCs alone. AUCs, precision, recall and F-score are means over
    the sequences, all else is of the frames or events of all sequences together.

    Attributes:
        frames, absent_frames: how many there are.
        plain_auc, auc: success AUC of the tracker's boxes and of the session's, over the frames with a target.
        f_score, precision, recall: at the best threshold on the confidence, the same for all sequences.
        threshold: that one.
        state_f_score, state_precision, state_recall: with a box given wherever the session does not say lost.
        ece: expected calibration error of the confidence as the probability of an overlap over RIGHT.
        auroc: area under the ROC curve of the confidence for an overlap over RIGHT.
        disappearances: absences that were judged: those that lasted SOON frames, or until the target was called lost.
        frames_to_lost, frames_to_lost_p90: from the first frame of an absence until the target is called lost;
            infinite where it is not within the absence.
        lost_soon: share of the disappearances called lost within SOON frames.
        absent_tracking: share of the absent frames past the GRACE first of an absence that are called tracking.
        good_frames: on which the session's box or the plain tracker's has an overlap over RIGHT.
        good_lost, good_uncertain: shares of these called lost, and uncertain.
        returns: to view after an absence, judged: those in view for BACK frames, or until they were tracked.
        frames_to_tracking: median over the returns; infinite where it is not tracked again.
        back_right, back_wrong: share of the returns whose first tracked frame, within BACK, is on the target
            (overlap at least MISSED), or is not.
        missed_frames: in view, with an overlap under MISSED.
        missed_tracking: share of these called tracking.
        reliability: a row a bin of confidence: frames, mean confidence, share with an overlap over RIGHT.
    """

    frames: int
    absent_frames: int
    plain_auc: float
    auc: float
    f_score: float
    precision: float
    recall: float
    threshold: float
    state_f_score: float
    state_precision: float
    state_recall: float
    ece: float
    auroc: float | None
    disappearances: int
    frames_to_lost: float | None
    frames_to_lost_p90: float | None
    lost_soon: float | None
    absent_tracking: float | None
    good_frames: int
    good_lost: float | None
    good_uncertain: float | None
    returns: int
    frames_to_tracking: float | None
    back_right: float | None
    back_wrong: float | None
    missed_frames: int
    missed_tracking: float | None
    reliability: list[tuple[int, float, float]]

    def as_json(self) -> dict[str, Any]:
        """All figures by name; what is infinite becomes the text "never"."""
        values = dataclasses.asdict(self)
        return {name: "never" if value == float("inf") else value for name, value in values.items()}


def measure(accounts: Sequence[Account]) -> Trust:
    """The figures over some sequences.

    Raises:
        ValueError: no sequences, or one in which the target is never in view.
    """
    if not accounts:
        raise ValueError("no sequences")
    present = _joined(accounts, lambda one: one.present)
    overlap = _joined(accounts, lambda one: one.overlap)
    plain = _joined(accounts, lambda one: metrics.overlaps(one.plain, one.truth))
    states = _joined(accounts, lambda one: one.states)
    confidences = _joined(accounts, lambda one: one.confidences)
    late = _joined(accounts, lambda one: _age(~one.present) > GRACE)
    good = present & ((overlap > RIGHT) | (plain > RIGHT))
    missed = present & (overlap < MISSED)
    tracking = states == State.TRACKING
    to_lost = np.array([frames for one in accounts for frames in _disappearances(one)])
    back = [outcome for one in accounts for outcome in _returns(one)]
    to_tracking = np.array([frames for frames, _ in back])
    threshold, (precision, recall, f_score) = best_threshold(accounts)
    not_lost = [np.where(one.states == State.LOST, 0.0, 1.0) for one in accounts]
    state_precision, state_recall, state_f_score = long_term(accounts, not_lost, 0.5)
    bins = reliability(confidences, overlap > RIGHT)
    return Trust(
        frames=len(present),
        absent_frames=int((~present).sum()),
        plain_auc=_auc(accounts, lambda one: one.plain),
        auc=_auc(accounts, lambda one: one.boxes),
        f_score=f_score,
        precision=precision,
        recall=recall,
        threshold=threshold,
        state_f_score=state_f_score,
        state_precision=state_precision,
        state_recall=state_recall,
        ece=sum(frames * abs(stated - share) for frames, stated, share in bins) / max(1, len(confidences)),
        auroc=auroc(confidences, overlap > RIGHT),
        disappearances=len(to_lost),
        frames_to_lost=_quantile(to_lost, 0.5),
        frames_to_lost_p90=_quantile(to_lost, 0.9),
        lost_soon=_share(to_lost <= SOON),
        absent_tracking=_share(tracking[late]),
        good_frames=int(good.sum()),
        good_lost=_share(states[good] == State.LOST),
        good_uncertain=_share(states[good] == State.UNCERTAIN),
        returns=len(back),
        frames_to_tracking=_quantile(to_tracking, 0.5),
        back_right=_share(np.array([right for _, right in back]) & (to_tracking <= BACK)) if back else None,
        back_wrong=_share(~np.array([right for _, right in back]) & (to_tracking <= BACK)) if back else None,
        missed_frames=int(missed.sum()),
        missed_tracking=_share(tracking[missed]),
        reliability=bins,
    )


def auroc(scores: Floats, labels: NDArray[np.bool_]) -> float | None:
    """Chance that a random positive scores higher than a random negative, ties counting half.

    Args:
        scores: (n,) float64.
        labels: (n,) bool.

    Returns:
        None where all labels are equal.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1, the mean rank of those that are equal
    return float((ranks[place][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def reliability(confidences: Floats, right: NDArray[np.bool_]) -> list[tuple[int, float, float]]:
    """Of each of BINS bins of confidence: frames, mean confidence and share of `right`; zeros where it is empty."""
    place = np.minimum((confidences * BINS).astype(int), BINS - 1)
    rows = []
    for index in range(BINS):
        inside = place == index
        frames = int(inside.sum())
        rows.append(
            (frames, float(confidences[inside].mean()), float(right[inside].mean())) if frames else (0, 0.0, 0.0)
        )
    return rows


def long_term(
    accounts: Sequence[Account], confidences: Sequence[Floats], threshold: float
) -> tuple[float, float, float]:
    """VOT-LT's tracking precision, recall and F-score, with a box given wherever confidence reaches a threshold.

    Precision is the mean overlap of the boxes given, an absent target counting 0; recall is their summed overlap
    over the frames with a target. Where no box is given, precision is 1.
    """
    precisions, recalls = [], []
    for one, confidence in zip(accounts, confidences, strict=True):
        given = confidence[1:] >= threshold
        overlap, visible = one.overlap[1:], int(one.present[1:].sum())
        precisions.append(float(overlap[given].mean()) if given.any() else 1.0)
        recalls.append(float(overlap[given].sum()) / visible if visible else float(not given.any()))
    precision, recall = float(np.mean(precisions)), float(np.mean(recalls))
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)


def best_threshold(accounts: Sequence[Account]) -> tuple[float, tuple[float, float, float]]:
    """The confidence at which `long_term` has its highest F-score, and precision, recall and F-score there."""
    confidences = [one.confidences for one in accounts]
    tried = np.unique(np.quantile(np.concatenate(confidences), np.linspace(0, 1, THRESHOLDS)))
    results = [(float(threshold), long_term(accounts, confidences, threshold)) for threshold in tried]
    return max(results, key=lambda result: result[1][2])


def _disappearances(one: Account) -> list[float]:
    """Frames from the beginning of each absence until the target is called lost."""
    found = []
    for begin, end in stretches(~one.present):
        lost = np.flatnonzero(one.states[begin:end] == State.LOST)
        if len(lost):
            found.append(float(lost[0]))
        elif end - begin >= SOON:
            found.append(np.inf)
    return found


def _returns(one: Account) -> list[tuple[float, bool]]:
    """Frames from each return to view until the target is called tracking, and whether it is the right one then."""
    found = []
    overlap = one.overlap
    for begin, end in stretches(one.present):
        if begin == 0:
            continue
        tracked = np.flatnonzero(one.states[begin:end] == State.TRACKING)
        if len(tracked):
            found.append((float(tracked[0]), bool(overlap[begin + tracked[0]] >= MISSED)))
        elif end - begin >= BACK:
            found.append((np.inf, False))
    return found


def stretches(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and past-the-last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _age(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each True, how many there are in its run up to it; 0 of each False."""
    age = np.zeros(len(mask), np.int64)
    for begin, end in stretches(mask):
        age[begin:end] = np.arange(1, end - begin + 1)
    return age


def _joined(accounts: Sequence[Account], what: Callable[[Account], NDArray[Any]]) -> NDArray[Any]:
    """Of all sequences, without frame 0."""
    return np.concatenate([what(one)[1:] for one in accounts])


def _auc(accounts: Sequence[Account], boxes: Callable[[Account], Floats]) -> float:
    return float(np.mean([metrics.accuracy(boxes(one), one.truth).auc for one in accounts]))


def _share(mask: NDArray[np.bool_]) -> float | None:
    return float(mask.mean()) if len(mask) else None


def _quantile(values: Floats, at: float) -> float | None:
    """The smallest value that so large a share does not exceed: infinite ones cannot be interpolated."""
    return float(np.quantile(values, at, method="inverted_cdf")) if len(values) else None

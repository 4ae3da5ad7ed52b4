"""Figures of a trained DyTrack's exits: time saved, accuracy lost, and on which frames they are taken.

Times are means over the frames of one run in which all variants run interleaved; see `evaluation.exits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.evaluation.exits import Record, Track, fixed_exits, modes_of, record
from lighttrack_ros.evaluation.tune_exits import first_stops
from lighttrack_ros.models import DyTrackHyperParameters, Model
from lighttrack_ros.networks.dytrack import Architecture, DyTrack, Passed
from lighttrack_ros.trackers.dytrack import DyTrackTracker

Figures = dict[str, Any]
_ENOUGH = 0.05  # the oracle goes on only for a larger gain of overlap
_GOOD = 0.7  # AUROC: whether a decision separates larger overlaps from smaller ones


def exit_figures(model: Model, other: Model | None, sequences: Sequence[Any], threads: int) -> Figures:
    """Time and accuracy of each exit and mode of a DyTrack on labelled sequences.

    Args:
        other: a model of the same exits to compare with, exit by exit.
        sequences: `media.sequences.Sequence`s with ground truth.
        threads: CPU threads; 0: half of the cores.

    Raises:
        LightTrackError: a model is not a DyTrack, or frames and ground truth do not match.
    """
    fixed, modes = fixed_exits(model), modes_of(model)
    records = _record(model, fixed | modes, sequences, threads)
    figures: Figures = {
        "machine": describe_machine(),
        "model": model.name,
        "exits": exits(records, list(fixed), macs_of_exits(Architecture.parse(model.architecture))),
        "modes": modes_used(records, list(fixed), list(modes)),
        "stopping": stopping(records, {mode: settings.modes[mode] for mode, settings in modes.items()}),
        "decisions": decisions(records),
        "difficulty": by_difficulty(records, list(fixed), list(modes)),
        "sequences": by_sequence(records, list(fixed), list(modes)),
    }
    if other is not None:
        others = _record(other, fixed_exits(other), sequences, threads)
        figures["against"] = {"model": other.name, "exits": against(records, others, list(fixed))}
    return figures


def exits(records: Sequence[Record], fixed: Sequence[str], macs: Sequence[float]) -> list[Figures]:
    """Work, time and accuracy of every exit if it is used for all frames.

    `auc` is for tracking with this exit alone; `overlap` is for its boxes on the probe's frames, which all exits share.
    """
    times = [_mean_ms(records, name) for name in fixed]
    overlap = _probe(records)[1].mean(0)
    return [
        {
            "exit": index,
            "macs_m": macs[index],
            "macs_share": macs[index] / macs[-1],
            "network_ms": times[index],
            "time_share": times[index] / times[-1],
            "step_ms": _mean_ms(records, name, "step_seconds"),
            "auc": _auc(records, name),
            "overlap": float(overlap[index]),
        }
        for index, name in enumerate(fixed)
    ]


def modes_used(records: Sequence[Record], fixed: Sequence[str], modes: Sequence[str]) -> list[Figures]:
    """For every mode: shares of the exits, predicted and measured time, and accuracy.

    `fixed_depth_auc` is the AUC of fixed exits at the same mean time, interpolated between the two nearest.
    """
    times = [_mean_ms(records, name) for name in fixed]
    aucs = [_auc(records, name) for name in fixed]
    rows = []
    for mode in modes:
        shares = _histogram([stop for each in records for stop in each.tracks[mode].exits], len(fixed))
        expected, taken = float(np.dot(shares, times)), _mean_ms(records, mode)
        rows.append(
            {
                "mode": mode,
                "shares": shares,
                "expected_ms": expected,
                "network_ms": taken,
                "measured_to_expected": taken / expected,
                "time_share": taken / times[-1],
                "auc": _auc(records, mode),
                "fixed_depth_auc": float(np.interp(expected, times, aucs)),
            }
        )
    return rows


def stopping(records: Sequence[Record], modes: dict[str, tuple[float, ...]]) -> list[Figures]:
    """The gain of choosing an exit per frame, on the probe's frames: thresholds, chance with equal shares, an oracle.

    The oracle stops at the first exit whose overlap is within 0.05 of the last one's.
    """
    qualities, overlaps = _probe(records)
    enough = overlaps[:, -1:] - overlaps <= _ENOUGH
    ways = {mode: first_stops(qualities, thresholds) for mode, thresholds in modes.items()}
    ways["oracle"] = enough.argmax(1)
    rows = []
    for name, stops in ways.items():
        shares = _histogram(stops, overlaps.shape[1])
        rows.append(
            {
                "way": name,
                "shares": shares,
                "overlap": float(overlaps[np.arange(len(stops)), stops].mean()),
                "chance_overlap": float(np.dot(shares, overlaps.mean(0))),
            }
        )
    return rows


def decisions(records: Sequence[Record]) -> list[Figures]:
    """How well every exit's quality predicts its overlap, on the probe's frames.

    `calibration_error` is the expected calibration error over ten bins; `auroc` is for separating overlaps over 0.7.
    """
    qualities, overlaps = _probe(records)
    rows = []
    for index, (quality, overlap) in enumerate(zip(qualities.T, overlaps.T, strict=True)):
        bins = np.minimum((quality * 10).astype(int), 9)
        errors = [abs((quality - overlap)[bins == each].sum()) for each in range(10)]
        rows.append(
            {
                "exit": index,
                "correlation": _correlation(quality, overlap),
                "auroc": _auroc(quality, overlap >= _GOOD),
                "calibration_error": float(np.sum(errors) / len(quality)),
            }
        )
    return rows


def by_difficulty(records: Sequence[Record], fixed: Sequence[str], modes: Sequence[str]) -> list[Figures]:
    """Shares of the exits by difficulty, in thirds of all frames, for two measures of difficulty.

    `motion`: the target's move since the frame before, in square roots of its area, plus the log of the factor by
    which its area changed. `miss`: 1 minus the last exit's overlap, on the probe.
    """
    measures = {
        "motion": np.concatenate([_motion(each.sequence.truth) for each in records]),
        "miss": np.concatenate([1 - each.probe.overlaps[:, -1] for each in records]),
    }
    rows = []
    for name, values in measures.items():
        known = np.isfinite(values)
        thirds = np.full(len(values), -1)
        thirds[known] = 3 * values[known].argsort(kind="stable").argsort() // known.sum()
        for third, label in enumerate(("easy", "middling", "hard")):
            chosen = thirds == third
            stops = {mode: np.concatenate([each.tracks[mode].exits for each in records])[chosen] for mode in modes}
            rows.append(
                {
                    "measure": name,
                    "third": label,
                    "frames": int(chosen.sum()),
                    "shares": {mode: _histogram(stop, len(fixed)) for mode, stop in stops.items()},
                    "mean_exit": {mode: float(stop.mean()) for mode, stop in stops.items()},
                    "overlap": np.nanmean(
                        np.concatenate([each.probe.overlaps for each in records])[chosen], axis=0
                    ).tolist(),
                }
            )
    return rows


def by_sequence(records: Sequence[Record], fixed: Sequence[str], modes: Sequence[str]) -> list[Figures]:
    """Figures of every sequence; the one that full depth tracks best comes first."""
    rows = [
        {
            "sequence": each.sequence.name,
            "frames": len(each.sequence.truth) if each.sequence.truth is not None else 0,
            "auc": {name: _accuracy(each, each.tracks[name]) for name in (*fixed, *modes)},
            "shares": {mode: _histogram(each.tracks[mode].exits, len(fixed)) for mode in modes},
            "mean_exit": {mode: float(np.mean(each.tracks[mode].exits)) for mode in modes},
        }
        for each in records
    ]
    return sorted(rows, key=lambda row: -row["auc"][fixed[-1]])


def against(records: Sequence[Record], others: Sequence[Record], fixed: Sequence[str]) -> list[Figures]:
    """Every exit of one model compared with the other's: tracking with it alone, and boxes in the same crops.

    The crops lie around the true box of the frame before; `standard_error` is that of the mean difference of the
    overlaps over sequences.
    """
    rows = []
    for index, name in enumerate(fixed):
        ours = np.array([_accuracy(each, each.tracks[name]) for each in records])
        theirs = np.array([_accuracy(each, each.tracks[name]) for each in others])
        boxes, their_boxes = (
            np.array([np.nanmean(each.from_truth[:, index]) for each in side]) for side in (records, others)
        )
        rows.append(
            {
                "exit": index,
                "auc": float(ours.mean()),
                "other_auc": float(theirs.mean()),
                "sequences_better": int((ours > theirs).sum()),
                "overlap": float(boxes.mean()),
                "other_overlap": float(their_boxes.mean()),
                "overlap_difference": float((boxes - their_boxes).mean()),
                "standard_error": float((boxes - their_boxes).std() / np.sqrt(len(boxes))),
                "sequences_overlap_better": int((boxes > their_boxes).sum()),
                "sequences": len(ours),
            }
        )
    return rows


@torch.inference_mode()
def macs_of_exits(architecture: Architecture) -> list[float]:
    """MACs, in millions, of a frame that stops at each exit: convolutions and matrix products."""
    network = DyTrack(architecture).eval()
    shares = network.template_shares(torch.zeros(1, 3, architecture.template_size, architecture.template_size))
    before: Tensor | Passed = torch.zeros(1, 3, architecture.search_size, architecture.search_size)
    totals = [0.0]
    for index, share in enumerate(shares):
        with FlopCounterMode(display=False) as counter:
            before, _ = network.stage(index, before, share)
        totals.append(totals[-1] + counter.get_total_flops() / 2e6)
    return totals[1:]


def _record(
    model: Model, ways: dict[str, DyTrackHyperParameters], sequences: Sequence[Any], threads: int
) -> list[Record]:
    tracker = DyTrackTracker(model, threads=threads)
    total = sum(each.frames.count or 0 for each in sequences)
    try:
        with tqdm(total=total, unit="frame", leave=False, disable=None, desc=model.name) as bar:
            return record(tracker, ways, sequences, bar.update)
    finally:
        tracker.close()


def _mean_ms(records: Sequence[Record], way: str, what: str = "seconds") -> float:
    return 1e3 * float(np.mean([seconds for each in records for seconds in getattr(each.tracks[way], what)]))


def _auc(records: Sequence[Record], way: str) -> float:
    return float(np.mean([_accuracy(each, each.tracks[way]) for each in records]))


def _accuracy(each: Record, track: Track) -> float:
    assert each.sequence.truth is not None  # sequences without are left out at the door
    return track.accuracy(each.sequence.truth).auc


def _probe(records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Qualities and overlaps (frames, exits) of the frames in which the target is visible."""
    qualities = np.concatenate([each.probe.qualities for each in records])
    overlaps = np.concatenate([each.probe.overlaps for each in records])
    seen = np.isfinite(overlaps).all(1)
    return qualities[seen], overlaps[seen]


def _histogram(stops: Any, count: int) -> list[float]:
    found: list[float] = (np.bincount(stops, minlength=count) / max(1, len(stops))).tolist()
    return found


def _motion(truth: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(frames - 1,), see `by_difficulty`; nan if the target is hidden in either frame."""
    assert truth is not None
    centre, area = truth[:, :2] + truth[:, 2:] / 2, truth[:, 2:].prod(1)
    moved = np.hypot(*(centre[1:] - centre[:-1]).T) / np.sqrt(area[:-1])
    return np.asarray(moved + np.abs(np.log(area[1:] / area[:-1])), np.float64)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Correlation; 0 if one of the arguments is constant."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def _auroc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores higher than a negative; 0.5 if there are none of one kind."""
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    count = int(positive.sum())
    if count in (0, len(score)):
        return 0.5
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(score) - count)))

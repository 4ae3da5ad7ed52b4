"""A DyTrack's thresholds from videos it was not trained on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.exits import Record

BUDGETS = {"fast": 0.5, "balanced": 0.7, "accurate": 0.85}  # mean time of a frame, as a share of full depth
_STEP = 0.02  # of the thresholds that are tried


@dataclass(frozen=True)
class Tuned:
    """Thresholds of one mode, and what they come to on the frames that they were found on."""

    thresholds: tuple[float, ...]
    overlap: float  # mean
    cost: float  # mean, as a share of full depth
    shares: tuple[float, ...]  # of the frames, by the exit where they stop


@dataclass(frozen=True)
class Tuning:
    """What was found: on how many frames, the mean overlap at each exit, and the modes by name."""

    frames: int
    overlaps: tuple[float, ...]
    modes: dict[str, Tuned]


def tune(records: Sequence[Record], exits: Sequence[str]) -> Tuning:
    """Thresholds for every mode of BUDGETS.

    Args:
        records: of `exits.record`, every exit fixed in turn.
        exits: the names of these ways, from the first exit to the last.

    Raises:
        LightTrackError: stopping always at the first exit costs more than a budget.
    """
    qualities = np.concatenate([each.probe.qualities for each in records])
    overlaps = np.concatenate([each.probe.overlaps for each in records])
    seen = np.isfinite(overlaps).all(1)
    qualities, overlaps = qualities[seen], overlaps[seen]
    seconds = [np.median([t for each in records for t in each.tracks[name].seconds]) for name in exits]
    costs = np.array(seconds) / seconds[-1]
    modes = {}
    for mode, budget in BUDGETS.items():
        thresholds = best_thresholds(qualities, overlaps, costs, budget)
        stops = first_stops(qualities, thresholds)
        shares = np.bincount(stops, minlength=len(costs)) / len(stops)
        overlap = float(overlaps[np.arange(len(stops)), stops].mean())
        modes[mode] = Tuned(thresholds, overlap, float(costs[stops].mean()), tuple(shares.tolist()))
    return Tuning(len(overlaps), tuple(overlaps.mean(0).tolist()), modes)


def best_thresholds(
    qualities: NDArray[np.float64], overlaps: NDArray[np.float64], costs: NDArray[np.float64], budget: float
) -> tuple[float, ...]:
    """Thresholds of every exit but the last, not rising, with the largest mean overlap within a mean cost.

    Args:
        qualities, overlaps: (frames, exits).
        costs: (exits,) of a frame that stops there.
        budget: in the units of the costs.

    Raises:
        LightTrackError: stopping always at the first exit costs more than that.
    """
    best, found = (-1.0, 0.0), None
    grid = np.round(np.arange(0, 1 + _STEP, _STEP), 2)[::-1]
    frames = np.arange(len(qualities))
    for thresholds in itertools.combinations_with_replacement(grid.tolist(), len(costs) - 1):
        stops = first_stops(qualities, thresholds)
        cost = float(costs[stops].mean())
        score = float(overlaps[frames, stops].mean()), -cost
        if score > best and cost <= budget:
            best, found = score, thresholds
    if found is None:
        raise LightTrackError(f"no thresholds cost {budget:g} or less: the first exit alone costs {costs[0]:g}")
    return found


def first_stops(qualities: NDArray[np.float64], thresholds: tuple[float, ...]) -> NDArray[np.int64]:
    """(frames,) the first exit whose quality, of (frames, exits), reaches its threshold; the last one always does."""
    reached = qualities >= np.array([*thresholds, -np.inf])
    return np.asarray(reached.argmax(1), np.int64)

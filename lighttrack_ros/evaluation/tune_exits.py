"""`lighttrack tune-exits`: a DyTrack's thresholds from videos it was not trained on, written into its model.yaml."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.exits import fixed_exits, record
from lighttrack_ros.media.sequences import find_sequences
from lighttrack_ros.media.video import check_writable
from lighttrack_ros.models import DyTrackHyperParameters, load_model, save_model
from lighttrack_ros.trackers.dytrack import DyTrackTracker

BUDGETS = {"fast": 0.5, "balanced": 0.7, "accurate": 0.85}  # mean time of a frame, as a share of full depth
_STEP = 0.02  # of the thresholds that are tried


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name or folder of a DyTrack model")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder a sequence inside")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="use these sequences alone")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: the backend chooses")


def run(args: argparse.Namespace) -> int:
    model = load_model(args.model)
    parameters = model.parameters_of(DyTrackHyperParameters)
    check_writable(model.folder / "model.yaml")
    found = [sequence for sequence in find_sequences(args.sequences, args.only) if sequence.truth is not None]
    if not found:
        raise LightTrackError(f"{args.sequences}: no sequence with ground truth in it")
    tracker = DyTrackTracker(model, threads=args.threads)
    try:
        fixed = fixed_exits(model)
        with tqdm(total=sum(sequence.frames.count or 0 for sequence in found), unit="frame", disable=None) as bar:
            records = record(tracker, fixed, found, bar.update)
    finally:
        tracker.close()
    qualities = np.concatenate([each.probe.qualities for each in records])
    overlaps = np.concatenate([each.probe.overlaps for each in records])
    seen = np.isfinite(overlaps).all(1)
    seconds = [np.median([t for each in records for t in each.tracks[name].seconds]) for name in fixed]
    costs = np.array(seconds) / seconds[-1]
    modes = {}
    print(f"{seen.sum()} frames; overlap at each exit: {'  '.join(f'{each:.3f}' for each in overlaps[seen].mean(0))}")
    for mode, budget in BUDGETS.items():
        modes[mode] = best_thresholds(qualities[seen], overlaps[seen], costs, budget)
        stops = first_stops(qualities[seen], modes[mode])
        overlap = overlaps[seen][np.arange(len(stops)), stops].mean()
        shares = np.bincount(stops, minlength=len(costs)) / len(stops)
        print(
            f"{mode:9} thresholds {' '.join(f'{each:.2f}' for each in modes[mode])}: overlap {overlap:.3f}"
            f" at {costs[stops].mean():.2f} of the cost, stops {' '.join(f'{each:.2f}' for each in shares)}"
        )
    save_model(dataclasses.replace(model, hyper_parameters=dataclasses.replace(parameters, modes=modes)))
    print(f"written to {model.folder / 'model.yaml'}")
    return 0


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

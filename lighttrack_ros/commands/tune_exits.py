"""`lighttrack tune-exits`: set a DyTrack's thresholds on held-out videos."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from tqdm import tqdm

from lighttrack_ros.evaluation.exits import fixed_exits, record
from lighttrack_ros.evaluation.tune_exits import tune
from lighttrack_ros.media.sequences import find_labelled
from lighttrack_ros.models import DyTrackHyperParameters, load_model, save_model
from lighttrack_ros.outputs import check_writable
from lighttrack_ros.trackers.dytrack import DyTrackTracker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name or folder of a DyTrack model")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder per sequence inside")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="use only these sequences")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: half of the cores")


def run(args: argparse.Namespace) -> int:
    model = load_model(args.model)
    parameters = model.parameters_of(DyTrackHyperParameters)
    check_writable(model.folder / "model.yaml")
    found, _ = find_labelled(args.sequences, args.only)
    tracker = DyTrackTracker(model, threads=args.threads)
    try:
        fixed = fixed_exits(model)
        with tqdm(total=sum(sequence.frames.count or 0 for sequence in found), unit="frame", disable=None) as bar:
            records = record(tracker, fixed, found, bar.update)
    finally:
        tracker.close()
    tuning = tune(records, list(fixed))
    print(f"{tuning.frames} frames; overlap at each exit: {'  '.join(f'{each:.3f}' for each in tuning.overlaps)}")
    for mode, each in tuning.modes.items():
        print(
            f"{mode:9} thresholds {' '.join(f'{value:.2f}' for value in each.thresholds)}: overlap {each.overlap:.3f}"
            f" at {each.cost:.2f} of the cost, stops {' '.join(f'{share:.2f}' for share in each.shares)}"
        )
    modes = {mode: each.thresholds for mode, each in tuning.modes.items()}
    save_model(dataclasses.replace(model, hyper_parameters=dataclasses.replace(parameters, modes=modes)))
    print(f"written to {model.folder / 'model.yaml'}")
    return 0

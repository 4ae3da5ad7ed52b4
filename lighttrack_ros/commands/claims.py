"""`lighttrack claims`: try on this machine whether a claim of the papers shows, over several seeds."""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from lighttrack_ros.errors import LightTrackError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "claim", type=Path, help="a YAML file such as lighttrack_ros/training/recipes/claims/distilled.yaml"
    )
    parser.add_argument("--seeds", type=int, default=3, help="1, 2, ... so many (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs; an unfinished one goes on")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    from lighttrack_ros.training.claims import read_claim, try_claim, verdict

    for name in ("seeds", "threads"):
        if getattr(args, name) < 1:
            raise LightTrackError(f"--{name} is {getattr(args, name)}, expected at least 1")
    claim = read_claim(args.claim)
    outcomes = try_claim(claim, args.claim, args.seeds, args.output, args.threads)
    names = claim.compare or (
        "searched",
        "median of random" if claim.search and claim.search.rival == "random" else "by multiplications",
    )
    rows = [(str(item.seed), [item.first, item.second, item.first - item.second]) for item in outcomes]
    columns = list(zip(*(values for _, values in rows), strict=True))
    rows.append(("mean", [statistics.fmean(column) for column in columns]))
    if len(outcomes) > 1:
        rows.append(("+-", [statistics.stdev(column) for column in columns]))
    print(f"{claim.claim}\noverlap on {claim.measured_pairs} held-out pairs:")
    print(f"{'seed':6} {names[0]:>20} {names[1]:>20} {'difference':>12}")
    for label, (first, second, difference) in rows:
        print(f"{label:6} {first:20.4f} {second:20.4f} {difference:+12.4f}")
    print(verdict(outcomes))
    table = args.output / f"{args.claim.stem}.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", *names, "difference"])
        writer.writerows([label, *(f"{value:.4f}" for value in values)] for label, values in rows)
    print(f"table: {table}")
    return 0

"""`lighttrack soak`: a node for minutes or hours under what operators and cameras do, at random."""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.outputs import check_outputs, write_json
from lighttrack_ros.rig.soak import HEAD, LATENCY_LIMIT, soak


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=3.0, help="how long (default: %(default)g)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of the model (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what happens and when (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")


def run(args: argparse.Namespace) -> int:
    if not 0.1 <= args.minutes <= 100_000:
        raise LightTrackError(f"--minutes is {args.minutes:g}, expected 0.1 to 100000")
    if args.seed < 0:
        raise LightTrackError(f"--seed is {args.seed}, expected 0 or more")
    model = load_model(args.model)
    check_outputs([args.json], [model.folder])
    print(f"{model.name}, seed {args.seed}, {args.minutes:g} minutes; {describe_machine()}\n{HEAD}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lighttrack_soak_") as folder:
        soaked = soak(
            model, args.backend, 60 * args.minutes, args.seed, Path(folder), functools.partial(print, flush=True)
        )
    print("acts: " + ", ".join(f"{name} {count}" for name, count in soaked.acts.items()))
    print(f"boxes: {soaked.boxes_answered} of {soaked.boxes} good ones taken")
    first, last = (soaked.windows[index].figures()["p99_ms"] for index in (0, -1))
    print(f"p99 of the last window: {last / first:.2f} times the first's (limit {LATENCY_LIMIT:g})")
    for fault in soaked.faults:
        print(f"FAULT {fault}")
    if args.json is not None:
        head = {"model": model.name, "seed": args.seed, "minutes": args.minutes, "machine": describe_machine()}
        write_json(args.json, {**head, **soaked.document()})
        print(f"figures: {args.json}")
    return int(bool(soaked.faults) or soaked.slower)

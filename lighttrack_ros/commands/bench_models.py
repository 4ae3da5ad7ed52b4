"""`lighttrack bench models`: parameters, MACs and time per frame of every network."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.outputs import check_outputs, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help="measure only these networks")
    parser.add_argument("--rounds", type=int, default=20, help="runs of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads per run; 0: half of the cores")
    parser.add_argument("--backend", default="onnxruntime", help="what runs them (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")


def run(args: argparse.Namespace) -> int:
    from lighttrack_ros.export import costs

    unknown = set(args.models) - set(costs.MODELS)
    if unknown:
        raise LightTrackError(f"--models {' '.join(sorted(unknown))}: expected some of {', '.join(costs.MODELS)}")
    if args.rounds < 1:
        raise LightTrackError(f"--rounds is {args.rounds}, expected at least 1")
    check_outputs([args.json])
    threads = args.threads or "half the cores"
    print(f"{args.backend}, threads: {threads}, {describe_machine()}, {args.rounds} rounds in turn")
    measured = costs.measure(args.models or list(costs.MODELS), args.rounds, args.threads, args.backend)
    print(f"{'':18} {'':33} params M   MACs M   median ms   p95 ms  ratio")
    for cost in measured:
        print(
            f"{cost.model:18} {cost.what:33} {cost.parameters:8.2f} {cost.macs:8.0f} {cost.median_ms:11.2f}"
            f" {cost.p95_ms:8.2f}  {cost.ratio:5.3f}"
        )
    if args.json is not None:
        rows = [asdict(cost) for cost in measured]
        write_json(args.json, {"machine": describe_machine(), "rows": rows})
        print(f"figures: {args.json}")
    return 0

"""`lighttrack search`: LightTrack's one-shot architecture search, limited by the time a path takes on this device."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.pictures.plot_file import check_plot
from lighttrack_ros.runtime.load import BACKENDS

if TYPE_CHECKING:
    from lighttrack_ros.training.search.evolution import Found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a YAML file with `method: supernet`")
    parser.add_argument("--output", type=Path, required=True, help="folder of the search; an unfinished one goes on")
    parser.add_argument("--limit-ms", type=float, metavar="MS", help="of the search network, a frame, on this device")
    parser.add_argument("--limit-mmacs", type=float, metavar="M", help="millions of multiplications a frame")
    parser.add_argument("--limit-parameters", type=float, metavar="M", help="millions of parameters")
    parser.add_argument(
        "--backend", default="onnxruntime", choices=BACKENDS, help="what runs it (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a run (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="of the search crop, pixels (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=320, help="paths to try, of all machines (default: %(default)s)")
    parser.add_argument("--population", type=int, default=32, help="paths a generation (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="runs of all that is timed (default: %(default)s)")
    parser.add_argument(
        "--check", type=int, default=20, help="random paths whose predicted time is checked (default: %(default)s)"
    )
    parser.add_argument("--name", default="searched", help="of the front's model folders (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw all paths and the front to this file")


def run(args: argparse.Namespace) -> int:
    from lighttrack_ros.training.recipe import read_stages
    from lighttrack_ros.training.search.evolution import Limits
    from lighttrack_ros.training.search.latency import Timing
    from lighttrack_ros.training.search.run import prediction_errors, retrain, search, write_models

    stages = read_stages(args.recipe, args.output)
    for name in ("limit_ms", "limit_mmacs", "limit_parameters", "trials", "population", "rounds", "check"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise LightTrackError(f"--{name.replace('_', '-')} is {value:g}, expected more than 0")
    if args.side % 32 or not 128 < args.side <= 1024:
        raise LightTrackError(f"--side is {args.side}, expected a multiple of 32 over 128")
    if args.plot is not None:
        check_plot(args.plot)
    limits = Limits(args.limit_ms, args.limit_mmacs, args.limit_parameters)
    timing = Timing(args.backend, args.threads, args.side, args.rounds)
    print(f"{args.backend}, {args.threads or 'all'} thread(s), {args.side} px, {describe_machine()}")
    searched = search(stages, args.output, limits, timing, args.trials, args.population)
    found, supernet = searched.found, searched.supernet
    errors = prediction_errors(supernet, searched.space, searched.model, timing, args.check)
    print(
        f"predicted time of {len(errors)} random paths: off by {np.mean(np.abs(errors)):.1%} on average, "
        f"{np.max(np.abs(errors)):.1%} at most"
    )
    front = [item for item in found if item.front]
    table = args.output / "front.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "ms", "mmacs", "mparameters", "overlap", "path"])
        for number, item in enumerate(front):
            cost = item.cost
            row = [f"{cost.ms:.3f}", f"{cost.mmacs:.1f}", f"{cost.parameters:.3f}", f"{item.accuracy:.4f}", item.path]
            writer.writerow([f"{args.name}_{number}", *row])
    folders = write_models(supernet, front, args.output, args.name)
    print(f"{len(found)} paths keep the limits; the front:")
    print(f"{'':14}     ms  MMACs  params M  overlap")
    for folder, item in zip(folders, front, strict=True):
        cost = item.cost
        figures = f"{cost.ms:6.2f} {cost.mmacs:6.0f} {cost.parameters:9.2f}  {item.accuracy:7.3f}"
        print(f"{folder.name:14} {figures}  {item.path}")
    print(f"table: {table}\nmodels, to train further from (`start:` of a recipe): {args.output / 'engines'}")
    if args.plot is not None:
        _draw(args.name, found, f"{describe_machine()}, {args.backend}, {args.threads or 'all'} thread(s)", args.plot)
        print(f"plot: {args.plot}")
    if searched.after:
        winner = max(front, key=lambda item: item.accuracy)
        student = retrain(searched.after, winner, folders[front.index(winner)], args.output, args.threads or 1)
        print(f"{student}: the most accurate, trained further; make it a model with")
        print(f"  lighttrack import {student} --architecture {winner.path} --name {args.name}")
    return 0


def _draw(name: str, found: Sequence[Found], subtitle: str, path: Path) -> None:
    from lighttrack_ros.pictures.figure import save
    from lighttrack_ros.pictures.pareto import Point, draw_pareto

    names = iter(range(len(found)))
    points = [
        Point(f"{name}_{next(names)}", "front", item.cost.ms, item.accuracy)
        if item.front
        else Point("", "tried", item.cost.ms, item.accuracy)
        for item in sorted(found, key=lambda item: not item.front)
    ]
    save(draw_pareto(points, "paths tried", subtitle, "ms a frame, predicted", "overlap", unit=" ms"), path)

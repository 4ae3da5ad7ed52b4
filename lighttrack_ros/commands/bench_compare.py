"""`lighttrack bench compare`: accuracy against time of our models and other trackers on the same sequences."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.compare import Entrant, Standing, compare
from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.evaluation.opencv_trackers import CLASSICAL, CONTRIB, NETWORKS, classical_tracker, network_tracker
from lighttrack_ros.evaluation.peers import KINDS, find_peer, load_peer
from lighttrack_ros.evaluation.plain_lighttrack import plain_lighttrack
from lighttrack_ros.media import sequences
from lighttrack_ros.media.frames import parse_size
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.outputs import check_outputs, write_json
from lighttrack_ros.pictures.plot_file import check_plot
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.base import Tracker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder per sequence inside")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="use only these sequences")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")
    parser.add_argument(
        "--models",
        nargs="+",
        default=[DEFAULT_MODEL],
        metavar="MODEL[@BACKEND]",
        help="names or folders of our models, each with the backend to run it; @plain runs a LightTrack as it is "
        f"usually ported, for comparison (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--opencv",
        nargs="*",
        choices=[*CLASSICAL],
        metavar="NAME",
        help=f"OpenCV's trackers: {', '.join(CLASSICAL)} (default: all that are installed; without names: none)",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        default=[],
        metavar="FOLDER[@BACKEND]",
        help=f"folders of other trackers' ONNX files, each of {', '.join(KINDS)}; @onnxruntime (default) or @opencv, "
        "which takes OpenCV's own tracker of that kind",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads of each tracker; with more than one, those that wait for work disturb the others' "
        "timings (default: %(default)s)",
    )
    parser.add_argument(
        "--size", metavar="WIDTHxHEIGHT", help="resize all frames, as to a camera's (default: as they are)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy against time: .png, .svg, .pdf")


def run(args: argparse.Namespace) -> int:
    if args.threads < 1:
        raise LightTrackError(f"--threads is {args.threads}, expected 1 or more")
    if args.plot is not None:
        check_plot(args.plot)
    with_truth, without = sequences.find_labelled(args.sequences, args.only, args.skip)
    check_outputs([args.json, args.plot], sequences.files_of(with_truth))
    if args.size is not None:
        with_truth = [sequences.resized(sequence, *parse_size(args.size)) for sequence in with_truth]
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(args.threads)
    entrants: list[Entrant] = []
    try:
        missing = _enter(args, entrants)
        print(f"{describe_machine()}, OpenCV {cv2.__version__}, {args.threads} thread(s) each")
        if missing:
            print(f"not in this OpenCV: {', '.join(missing)} ({CONTRIB} has them)")
        if without:
            print(f"left out, without ground truth: {', '.join(without)}")
        frames = sum(sequence.frames.count or 0 for sequence in with_truth)
        with tqdm(total=frames, unit="frame", leave=False, disable=None) as bar:
            standings = compare(entrants, with_truth, bar.update)
    finally:
        cv2.setNumThreads(threads_before)
        for entrant in entrants:
            entrant.tracker.close()
    _print_tables(standings)
    if args.json is not None:
        document = {"machine": describe_machine(), "opencv": cv2.__version__, "threads": args.threads}
        document |= {"missing": missing, "trackers": [_figures(standing) for standing in standings]}
        write_json(args.json, document)
        print(f"figures: {args.json}")
    if args.plot is not None:
        subtitle = f"{len(with_truth)} sequences, {frames} frames; {describe_machine()}, {args.threads} thread(s)"
        _plot(args.plot, subtitle, standings)
        print(f"plot: {args.plot}")
    return 0


def _enter(args: argparse.Namespace, entrants: list[Entrant]) -> list[str]:
    """Load all requested trackers into `entrants`; returns the names of those missing in this OpenCV."""
    for wanted in args.models:
        name, _, backend = wanted.partition("@")
        model = load_model(name)
        if backend == "plain":
            tracker: Tracker = plain_lighttrack(model, args.threads)
        else:
            tracker = create_tracker(model, backend or "auto", args.threads)
        label = f"{model.name} ({tracker.backend})" if backend else model.name
        entrants.append(Entrant(label, True, tracker.backend, tracker))
    entrants += (_peer(wanted, args.threads) for wanted in args.peers)
    missing = []
    for name in CLASSICAL if args.opencv is None else args.opencv:
        classical = classical_tracker(name)
        if classical is not None:
            entrants.append(Entrant(name, False, "OpenCV", classical))
        elif args.opencv is None:
            missing.append(name)
        else:
            raise LightTrackError(f"--opencv {name}: OpenCV {cv2.__version__} as installed lacks it; {CONTRIB} has it")
    return missing


def _peer(wanted: str, threads: int) -> Entrant:
    place, _, backend = wanted.partition("@")
    folder = Path(place)
    if backend in ("", "onnxruntime"):
        return Entrant(f"{folder.name} (onnxruntime)", False, "onnxruntime", load_peer(folder, threads))
    if backend != "opencv":
        raise LightTrackError(f"--peers {wanted}: backend {backend!r}, expected onnxruntime or opencv")
    name, files = find_peer(folder)
    return Entrant(f"{folder.name} (opencv)", False, f"OpenCV {NETWORKS[name][0]}", network_tracker(name, files))


def _print_tables(standings: Sequence[Standing]) -> None:
    width = max(8, *(len(standing.entrant.name) for standing in standings))
    first = standings[0].cpu_ms
    print(f"{'':{width}}    AUC   P@20  failures   ms p50    p95    p99    CPU   of the first's")
    for standing in standings:
        score, times = standing.evaluation.mean, standing.evaluation.step_times
        print(
            f"{standing.entrant.name:{width}}  {score.auc:.3f}  {score.precision20:.3f}  "
            f"{sum(standing.failures.values()):8d}   {times.p50:6.2f} {times.p95:6.2f} {times.p99:6.2f} "
            f"{standing.cpu_ms:6.2f}   {standing.cpu_ms / first:6.2f}"
        )
    rows = standings[0].evaluation.results
    if len(rows) < 2:
        return
    print()
    print("success AUC by sequence")
    name_width = max(len(row.name) for row in rows)
    columns = [max(5, len(standing.entrant.name)) for standing in standings]
    heads = "  ".join(f"{standing.entrant.name:>{w}}" for standing, w in zip(standings, columns, strict=True))
    print(f"{'':{name_width}}  {heads}")
    for index, row in enumerate(rows):
        scores = [standing.evaluation.results[index].accuracy.auc for standing in standings]
        cells = "  ".join(f"{score:{w}.3f}" for score, w in zip(scores, columns, strict=True))
        print(f"{row.name:{name_width}}  {cells}")


def _figures(standing: Standing) -> dict[str, Any]:
    document = standing.evaluation.as_json()
    document["mean"]["cpu_ms"] = standing.cpu_ms if math.isfinite(standing.cpu_ms) else None
    document["mean"]["failures"] = sum(standing.failures.values())
    for name, failures in standing.failures.items():
        document["sequences"][name]["failures"] = failures
    entrant = standing.entrant
    return {"name": entrant.name, "ours": entrant.ours, "backend": entrant.backend, **document}


def _plot(path: Path, subtitle: str, standings: Sequence[Standing]) -> None:
    from lighttrack_ros.pictures.figure import save  # loads matplotlib, an extra
    from lighttrack_ros.pictures.pareto import Point, draw_pareto

    points = []
    for standing in standings:
        group = "lighttrack_ros" if standing.entrant.ours else "OpenCV"
        times, auc = standing.evaluation.step_times, standing.evaluation.mean.auc
        points.append(Point(standing.entrant.name, group, times.p50, auc, times.p95))
    time = "milliseconds a frame: a point at p50, a line to p95"
    accuracy = "success AUC, mean of the sequences"
    save(draw_pareto(points, "accuracy against time", subtitle, time, accuracy, unit=" ms"), path)

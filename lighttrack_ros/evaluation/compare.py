"""`lighttrack bench compare`: our models and OpenCV's trackers over the same sequences, accuracy against time.

Every frame is decoded once and given to one tracker after the other, each time beginning with another, so
that whatever else the machine does falls on all of them alike: the ratios of a run can be believed, the
milliseconds are this machine's.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.evaluation.evaluate import Evaluation, SequenceResult, describe_machine
from lighttrack_ros.evaluation.opencv_trackers import CLASSICAL, CONTRIB, NETWORKS, classical_tracker, network_tracker
from lighttrack_ros.evaluation.plain_lighttrack import plain_lighttrack
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame, from_bgr
from lighttrack_ros.media import sequences
from lighttrack_ros.media.video import check_writable, parse_size
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.pictures.compare_plot import Point, draw_comparison
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.base import Estimate, Tracker


class Follower(Protocol):
    """What is asked of a tracker here; see `trackers.Tracker`."""

    def init(self, frame: Frame, box: Box) -> None: ...

    def update(self, frame: Frame) -> Estimate: ...

    def idle_work(self) -> bool: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Entrant:
    """One row of the table.

    Attributes:
        ours: a model of this project, not a tracker of OpenCV.
        backend: what runs it.
    """

    name: str
    ours: bool
    backend: str
    tracker: Follower


@dataclass(frozen=True)
class Standing:
    """How one entrant did.

    Attributes:
        evaluation: of all sequences. Its step times are those of the steps that found something: a tracker that
            has given up takes no time.
        cpu_ms: median processor time of those steps, all threads; nan where there is none. Hardly moves where the
            machine does other things too.
        failures: how often the target was lost, see `count_failures`, by sequence.
    """

    entrant: Entrant
    evaluation: Evaluation
    cpu_ms: float
    failures: dict[str, int]


def compare(
    entrants: Sequence[Entrant], with_truth: Sequence[sequences.Sequence], on_frame: Callable[[], object]
) -> list[Standing]:
    """Track every sequence with every entrant, frame by frame; nobody is ever started anew.

    Args:
        with_truth: sequences that have ground truth.
        on_frame: called after every frame.

    Raises:
        LightTrackError: frames and truth do not fit, or a tracker does not start.
    """
    results: list[list[SequenceResult]] = [[] for _ in entrants]
    failures: list[dict[str, int]] = [{} for _ in entrants]
    cpu_seconds: list[list[float]] = [[] for _ in entrants]
    for sequence in with_truth:
        truth = sequence.truth
        if truth is None:
            raise LightTrackError(f"{sequence.name}: no ground truth to compare with")
        for number, track in enumerate(_track(entrants, sequence, on_frame)):
            boxes = np.array(track.boxes, np.float64)
            if len(boxes) != len(truth):
                raise LightTrackError(f"{sequence.name}: {len(boxes)} frames decoded, {len(truth)} lines of truth")
            score = metrics.accuracy(boxes, truth)
            confidences = np.array(track.confidences)
            results[number].append(SequenceResult(sequence.name, boxes, confidences, track.seconds, score))
            failures[number][sequence.name] = count_failures(boxes, truth)
            cpu_seconds[number] += track.cpu_seconds
    return [
        Standing(entrant, Evaluation(rows), 1000 * median(seconds or [math.nan]), lost)
        for entrant, rows, seconds, lost in zip(entrants, results, cpu_seconds, failures, strict=True)
    ]


def count_failures(boxes: NDArray[np.float64], truth: NDArray[np.float64]) -> int:
    """How often a box stops touching its target, over the frames where the target can be seen.

    Args:
        boxes, truth: (N, 4) float64, x, y, width, height; rows of nan where the target cannot be seen.
    """
    seen = np.isfinite(truth).all(axis=1)
    off = metrics.overlaps(boxes[seen], truth[seen]) == 0
    return int(off[:1].sum() + (off[1:] & ~off[:-1]).sum())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder a sequence inside")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these sequences alone")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")
    parser.add_argument(
        "--models",
        nargs="+",
        default=[DEFAULT_MODEL],
        metavar="MODEL[@BACKEND]",
        help="names or folders of our models, each with the backend that runs it; @plain runs a LightTrack as it is "
        f"usually ported, for comparison (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--opencv",
        nargs="*",
        choices=[*CLASSICAL],
        metavar="NAME",
        help=f"trackers of OpenCV: {', '.join(CLASSICAL)} (default: those that are installed; with no name: none)",
    )
    for name, (_, fields) in NETWORKS.items():
        files = tuple(field.upper() for field in fields)
        parser.add_argument(f"--{name}", nargs=len(fields), type=Path, metavar=files, help=f"ONNX files of {name}")
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
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy against time to this file")


def run(args: argparse.Namespace) -> int:
    if args.threads < 1:
        raise LightTrackError(f"--threads is {args.threads}, expected 1 or more")
    for path in (args.json, args.plot):
        if path is not None:
            check_writable(path)
    found = sequences.find_sequences(args.sequences, args.only, args.skip)
    with_truth = [sequence for sequence in found if sequence.truth is not None]
    if not with_truth:
        raise LightTrackError(f"{args.sequences}: no sequence with ground truth in it")
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
        without = [sequence.name for sequence in found if sequence.truth is None]
        if without:
            print(f"left out, for want of ground truth: {', '.join(without)}")
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
        args.json.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"figures: {args.json}")
    if args.plot is not None:
        subtitle = f"{len(with_truth)} sequences, {frames} frames; {describe_machine()}, {args.threads} thread(s)"
        cv2.imwrite(str(args.plot), draw_comparison([_point(standing) for standing in standings], subtitle))
        print(f"plot: {args.plot}")
    return 0


def _enter(args: argparse.Namespace, entrants: list[Entrant]) -> list[str]:
    """Load all that was asked for into `entrants`; returns the names that this OpenCV lacks."""
    for wanted in args.models:
        name, _, backend = wanted.partition("@")
        model = load_model(name)
        if backend == "plain":
            tracker: Tracker = plain_lighttrack(model, args.threads)
        else:
            tracker = create_tracker(model, backend or "auto", args.threads)
        label = f"{model.name} ({tracker.backend})" if backend else model.name
        entrants.append(Entrant(label, True, tracker.backend, tracker))
    for name, (kind, _) in NETWORKS.items():
        if getattr(args, name) is not None:
            entrants.append(Entrant(name, False, f"OpenCV {kind}", network_tracker(name, getattr(args, name))))
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


@dataclass
class _Track:
    """One entrant's way through one sequence."""

    boxes: list[Box]
    confidences: list[float]
    seconds: list[float]
    cpu_seconds: list[float]


def _track(entrants: Sequence[Entrant], sequence: sequences.Sequence, on_frame: Callable[[], object]) -> list[_Track]:
    tracks = [_Track([sequence.init_box], [1.0], [], []) for _ in entrants]
    for index, image in enumerate(sequence.frames):
        frame = from_bgr(image)
        for turn in range(len(entrants)):
            number = (index + turn) % len(entrants)
            tracker, track = entrants[number].tracker, tracks[number]
            if index == 0:
                tracker.init(frame, sequence.init_box)
                continue
            began, cpu_began = perf_counter(), process_time()
            estimate = tracker.update(frame)
            taken, cpu_taken = perf_counter() - began, process_time() - cpu_began
            track.boxes.append(estimate.box)
            track.confidences.append(estimate.confidence)
            if index > 1 and estimate.confidence > 0:  # in their first step some trackers still set up their networks
                track.seconds.append(taken)
                track.cpu_seconds.append(cpu_taken)
            while tracker.idle_work():
                pass
        on_frame()
    return tracks


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


def _point(standing: Standing) -> Point:
    times = standing.evaluation.step_times
    return Point(standing.entrant.name, standing.entrant.ours, times.p50, times.p95, standing.evaluation.mean.auc)

"""`lighttrack evaluate`: one-pass evaluation on sequences with ground truth."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics, sessions
from lighttrack_ros.evaluation.evaluate import Evaluation, describe_machine, evaluate_sequence
from lighttrack_ros.media import sequences
from lighttrack_ros.models import DEFAULT_MODEL, Model, load_model
from lighttrack_ros.outputs import check_outputs, write_json
from lighttrack_ros.pictures.plot_file import check_plot
from lighttrack_ros.session import Session
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.base import Tracker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of the model (default: %(default)s)")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder per sequence inside")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads per step; 0: as measured")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="evaluate only these sequences")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")
    parser.add_argument(
        "--session", action="store_true", help="also measure sessions: their boxes, confidence and states"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="with --session: draw what the confidence is worth: .png, .svg, .pdf"
    )


def run(args: argparse.Namespace) -> int:
    if args.plot is not None:
        if not args.session:
            raise LightTrackError("--plot goes with --session: it draws the session's confidence")
        check_plot(args.plot)
    with_truth, without = sequences.find_labelled(args.sequences, args.only, args.skip)
    model = load_model(args.model)
    check_outputs([args.json, args.plot], [*sequences.files_of(with_truth), model.folder])
    tracker = create_tracker(model, args.backend, args.threads)
    try:
        print(f"{model.name} on {tracker.backend}, {describe_machine()}")
        if without:
            print(f"left out, without ground truth: {', '.join(without)}")
        if args.session:
            figures = _evaluate_sessions(model, tracker, args, with_truth)
        else:
            figures = _evaluate_with_progress(tracker, with_truth).as_json()
    finally:
        tracker.close()
    if args.json is not None:
        write_json(args.json, figures)
        print(f"figures: {args.json}")
    if args.plot is not None:
        _plot(args.plot, model, with_truth, figures["all"]["reliability"])
        print(f"plot: {args.plot}")
    return 0


def _evaluate_sessions(
    model: Model, plain: Tracker, args: argparse.Namespace, with_truth: list[sequences.Sequence]
) -> dict[str, Any]:
    tracker = create_tracker(model, args.backend, args.threads)
    try:
        return sessions.as_json(sessions.run_all(plain, tracker, Session.of(tracker, model), with_truth))
    finally:
        tracker.close()


def _plot(path: Path, model: Model, with_truth: list[sequences.Sequence], bins: list[tuple[int, float, float]]) -> None:
    from lighttrack_ros.pictures.figure import save  # loads matplotlib, an extra
    from lighttrack_ros.pictures.reliability import draw_reliability

    counts, confidences, shares = zip(*bins, strict=True)
    subtitle = f"{len(with_truth)} sequences; right: the box overlaps the target by more than a half"
    save(draw_reliability(counts, confidences, shares, f"{model.name}: confidence", subtitle), path)


def _evaluate_with_progress(tracker: Tracker, with_truth: list[sequences.Sequence]) -> Evaluation:
    width = max(4, *(len(sequence.name) for sequence in with_truth))
    print(f"{'':{width}}  frames    AUC    IoU   SR.5   P@20   step ms p50    p95    p99")
    results = []
    fault: LightTrackError | None = None
    frames = sum(sequence.frames.count or 0 for sequence in with_truth)
    # Without a terminal only the rows are printed.
    with tqdm(total=frames, unit="frame", leave=False, disable=None) as bar:
        for sequence in with_truth:
            bar.set_description(sequence.name)
            try:
                result = evaluate_sequence(tracker, sequence, bar.update)
            except LightTrackError as error:  # e.g. a damaged frame in the middle; the others are wanted all the same
                fault = error
                with tqdm.external_write_mode():
                    print(f"left out: {error}", file=sys.stderr)
                continue
            results.append(result)
            with tqdm.external_write_mode():
                print(_row(sequence.name, width, result.accuracy, result.step_times), flush=True)
    if not results and fault is not None:
        raise fault
    evaluation = Evaluation(results)
    if len(results) > 1:
        print(_row("mean", width, evaluation.mean, evaluation.step_times))
    return evaluation


def _row(name: str, width: int, score: metrics.Accuracy, times: metrics.StepTimes) -> str:
    steps = (times.p50, times.p95, times.p99)  # nan for a clip of one frame
    return (
        f"{name:{width}}  {score.frames:6d}  {score.auc:.3f}  {score.iou:.3f}  {score.sr50:.3f}  "
        f"{score.precision20:.3f}        "
        + " ".join(f"{step:6.2f}" if math.isfinite(step) else "     -" for step in steps)
    )

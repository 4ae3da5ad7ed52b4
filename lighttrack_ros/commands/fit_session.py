"""`lighttrack fit-session`: from what confidence on a model's target may be believed, found out on sequences."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import absence
from lighttrack_ros.evaluation.fit_session import (
    AS_IT_IS,
    FOLLOWED,
    MISSED,
    SOON,
    clips_to_follow,
    figures,
    fit,
    judge,
    record,
)
from lighttrack_ros.media import sequences
from lighttrack_ros.models import DEFAULT_MODEL, SessionSettings, load_model, save_model
from lighttrack_ros.outputs import check_outputs, check_writable, write_json
from lighttrack_ros.trackers import create_tracker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="with ground truth; a folder each")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these sequences alone")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")
    parser.add_argument(
        "--test", nargs="+", default=[], metavar="NAME", help="judge the result on these, and fit on the others"
    )
    parser.add_argument("--keep", action="store_true", help="judge the settings that the model has; fit nothing")
    parser.add_argument("--write", action="store_true", help="write the result into the model's model.yaml")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads a step; 0: as measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write settings and figures to this file")


def run(args: argparse.Namespace) -> int:
    if args.keep and args.write:
        raise LightTrackError("--keep and --write: with nothing fitted there is nothing to write")
    found = sequences.find_sequences(args.sequences, args.only, args.skip)
    found = [sequence for sequence in found if sequence.truth is not None]
    unknown = sorted(set(args.test) - {sequence.name for sequence in found})
    if unknown:
        raise LightTrackError(f"--test: no sequence with ground truth named {', '.join(unknown)} in {args.sequences}")
    if len(found) - len(args.test) < 2:
        raise LightTrackError(
            f"{args.sequences}: {len(found) - len(args.test)} sequences with ground truth besides --test, "
            "expected at least 2 (the target of one is covered with that of another)"
        )
    model = load_model(args.model)
    check_outputs([args.json], [*sequences.files_of(found), model.folder])
    if args.write:
        check_writable(model.folder / "model.yaml")
    tracker = create_tracker(model, args.backend, args.threads)
    try:
        settings = model.session
        if not args.keep:
            to_fit = [sequence.name for sequence in found if sequence.name not in args.test]
            settings = fit([record(tracker, clip) for clip in clips_to_follow(found, to_fit, "following")])
        _print_settings(settings)
        to_judge = args.test or [sequence.name for sequence in found]
        verdicts = [judge(tracker, settings, clip) for clip in clips_to_follow(found, to_judge, "judging")]
    finally:
        tracker.close()
    table = [figures(kind, verdicts) for kind in (AS_IT_IS, *absence.KINDS)]
    _print_table(table)
    if args.json is not None:
        write_json(args.json, {"session": dataclasses.asdict(settings), "kinds": table})
    if args.write:
        save_model(dataclasses.replace(model, session=settings))
        print(f"written to {model.folder / 'model.yaml'}")
    return 0


def _print_settings(settings: SessionSettings) -> None:
    print("session:")
    for name, value in dataclasses.asdict(settings).items():
        print(f"  {name}: {value}")


def _print_table(table: Sequence[dict[str, Any]]) -> None:
    first = table[0]
    print(
        f"\n{first['clips']} sequences as they are, {first['followed_frames']} frames followed (overlap over "
        f"{FOLLOWED}): uncertain {_percent(first['followed_uncertain'])}; of all frames lost "
        f"{_percent(first['frames_lost'])}; of {first['missed_frames']} frames that miss the target (overlap under "
        f"{MISSED}), not counting lost ones, tracking {_percent(first['missed_tracking'])}; mean overlap "
        f"{first['mean_overlap']:.3f}"
    )
    if first["absent_tracking"] is not None:
        print(f"of their own frames without target tracking: {_percent(first['absent_tracking'])}")
    print(
        f"\nTarget taken out for {absence.GONE} frames:\n"
        f"{'':14} clips  still tracking  past {SOON} frames  lost by the end  found again in {2 * SOON}  something else"
    )
    for row in table[1:]:
        print(
            f"{row['kind']:14} {row['clips']:5}  {_percent(row['absent_tracking']):>14}  "
            f"{_percent(row['absent_tracking_late']):>13}  {_percent(row['ended_lost']):>15}  "
            f"{_percent(row['found_again']):>17}  {_percent(row['found_wrong']):>14}"
        )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"

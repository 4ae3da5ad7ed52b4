"""`lighttrack fit-session`: learn on sequences with ground truth when a target may be believed, and judge that."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import sessions, trust
from lighttrack_ros.evaluation.fit_session import Fit, fit, folds
from lighttrack_ros.evaluation.harvest import BACKWARDS, TURNED, Track, harvest, harvest_backwards, harvest_turned
from lighttrack_ros.media import sequences
from lighttrack_ros.models import DEFAULT_MODEL, Model, load_model, save_model
from lighttrack_ros.outputs import check_writable
from lighttrack_ros.session import Session
from lighttrack_ros.session.verifier import FILE
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.base import Tracker

_WAYS: dict[str, Callable[..., Track]] = {"": harvest, BACKWARDS: harvest_backwards, TURNED: harvest_turned}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="with ground truth; a folder each")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these sequences alone")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")
    parser.add_argument(
        "--together",
        nargs="+",
        default=[],
        metavar="NAME,NAME",
        help="recordings to keep in one fold (those with the same name before a '_' are one anyway)",
    )
    parser.add_argument("--folds", type=int, default=4, help="parts of cross-validation (default: %(default)s)")
    parser.add_argument(
        "--judge",
        nargs="*",
        metavar="NAME",
        help="run sessions on each fold with what was learned on the others; with names, on these sequences alone",
    )
    parser.add_argument("--write", action="store_true", help=f"write the result into model.yaml and {FILE}")
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="keep what the tracker said here, and take it up again"
    )
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads a step; 0: the backend chooses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write settings and figures to this file")


def run(args: argparse.Namespace) -> int:
    if args.folds < 2:
        raise LightTrackError(f"--folds: is {args.folds}, expected at least 2")
    if args.judge is not None and args.folds < 3:  # what is learned for one fold is cross-validated on the others
        raise LightTrackError(f"--folds: is {args.folds}, expected at least 3 with --judge")
    found, _ = sequences.find_labelled(args.sequences, args.only, args.skip)
    unknown = set(args.judge or ()) - {one.name for one in found}
    if unknown:
        raise LightTrackError(f"--judge: no sequence named {', '.join(sorted(unknown))} among those to learn from")
    judged = [one for one in found if not args.judge or one.name in args.judge]
    if args.json is not None:
        check_writable(args.json)
    model = load_model(args.model)
    if args.write:
        check_writable(model.folder / "model.yaml")
    names = [one.name + way for one in found for way in _WAYS]
    fold = folds(names, [group.split(",") for group in args.together], args.folds)
    tracker = create_tracker(model, args.backend, args.threads)
    figures: dict[str, Any] = {}
    try:
        tracks = list(_harvested(tracker, found, args.records))
        learned = fit(tracks, [fold[track.name] for track in tracks])
        _print_settings(learned)
        if args.judge is not None:
            plain = create_tracker(model, args.backend, args.threads)
            try:
                figures = _judge(plain, tracker, judged, tracks, fold)
            finally:
                plain.close()
    finally:
        tracker.close()
    if args.json is not None:
        text = json.dumps({"session": dataclasses.asdict(learned.settings), **figures}, indent=2, allow_nan=False)
        args.json.write_text(text + "\n", encoding="utf-8")
    if args.write:
        write(model, learned)
        print(f"written to {model.folder}")
    return 0


def write(model: Model, learned: Fit) -> None:
    """Put what was learned into the model's folder."""
    save_model(dataclasses.replace(model, session=learned.settings))
    if learned.verifier is not None:
        learned.verifier.save(model.folder / FILE)


def _harvested(tracker: Tracker, found: Sequence[sequences.Sequence], place: Path | None) -> Iterator[Track]:
    if place is not None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LightTrackError(f"--records {place}: cannot be made ({error.strerror})") from None
    frames = sum(len(_WAYS) * (sequence.frames.count or 0) for sequence in found)
    with tqdm(total=frames, unit="frame", leave=False, disable=None) as bar:
        for sequence, (way, go_over) in itertools.product(found, _WAYS.items()):
            bar.set_description(f"following {sequence.name}")
            path = None if place is None else place / f"{sequence.name}{way}.npz"
            if path is not None and path.is_file():
                yield Track.load(path)
                bar.update(sequence.frames.count or 0)
                continue
            track = go_over(tracker, sequence, bar.update)
            if path is not None:
                track.save(path)
            yield track


def _judge(
    plain: Tracker,
    tracker: Tracker,
    judged: Sequence[sequences.Sequence],
    tracks: Sequence[Track],
    fold: Mapping[str, int],
) -> dict[str, Any]:
    """Real sessions on sequences of every fold, by what was learned on the others."""
    results = []
    for part in sorted({fold[one.name] for one in judged}):
        rest = [track for track in tracks if fold[track.name] != part]
        learned = fit(rest, [fold[track.name] for track in rest])
        print(f"\nfold {part}, by what was learned on the others:")
        session = Session(tracker, learned.settings, learned.verifier)
        results += sessions.run_all(plain, tracker, session, [one for one in judged if fold[one.name] == part])
    width = max(len(name) for name in fold)
    print("\nover all folds:")
    print(sessions.row("all", width, trust.measure([result.account for result in results])))
    print(sessions.cost(results))
    return sessions.as_json(results)


def _print_settings(learned: Fit) -> None:
    print("session:")
    for name, value in dataclasses.asdict(learned.settings).items():
        print(f"  {name}: {value}")

"""`lighttrack track`: follow one target through a video, a folder of frames or a camera, without ROS."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lighttrack_ros.commands.arguments import parse_box
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.sequences import sequence_of
from lighttrack_ros.media.video import FrameSource, GeneratedScene, VideoWriter, check_writable, open_source
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.pictures.target import draw_target
from lighttrack_ros.session.follow import Step, follow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", help="a video, a folder of images, a camera's index (0), a stream's URL, or scene[:SEED]"
    )
    parser.add_argument(
        "--box",
        metavar="X,Y,W,H",
        help="the target in the first frame: left, top, width, height, pixels; "
        "may be left out where the source comes with a box (groundtruth.txt, init_box.txt, scene)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write an annotated video (.mp4, .webm, .avi, .mkv)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write box, state and confidence of every frame")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of the model (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads a step; 0: the backend chooses")
    parser.add_argument(
        "--frames", type=int, default=0, metavar="N", help="stop after N frames; 0: at the end (Ctrl-C)"
    )


def run(args: argparse.Namespace) -> int:
    if args.frames < 0:
        raise LightTrackError(f"--frames is {args.frames}, expected 0 (all) or more")
    source = open_source(args.source)
    box = parse_box(args.box) if args.box is not None else first_box(args.source, source)
    # All that can be found wrong is found before the first frame is tracked.
    if args.json is not None:
        check_writable(args.json)
    model = load_model(args.model)
    with contextlib.ExitStack() as stack:
        steps = stack.enter_context(contextlib.closing(follow(source, box, model, args.backend, args.threads)))
        first = next(steps)
        writer = None
        if args.out is not None:
            height, width = first.image.shape[:2]
            writer = stack.enter_context(VideoWriter(args.out, width, height, source.fps))
        records, seconds, interrupted = _record(itertools.chain([first], steps), source, args.frames, writer)
    step_times = metrics.step_times(seconds)
    if args.json is not None:
        step_ms = {name: value if math.isfinite(value) else None for name, value in vars(step_times).items()}
        document = {"source": args.source, "model": model.name, "step_ms": step_ms, "frames": records}
        args.json.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    states = ", ".join(f"{count} {state}" for state, count in Counter(item["state"] for item in records).items())
    print(f"{len(records)} frames: {states}; a step takes {step_times.p50:.1f} ms (p95 {step_times.p95:.1f})")
    for path in (args.out, args.json):
        if path is not None:
            print(path)
    # A camera has no end of its own: there, Ctrl-C is how one stops.
    return 130 if interrupted and source.count is not None else 0


def first_box(name: str, source: FrameSource) -> Box:
    """The box to start on, of a source that comes with one: a scene, a sequence, a video beside its boxes.

    Raises:
        LightTrackError: it does not.
    """
    if isinstance(source, GeneratedScene):
        return source.scene[0].box
    sequence = sequence_of(name)
    if sequence is None:
        raise LightTrackError("--box is missing: which target? (left,top,width,height in the first frame, pixels)")
    return sequence.init_box


def _record(
    steps: Iterable[Step],
    source: FrameSource,
    limit: int,
    writer: VideoWriter | None,
) -> tuple[list[dict[str, Any]], list[float], bool]:
    """Write down and draw every step; returns one record a frame, the steps' seconds, and whether Ctrl-C ended it."""
    records: list[dict[str, Any]] = []
    seconds: list[float] = []
    total = min(source.count or limit, limit or source.count or 0) or None
    with tqdm(total=total, unit="frame", desc=source.name, disable=None) as bar:
        try:
            for image, report, duration in itertools.islice(steps, limit or None):
                state, box = report.state.name.lower(), [round(float(value), 3) for value in report.box]
                confidence = round(float(report.confidence), 4)
                with _interruptions_held():  # so that video and records have the same frames
                    if writer is not None:
                        annotated = image.copy()
                        draw_target(annotated, report.box, report.state, report.confidence)
                        writer.write(annotated)
                    records.append({"index": len(records), "state": state, "box": box, "confidence": confidence})
                    if math.isfinite(duration):  # the first frame is given, not tracked
                        seconds.append(duration)
                bar.set_postfix_str(f"{state} {confidence:.2f}", refresh=False)
                bar.update()
        except KeyboardInterrupt:
            return records, seconds, True
    return records, seconds, False


@contextlib.contextmanager
def _interruptions_held() -> Iterator[None]:
    """A Ctrl-C takes effect at the end of the block."""
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt

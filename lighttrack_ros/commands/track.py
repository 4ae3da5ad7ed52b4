"""`lighttrack track`: follow one target through a video, a folder of frames or a camera, without ROS."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lighttrack_ros.commands.arguments import add_page_arguments, parse_box
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import FEW_LEVELS, grey_levels
from lighttrack_ros.media.camera import without_password
from lighttrack_ros.media.frames import FrameSource, GeneratedScene, open_source
from lighttrack_ros.media.sequences import Sequence, boxes_beside, sequence_of
from lighttrack_ros.media.video import ANNOTATED, VideoWriter
from lighttrack_ros.models import DEFAULT_MODEL, Model, load_model
from lighttrack_ros.outputs import check_outputs, write_json
from lighttrack_ros.pictures.target import draw_target
from lighttrack_ros.session import NOWHERE, State
from lighttrack_ros.session.follow import Step, follow
from lighttrack_ros.viewer.serving import serving, stopping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="a video, a folder of images, a camera (0, /dev/video0), a stream's URL, a GStreamer pipeline, "
        "or scene[:SEED]",
    )
    parser.add_argument(
        "--box",
        metavar="X,Y,W,H",
        help="the target in the first frame: left, top, width, height, pixels; "
        "may be left out where the source comes with a box (groundtruth.txt, init_box.txt, scene)",
    )
    parser.add_argument(
        "--select", action="store_true", help="point at the target on a web page, in the first frame or any, and watch"
    )
    add_page_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write an annotated video (.mp4, .webm, .avi, .mkv)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write box, state and confidence of every frame")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of the model (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads per step; 0: as many as a short measurement finds best"
    )
    parser.add_argument(
        "--frames", type=int, default=0, metavar="N", help="stop after N frames; 0: at the end (Ctrl-C)"
    )


def run(args: argparse.Namespace) -> int:
    if args.frames < 0:
        raise LightTrackError(f"--frames is {args.frames}, expected 0 (all) or more")
    if args.select and args.box is not None:
        raise LightTrackError("--select and --box: one at a time")
    # All that can be found wrong is found before the first frame is tracked.
    source = open_source(args.source)
    box = NOWHERE
    if args.box is not None:
        box = parse_box(args.box)
    elif not args.select:
        box = first_box(source, sequence_of(args.source))
    model = load_model(args.model)
    boxes = boxes_beside(args.source)
    check_outputs([args.out, args.json], [*source.files, *boxes, model.folder])
    frames: _Timed | _Selected
    with contextlib.ExitStack() as stack:
        if args.select:
            frames = _Selected(stack, args, source, model)
            steps = stack.enter_context(contextlib.closing(frames.steps()))
        else:
            frames = _Timed(source)
            steps = stack.enter_context(contextlib.closing(follow(frames, box, model, args.backend, args.threads)))
        first = next(steps)
        _warn_of_flat_picture(first.image)
        writer = None
        if args.out is not None:
            height, width = first.image.shape[:2]
            writer = stack.enter_context(VideoWriter(args.out, width, height, source.fps, ANNOTATED))
        chain = itertools.chain([first], steps)
        records, seconds, interrupted = _record(chain, source, frames, args.frames, writer)
    step_times = metrics.step_times(seconds)
    if args.json is not None:
        document = {"source": without_password(args.source), "model": model.name, "step_ms": vars(step_times)}
        write_json(args.json, {**document, "frames": records})
    states = ", ".join(f"{count} {state}" for state, count in Counter(item["state"] for item in records).items())
    took = f"; a step takes {step_times.p50:.1f} ms (p95 {step_times.p95:.1f})" if seconds else ""
    print(f"{len(records)} frames: {states}{took}")
    if source.shortfall:
        print(f"lighttrack track: {source.name}: {source.shortfall}", file=sys.stderr)
    for path in (args.out, args.json):
        if path is not None:
            print(path)
    # A camera has no end of its own: there, Ctrl-C is how one stops.
    return 130 if interrupted and not source.live else 0


class _Timed:
    """The frames of a source; records their times."""

    begin = 0

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self.times: list[float] = []  # seconds, of the frames so far

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for seconds, image in self._source.timed():
            self.times.append(seconds)
            yield image


class _Selected:
    """The frames from the one on which somebody pointed at the target on the page; records their times.

    Args:
        stack: closes the page.
    """

    def __init__(
        self, stack: contextlib.ExitStack, args: argparse.Namespace, source: FrameSource, model: Model
    ) -> None:
        from lighttrack_ros.viewer.film import Film

        self._source = source
        self._film = Film(source, model, args.backend, args.threads, paced=False, repeat=False)
        stack.enter_context(serving(self._film, args.address, args.port))
        stack.enter_context(stopping(self._film.stop))
        self.begin = 0  # index of the first frame
        self.times: list[float] = []  # seconds

    def steps(self) -> Generator[Step, None, None]:
        """What came of each.

        Raises:
            LightTrackError: nobody pointed at anything.
        """
        with contextlib.closing(self._film.shots()) as shots:
            for shot in shots:
                if not self.times:
                    if shot.report.state == State.IDLE:
                        continue
                    self.begin = shot.index
                self.times.append(shot.time)
                yield Step(shot.image, shot.report, shot.seconds)
        if self._film.stopped:
            raise KeyboardInterrupt
        if not self.times:
            raise LightTrackError(f"{self._source.name}: it came to its end before anybody pointed at a target")


def _warn_of_flat_picture(image: NDArray[np.uint8]) -> None:
    levels = grey_levels(image)
    if levels < FEW_LEVELS:
        print(
            f"lighttrack track: the first frame has {levels} grey levels: hardly anything to track by", file=sys.stderr
        )


def first_box(source: FrameSource, sequence: Sequence | None) -> Box:
    """The initial box of a source that has one: a scene, a sequence, a video with a file of boxes beside it.

    Raises:
        LightTrackError: it does not.
    """
    if isinstance(source, GeneratedScene):
        return source.scene[0].box
    if sequence is None:
        raise LightTrackError("--box is missing: which target? (left,top,width,height in the first frame, pixels)")
    return sequence.init_box


def _record(
    steps: Iterable[Step],
    source: FrameSource,
    frames: _Timed | _Selected,
    limit: int,
    writer: VideoWriter | None,
) -> tuple[list[dict[str, Any]], list[float], bool]:
    """Record and draw every step; returns one record per frame, the steps' seconds, and whether Ctrl-C ended it."""
    records: list[dict[str, Any]] = []
    seconds: list[float] = []
    total = min(source.count or limit, limit or source.count or 0) or None
    with tqdm(total=total, unit="frame", desc=source.name, disable=None) as bar:
        try:
            for image, report, duration in itertools.islice(steps, limit or None):
                time = frames.times[len(records)]
                state, box = report.state.name.lower(), [round(float(value), 3) for value in report.box]
                confidence = round(float(report.confidence), 4)
                with _interruptions_held():  # so that video and records have the same frames
                    if writer is not None:
                        annotated = image.copy()
                        draw_target(annotated, report.box, report.state, report.confidence)
                        writer.write(annotated, time - frames.times[0])
                    record = {"index": frames.begin + len(records), "time": round(time, 6), "state": state}
                    records.append({**record, "box": box, "confidence": confidence})
                    if math.isfinite(duration):  # the first frame is given, not tracked
                        seconds.append(duration)
                bar.set_postfix_str(f"{state} {confidence:.2f}", refresh=False)
                bar.update()
        except KeyboardInterrupt:
            return records, seconds, True
    return records, seconds, False


@contextlib.contextmanager
def _interruptions_held() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block."""
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt

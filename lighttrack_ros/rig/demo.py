"""The whole thing at work: a camera, the tracker node and an observer, three processes over real ROS 2.

The camera is `lighttrack replay`, the node runs as it would on a robot, and this process points at the
target once, listens, and writes what came of it: a video, a contact sheet, and the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from lighttrack_ros.commands.track import parse_box
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.scene import DEFAULT_SEED, Scene
from lighttrack_ros.media.sequences import Sequence, save_scene, sequence_of
from lighttrack_ros.media.video import FrameSource, check_writable, open_source, parse_size
from lighttrack_ros.models import DEFAULT_MODEL, Model, load_model
from lighttrack_ros.pictures import report
from lighttrack_ros.rig import processes
from lighttrack_ros.rig.processes import Child, Observer
from lighttrack_ros.session import State

_TARGET_ID = "demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", metavar="FILE", help="a video or a folder of images (default: the generated scene)")
    parser.add_argument("--box", metavar="X,Y,W,H", help="the target in the video's first frame, pixels")
    parser.add_argument("--rate", type=float, help="frames a second (default: the video's own, the scene's 30)")
    parser.add_argument("--size", default="640x480", help="of the generated scene (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of the generated scene (default: %(default)s)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of the model (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for the results (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    # Whatever can be wrong with the arguments is found before anything is started.
    if args.rate is not None and not 0 < args.rate <= 1000:
        raise LightTrackError(f"--rate is {args.rate}, expected frames a second, more than 0")
    model = load_model(args.model)
    paths = {name: args.out / f"demo.{suffix}" for name, suffix in _RESULTS.items()}
    for path in paths.values():
        check_writable(path)
    film = _film(args)
    observations, sent = _run_processes(film, model, args)
    result = report.Run(
        title=f"{film.title}, tracked by {model.name}",
        subtitle=f"camera, node and observer in three processes over ROS 2; {describe_machine()}",
        fps=film.fps,
        sent=sent,
        observations=observations,
        truth=None if film.sequence is None or film.sequence.truth is None else film.sequence.truth[:sent],
        visible=None if film.sequence is None or film.sequence.visible is None else film.sequence.visible[:sent],
    )
    report.write_video(paths["video"], film.frames, result)
    cv2.imwrite(str(paths["sheet"]), report.draw_contact_sheet(film.frames, result))
    figures = {"model": model.name, "source": film.source, "machine": describe_machine(), **result.figures()}
    paths["figures"].write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _print_summary(figures)
    for name, path in paths.items():
        print(f"{name:8} {path}")
    return 0


_RESULTS = {"video": "mp4", "sheet": "png", "figures": "json"}


@dataclass(frozen=True)
class _Film:
    """What the camera shows."""

    title: str
    source: str  # for `lighttrack replay`
    frames: FrameSource
    fps: float
    box: Box
    sequence: Sequence | None  # where there is a truth


def _film(args: argparse.Namespace) -> _Film:
    if args.video is None:
        if args.box is not None:
            raise LightTrackError("--box goes with --video: the generated scene knows its target")
        fps = args.rate or 30.0
        scene = Scene(args.seed, *parse_size(args.size), fps)
        folder = args.out / "scene"
        with tqdm(desc="painting the scene", total=len(scene), unit="frame", leave=False, disable=None) as bar:
            painted = save_scene(scene, folder, bar.update)
        title = f"generated scene {args.seed}, {args.size}"
        return _Film(title, str(folder), painted.frames, fps, painted.init_box, painted)
    frames = open_source(args.video)
    if frames.count is None:
        raise LightTrackError(
            f"{args.video}: the demo needs a video or a folder, to draw on afterwards; for a live camera use "
            "`lighttrack track` or `lighttrack replay`"
        )
    sequence = sequence_of(args.video)
    if args.box is not None:
        box = parse_box(args.box)
        if sequence is not None and box != sequence.init_box:
            sequence = None  # another target than the one whose truth lies there
    elif sequence is not None:
        box = sequence.init_box
    else:
        raise LightTrackError("--box is missing: which target? (left,top,width,height in the first frame, pixels)")
    first = next(iter(frames))
    height, width = first.shape[:2]
    if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
        raise LightTrackError(f"--box {','.join(f'{v:g}' for v in box)} lies outside the {width}x{height} frame")
    return _Film(f"{frames.name}, {width}x{height}", args.video, frames, args.rate or frames.fps, box, sequence)


def _run_processes(film: _Film, model: Model, args: argparse.Namespace) -> tuple[dict[int, report.Observation], int]:
    """Start the node and the camera, watch the target; returns the observations by frame, and the frames sent."""
    processes.prepare_environment()
    namespace = f"/lighttrack_demo_{os.getpid()}"  # nobody else's topics
    log_path, stamps_path = args.out / "node.log", args.out / "stamps.csv"
    stamps_path.unlink(missing_ok=True)
    received: list[tuple[int, Any, int]] = []  # image stamp (ns), message, arrival (ns)

    def on_target(stamp: int, message: Any, arrival: int) -> None:
        if message.target_id == _TARGET_ID:
            received.append((stamp, message, arrival))

    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.interruptible())
        node = stack.enter_context(Child(processes.node_command(namespace, model, args.backend), log_path))
        observer = stack.enter_context(Observer())
        observer.listen(namespace, on_target)
        print(f"node: {model.name}; its log is {log_path}")
        observer.wait_for(namespace, node)
        observer.point_at(namespace, film.box, _TARGET_ID)
        command = processes.camera_command(film.source, f"{namespace}/image", film.fps, stamps_path)
        camera = stack.enter_context(Child(command, args.out / "camera.log"))
        _watch(observer, received, camera, node, film.frames.count)
    stamps = processes.read_stamps(stamps_path)
    observations = {}
    for stamp, message, arrival in received:
        index = stamps.get(stamp)
        if index is not None:
            observations[index] = report.Observation(
                index=index,
                box=Box(message.x, message.y, message.width, message.height),
                state=State(message.state),
                confidence=float(message.confidence),
                latency=(arrival - stamp) / 1e9,
                processing=float(message.processing_time),
            )
    if not observations:
        raise LightTrackError(f"the node answered none of {len(stamps)} frames; see {log_path}")
    first = min(observations)
    if first > 0:
        print(f"the node began on frame {first}, so the box for frame 0 may have missed its target", file=sys.stderr)
    return observations, len(stamps)


def _watch(
    observer: Observer, received: list[tuple[int, Any, int]], camera: Child, node: Child, total: int | None
) -> None:
    """Listen until the camera has ended and the node has answered its last frame."""
    with tqdm(total=total, desc="tracking", unit="frame", disable=None) as bar:
        last_report, quiet_since = time.monotonic(), time.monotonic()
        while True:
            before = len(received)
            observer.spin_once()
            if len(received) > before:
                quiet_since = time.monotonic()
                stamp, message, arrival = received[-1]
                state = State(message.state).name.lower()
                words = f"{state} {message.confidence:.2f}, {(arrival - stamp) / 1e6:.1f} ms"
                bar.set_postfix_str(words, refresh=False)
                bar.update()
                if bar.disable and time.monotonic() - last_report > 2:
                    print(f"{len(received)} frames: {words}", flush=True)
                    last_report = time.monotonic()
            if node.status is not None:
                raise LightTrackError(f"the node ended ({node.last_words}); its log is {node.log}")
            if camera.status is not None and time.monotonic() - quiet_since > 0.5:
                if camera.status != 0:
                    raise LightTrackError(f"the camera failed ({camera.last_words})")
                return


def _print_summary(figures: dict[str, Any]) -> None:
    frames, latency, score = figures["frames"], figures["latency_ms"], figures["accuracy"]
    print(f"frames   {frames['answered']} answered of {frames['sent']}, {frames['dropped']} dropped")
    print(
        f"latency  p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f}, p99 {latency['p99']:.1f}, "
        f"max {latency['max']:.1f} (image stamp to box received)"
    )
    if score is not None:
        print(
            f"accuracy mean IoU {score['iou']:.3f}, AUC {score['auc']:.3f}, over 0.5: {score['sr50']:.3f}, "
            f"within 20 px: {score['precision20']:.3f} ({score['frames']} frames with the target in sight)"
        )
    states = ", ".join(f"{count} {name}" for name, count in figures["states"].items())
    print(f"states   {states}")

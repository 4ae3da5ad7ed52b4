"""`lighttrack demo`: a camera, the tracker node and an observer as three ROS 2 processes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lighttrack_ros.commands.arguments import parse_box
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.evaluation.observed_run import ObservedRun
from lighttrack_ros.media.frames import FrameSource, parse_size
from lighttrack_ros.media.scene import DEFAULT_SEED
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.outputs import check_outputs, write_json
from lighttrack_ros.pictures.annotated_video import write_video
from lighttrack_ros.pictures.plot_file import check_plot
from lighttrack_ros.rig.demo import Film, film_of_scene, film_of_video, run_processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", metavar="FILE", help="a video or a folder of images (default: the generated scene)")
    parser.add_argument("--box", metavar="X,Y,W,H", help="the target in the video's first frame, pixels")
    parser.add_argument("--rate", type=float, help="frames per second (default: the video's own, the scene's 30)")
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
    check_plot(paths["sheet"])
    film = _film(args)
    check_outputs(paths.values(), film.frames.files)
    observations, sent = run_processes(film, model, args.backend, args.out)
    result = ObservedRun(
        title=f"{film.title}, tracked by {model.name}",
        subtitle=f"camera, node and observer in three processes over ROS 2; {describe_machine()}",
        fps=film.fps,
        sent=sent,
        observations=observations,
        truth=None if film.sequence is None or film.sequence.truth is None else film.sequence.truth[:sent],
        visible=None if film.sequence is None or film.sequence.visible is None else film.sequence.visible[:sent],
    )
    write_video(paths["video"], film.frames, result)
    _write_contact_sheet(paths["sheet"], film.frames, result)
    figures = {"model": model.name, "source": film.source, "machine": describe_machine(), **result.figures()}
    write_json(paths["figures"], figures)
    _print_summary(figures)
    for name, path in paths.items():
        print(f"{name:8} {path}")
    print("next     make view, or lighttrack view VIDEO|0: point at a target yourself, on a web page")
    return 0


_RESULTS = {"video": "mp4", "sheet": "png", "figures": "json"}


def _write_contact_sheet(path: Path, frames: FrameSource, result: ObservedRun) -> None:
    from lighttrack_ros.pictures.contact_sheet import draw_contact_sheet  # loads matplotlib, an extra
    from lighttrack_ros.pictures.figure import save

    save(draw_contact_sheet(frames, result), path)


def _film(args: argparse.Namespace) -> Film:
    box = None if args.box is None else parse_box(args.box)
    if args.video is not None:
        return film_of_video(args.video, box, args.rate)
    if box is not None:
        raise LightTrackError("--box goes with --video: the generated scene knows its target")
    return film_of_scene(args.seed, parse_size(args.size), args.rate or 30.0, args.out / "scene")


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

"""`lighttrack view`: a page to point at a target and watch it, on a tracker node or on a video, folder or camera."""

from __future__ import annotations

import argparse
import contextlib
import threading
from pathlib import Path

from lighttrack_ros.commands.arguments import add_page_arguments, parse_box
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.frames import open_source
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.outputs import check_outputs
from lighttrack_ros.viewer.serving import serving, stopping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        help="a video, a folder of images, a camera (0, /dev/video0), a stream's URL or scene[:SEED], tracked without "
        "ROS; left out: a tracker node, wherever it runs",
    )
    add_page_arguments(parser)
    node = parser.add_argument_group("for a tracker node")
    node.add_argument("--tracker", help="the node's name, e.g. /drone1/tracker (default: tracker)")
    node.add_argument(
        "--keep-megabytes",
        type=int,
        help="while somebody watches, have the node keep past images up to this size, for boxes that are drawn slowly "
        "or come over a slow link (default: 256; 0: leave the node's buffer as it is)",
    )
    node.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, help="what follows is for ROS, e.g. -p use_sim_time:=true"
    )
    film = parser.add_argument_group("for a source")
    film.add_argument("--box", metavar="X,Y,W,H", help="the target in the first frame, instead of pointing at it")
    film.add_argument("--out", type=Path, metavar="FILE", help="write an annotated video (.mp4, .webm, .avi, .mkv)")
    film.add_argument("--model", help=f"name or folder of the model (default: {DEFAULT_MODEL})")
    film.add_argument("--backend", help="what runs the network (default: auto)")
    film.add_argument("--threads", type=int, help="CPU threads per step (default: what a short measurement finds best)")


def run(args: argparse.Namespace) -> int:
    of_node = {"--tracker": args.tracker, "--keep-megabytes": args.keep_megabytes, "--ros-args": args.ros_args}
    of_film = {name: getattr(args, name[2:]) for name in ("--box", "--out", "--model", "--backend", "--threads")}
    if args.source is None:
        _refuse(of_film, "goes with a source, and there is none")
        return _view_node(args)
    _refuse(of_node, "goes with a tracker node, not with a source")
    return _view_film(args)


def _refuse(arguments: dict[str, object], reason: str) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise LightTrackError(f"{name} {reason}")


def _view_film(args: argparse.Namespace) -> int:
    from lighttrack_ros.viewer.film import Film
    from lighttrack_ros.viewer.recording import Recording

    source = open_source(args.source)
    box = None if args.box is None else parse_box(args.box)
    model = load_model(args.model or DEFAULT_MODEL)
    check_outputs([args.out], [*source.files, model.folder])
    film = Film(source, model, args.backend or "auto", args.threads or 0)
    if box is not None:
        film.start(box)
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving(film, args.address, args.port))
        stack.enter_context(stopping(film.stop))
        recording = None if args.out is None else stack.enter_context(Recording(args.out, source.fps))
        for shot in film.shots():
            if recording is not None:
                recording.write(shot)
    if args.out is not None:
        print(args.out)
    return 0


def _view_node(args: argparse.Namespace) -> int:
    from lighttrack_ros.viewer.tracker_source import TrackerSource

    stop = threading.Event()
    megabytes = 256 if args.keep_megabytes is None else args.keep_megabytes
    with (
        stopping(stop.set),
        TrackerSource(args.tracker or "tracker", megabytes, args.ros_args or []) as source,
        serving(source, args.address, args.port),
    ):
        stop.wait()
    return 0

"""`lighttrack bench`: what things cost on this machine; one subcommand a question."""

from __future__ import annotations

import argparse
from pathlib import Path

from lighttrack_ros.evaluation import compare
from lighttrack_ros.models import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    questions = parser.add_subparsers(dest="question", required=True, metavar="QUESTION")
    models = questions.add_parser("models", help="parameters, MACs and time per frame of every network (needs torch)")
    models.add_argument("--models", nargs="+", default=[], metavar="NAME", help="these networks alone")
    models.add_argument("--rounds", type=int, default=20, help="runs of each (default: %(default)s)")
    models.add_argument("--threads", type=int, default=0, help="CPU threads a run; 0: all")
    models.add_argument("--backend", default="onnxruntime", help="what runs them (default: %(default)s)")
    models.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    exits = questions.add_parser("exits", help="what a trained DyTrack's exits save and lose (needs torch)")
    _add_exits_arguments(exits)
    latency = questions.add_parser("latency", help="from an image's stamp to its box in another process, over ROS 2")
    _add_latency_arguments(latency)
    compare.add_arguments(
        questions.add_parser("compare", help="our models and OpenCV's trackers: accuracy against time")
    )


def run(args: argparse.Namespace) -> int:
    if args.question == "compare":
        return compare.run(args)
    if args.question == "latency":
        from lighttrack_ros.rig import bench_latency

        return bench_latency.run(args)
    if args.question == "exits":
        from lighttrack_ros.training import bench_exits

        return bench_exits.run(args)
    from lighttrack_ros.export import bench_models

    return bench_models.run(args)


def _add_exits_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name or folder of a DyTrack model")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder a sequence inside")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these sequences alone")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")
    parser.add_argument("--against", metavar="MODEL", help="a model of the same exits to compare with, exit by exit")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: the backend chooses")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")


def _add_latency_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--bag", type=Path, metavar="BAG", help="a rosbag2 (default: the generated scene)")
    source.add_argument("--sequence", type=Path, metavar="DIR", help="frames or a video with the target's box beside")
    parser.add_argument("--topic", help="of the bag's images (default: the only ones)")
    parser.add_argument("--box", metavar="X,Y,W,H", help="the target in the first frame, pixels")
    parser.add_argument("--size", default="640x480", help="of the generated scene (default: %(default)s)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder of the model (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: %(default)s)")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--rate", default="30", help="frames a second; max looks for the highest that is kept up with (default: 30)"
    )
    pace.add_argument(
        "--overload",
        nargs="*",
        type=float,
        metavar="FACTOR",
        help="instead: cameras that many times faster than the tracker (default: 2 5 20)",
    )
    parser.add_argument("--runs", type=int, default=5, help="the best and the worst are dropped (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run (default: %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw latency over time, its distribution, its parts")

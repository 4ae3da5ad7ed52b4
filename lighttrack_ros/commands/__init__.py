"""The `lighttrack` command line; run `lighttrack COMMAND --help` for a subcommand's arguments."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence

from lighttrack_ros import __version__
from lighttrack_ros.errors import NO_ROS, LightTrackError

# Subcommand -> (its module here, one-line help), or for a group of them a table of its own. A module has
# add_arguments(parser) and run(args) -> exit status. It is imported only when its subcommand runs: `lighttrack track`
# must not load torch or rclpy.
Commands = dict[str, tuple["str | Commands", str]]
COMMANDS: Commands = {
    "demo": ("demo", "camera, node and observer in a generated scene, over real ROS 2"),
    "track": ("track", "follow one target through a video, a folder or a camera, without ROS"),
    "replay": ("replay", "publish a rosbag2, a video or a folder of frames as a camera"),
    "scene": ("scene", "write the generated scene as a sequence or a rosbag2"),
    "evaluate": ("evaluate", "one-pass evaluation on sequences with ground truth"),
    "fit-session": ("fit_session", "fit, on sequences, the limits from which a target counts as found or lost"),
    "bench": (
        {
            "models": ("bench_models", "parameters, MACs and time per frame of every network (needs torch)"),
            "exits": ("bench_exits", "time and accuracy of a trained DyTrack's exits (needs torch)"),
            "latency": ("bench_latency", "time from an image's stamp to its box in another process, over ROS 2"),
            "compare": ("bench_compare", "our models and OpenCV's trackers: accuracy against time"),
        },
        "latency through the node, time of a step, cost of a network, on this machine",
    ),
    "calibrate": ("calibrate", "measure the ranges that a model needs to run in int8"),
    "compile": ("compile", "compile a model for this machine's GPU with TensorRT"),
    "selftest": ("selftest", "compare TensorRT on this machine with ONNX Runtime, and time it"),
    "import": ("import_", "turn a published checkpoint into a model folder"),
    "export": ("export", "rewrite a model's graphs from a checkpoint, keeping its settings"),
    "tune-exits": ("tune_exits", "set a DyTrack's thresholds from held-out videos"),
    "train": ("train", "train or distil a LightTrack or DyTrack model"),
    "download": ("download", "fetch a published checkpoint and import it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="lighttrack", description=__doc__)
    parser.add_argument("--version", action="version", version=f"lighttrack_ros {__version__}")
    try:
        _add_commands(parser, COMMANDS, arguments, "command")
        args = parser.parse_args(arguments)
        return int(args.run(args))
    except LightTrackError as error:
        print(f"lighttrack {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if not _OF_ROS.fullmatch(error.name or ""):
            raise
        print(f"lighttrack {arguments[0]}: {NO_ROS} ({error})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


_OF_ROS = re.compile(r"rclpy(\..*)?|\w+_(msgs|interfaces)(\..*)?|std_srvs(\..*)?|lighttrack_ros\.(msg|srv)")


def _add_commands(parser: argparse.ArgumentParser, commands: Commands, arguments: list[str], kind: str) -> None:
    subparsers = parser.add_subparsers(dest=kind, required=True, metavar=kind.upper())
    for name, (what, summary) in commands.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if arguments[:1] != [name]:
            continue
        if isinstance(what, str):
            module = importlib.import_module(f"{__name__}.{what}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
        else:
            _add_commands(subparser, what, arguments[1:], "question")

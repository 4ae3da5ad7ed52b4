"""The `lighttrack` command: one subcommand a task, each in the room that does the work."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from lighttrack_ros import __version__
from lighttrack_ros.errors import LightTrackError

# Subcommand -> (module with add_arguments(parser) and run(args) -> exit status, one-line help).
# Modules are imported only when their subcommand runs: `lighttrack track` must not load torch or rclpy.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("lighttrack_ros.rig.demo", "camera, node and observer in a generated scene, over real ROS 2"),
    "track": (
        "lighttrack_ros.commands.track",
        "follow one target through a video, a folder or a camera, without ROS",
    ),
    "replay": ("lighttrack_ros.rig.replay", "publish a rosbag2, a video or a folder of frames as a camera"),
    "scene": ("lighttrack_ros.media.scene_files", "write the generated scene as a sequence or a rosbag2"),
    "evaluate": ("lighttrack_ros.evaluation.evaluate", "one-pass evaluation on sequences with ground truth"),
    "fit-session": (
        "lighttrack_ros.evaluation.fit_session",
        "find out on sequences from what confidence on a model may be believed",
    ),
    "bench": (
        "lighttrack_ros.commands.bench",
        "latency through the node, time of a step, cost of a network, on this machine",
    ),
    "calibrate": ("lighttrack_ros.trackers.calibrate", "measure on sequences what a model needs to run in int8"),
    "compile": ("lighttrack_ros.trackers.compile", "compile a model for this machine's GPU with TensorRT"),
    "selftest": (
        "lighttrack_ros.evaluation.selftest",
        "compare TensorRT on this machine with ONNX Runtime, and time it",
    ),
    "import": ("lighttrack_ros.export.importer", "turn a published checkpoint into a model folder"),
    "export": (
        "lighttrack_ros.export.exporter",
        "write a model's graphs anew from a checkpoint, keeping its settings",
    ),
    "tune-exits": ("lighttrack_ros.evaluation.tune_exits", "set a DyTrack's thresholds from held-out videos"),
    "train": ("lighttrack_ros.training.train", "train or distil a LightTrack or DyTrack model"),
    "download": ("lighttrack_ros.export.download", "fetch a published checkpoint and import it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="lighttrack", description=__doc__)
    parser.add_argument("--version", action="version", version=f"lighttrack_ros {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if arguments[:1] == [name]:
            module = importlib.import_module(module_name)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except LightTrackError as error:
        print(f"lighttrack {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130

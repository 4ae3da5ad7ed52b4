"""The `lighttrack` command line; run `lighttrack COMMAND --help` for a subcommand's arguments."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from lighttrack_ros import __version__
from lighttrack_ros.errors import NO_ROS, LightTrackError

_MOMENT = 0.01  # seconds
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # errors of a disk, wherever a library writes to it

# Subcommand -> (its module here, one-line help), or for a group of them a table of its own. A module has
# add_arguments(parser) and run(args) -> exit status. It is imported only when its subcommand runs: `lighttrack track`
# must not load torch or rclpy.
Commands = dict[str, tuple["str | Commands", str]]
COMMANDS: Commands = {
    "demo": ("demo", "camera, node and observer in a generated scene, over real ROS 2"),
    "track": ("track", "follow one target through a video, a folder or a camera, without ROS"),
    "view": ("view", "point at a target and watch it on a web page; a tracker node, or a video without ROS"),
    "soak": ("soak", "a node for minutes or hours under what operators and cameras do, at random: does it hold?"),
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
    "train": ("train", "train or distil a LightTrack, MixFormerV2 or DyTrack model"),
    "search": ("search", "search a LightTrack architecture that keeps a limit of time on this device (needs torch)"),
    "claims": ("claims", "try whether a claim of the papers shows, over several seeds (needs torch)"),
    "download": ("download", "fetch a published checkpoint and import it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Returns:
        0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads what is printed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # names of files are bytes
    with _heard_ctrl_c() as interrupted:
        try:
            status = _main(list(sys.argv[1:] if argv is None else argv))
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            return 130
        except (ImportError, SystemError):  # what a compiled module may make of a Ctrl-C
            if interrupted:
                return 130
            raise
        except BrokenPipeError:  # `lighttrack ... | head -1`
            # What is still in the buffer has nowhere to go; Python would complain of it at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141


@contextlib.contextmanager
def _heard_ctrl_c() -> Iterator[list[int]]:
    """Within the block no Ctrl-C is lost; the list holds the signals that came.

    What a callback of a weak reference or a finaliser raises, Python prints and forgets, KeyboardInterrupt too. Since
    3.13 the import of every module runs such a callback. The Ctrl-C is repeated a moment later then, when it is over.
    """
    signals: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        signal.default_int_handler(number, frame)

    def on_forgotten(forgotten: sys.UnraisableHookArgs) -> None:
        if forgotten.exc_type is KeyboardInterrupt:
            threading.Timer(_MOMENT, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        else:
            hook(forgotten)

    hook = sys.unraisablehook
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        sys.unraisablehook = on_forgotten
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield signals
    finally:
        if ours:
            sys.unraisablehook = hook
        if signal.getsignal(signal.SIGINT) is interrupt:  # a command that ended may have chosen to ignore a second one
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="lighttrack", description=__doc__)
    parser.add_argument("--version", action="version", version=f"lighttrack_ros {__version__}")
    try:
        _add_commands(parser, COMMANDS, arguments, "command")
        args = parser.parse_args(_with_negative_values(arguments))
        return int(args.run(args))
    except LightTrackError as error:
        print(f"lighttrack {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"lighttrack {arguments[0]}: {where}cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        name = error.name or ""
        extra = _EXTRAS.get(name.partition(".")[0])
        if extra is None and not _OF_ROS.fullmatch(name):
            raise
        words = NO_ROS if extra is None else f"needs a further package: pip install 'lighttrack_ros[{extra}]'"
        print(f"lighttrack {arguments[0]}: {words} ({error})", file=sys.stderr)
        return 1


def _with_negative_values(arguments: list[str]) -> list[str]:
    """`--box -10,20,64,48` as `--box=-10,20,64,48`: argparse takes the second for options of its own."""
    joined: list[str] = []
    for argument in arguments:
        begins_list = re.match(r"-\.?\d[^=]*,", argument)
        if begins_list and joined and re.fullmatch(r"--[a-z][a-z-]*", joined[-1]):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


# Packages that only some commands import, and the extra that brings them.
_EXTRAS = {
    "torch": "import",
    "onnx": "import",
    "safetensors": "import",
    "lightning": "train",
    "lightning_fabric": "train",
    "optuna": "search",
}
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

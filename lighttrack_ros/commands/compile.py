"""`lighttrack compile`: compile a model's networks for this machine's GPU ahead of time."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.clips import scene_clip, scene_clips, sequence_clips
from lighttrack_ros.models import DEFAULT_MODEL, load_model, model_places
from lighttrack_ros.runtime.plan_cache import Entry, PlanCache
from lighttrack_ros.runtime.plans import useless_plans
from lighttrack_ros.trackers.compile import compile_model
from lighttrack_ros.trackers.compile_pairs import compile_pairs

_BACKENDS = {"fp16": "tensorrt", "fp32": "tensorrt-fp32", "int8": "tensorrt-int8"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--precision", choices=sorted(_BACKENDS), default="fp16", help="default: %(default)s")
    parser.add_argument(
        "--sequences",
        type=Path,
        metavar="DIR",
        help="compare with ONNX Runtime on these, one folder each as for evaluate (default: a generated scene)",
    )
    parser.add_argument("--frames", type=int, default=100, help="frames compared (default: %(default)s)")
    parser.add_argument(
        "--pairs", action="store_true", help="also for two targets in one run, kept where that is faster here"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="list the compiled plans instead")
    other.add_argument("--prune", action="store_true", help="delete plans that this machine cannot use any more")


def run(args: argparse.Namespace) -> int:
    if args.frames < 1:
        raise LightTrackError(f"--frames is {args.frames}, expected at least 1")
    cache = PlanCache()
    if args.list:
        _list(cache.entries(), cache)
    elif args.prune:
        for entry in useless_plans(cache, model_places()):
            cache.remove(entry.path)
            print(f"deleted {_described(entry)}")
    else:
        _compile(args)
    return 0


def _compile(args: argparse.Namespace) -> None:
    model = load_model(args.model)
    pairs = compile_pairs(model, _BACKENDS[args.precision], scene_clip(1)) if args.pairs else ()
    clips = sequence_clips(args.sequences, args.frames) if args.sequences else scene_clips(args.frames)
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the engines say what they compile
    started = time.monotonic()

    def on_compiled(_: object) -> None:
        seconds = time.monotonic() - started
        print(f"{model.name} is compiled in {args.precision}, {seconds:.1f} s; plans are in {PlanCache().folder}")

    parity = compile_model(model, _BACKENDS[args.precision], clips, on_compiled)
    where = args.sequences or "the generated scene"
    print(f"\nDifferences to ONNX Runtime in fp32 on {len(parity.pixels)} frames of {where}:\n{parity.table()}")
    problem = parity.problem()
    if problem:
        raise LightTrackError(f"{problem}: {model.name} cannot be used in {args.precision} here, its plans are deleted")
    for pair in pairs:
        print(f"{pair.summary()}: {pair.problem() or 'kept'}")


def _list(entries: list[Entry], cache: PlanCache) -> None:
    for entry in entries:
        print(_described(entry))
    size = sum(entry.size for entry in entries)
    print(f"{len(entries)} plans, {size / 1e6:.1f} MB, in {cache.folder}")


def _described(entry: Entry) -> str:
    key = entry.key
    sizes = "".join(f" {name}={size}" for name, size in key.dimensions.items())
    made = f"{entry.size / 1e6:.1f} MB, compiled in {entry.seconds:.1f} s"
    cuda = f"{key.cuda // 1000}.{key.cuda % 1000 // 10}"
    checked = entry.checked or "not compared with ONNX Runtime yet"
    return f"{entry.model}{sizes} {key.precision} for {key.gpu} with {key.tensorrt}, CUDA {cuda}: {made}; {checked}"

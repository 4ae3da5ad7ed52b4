"""`lighttrack compile`: a model's networks compiled for this machine's GPU before they are needed."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import time
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.clips import scene_clips, sequence_clips
from lighttrack_ros.models import DEFAULT_MODEL, load_model, model_places
from lighttrack_ros.runtime import build
from lighttrack_ros.runtime.cuda import open_cuda
from lighttrack_ros.runtime.plan_cache import Entry, PlanCache
from lighttrack_ros.runtime.ranges import load_ranges
from lighttrack_ros.runtime.watch import watch
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.parity import compare

_BACKENDS = {"fp16": "tensorrt", "fp32": "tensorrt-fp32", "int8": "tensorrt-int8"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--precision", choices=sorted(_BACKENDS), default="fp16", help="default: %(default)s")
    parser.add_argument(
        "--sequences",
        type=Path,
        metavar="DIR",
        help="compare with ONNX Runtime on frames of these, a folder each as for evaluate (default: a generated scene)",
    )
    parser.add_argument("--frames", type=int, default=100, help="frames compared (default: %(default)s)")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="list the compiled plans instead")
    other.add_argument("--prune", action="store_true", help="delete plans that nothing here can use any more instead")


def run(args: argparse.Namespace) -> int:
    if args.frames < 1:
        raise LightTrackError(f"--frames is {args.frames}, expected at least 1")
    cache = PlanCache()
    if args.list:
        _list(cache.entries(), cache)
    elif args.prune:
        for entry in _useless(cache):
            cache.remove(entry.path)
            print(f"deleted {_described(entry)}")
    else:
        _compile(args, cache)
    return 0


def _compile(args: argparse.Namespace, cache: PlanCache) -> None:
    model = load_model(args.model)
    clips = sequence_clips(args.sequences, args.frames) if args.sequences else scene_clips(args.frames)
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the engines say what they compile
    started = time.monotonic()
    with watch() as watched:
        # All that the tracker loads, through the door through which it loads it.
        tracker = create_tracker(model, _BACKENDS[args.precision])
    print(
        f"{model.name} is compiled in {args.precision}, {time.monotonic() - started:.1f} s; plans are in {cache.folder}"
    )
    try:
        reference = create_tracker(model, "onnxruntime")
        try:
            parity = compare(tracker, reference, clips)
        finally:
            reference.close()
    finally:
        tracker.close()
    where = args.sequences or "the generated scene"
    print(f"\nDifferences to ONNX Runtime in fp32 on {len(parity.pixels)} frames of {where}:\n{parity.table()}")
    problem = parity.problem()
    if problem:
        for key in watched.plans:
            cache.remove(cache.path(key))
        raise LightTrackError(f"{problem}: {model.name} is no good in {args.precision} here, its plans are deleted")


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


def _useless(cache: PlanCache) -> list[Entry]:
    """Plans for a TensorRT, driver or GPU that is not this machine's, or of graphs that no model here has."""
    cuda = open_cuda()
    device = cuda.device
    cuda.close()
    trt = build.import_tensorrt()
    present = (build.VERSION, f"{trt.__name__} {trt.__version__}", device.driver, device.name)
    graphs = {
        hashlib.sha256(graph.read_bytes()).hexdigest() for place in model_places() for graph in place.glob("*/*.onnx")
    }
    ranges = {""}
    for place in model_places():
        for graph in place.glob("*/*.onnx"):
            with contextlib.suppress(LightTrackError):  # not calibrated
                measured = load_ranges(graph)
                ranges |= {measured.digest} if measured else set()
    return [
        entry
        for entry in cache.entries()
        if (entry.key.builder, entry.key.tensorrt, entry.key.cuda, entry.key.gpu) != present
        or entry.key.graph not in graphs
        or entry.key.ranges not in ranges
    ]

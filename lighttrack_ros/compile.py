"""`lighttrack compile`: a model's networks compiled for this machine's GPU before they are needed."""

from __future__ import annotations

import argparse
import hashlib
import logging
import time

from lighttrack_ros.models import DEFAULT_MODEL, load_model, model_places
from lighttrack_ros.runtime import build
from lighttrack_ros.runtime.cuda import open_cuda
from lighttrack_ros.runtime.plan_cache import Entry, PlanCache
from lighttrack_ros.trackers import create_tracker

_BACKENDS = {"fp16": "tensorrt", "fp32": "tensorrt-fp32"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--precision", choices=sorted(_BACKENDS), default="fp16", help="default: %(default)s")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="list the compiled plans instead")
    other.add_argument("--prune", action="store_true", help="delete plans that nothing here can use any more instead")


def run(args: argparse.Namespace) -> int:
    cache = PlanCache()
    if args.list:
        _list(cache.entries(), cache)
    elif args.prune:
        for entry in _useless(cache):
            cache.remove(entry.path)
            print(f"deleted {_described(entry)}")
    else:
        _compile(args.model, args.precision, cache)
    return 0


def _compile(name: str, precision: str, cache: PlanCache) -> None:
    model = load_model(name)
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the engines say what they compile
    started = time.monotonic()
    # All that the tracker loads, through the door through which it loads it.
    create_tracker(model, _BACKENDS[precision]).close()
    print(f"{model.name} is ready in {precision} after {time.monotonic() - started:.1f} s (plans in {cache.folder})")


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
    return f"{entry.model}{sizes} {key.precision} for {key.gpu} with {key.tensorrt}, CUDA {cuda}: {made}"


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
    return [
        entry
        for entry in cache.entries()
        if (entry.key.builder, entry.key.tensorrt, entry.key.cuda, entry.key.gpu) != present
        or entry.key.graph not in graphs
    ]

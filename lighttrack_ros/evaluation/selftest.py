"""`lighttrack selftest`: does the chosen backend see what ONNX Runtime sees on this machine, and how fast is it.

Both trackers are asked about the same frames of the generated scene, each time from the same place, so that
small differences cannot add up to large ones.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lighttrack_ros import __version__
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.scene.scene import Scene
from lighttrack_ros.geometry import intersection_over_union
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import DEFAULT_MODEL, Model, load_model
from lighttrack_ros.runtime import WARM_UP_RUNS, load_engine
from lighttrack_ros.runtime.build import import_tensorrt
from lighttrack_ros.runtime.cuda import open_cuda
from lighttrack_ros.runtime.tensorrt import TensorRTEngine
from lighttrack_ros.trackers import create_tracker

_PRECISIONS = {"fp32": "tensorrt-fp32", "fp16": "tensorrt"}
_LEAST_OVERLAP = 0.8  # of the two trackers' boxes on any frame; fp16 stays far above


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu", action="store_true", required=True, help="TensorRT on this machine's GPU")
    parser.add_argument("models", nargs="*", default=[DEFAULT_MODEL], help="names or folders (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=100, help="frames compared and timed (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")


def run(args: argparse.Namespace) -> int:
    figures: dict[str, Any] = {"machine": _machine(), "models": []}
    print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    failed = False
    for model in map(load_model, args.models):
        for precision in _PRECISIONS:
            row: dict[str, Any] = {"model": model.name, "precision": precision}
            row |= _compare(model, _PRECISIONS[precision], args.frames)
            row["networks"] = _networks(model, _PRECISIONS[precision], args.frames)
            figures["models"].append(row)
            failed |= row["least_overlap"] < _LEAST_OVERLAP
            _print(row)
    text = json.dumps(figures, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    if failed:
        raise LightTrackError(
            f"boxes overlap ONNX Runtime's by less than {_LEAST_OVERLAP}: do not use this backend here"
        )
    return 0


def _machine() -> dict[str, Any]:
    trt, cuda = import_tensorrt(), open_cuda()
    device, binding = cuda.device, cuda.binding
    cuda.close()
    return {
        "lighttrack_ros": __version__,
        trt.__name__: trt.__version__,
        "gpu": device.name,
        "compute_capability": "{}.{}".format(*device.compute_capability),
        "integrated": device.integrated,
        "cuda_driver": device.driver,
        "binding": binding,
        "processor": platform.machine(),
        "python": platform.python_version(),
    }


def _compare(model: Model, backend: str, frames: int) -> dict[str, Any]:
    """How far the backend's boxes and confidences are from ONNX Runtime's, and how long its updates take."""
    started = time.perf_counter()
    tested = create_tracker(model, backend)
    loaded = time.perf_counter() - started
    reference = create_tracker(model, "onnxruntime")
    try:
        first, *rest = (frame for frame, _ in zip(Scene(), range(frames + 1), strict=False))
        reference.init(from_bgr(first.image), first.box)
        tested.init(from_bgr(first.image), first.box)
        overlaps, shifts, confidences, seconds = [], [], [], []
        for scene_frame in rest:
            frame = from_bgr(scene_frame.image)
            tested.target = reference.target
            expected = reference.update(frame)
            began = time.perf_counter()
            estimate = tested.update(frame)
            seconds.append(time.perf_counter() - began)
            overlaps.append(intersection_over_union(expected.box, estimate.box))
            shifts.append(np.abs(np.subtract(expected.box, estimate.box)).max())
            confidences.append(abs(expected.confidence - estimate.confidence))
    finally:
        tested.close()
        reference.close()
    return {
        "load_seconds": round(loaded, 2),
        "least_overlap": round(float(min(overlaps)), 4),
        "largest_box_difference_pixels": round(float(max(shifts)), 3),
        "largest_confidence_difference": round(float(max(confidences)), 5),
        "update_ms": _spread(np.multiply(seconds, 1e3)),
    }


def _networks(model: Model, backend: str, runs: int) -> dict[str, Any]:
    """Times of each graph alone, uploads and downloads included: by CUDA's events, and on the host's clock."""
    times = {}
    template = [(graph, model.template_size) for graph in model.template_graphs]
    for graph, side in template + [(graph, model.search_sizes[0]) for graph in model.search_graphs]:
        engine = load_engine(graph, backend, dimensions={"side": side})
        try:
            assert isinstance(engine, TensorRTEngine)
            for _ in range(WARM_UP_RUNS):
                for output in engine.run({}).values():
                    np.asarray(output)
            gpu, host = engine.milliseconds(runs)
            times[graph.name] = {"gpu_ms": _spread(gpu), "host_ms": _spread(host)}
        finally:
            engine.close()
    return times


def _spread(milliseconds: npt.NDArray[np.float64]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99))
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "p99": round(float(p99), 3)}


def _print(row: dict[str, Any]) -> None:
    update = row["update_ms"]
    print(
        f"{row['model']} {row['precision']}: boxes differ by {row['largest_box_difference_pixels']} px at most "
        f"(least overlap {row['least_overlap']}), confidence by {row['largest_confidence_difference']}; "
        f"update p50 {update['p50']} p95 {update['p95']} p99 {update['p99']} ms"
    )
    for name, times in row["networks"].items():
        gpu, host = times["gpu_ms"], times["host_ms"]
        print(
            f"  {name}: GPU p50 {gpu['p50']} p95 {gpu['p95']} p99 {gpu['p99']} ms, "
            f"host p50 {host['p50']} p95 {host['p95']} p99 {host['p99']} ms"
        )

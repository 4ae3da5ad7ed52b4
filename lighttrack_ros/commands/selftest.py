"""`lighttrack selftest --gpu`: compare TensorRT on this machine with ONNX Runtime, and time it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.selftest import compare_backend, describe_gpu, time_networks, time_preprocessing
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.outputs import check_outputs, write_json
from lighttrack_ros.runtime import ranges

_PRECISIONS = {"fp32": "tensorrt-fp32", "fp16": "tensorrt", "int8": "tensorrt-int8"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu", action="store_true", required=True, help="TensorRT on this machine's GPU")
    parser.add_argument(
        "models", nargs="*", default=[DEFAULT_MODEL], help=f"names or folders (default: {DEFAULT_MODEL})"
    )
    parser.add_argument(
        "--sequences",
        type=Path,
        metavar="DIR",
        help="compare on these, one folder each as for evaluate (default: a generated scene)",
    )
    parser.add_argument("--frames", type=int, default=100, help="frames compared and timed (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")


def run(args: argparse.Namespace) -> int:
    if args.frames < 1:
        raise LightTrackError(f"--frames is {args.frames}, expected at least 1")
    check_outputs([args.json], [args.sequences] if args.sequences else [])
    figures: dict[str, Any] = {
        "machine": describe_gpu(),
        "frames": str(args.sequences or "generated scene"),
        "models": [],
    }
    print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    figures["preprocessing"] = time_preprocessing(args.frames)
    _print_preprocessing(figures["preprocessing"])
    problems = []
    for model in map(load_model, args.models):
        for precision, backend in _PRECISIONS.items():
            if precision == "int8" and not (model.folder / ranges.FILE).is_file():
                print(f"\n{model.name} int8: not calibrated")
                continue
            row: dict[str, Any] = {"model": model.name, "precision": precision}
            figures["models"].append(row)
            try:
                row |= compare_backend(model, backend, args.sequences, args.frames)
                row["networks"] = time_networks(model, backend, args.frames)
                _print(row)
            except LightTrackError as error:  # the other figures are wanted all the same
                row["problem"] = str(error)
                print(f"\n{model.name} {precision}: {error}")
            if row["problem"]:
                problems.append(f"{model.name} in {precision}: {row['problem']}")
    text = json.dumps(figures, indent=1)
    print(text)
    if args.json:
        write_json(args.json, figures)
    if problems:
        raise LightTrackError("do not use this here: " + "; ".join(problems))
    return 0


def _print_preprocessing(figures: dict[str, Any]) -> None:
    crop, rectangle, frame = (figures[name]["p50"] for name in ("crop", "rectangle", "whole_frame"))
    print(
        f"to the GPU from a 720p frame: resized by the CPU {crop:.3f} ms, the rectangle as it is {rectangle:.3f} ms, "
        f"the whole frame {frame:.3f} ms; resizing on the GPU could save {max(0.0, crop - rectangle):.3f} ms at most"
    )


def _print(row: dict[str, Any]) -> None:
    print(f"\n{row['model']} {row['precision']}: {row['problem'] or 'agrees with ONNX Runtime'}")
    rows = {
        "box, pixels": row["box_difference_pixels"],
        "score": row["score_difference"],
        "update, ms": row["update_ms"],
    }
    for name, times in row["networks"].items():
        rows[f"{name}, GPU ms"], rows[f"{name}, host ms"] = times["gpu_ms"], times["host_ms"]
    width = max(map(len, rows))
    print(" " * width + "".join(f"{name:>10}" for name in row["update_ms"]))
    for name, values in rows.items():
        print(f"{name:{width}}" + "".join(f"{value:10.4f}" for value in values.values()))

"""`lighttrack calibrate`: measure the ranges that int8 needs, on the crops that the model's tracker really cuts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lighttrack_ros.media.sequences import find_sequences
from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.outputs import check_writable
from lighttrack_ros.runtime.ranges import FILE

if TYPE_CHECKING:
    from lighttrack_ros.runtime.calibration import Measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder per sequence inside")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="use only these sequences")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")


def run(args: argparse.Namespace) -> int:
    from lighttrack_ros.trackers.calibrate import calibrate  # loads onnx, an extra

    model = load_model(args.model)
    check_writable(model.folder / FILE)
    sequences = find_sequences(args.sequences, args.only, args.skip)
    path = calibrate(model, sequences, _print)
    print(path)
    return 0


def _print(name: str, measured: Measured) -> None:
    kept = measured.ranges.kept
    print(f"{name}: {measured.ranges.inputs} inputs, {measured.layers} layers, {len(kept)} kept in floating point")
    print(f"  {'error of the outputs, % of their spread':43} TensorRT  ONNX Runtime")
    for what, (tensorrt, onnxruntime) in measured.errors.items():
        print(f"  {what:43} {100 * tensorrt:7.1f}  {100 * onnxruntime:12.1f}", flush=True)

"""`lighttrack calibrate`: what int8 needs to know of a model, measured on the crops that its tracker really cuts.

The tracker runs in fp32 over sequences of the user's; what its engines are given is kept, and says for each graph
which ranges serve best and which layers had better stay in floating point (`runtime.calibration`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.sequences import Sequence, find_sequences
from lighttrack_ros.media.video import check_writable
from lighttrack_ros.models import DEFAULT_MODEL, Model, load_model
from lighttrack_ros.runtime import Engine, load_engine
from lighttrack_ros.runtime.calibration import Inputs, Measured, Recorded, measure
from lighttrack_ros.runtime.engine import Tensor
from lighttrack_ros.runtime.ranges import FILE, Calibration, save_calibration
from lighttrack_ros.trackers import create_tracker

_INPUTS = 100  # kept of each graph, about
_RESTART = 15  # frames after which the tracker is put on the truth again: new templates, and nothing of lost targets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder a sequence inside")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these sequences alone")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")


def run(args: argparse.Namespace) -> int:
    model = load_model(args.model)
    check_writable(model.folder / FILE)
    sequences = find_sequences(args.sequences, args.only, args.skip)
    by_graph: dict[str, list[Recorded]] = {}
    # The others run once a target, or between frames: there int8 would gain nothing worth its errors.
    every_frame = {graph.name for graph in model.search_graphs}
    for recorded in (recorded for recorded in record(model, sequences) if recorded.graph.name in every_frame):
        by_graph.setdefault(recorded.graph.name, []).append(recorded)
    graphs = {}
    for name, records in by_graph.items():
        with tqdm(total=100, desc=name, leave=False, disable=None) as bar:
            measured = measure(
                sorted(records, key=lambda record: -len(record.inputs)), lambda share: bar.update(100 * share)
            )
        graphs[name] = measured.ranges
        _print(name, measured)
    path = save_calibration(Calibration(tuple(sequence.name for sequence in sequences), graphs), model.folder)
    print(path)
    return 0


def record(model: Model, sequences: list[Sequence]) -> list[Recorded]:
    """The inputs of every graph of a model while its tracker follows the targets of sequences, about a hundred of each.

    Raises:
        LightTrackError: a sequence cannot be read.
    """
    recorders: list[_Recorder] = []

    def load(graph: Path, dimensions: Mapping[str, int]) -> Engine:
        recorders.append(_Recorder(graph, dimensions))
        return recorders[-1]

    tracker = create_tracker(model, load)
    count = sum(sequence.frames.count or 0 for sequence in sequences)
    step = max(1, count // _INPUTS)
    done = 0
    try:
        with tqdm(total=count, unit="frame", desc="tracking", leave=False, disable=None) as bar:
            for sequence in sequences:
                for index, image in enumerate(sequence.frames):
                    frame = from_bgr(image)
                    box = _start(sequence, index)
                    for recorder in recorders:
                        recorder.recording = box is not None or done % step == 0
                    if box is not None:
                        tracker.init(frame, box)
                    else:
                        tracker.update(frame)
                    while tracker.idle_work():
                        pass
                    done += 1
                    bar.update()
    finally:
        tracker.close()
    return [Recorded(item.graph, item.dimensions, _thinned(item.recorded)) for item in recorders if item.recorded]


def _start(sequence: Sequence, index: int) -> Box | None:
    """The box to start on at a frame, if the tracker is to start there."""
    if index == 0:
        return sequence.init_box
    if sequence.truth is None or index % _RESTART or not np.isfinite(sequence.truth[index]).all():
        return None
    box = Box(*map(float, sequence.truth[index]))
    return box if min(box.width, box.height) > 0 else None


def _thinned(inputs: list[Inputs]) -> list[Inputs]:
    """Evenly, to _INPUTS."""
    if len(inputs) <= _INPUTS:
        return inputs
    return [inputs[index] for index in np.linspace(0, len(inputs) - 1, _INPUTS).astype(int)]


def _print(name: str, measured: Measured) -> None:
    kept = measured.ranges.kept
    print(f"{name}: {measured.ranges.inputs} inputs, {measured.layers} layers, {len(kept)} kept in floating point")
    print(f"  {'error of the outputs, % of their spread':43} TensorRT  ONNX Runtime")
    for what, (tensorrt, onnxruntime) in measured.errors.items():
        print(f"  {what:43} {100 * tensorrt:7.1f}  {100 * onnxruntime:12.1f}", flush=True)


class _Recorder:
    """An engine in fp32 that keeps copies of what it is given while `recording`."""

    def __init__(self, graph: Path, dimensions: Mapping[str, int]) -> None:
        self._engine = load_engine(graph, "onnxruntime", 1, dimensions)
        self.graph, self.dimensions = graph, dict(dimensions)
        self.backend, self.input_buffers = self._engine.backend, self._engine.input_buffers
        self.inputs, self.outputs = self._engine.inputs, self._engine.outputs
        self.recording = False
        self.recorded: list[Inputs] = []
        self.hold, self.close = self._engine.hold, self._engine.close

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.recording:
            self.recorded.append({name: np.array(inputs.get(name, self.input_buffers[name])) for name in self.inputs})
        return self._engine.run(inputs)

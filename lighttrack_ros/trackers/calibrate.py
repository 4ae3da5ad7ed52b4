"""Measure the ranges that int8 needs, on the crops that the model's tracker really cuts.

The tracker runs in fp32 over the user's sequences while the inputs of its engines are recorded. From these,
`runtime.calibration` chooses the ranges of each graph, and the layers that should stay in floating point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.sequences import Sequence
from lighttrack_ros.models import Model
from lighttrack_ros.runtime import Engine, load_engine
from lighttrack_ros.runtime.calibration import Inputs, Measured, Recorded, measure
from lighttrack_ros.runtime.engine import Tensor
from lighttrack_ros.runtime.ranges import Calibration, save_calibration
from lighttrack_ros.trackers import create_tracker

_INPUTS = 100  # kept per graph, about
_RESTART = 15  # frames after which the tracker restarts on the true box: gives new templates, and no lost targets


def calibrate(model: Model, sequences: list[Sequence], on_graph: Callable[[str, Measured], object]) -> Path:
    """Measure the graphs that run every frame, and write their ranges into the model's folder; returns the file.

    Args:
        sequences: real videos of the model's use.
        on_graph: called with each graph's file name and result.

    Raises:
        LightTrackError: a sequence cannot be read, or the folder cannot be written.
    """
    by_graph: dict[str, list[Recorded]] = {}
    # The other graphs run once per target, or between frames: there int8 gains too little for its errors.
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
        on_graph(name, measured)
    return save_calibration(Calibration(tuple(sequence.name for sequence in sequences), graphs), model.folder)


def record(model: Model, sequences: list[Sequence]) -> list[Recorded]:
    """Track the targets of sequences, and record about a hundred inputs of every graph of the model.

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
    """The box on which the tracker (re)starts at this frame; None if it goes on."""
    if index == 0:
        return sequence.init_box
    if sequence.truth is None or index % _RESTART or not np.isfinite(sequence.truth[index]).all():
        return None
    box = Box(*map(float, sequence.truth[index]))
    return box if min(box.width, box.height) > 0 else None


def _thinned(inputs: list[Inputs]) -> list[Inputs]:
    """_INPUTS of them, evenly spaced."""
    if len(inputs) <= _INPUTS:
        return inputs
    return [inputs[index] for index in np.linspace(0, len(inputs) - 1, _INPUTS).astype(int)]


class _Recorder:
    """An fp32 engine that copies its inputs while `recording`."""

    def __init__(self, graph: Path, dimensions: Mapping[str, int]) -> None:
        self._engine = load_engine(graph, "onnxruntime", 1, dimensions)
        self.graph, self.dimensions = graph, dict(dimensions)
        self.backend, self.input_buffers = self._engine.backend, self._engine.input_buffers
        self.inputs, self.outputs = self._engine.inputs, self._engine.outputs
        self.recording = False
        self.recorded: list[Inputs] = []
        self.hold, self.close = self._engine.hold, self._engine.close

    def run(self, inputs: Mapping[str, Tensor], slot: int = 0) -> Mapping[str, Tensor]:
        if self.recording:
            self.recorded.append({name: np.array(inputs.get(name, self.input_buffers[name])) for name in self.inputs})
        return self._engine.run(inputs, slot)

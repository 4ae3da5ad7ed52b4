"""How a graph is best quantized, found out on inputs that it was really given.

Of every layer's input three ranges are candidates: all that was seen, and all but a share of outliers. Which one
serves is measured: that layer alone is quantized, and the range is taken that changes the graph's outputs least.
A peak that is rare may be the whole message (the target, on the score map), or be worth nothing.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime.conversion import folded
from lighttrack_ros.runtime.engine import Array
from lighttrack_ros.runtime.quantization import layers, quantize_for_onnxruntime, quantize_for_tensorrt
from lighttrack_ros.runtime.ranges import Ranges, file_hash

Inputs = Mapping[str, Array]
FloatArray = npt.NDArray[np.float64]

LEAST_INPUTS = 6
_HELD_OUT = 6  # every so many-th input is for comparisons, a third of these for the final one; the others measure
_OUTLIERS = {"all": 0.0, "all but 0.01 %": 0.01, "all but 0.1 %": 0.1}  # candidates: percent left out at either end
_UNCHOSEN = "all but 0.01 %"  # for tensors that are no layer's input
_KEPT_FROM = 0.05  # share in the squared error of all layers from which a layer stays in floating point
_VALUES = 2048  # of a tensor in one run that go into its percentiles


class Recorded(NamedTuple):
    """A graph at one choice of its free dimensions, and inputs that it was given."""

    graph: Path
    dimensions: Mapping[str, int]
    inputs: list[Inputs]


class Measured(NamedTuple):
    """Of one graph.

    Attributes:
        ranges: for its conversions.
        layers: how many may be quantized, those that are kept among them.
        errors: on inputs used for nothing else, by what was done: TensorRT's and ONNX Runtime's dialect, root mean
            square error of the outputs in standard deviations of the outputs; nan where a dialect is no use.
    """

    ranges: Ranges
    layers: int
    errors: Mapping[str, tuple[float, float]]


def measure(records: list[Recorded], on_step: Callable[[float], object]) -> Measured:
    """The ranges of one graph.

    Args:
        records: of the same graph; those with most inputs come first.
        on_step: called with the share done since the last call.

    Raises:
        LightTrackError: fewer than LEAST_INPUTS inputs, or the graph cannot be read.
    """
    first = records[0]
    count = sum(len(record.inputs) for record in records)
    if len(first.inputs) < LEAST_INPUTS:
        raise LightTrackError(f"{first.graph}: ran on {len(first.inputs)} crops, at least {LEAST_INPUTS} are needed")
    measuring = [inputs for record in records for index, inputs in enumerate(record.inputs, 1) if index % _HELD_OUT]
    held_out = first.inputs[_HELD_OUT - 1 :: _HELD_OUT]
    candidates = _candidates(first.graph, measuring)
    model = folded(first.graph, first.dimensions)
    ours = layers(model)
    final, choosing = held_out[::3], [inputs for index, inputs in enumerate(held_out) if index % 3] or held_out

    def ranges(chosen: Mapping[str, str], kept: set[str]) -> Ranges:
        taken = {tensor: candidates[chosen.get(tensor, _UNCHOSEN)][tensor] for tensor in candidates["all"]}
        return Ranges(file_hash(first.graph), count, tuple(layer.name for layer in ours if layer.name in kept), taken)

    compare = _Comparison(model, choosing)
    alone: dict[tuple[str, str], FloatArray] = {}
    for layer in ours:
        others = {other.name for other in ours} - {layer.name}
        for name in candidates:
            alone[layer.name, name] = compare.errors(ranges({layer.input[0]: name}, others))
            on_step(1 / len(ours) / len(candidates))
    if not ours:
        on_step(1)
    users: dict[str, list[str]] = {}
    for layer in ours:
        users.setdefault(layer.input[0], []).append(layer.name)
    usual = np.mean([alone[layer.name, _UNCHOSEN] for layer in ours], axis=0) + 1e-12  # outputs differ in size
    chosen = {
        tensor: min(candidates, key=lambda name: sum(float((alone[user, name] / usual).sum()) for user in of_tensor))
        for tensor, of_tensor in users.items()
    }
    remaining = {layer.name: alone[layer.name, chosen[layer.input[0]]] for layer in ours}
    total = np.sum(list(remaining.values()), axis=0) + 1e-12
    kept = {name for name, error in remaining.items() if float(np.mean(error / total)) >= _KEPT_FROM}

    compare = _Comparison(model, final)
    every = dict.fromkeys(candidates["all"], "all")
    tried = {
        "lowest to highest value of every tensor": ranges(every, set()),
        "range of every tensor chosen": ranges(chosen, set()),
        f"and {len(kept)} layers kept": ranges(chosen, kept),
    }
    errors = {what: compare.in_both_dialects(those) for what, those in tried.items()}
    return Measured(ranges(chosen, kept), len(ours), errors)


class _Comparison:
    """Quantized graphs against the graph itself, on a few inputs."""

    def __init__(self, model: onnx.ModelProto, inputs: list[Inputs]) -> None:
        self._model, self._inputs = model, inputs
        self._expected = self._outputs(model)
        # A spread of nothing would make any error infinite.
        self._variances = [max(float(np.var(output)), 1e-12) for output in self._expected]

    def errors(self, ranges: Ranges) -> FloatArray:
        """Mean squared error of every output in its variance, in TensorRT's dialect."""
        model = copy.deepcopy(self._model)
        quantize_for_tensorrt(model, ranges)
        return self._squared(model)

    def in_both_dialects(self, ranges: Ranges) -> tuple[float, float]:
        """Root mean squared error, over all outputs, in TensorRT's dialect and in ONNX Runtime's."""
        unsigned, error = copy.deepcopy(self._model), math.nan
        with contextlib.suppress(LightTrackError):  # a transformer
            quantize_for_onnxruntime(unsigned, ranges, 127)
            error = float(np.sqrt(self._squared(unsigned).mean()))
        return float(np.sqrt(self.errors(ranges).mean())), error

    def _squared(self, model: onnx.ModelProto) -> FloatArray:
        pairs = zip(self._expected, self._outputs(model), self._variances, strict=True)
        return np.array([np.mean((expected - got) ** 2) / variance for expected, got, variance in pairs])

    def _outputs(self, model: onnx.ModelProto) -> list[FloatArray]:
        session = _session(model)
        runs = [session.run(None, dict(inputs)) for inputs in self._inputs]
        return [np.asarray(output, np.float64) for output in zip(*runs, strict=True)]


def _candidates(graph: Path, inputs: list[Inputs]) -> dict[str, dict[str, tuple[float, float]]]:
    """By candidate, the range of every tensor that a layer takes or gives; sizes stay free, so all inputs fit."""
    model = onnx.load(graph)
    given = {output.name for output in model.graph.output}
    floats = {
        value.name
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul", "Relu", "Add"):
            for tensor in (node.input[0], *node.output):
                if tensor in floats and tensor not in given:
                    model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
                    given.add(tensor)
    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    random = np.random.default_rng(0)
    samples: dict[str, list[Array]] = {}
    ends: dict[str, tuple[float, float]] = {}
    for one in inputs:
        tensors = dict(zip(names, session.run(names, dict(one)), strict=True))
        tensors |= {name: array for name, array in one.items() if array.dtype == np.float32}
        for name, array in tensors.items():
            values = array.ravel()
            low, high = ends.get(name, (np.inf, -np.inf))
            ends[name] = min(low, float(values.min())), max(high, float(values.max()))
            if values.size > _VALUES:
                values = values[random.integers(0, values.size, _VALUES)]
            samples.setdefault(name, []).append(values.copy())
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for candidate, outliers in _OUTLIERS.items():
        found[candidate] = {}
        for name, pieces in samples.items():
            low, high = np.percentile(np.concatenate(pieces), (outliers, 100 - outliers)) if outliers else ends[name]
            found[candidate][name] = float(f"{low:.6g}"), float(f"{high:.6g}")  # as the file says it
    return found


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

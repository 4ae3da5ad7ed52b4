"""Choose each tensor's int8 range, by measurement on real inputs of the graph.

Every layer's input has three candidate ranges: all values, and two that cut off a share of outliers. To choose, only
that layer is quantized, with each candidate; the one that changes the graph's outputs least is taken. No single rule
fits all layers: rare peaks are what counts on the score map (the target), and are noise elsewhere.
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
_HELD_OUT = 6  # every 6th input is only for comparisons, a third of these only for the final one; the others measure
_OUTLIERS = {"all": 0.0, "all but 0.01 %": 0.01, "all but 0.1 %": 0.1}  # candidates: percent cut off at either end
_UNCHOSEN = "all but 0.01 %"  # for tensors that are not a layer's input
_KEPT_FROM = 0.05  # a layer with this share of all layers' squared error, or more, stays in floating point
_VALUES = 2048  # values of a tensor per run that its percentiles are computed from


class Recorded(NamedTuple):
    """A graph with fixed sizes of its free dimensions, and inputs that it got."""

    graph: Path
    dimensions: Mapping[str, int]
    inputs: list[Inputs]


class Measured(NamedTuple):
    """The calibration of one graph.

    Attributes:
        ranges: the chosen ranges, for `conversion`.
        layers: number of layers that can be quantized, including those kept in floating point.
        errors: by stage of the choice, the root mean square error of the outputs in standard deviations of the
            outputs, in TensorRT's and in ONNX Runtime's form (nan if that form is not supported), on inputs used for
            nothing else.
    """

    ranges: Ranges
    layers: int
    errors: Mapping[str, tuple[float, float]]


def measure(records: list[Recorded], on_step: Callable[[float], object]) -> Measured:
    """The ranges of one graph.

    Args:
        records: of the same graph; the one with most inputs comes first.
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
    """Compares quantized graphs with the original, on a few inputs."""

    def __init__(self, model: onnx.ModelProto, inputs: list[Inputs]) -> None:
        self._model, self._inputs = model, inputs
        self._expected = self._outputs(model)
        # A variance of 0 would make any error infinite.
        self._variances = [max(float(np.var(output)), 1e-12) for output in self._expected]

    def errors(self, ranges: Ranges) -> FloatArray:
        """Mean squared error of every output, as a share of the output's variance, in TensorRT's form."""
        model = copy.deepcopy(self._model)
        quantize_for_tensorrt(model, ranges)
        return self._squared(model)

    def in_both_dialects(self, ranges: Ranges) -> tuple[float, float]:
        """Root mean squared error over all outputs, in TensorRT's form and in ONNX Runtime's."""
        unsigned, error = copy.deepcopy(self._model), math.nan
        with contextlib.suppress(LightTrackError):  # raised for transformers
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
    """By candidate, the range of every layer's inputs and outputs. Sizes stay free, so that inputs of any size fit."""
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
            found[candidate][name] = float(f"{low:.6g}"), float(f"{high:.6g}")  # as rounded in the file
    return found


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

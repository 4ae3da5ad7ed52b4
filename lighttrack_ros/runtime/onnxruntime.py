"""ONNX Runtime on the CPU: the backend that every machine has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime.engine import Array, Tensor, TensorSpec

_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class OnnxRuntimeEngine:
    """An `Engine` on ONNX Runtime's CPU provider; see `load_engine` for the arguments."""

    backend = "onnxruntime"

    def __init__(self, graph: Path, dimensions: Mapping[str, int], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        for name, size in dimensions.items():
            # Before optimisation, so that the engine is as fast as one exported at this size.
            options.add_free_dimension_override_by_name(name, size)
        try:
            self._session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise LightTrackError(f"{graph}: ONNX Runtime cannot load it ({error})") from error
        self._graph = graph
        self.inputs: Mapping[str, TensorSpec] = {node.name: self._spec(node) for node in self._session.get_inputs()}
        self.outputs: Mapping[str, TensorSpec] = {node.name: self._spec(node) for node in self._session.get_outputs()}
        self.input_buffers: Mapping[str, Array] = _zeros(self.inputs)
        self._results = _zeros(self.outputs)
        self._binding = self._session.io_binding()
        self._bound: dict[str, Array] = {}
        for name, buffer in self.input_buffers.items():
            self._bind_input(name, buffer)
        for name, buffer in self._results.items():
            self._binding.bind_output(name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        self._check_names(inputs)
        for name, buffer in self.input_buffers.items():
            tensor = inputs.get(name, buffer)
            if tensor is not self._bound[name]:
                self._bind_input(name, self._checked(name, tensor))
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise LightTrackError(f"{self._graph}: ONNX Runtime failed ({error})") from error
        return self._results

    def hold(self, inputs: Mapping[str, Tensor]) -> None:
        self._check_names(inputs)
        for name, tensor in inputs.items():
            np.copyto(self.input_buffers[name], self._checked(name, tensor))

    def close(self) -> None:
        self._binding = self._session = None

    def _check_names(self, inputs: Mapping[str, Tensor]) -> None:
        for name in inputs:
            if name not in self.inputs:
                raise LightTrackError(f"{self._graph}: no input {name!r}, expected {', '.join(self.inputs)}")

    def _bind_input(self, name: str, array: Array) -> None:
        """Bind by address; the array is kept, so that it stays alive while bound."""
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._bound[name] = array

    def _checked(self, name: str, tensor: Tensor) -> Array:
        array, spec = np.asarray(tensor), self.inputs[name]
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise LightTrackError(
                f"{self._graph}: input {name} is {array.dtype} {array.shape}, expected {spec.dtype} {spec.shape}"
            )
        return np.ascontiguousarray(array)

    def _spec(self, node: ort.NodeArg) -> TensorSpec:
        free = [size for size in node.shape if not isinstance(size, int)]
        if free:
            raise LightTrackError(f"{self._graph}: {node.name} has free dimensions {free}; say how large they are")
        if node.type not in _DTYPES:
            raise LightTrackError(f"{self._graph}: {node.name} is {node.type}, expected one of {', '.join(_DTYPES)}")
        return TensorSpec(tuple(node.shape), np.dtype(_DTYPES[node.type]))


def _zeros(specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}

"""OpenVINO on the CPU: faster than ONNX Runtime on processors that calculate in bfloat16 or float16."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.runtime.engine import Array, TensorSpec
from lighttrack_ros.runtime.host import HostEngine, give_back_memory


class OpenVinoEngine(HostEngine):
    """An `Engine` on OpenVINO's CPU device; see `load_engine` for the arguments.

    Args:
        model: serialised ONNX converted from the graph; if given, it runs instead of the graph.

    Inputs and outputs keep their dtypes; inside it calculates in bfloat16 (x86 with AVX512-BF16 or AMX) or
    float16 (Arm) where the processor can, else in float32.
    """

    backend = "openvino"

    def __init__(self, graph: Path, dimensions: Mapping[str, int], threads: int, model: bytes | None = None) -> None:
        core = _core()
        can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if "BF16" in can else "f16" if "FP16" in can else "f32",
        }
        shapes = _fixed_shapes(graph, dimensions, model)
        try:
            network = core.read_model(model or graph)
            network.reshape(shapes)
            self._request = core.compile_model(network, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise LightTrackError(f"{graph}: OpenVINO cannot load it ({error})") from error
        give_back_memory()
        super().__init__(graph, _specs(network.inputs), _specs(network.outputs))

    def close(self) -> None:
        self._request = None

    def _bind_input(self, name: str, array: Array) -> None:
        self._request.set_tensor(name, _openvino().Tensor(array, shared_memory=True))

    def _bind_output(self, name: str, array: Array) -> None:
        self._request.set_tensor(name, _openvino().Tensor(array, shared_memory=True))

    def _run_bound(self) -> None:
        try:
            self._request.infer()
        except RuntimeError as error:
            raise EngineError(f"{self._graph}: OpenVINO failed ({error})") from error


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise LightTrackError("backend is 'openvino', which is not installed (pip install openvino)") from error
    return openvino


@functools.cache
def _core() -> Any:
    """One core for all engines: it holds the threads that they share."""
    return _openvino().Core()


def _fixed_shapes(graph: Path, dimensions: Mapping[str, int], model: bytes | None) -> dict[str, list[int]]:
    """Every input's shape, read by ONNX Runtime because OpenVINO drops the names of free dimensions."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model or str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise LightTrackError(f"{graph}: cannot be read ({error})") from error
    shapes = {node.name: [dimensions.get(size, size) for size in node.shape] for node in session.get_inputs()}
    for name, shape in shapes.items():
        free = [size for size in shape if not isinstance(size, int)]
        if free:
            raise LightTrackError(f"{graph}: {name} has free dimensions {free}; say how large they are")
    return shapes


def _specs(ports: Any) -> dict[str, TensorSpec]:
    return {port.any_name: TensorSpec(tuple(port.shape), np.dtype(port.element_type.to_dtype())) for port in ports}

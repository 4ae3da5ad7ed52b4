"""ONNX Runtime on the CPU: the backend that runs on every machine."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.runtime.engine import Array, TensorSpec
from lighttrack_ros.runtime.host import HostEngine, give_back_memory

_BRIEF = 50  # microseconds for which a thread waits busily: longer than between two operators of a run

_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


class OnnxRuntimeEngine(HostEngine):
    """An `Engine` on ONNX Runtime's CPU provider; see `load_engine` for the arguments.

    Args:
        backend: the name to report.
        model: serialised ONNX converted from the graph; if given, it runs instead of the graph.
    """

    def __init__(
        self,
        graph: Path,
        dimensions: Mapping[str, int],
        threads: int,
        spin: bool = False,
        backend: str = "onnxruntime",
        model: bytes | None = None,
    ) -> None:
        self.backend = backend
        _share_memory()
        options = ort.SessionOptions()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.intra_op_num_threads = threads
        _let_spin(options, between_runs=spin)
        options.log_severity_level = 3
        for name, size in dimensions.items():
            # Before optimisation, so that the engine is as fast as one exported at this size.
            options.add_free_dimension_override_by_name(name, size)
        try:
            self._session = ort.InferenceSession(model or str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise LightTrackError(f"{graph}: ONNX Runtime cannot load it ({error})") from error
        give_back_memory()
        self._binding = self._session.io_binding()
        inputs = {node.name: _spec(graph, node) for node in self._session.get_inputs()}
        outputs = {node.name: _spec(graph, node) for node in self._session.get_outputs()}
        super().__init__(graph, inputs, outputs)

    def close(self) -> None:
        self._binding = self._session = None

    def _bind_input(self, name: str, array: Array) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _bind_output(self, name: str, array: Array) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _run_bound(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(f"{self._graph}: ONNX Runtime failed ({error})") from error


def _let_spin(options: ort.SessionOptions, between_runs: bool) -> None:
    """How long the threads wait busily for work: between one run's operators only, unless it is wanted longer."""
    version = tuple(int(part) for part in ort.__version__.split(".")[:2])
    brief = version >= (1, 26)  # older ones know no limit of time
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(between_runs or brief)))
    if brief and not between_runs:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_BRIEF))


@functools.cache
def _share_memory() -> None:
    """One arena for all sessions of the process: a tracker's engines run one after another, so they can share it."""
    cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(cpu, None)


def _spec(graph: Path, node: ort.NodeArg) -> TensorSpec:
    free = [size for size in node.shape if not isinstance(size, int)]
    if free:
        raise LightTrackError(f"{graph}: {node.name} has free dimensions {free}; say how large they are")
    if node.type not in _DTYPES:
        raise LightTrackError(f"{graph}: {node.name} is {node.type}, expected one of {', '.join(_DTYPES)}")
    return TensorSpec(tuple(node.shape), np.dtype(_DTYPES[node.type]))

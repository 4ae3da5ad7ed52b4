"""The shared part of the CPU backends: named buffers in host memory, checked and bound by address."""

from __future__ import annotations

import contextlib
import ctypes
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime.engine import Array, Tensor, TensorSpec


def usable_cores() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(threads: int) -> int:
    """CPU threads inside one run: 0 is half of the cores, at least one."""
    return threads or max(1, usable_cores() // 2)


def give_back_memory() -> None:
    """Return loading's memory to the system before the next engine fragments it; works with glibc only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class HostEngine(ABC):
    """Base of the CPU `Engine`s; a backend implements how an address is bound and how the graph is run once.

    Args:
        graph: path of the .onnx file, for messages.
        inputs, outputs: of the loaded graph.

    Subclasses must load the graph before they call this, because it binds every buffer.
    """

    backend: str

    def __init__(self, graph: Path, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
        self._graph = graph
        self.inputs = inputs
        self.outputs = outputs
        self.input_buffers: Mapping[str, Array] = _zeros(inputs)
        self._results = _zeros(outputs)
        self._held: dict[int, dict[str, Array]] = {0: dict(self.input_buffers)}  # by slot and name
        self._bound = dict(self.input_buffers)  # keeps bound arrays alive
        for name, array in self._bound.items():
            self._bind_input(name, array)
        for name, array in self._results.items():
            self._bind_output(name, array)

    def run(self, inputs: Mapping[str, Tensor], slot: int = 0) -> Mapping[str, Tensor]:
        self._check_names(inputs)
        held = self._held.get(slot, {})
        for name, buffer in self.input_buffers.items():
            tensor = inputs[name] if name in inputs else held.get(name, buffer)
            if tensor is not self._bound[name]:
                self._bound[name] = self._checked(name, tensor)
                self._bind_input(name, self._bound[name])
        self._run_bound()
        return self._results

    def hold(self, inputs: Mapping[str, Tensor], slot: int = 0) -> None:
        self._check_names(inputs)
        held = self._held.setdefault(slot, {})
        for name, tensor in inputs.items():
            if name not in held:
                held[name] = np.empty(*self.inputs[name])
            np.copyto(held[name], self._checked(name, tensor))

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _bind_input(self, name: str, array: Array) -> None:
        """Make runs read an input from this contiguous array."""

    @abstractmethod
    def _bind_output(self, name: str, array: Array) -> None:
        """Make runs write an output into this contiguous array."""

    @abstractmethod
    def _run_bound(self) -> None:
        """Run once on the bound arrays.

        Raises:
            LightTrackError: the backend failed.
        """

    def _check_names(self, inputs: Mapping[str, Tensor]) -> None:
        for name in inputs:
            if name not in self.inputs:
                raise LightTrackError(f"{self._graph}: no input {name!r}, expected {', '.join(self.inputs)}")

    def _checked(self, name: str, tensor: Tensor) -> Array:
        array, spec = np.asarray(tensor), self.inputs[name]
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise LightTrackError(
                f"{self._graph}: input {name} is {array.dtype} {array.shape}, expected {spec.dtype} {spec.shape}"
            )
        return np.ascontiguousarray(array)


def _zeros(specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}

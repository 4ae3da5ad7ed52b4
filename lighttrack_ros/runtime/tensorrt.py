"""The TensorRT backend: loads plans from the cache, compiles missing ones, and does as little as possible per frame.

An engine sets its addresses once, then replays a CUDA graph: uploads, network and downloads in one launch.
Other engines take an output by its address; only outputs that the host has read before are downloaded.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.runtime import build
from lighttrack_ros.runtime.cuda import Cuda, Handle, HostMemory, open_cuda
from lighttrack_ros.runtime.engine import Array, Tensor, TensorSpec
from lighttrack_ros.runtime.plans import find_plans, plan_key
from lighttrack_ros.runtime.watch import watch

_DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64}

_logger = logging.getLogger(__name__)


class DeviceTensor:
    """An engine's output on the GPU. Other engines take it by address; `np.asarray` gives a copy on the host.

    The first `np.asarray` copies and waits; from then on every run of the engine includes the copy.
    """

    def __init__(self, engine: TensorRTEngine, name: str) -> None:
        self._engine, self._name = weakref.ref(engine), name  # weak: a cycle would delay the engine's __del__
        self.shape, self.dtype = engine.outputs[name]

    @property
    def address(self) -> int:
        return self._living_engine().output_address(self._name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self._living_engine().read_output(self._name)
        if dtype is not None and np.dtype(dtype) != array.dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def _living_engine(self) -> TensorRTEngine:
        engine = self._engine()
        if engine is None:
            raise LightTrackError(f"{self._name}: the engine that gave it is gone")
        return engine


class TensorRTEngine:
    """An `Engine` on TensorRT; see `load_engine` for the arguments. Use it from one thread at a time.

    Args:
        precision: "fp16", "fp32" or "int8".

    Raises:
        LightTrackError: TensorRT, a CUDA binding or a GPU is missing, or the graph does not compile.
    """

    backend = "tensorrt"
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    input_buffers: Mapping[str, Array]

    def __init__(self, graph: Path, dimensions: Mapping[str, int], precision: str) -> None:
        self._graph = graph
        trt = build.import_tensorrt()
        self._log = build.tensorrt_log(trt)
        self._cuda: Cuda | None = open_cuda()
        self._resources = contextlib.ExitStack()  # CUDA's; freed newest first
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._stream: Handle = None
        try:
            with self._at_work():
                self._load(trt, dimensions, precision)
                self._prepare(trt)
        except BaseException as error:
            build.drop_locals(error)
            self.close()
            raise

    def run(self, inputs: Mapping[str, Tensor], slot: int = 0) -> Mapping[str, Tensor]:
        with self._at_work(inputs) as cuda:
            sources = tuple(self._source(cuda, name, inputs.get(name), slot) for name in self.inputs)
            self._path = _Path(sources, len(self._host_outputs))
            self._start(cuda)
            cuda.synchronize(self._stream)
        return self._outputs

    def hold(self, inputs: Mapping[str, Tensor], slot: int = 0) -> None:
        with self._at_work(inputs) as cuda:
            for name, tensor in inputs.items():
                held = self._device_input(cuda, f"held in slot {slot}", name)
                if isinstance(tensor, DeviceTensor):
                    self._check_spec(name, tensor)
                    cuda.copy(held, tensor.address, _size(self.inputs[name]), self._stream)
                    cuda.synchronize(self._stream)
                else:
                    self._upload_array(cuda, name, tensor, held)
                self._held[slot, name] = held

    def close(self) -> None:
        cuda, self._cuda = self._cuda, None
        if cuda is None:
            return
        self.input_buffers = {}
        try:
            with cuda.current():
                # TensorRT's objects before CUDA's.
                self._context = self._engine = self._runtime = self._stream = None
                self._resources.close()
        finally:
            cuda.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the interpreter's end modules may be gone already
            self.close()

    def output_address(self, name: str) -> int:
        """Address of an output on the GPU.

        Raises:
            LightTrackError: the engine is closed.
        """
        self._check_open()
        return self._output_addresses[name]

    def read_output(self, name: str) -> Array:
        """The host's copy of an output; from now on every run updates it.

        Raises:
            LightTrackError: the engine is closed, or the copy fails.
        """
        self._check_open()
        if name not in self._host_outputs:
            with self._at_work() as cuda:
                memory = self._host_memory(cuda, self.outputs[name])
                array = _view(memory, self.outputs[name])
                cuda.download(array, self._output_addresses[name], self._stream)
                cuda.synchronize(self._stream)
            if cuda.device.integrated:
                self._output_addresses[name] = memory.address  # the network now writes into the host's copy
            self._host_outputs[name] = array
        return self._host_outputs[name]

    def milliseconds(self, runs: int) -> tuple[Array, Array]:
        """Repeat the last run: (runs,) milliseconds on the GPU's clock, (runs,) on the host's."""
        gpu, host = np.empty(runs), np.empty(runs)
        with self._at_work() as cuda, contextlib.ExitStack() as events:
            before = cuda.create_event()
            events.callback(cuda.destroy_event, before)
            after = cuda.create_event()
            events.callback(cuda.destroy_event, after)
            for _ in range(2):  # the second captures the graph
                self._start(cuda)
                cuda.synchronize(self._stream)
            for index in range(runs):
                started = time.perf_counter()
                cuda.record(before, self._stream)
                self._start(cuda)
                cuda.record(after, self._stream)
                cuda.synchronize(self._stream)
                host[index] = (time.perf_counter() - started) * 1e3
                gpu[index] = cuda.milliseconds(before, after)
        return gpu, host

    def _load(self, trt: ModuleType, dimensions: Mapping[str, int], precision: str) -> None:
        """Load the plan from the cache; build one that is missing or does not load."""
        assert self._cuda is not None
        key = plan_key(trt, self._cuda.device, self._graph, dimensions, precision)
        self._runtime = self._log.made(trt.Runtime, self._log)
        for plan in find_plans(trt, key, self._graph, dimensions):
            self._log.errors.clear()
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is not None:
                break
            _logger.warning("%s: the plan %s does not load (%s)", self._graph, key.digest, self._log.reasons())
        else:
            raise LightTrackError("TensorRT does not load the plan that it has just built; see the log")
        self._context = self._log.made(self._engine.create_execution_context)
        with watch() as watched:
            watched.plans.append(key)

    def _prepare(self, trt: ModuleType) -> None:
        cuda = self._check_open()
        self.inputs, self.outputs = _specs(trt, self._engine)
        self._stream = cuda.create_stream()
        self._resources.callback(cuda.destroy_stream, self._stream)
        self._stream_address = cuda.stream_address(self._stream)
        self._host_inputs = {name: self._host_memory(cuda, spec) for name, spec in self.inputs.items()}
        self.input_buffers = {name: _view(memory, self.inputs[name]) for name, memory in self._host_inputs.items()}
        self._output_addresses = {name: self._device_memory(cuda, spec) for name, spec in self.outputs.items()}
        self._outputs = {name: DeviceTensor(self, name) for name in self.outputs}
        self._host_outputs: dict[str, Array] = {}  # those that the host has read
        self._device_inputs: dict[tuple[str, str], int] = {}  # addresses by purpose and name, made when needed
        self._held: dict[tuple[int, str], int] = {}  # addresses by slot and name
        self._bound: dict[str, int] = {}  # addresses set in the context
        self._path = _Path((), 0)  # of the last run
        self._graphs: dict[_Path, Handle | None] = {}  # None for a path that ran but is not captured
        self._captures = cuda.captures
        if not cuda.captures:
            _logger.info("%s has no CUDA graphs: install cuda-python for less latency", cuda.binding)

    def _start(self, cuda: Cuda) -> None:
        """Enqueue one run: the first time call by call, from the second time on as a CUDA graph."""
        path = self._path
        graph = self._graphs.get(path)
        if graph is None and path in self._graphs and self._captures:
            graph = self._graphs[path] = self._capture(cuda)
        if graph is not None:
            cuda.launch(graph, self._stream)
        else:
            # The first run after a change may allocate, which is not allowed during a capture.
            self._graphs[path] = None
            self._enqueue(cuda)

    def _enqueue(self, cuda: Cuda) -> None:
        for name, source in zip(self.inputs, self._path.sources, strict=True):
            self._set_address(name, source.address)
            if source.upload:
                cuda.upload(source.address, self.input_buffers[name], self._stream)
        for name, address in self._output_addresses.items():
            self._set_address(name, address)
        self._log.check(self._context.execute_async_v3(self._stream_address), "the network does not run")
        if not cuda.device.integrated:
            for name, array in self._host_outputs.items():
                cuda.download(array, self._output_addresses[name], self._stream)

    def _capture(self, cuda: Cuda) -> Handle | None:
        try:
            cuda.begin_capture(self._stream)
            try:
                self._enqueue(cuda)
            except BaseException:
                with contextlib.suppress(LightTrackError):
                    cuda.destroy_graph(cuda.end_capture(self._stream))
                raise
            graph = cuda.end_capture(self._stream)
        except LightTrackError as error:
            _logger.warning("%s: runs without a CUDA graph (%s)", self._graph, error)
            self._captures = False
            return None
        self._resources.callback(cuda.destroy_graph, graph)
        return graph

    def _source(self, cuda: Cuda, name: str, tensor: Tensor | None, slot: int) -> _Source:
        """The address from which the network reads an input in this run."""
        if tensor is None:
            if (slot, name) in self._held:
                return _Source(self._held[slot, name], upload=False)
            if cuda.device.integrated:
                return _Source(self._host_inputs[name].address, upload=False)
            return _Source(self._device_input(cuda, "own", name), upload=True)
        if isinstance(tensor, DeviceTensor):
            self._check_spec(name, tensor)
            return _Source(tensor.address, upload=False)
        given = self._device_input(cuda, "given", name)
        self._upload_array(cuda, name, tensor, given)
        return _Source(given, upload=False)

    def _upload_array(self, cuda: Cuda, name: str, tensor: Tensor, address: int) -> None:
        array = np.ascontiguousarray(tensor)
        self._check_spec(name, array)
        cuda.upload(address, array, self._stream)
        cuda.synchronize(self._stream)

    def _set_address(self, name: str, address: int) -> None:
        if self._bound.get(name) != address:
            self._log.check(self._context.set_tensor_address(name, address), f"{name} takes no address")
            self._bound[name] = address

    def _device_input(self, cuda: Cuda, purpose: str, name: str) -> int:
        if (purpose, name) not in self._device_inputs:
            self._device_inputs[purpose, name] = self._device_memory(cuda, self.inputs[name])
        return self._device_inputs[purpose, name]

    def _device_memory(self, cuda: Cuda, spec: TensorSpec) -> int:
        address = cuda.allocate(_size(spec))
        self._resources.callback(cuda.free, address)
        return address

    def _host_memory(self, cuda: Cuda, spec: TensorSpec) -> HostMemory:
        memory = cuda.allocate_host(_size(spec))
        self._resources.callback(cuda.free_host, memory)
        return memory

    @contextlib.contextmanager
    def _at_work(self, inputs: Mapping[str, Tensor] = MappingProxyType({})) -> Iterator[Cuda]:
        """Makes CUDA's context current, and adds the graph's name to errors."""
        cuda = self._check_open()
        for name in inputs:
            if name not in self.inputs:
                raise LightTrackError(f"{self._graph}: no input {name!r}, expected {', '.join(self.inputs)}")
        try:
            with cuda.current():
                try:
                    yield cuda
                except BaseException:
                    # Wait for work that was enqueued before the error: the caller may free its memory.
                    if self._stream is not None:
                        with contextlib.suppress(LightTrackError):
                            cuda.synchronize(self._stream)
                    raise
        except LightTrackError as error:
            raise EngineError(f"{self._graph}: {error}") from error

    def _check_open(self) -> Cuda:
        if self._cuda is None:
            raise LightTrackError(f"{self._graph}: the engine is closed")
        return self._cuda

    def _check_spec(self, name: str, tensor: Array | DeviceTensor) -> None:
        spec = self.inputs[name]
        if tensor.shape != spec.shape or tensor.dtype != spec.dtype:
            raise LightTrackError(f"input {name} is {tensor.dtype} {tensor.shape}, expected {spec.dtype} {spec.shape}")


class _Source(NamedTuple):
    address: int
    upload: bool  # from the engine's input buffer, in every run


class _Path(NamedTuple):
    """What a captured graph depends on: addresses of the inputs, and number of outputs to download."""

    sources: tuple[_Source, ...]
    host_outputs: int


def _specs(trt: ModuleType, engine: Any) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Specs of the engine's inputs, specs of its outputs."""
    inputs: dict[str, TensorSpec] = {}
    outputs: dict[str, TensorSpec] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype, shape = engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))
        if dtype.name not in _DTYPES or min(shape, default=1) < 1:
            raise LightTrackError(
                f"{name} is {dtype.name} {shape}, expected fixed sizes and one of {', '.join(_DTYPES)}"
            )
        side = inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs
        side[name] = TensorSpec(shape, np.dtype(_DTYPES[dtype.name]))
    return inputs, outputs


def _size(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * spec.dtype.itemsize


def _view(memory: HostMemory, spec: TensorSpec) -> Array:
    return memory.array.view(spec.dtype).reshape(spec.shape)

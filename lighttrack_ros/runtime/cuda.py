"""The CUDA calls of the TensorRT backend; no other file calls CUDA.

One protocol covers NVIDIA's own `cuda-bindings` (the `cuda-python` package) and PyCUDA, which older Jetson
images have. Addresses, streams, graphs and events are opaque to the caller. All calls except `current` and
`close` must be made inside `with cuda.current():`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lighttrack_ros.errors import LightTrackError

Bytes = npt.NDArray[np.uint8]
Handle = Any  # a stream, graph or event of the binding


class Device(NamedTuple):
    """The GPU in use."""

    name: str
    compute_capability: tuple[int, int]
    integrated: bool  # shares the host's memory, as on Jetson
    driver: int  # the newest CUDA version that the driver supports: 12060 is 12.6


class HostMemory(NamedTuple):
    """Page-locked host memory that the GPU can address."""

    array: Bytes  # (size,) uint8; invalid once freed
    address: int  # of the same bytes, as the GPU addresses them
    handle: Any


class Cuda(Protocol):
    """One GPU's primary context, shared with torch and every other user in the process.

    Every method raises LightTrackError with CUDA's name of the error.
    """

    binding: str
    device: Device
    captures: bool  # whether the binding has CUDA graphs (begin_capture to destroy_graph)

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Make the context current in this thread; afterwards the one before is current again."""
        ...

    def allocate(self, size: int) -> int: ...

    def free(self, address: int) -> None: ...

    def allocate_host(self, size: int) -> HostMemory:
        """Page-locked memory, filled with zeros."""
        ...

    def free_host(self, memory: HostMemory) -> None: ...

    def create_stream(self) -> Handle:
        """A stream that does not wait for the default stream."""
        ...

    def stream_address(self, stream: Handle) -> int: ...

    def destroy_stream(self, stream: Handle) -> None: ...

    def synchronize(self, stream: Handle) -> None: ...

    def upload(self, address: int, array: npt.NDArray[Any], stream: Handle) -> None:
        """Copy host to device, in stream order; the array must not change until the copy is done."""
        ...

    def download(self, array: npt.NDArray[Any], address: int, stream: Handle) -> None:
        """Copy device to host, in stream order."""
        ...

    def copy(self, to: int, source: int, size: int, stream: Handle) -> None:
        """Copy device to device, in stream order."""
        ...

    def begin_capture(self, stream: Handle) -> None:
        """Until end_capture, this thread's work on the stream is recorded instead of run."""
        ...

    def end_capture(self, stream: Handle) -> Handle:
        """The recorded work as a graph, ready to launch."""
        ...

    def launch(self, graph: Handle, stream: Handle) -> None: ...

    def destroy_graph(self, graph: Handle) -> None: ...

    def create_event(self) -> Handle: ...

    def record(self, event: Handle, stream: Handle) -> None: ...

    def milliseconds(self, start: Handle, end: Handle) -> float:
        """Time between two events, both of which must have happened."""
        ...

    def destroy_event(self, event: Handle) -> None: ...

    def close(self) -> None:
        """Release the context; everything created in it must be destroyed before."""
        ...


def open_cuda(ordinal: int = 0) -> Cuda:
    """The first GPU, through the first binding that is installed.

    Raises:
        LightTrackError: no binding, no driver or no GPU; the message says how to get a binding.
    """
    for module, adapter in _BINDINGS:
        try:
            driver = importlib.import_module(module)
        except ImportError:
            continue
        cuda: Cuda = adapter(driver, ordinal)
        return cuda
    raise LightTrackError(
        "no Python binding of CUDA is installed: pip install cuda-python (the major version of the installed CUDA: "
        "cuda-python==12.* on JetPack 6, cuda-python==13.* on JetPack 7), or pycuda"
    )


class _CudaBindings:
    """`cuda.bindings.driver`: every call returns a tuple that begins with the error code."""

    binding = "cuda-bindings"
    captures = True

    def __init__(self, driver: ModuleType, ordinal: int) -> None:
        self._driver = driver
        self._call("cuInit", 0)
        if ordinal >= self._call("cuDeviceGetCount"):
            raise LightTrackError(f"CUDA has no GPU {ordinal}")
        self._device = self._call("cuDeviceGet", ordinal)
        self.device = Device(
            self._call("cuDeviceGetName", 256, self._device).split(b"\0")[0].decode(),
            (self._attribute("COMPUTE_CAPABILITY_MAJOR"), self._attribute("COMPUTE_CAPABILITY_MINOR")),
            bool(self._attribute("INTEGRATED")),
            self._call("cuDriverGetVersion"),
        )
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def allocate(self, size: int) -> int:
        return int(self._call("cuMemAlloc", size))

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

    def allocate_host(self, size: int) -> HostMemory:
        pointer = int(self._call("cuMemHostAlloc", size, self._driver.CU_MEMHOSTALLOC_DEVICEMAP))
        try:
            address = int(self._call("cuMemHostGetDevicePointer", pointer, 0))
        except LightTrackError:
            self._call("cuMemFreeHost", pointer)
            raise
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
        array[:] = 0
        return HostMemory(array, address, pointer)

    def free_host(self, memory: HostMemory) -> None:
        self._call("cuMemFreeHost", memory.handle)

    def create_stream(self) -> Handle:
        return self._call("cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value)

    def stream_address(self, stream: Handle) -> int:
        return int(stream)

    def destroy_stream(self, stream: Handle) -> None:
        self._call("cuStreamDestroy", stream)

    def synchronize(self, stream: Handle) -> None:
        self._call("cuStreamSynchronize", stream)

    def upload(self, address: int, array: npt.NDArray[Any], stream: Handle) -> None:
        self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def download(self, array: npt.NDArray[Any], address: int, stream: Handle) -> None:
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def copy(self, to: int, source: int, size: int, stream: Handle) -> None:
        self._call("cuMemcpyDtoDAsync", to, source, size, stream)

    def begin_capture(self, stream: Handle) -> None:
        # Thread-local, so that other threads (torch, a camera driver) may allocate during the capture.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Handle) -> Handle:
        recorded = self._call("cuStreamEndCapture", stream)
        try:
            # CUDA 11 takes flags only under the long name; CUDA 13 has only the short one.
            long_name = "cuGraphInstantiateWithFlags"
            return self._call(long_name if hasattr(self._driver, long_name) else "cuGraphInstantiate", recorded, 0)
        finally:
            with contextlib.suppress(LightTrackError):  # no reason to lose the graph
                self._call("cuGraphDestroy", recorded)

    def launch(self, graph: Handle, stream: Handle) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Handle) -> None:
        self._call("cuGraphExecDestroy", graph)

    def create_event(self) -> Handle:
        return self._call("cuEventCreate", self._driver.CUevent_flags.CU_EVENT_DEFAULT.value)

    def record(self, event: Handle, stream: Handle) -> None:
        self._call("cuEventRecord", event, stream)

    def milliseconds(self, start: Handle, end: Handle) -> float:
        return float(self._call("cuEventElapsedTime", start, end))

    def destroy_event(self, event: Handle) -> None:
        self._call("cuEventDestroy", event)

    def close(self) -> None:
        self._call("cuDevicePrimaryCtxRelease", self._device)

    def _attribute(self, name: str) -> int:
        attribute = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._call("cuDeviceGetAttribute", attribute, self._device))

    def _call(self, function: str, *arguments: Any) -> Any:
        try:
            error, *results = getattr(self._driver, function)(*arguments)
        except (
            RuntimeError,
            OSError,
            AttributeError,
        ) as problem:  # the driver's library, or the function in it, is missing
            way_out = _NO_GPU if function == "cuInit" else _OTHER_CUDA
            raise LightTrackError(f"CUDA: {function}: {problem}; {way_out}") from problem
        if error != self._driver.CUresult.CUDA_SUCCESS:
            way_out = f"; {_NO_GPU}" if function == "cuInit" else ""
            raise LightTrackError(f"CUDA: {function} failed ({getattr(error, 'name', error)}){way_out}")
        return results[0] if results else None


class _PyCuda:
    """`pycuda.driver`, which reports errors as exceptions and knows nothing of graphs."""

    binding = "pycuda"
    captures = False

    def __init__(self, driver: ModuleType, ordinal: int) -> None:
        self._driver = driver
        with self._errors("cuInit"):
            driver.init()
            device = driver.Device(ordinal)
            attribute = driver.device_attribute
            self.device = Device(
                device.name(),
                tuple(device.compute_capability()),
                bool(device.get_attribute(attribute.INTEGRATED)),
                driver.get_driver_version(),
            )
            # PyCUDA can release a context only in the thread that took it, and leaves it current in that thread.
            self._keeper = ThreadPoolExecutor(1, "pycuda")
            try:
                self._context = self._keeper.submit(device.retain_primary_context).result()
            except BaseException:
                self._keeper.shutdown()
                raise
        self._allocations: dict[int, Any] = {}
        # PyCUDA destroys a stream or an event with its last reference. Callers get numbers, so the only reference is
        # here, and no traceback can keep a stream alive beyond its context.
        self._owned: dict[int, Any] = {}
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        with self._errors("cuCtxPushCurrent"):
            self._context.push()
        try:
            yield
        finally:
            with self._errors("cuCtxPopCurrent"):
                self._context.pop()

    def allocate(self, size: int) -> int:
        with self._errors("cuMemAlloc"):
            allocation = self._driver.mem_alloc(size)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        with self._errors("cuMemFree"):
            self._allocations.pop(address).free()

    def allocate_host(self, size: int) -> HostMemory:
        with self._errors("cuMemHostAlloc"):
            array = self._driver.pagelocked_empty(size, np.uint8, mem_flags=self._driver.host_alloc_flags.DEVICEMAP)
            address = int(array.base.get_device_pointer())
        array[:] = 0
        return HostMemory(array, address, array.base)

    def free_host(self, memory: HostMemory) -> None:
        with self._errors("cuMemFreeHost"):
            memory.handle.free()

    def create_stream(self) -> Handle:
        with self._errors("cuStreamCreate"):
            return self._own(self._driver.Stream(_NON_BLOCKING))

    def stream_address(self, stream: Handle) -> int:
        return int(self._owned[stream].handle)

    def destroy_stream(self, stream: Handle) -> None:
        del self._owned[stream]

    def synchronize(self, stream: Handle) -> None:
        with self._errors("cuStreamSynchronize"):
            self._owned[stream].synchronize()

    def upload(self, address: int, array: npt.NDArray[Any], stream: Handle) -> None:
        with self._errors("cuMemcpyHtoDAsync"):
            self._driver.memcpy_htod_async(address, array, self._owned[stream])

    def download(self, array: npt.NDArray[Any], address: int, stream: Handle) -> None:
        with self._errors("cuMemcpyDtoHAsync"):
            self._driver.memcpy_dtoh_async(array, address, self._owned[stream])

    def copy(self, to: int, source: int, size: int, stream: Handle) -> None:
        with self._errors("cuMemcpyDtoDAsync"):
            self._driver.memcpy_dtod_async(to, source, size, self._owned[stream])

    def begin_capture(self, stream: Handle) -> None:
        raise LightTrackError("PyCUDA has no CUDA graphs")

    def end_capture(self, stream: Handle) -> Handle:
        raise LightTrackError("PyCUDA has no CUDA graphs")

    def launch(self, graph: Handle, stream: Handle) -> None:
        raise LightTrackError("PyCUDA has no CUDA graphs")

    def destroy_graph(self, graph: Handle) -> None:
        raise LightTrackError("PyCUDA has no CUDA graphs")

    def create_event(self) -> Handle:
        with self._errors("cuEventCreate"):
            return self._own(self._driver.Event())

    def record(self, event: Handle, stream: Handle) -> None:
        with self._errors("cuEventRecord"):
            self._owned[event].record(self._owned[stream])

    def milliseconds(self, start: Handle, end: Handle) -> float:
        with self._errors("cuEventElapsedTime"):
            return float(self._owned[start].time_till(self._owned[end]))

    def destroy_event(self, event: Handle) -> None:
        del self._owned[event]

    def close(self) -> None:
        with self._errors("cuDevicePrimaryCtxRelease"), self._keeper:
            self._keeper.submit(self._context.detach).result()

    def _own(self, thing: Any) -> int:
        number = next(self._numbers)
        self._owned[number] = thing
        return number

    @contextlib.contextmanager
    def _errors(self, function: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            way_out = f"; {_NO_GPU}" if function == "cuInit" else ""
            raise LightTrackError(f"CUDA: {function} failed ({error}){way_out}") from error


_NO_GPU = (
    "no NVIDIA driver or GPU is visible: is the driver installed, and, if this is a container, was it started "
    "with --runtime nvidia (Jetson) or --gpus all (desktop)?"
)
_OTHER_CUDA = (
    "the binding does not match the driver's CUDA: pip install 'cuda-python==12.*' on JetPack 6 or if nvidia-smi says "
    "CUDA 12, 'cuda-python==13.*' on JetPack 7 or if it says CUDA 13"
)
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, for which PyCUDA has no name
_BINDINGS: tuple[tuple[str, Any], ...] = (
    ("cuda.bindings.driver", _CudaBindings),
    ("cuda.cuda", _CudaBindings),  # its name in cuda-python 11 and 12.0 to 12.5
    ("pycuda.driver", _PyCuda),
)

"""A GPU that is not there: strict doubles of cuda.bindings.driver, pycuda.driver and tensorrt on one simulated device.

What the documents of CUDA and TensorRT forbid raises ContractError here, also where a real GPU would let it
pass: use after free, copies out of bounds or from memory nobody wrote, an address not set, work without a
current context, synchronising or allocating inside a capture, freeing what still runs, leaks at the end.
Work runs only when its stream is synchronised, so that nothing is right by having been lucky. A network's
arithmetic is ONNX Runtime's.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import functools
import hashlib
import itertools
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec

import numpy as np
import onnx
import onnxruntime as ort


class ContractError(AssertionError):
    """A call that the real library's documents forbid."""


class Block:
    """One allocation; `written` says which of its bytes anybody has written."""

    def __init__(self, address: int, data: np.ndarray, pinned: bool) -> None:
        self.address, self.data, self.pinned, self.live = address, data, pinned, True
        self.written = np.zeros(data.size, bool)


class Stream:
    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.recorder: int | None = None  # thread


class Event:
    def __init__(self) -> None:
        self.happened: int | None = None


BUILD_STEPS = 5


class Gpu:
    """The device, and everything that the doubles know together."""

    def __init__(self, integrated: bool = False, name: str = "Double", driver: int = 12060) -> None:
        self.integrated, self.name, self.driver = integrated, name, driver
        self.blocks: list[Block] = []
        self.things: dict[int, object] = {}  # streams, events, graphs by handle
        self.retained = 0
        self.stacks: dict[threading.Thread, list[str]] = {}  # of contexts
        self.calls: list[str] = []  # names, in order
        self.failing: dict[str, int] = {}  # call -> how many more times it works
        self.on_build_step: Callable[[int], None] = lambda step: None  # called for each of a build's BUILD_STEPS
        self.distort: Callable[[np.ndarray], np.ndarray] = lambda output: output  # a network that computes wrongly
        self.fail_at: int | None = None  # number of the call, among all, that fails
        self.broken: list[str] = []  # contracts
        self.launches = 0
        self.lost = False
        self._handles = itertools.count(0x5000_0001)
        self._next = 0x7F00_0000_0000
        self._ticks = itertools.count()

    def forbid(self, wrong: object, what: str) -> None:
        if wrong:
            self.broken.append(what)
            raise ContractError(what)

    def called(self, name: str) -> bool:
        """Note a call; whether it is one that is to fail."""
        self.calls.append(name)
        if self.lost and name == "cuCtxPushCurrent":
            return True
        if self.fail_at is not None and len(self.calls) - 1 == self.fail_at:
            return True
        if name in self.failing:
            self.failing[name] -= 1
            return self.failing[name] < 0
        return False

    def need_context(self) -> None:
        stack = self.stacks.get(threading.current_thread())
        self.forbid(not stack or not self.retained, "no current context")

    def lose(self) -> None:
        """The context breaks, and with it goes all that was made in it."""
        self.lost = True
        self.things.clear()
        for block in self.blocks:
            block.live = False

    def push(self) -> None:
        self.forbid(not self.retained, "push of a context that is released")
        self.stacks.setdefault(threading.current_thread(), []).append("primary")

    def pop(self) -> None:
        stack = self.stacks.get(threading.current_thread())
        self.forbid(not stack, "pop without push")
        stack.pop()

    def release(self) -> None:
        self.forbid(self.retained < 1, "context released twice")
        self.retained -= 1
        if not self.retained:
            self.forbid(self.living(), f"context released while these live: {self.living()}")
            self.forbid(self.current(), "context released while current")

    def current(self) -> list[str]:
        """Contexts that are current in any thread; a thread's end takes its own with it."""
        return [context for thread, stack in self.stacks.items() if thread.is_alive() for context in stack]

    def living(self) -> list[object]:
        return [block.address for block in self.blocks if block.live] + list(self.things.values())

    def check_clean(self) -> None:
        """At the end: nothing left, nothing forbidden done, not even where an error handler hid it."""
        assert not self.broken, self.broken
        assert not self.living(), self.living()
        assert self.retained == 0
        assert not self.current()

    def forbid_in_capture(self, what: str) -> None:
        thread = threading.get_ident()
        for thing in self.things.values():
            self.forbid(isinstance(thing, Stream) and thing.recorder == thread, f"{what} inside a capture")

    def allocate(self, size: int, pinned: bool) -> Block:
        self.need_context()
        self.forbid_in_capture("allocation")
        self.forbid(size < 1, "allocation of nothing")
        if pinned:
            memory = np.full(size + 4096, 0xA5, np.uint8)
            start = -memory.ctypes.data % 4096
            data = memory[start : start + size]
            block = Block(data.ctypes.data, data, pinned)
            block.written[:] = True  # the host writes without our seeing it
        else:
            block = Block(self._next, np.full(size, 0xA5, np.uint8), pinned)
            self._next += (size // 256 + 2) * 256  # addresses are never used again
        self.blocks.append(block)
        return block

    def free(self, address: int, pinned: bool) -> None:
        self.need_context()
        self.forbid_in_capture("free")
        block = next((b for b in self.blocks if b.address == address and b.live), None)
        self.forbid(block is None or block.pinned != pinned, f"free of {address:#x}, which is not allocated")
        self.forbid(self.pending(), "free while work is pending")
        block.live = False

    def pending(self) -> bool:
        return any(isinstance(thing, Stream) and thing.queue for thing in self.things.values())

    def find(self, address: int, size: int, device: bool = True) -> tuple[Block, slice]:
        """The live memory at an address; every device pointer and, by the driver's promise, pinned ones too."""
        for block in self.blocks:
            if block.address <= address < block.address + block.data.size:
                self.forbid(not block.live, f"use of {address:#x} after free")
                start = address - block.address
                self.forbid(start + size > block.data.size, f"{size} bytes at {address:#x} run over the end")
                return block, slice(start, start + size)
        self.forbid(True, f"{address:#x} is nobody's {'device' if device else 'pinned'} memory")
        raise AssertionError

    def read(self, address: int, size: int) -> np.ndarray:
        block, part = self.find(address, size)
        self.forbid(not block.written[part].all(), f"read of {address:#x}, which nobody wrote")
        return block.data[part]

    def write(self, address: int, data: np.ndarray) -> None:
        block, part = self.find(address, data.size)
        block.data[part] = data
        block.written[part] = True

    def make(self, thing: object) -> int:
        handle = next(self._handles)
        self.things[handle] = thing
        return handle

    def thing(self, handle: object, kind: type) -> object:
        thing = self.things.get(int(handle))
        self.forbid(not isinstance(thing, kind), f"{handle} is no living {kind.__name__}")
        return thing

    def destroy(self, handle: object, kind: type) -> None:
        self.need_context()
        thing = self.thing(handle, kind)
        self.forbid(kind is Stream and (thing.queue or thing.recording is not None), "stream destroyed with work on it")
        self.forbid(kind is GraphExec and self.pending(), "graph destroyed while work is pending")
        del self.things[int(handle)]

    def enqueue(self, stream: object, work: Callable[[], None]) -> None:
        self.need_context()
        self.forbid(int(stream) == 0, "work on the default stream")
        thing = self.thing(stream, Stream)
        if thing.recording is not None:
            self.forbid(thing.recorder != threading.get_ident(), "captured stream used by another thread")
            thing.recording.append(work)
        else:
            thing.queue.append(work)

    def synchronize(self, stream: object) -> None:
        self.need_context()
        self.forbid_in_capture("synchronisation")
        thing = self.thing(stream, Stream)
        while thing.queue:
            thing.queue.pop(0)()

    def upload(self, to: int, source: int, size: int, stream: object) -> None:
        self.find(to, size)
        pinned = any(b.pinned and b.live and b.address <= source < b.address + b.data.size for b in self.blocks)
        if pinned:
            self.find(source, size, device=False)
            self.enqueue(stream, lambda: self.write(to, self.read(source, size)))
        else:  # staged by the driver before the call returns
            self.forbid(self.thing(stream, Stream).recording is not None, "pageable memory in a capture")
            content = np.frombuffer(ctypes.string_at(source, size), np.uint8)
            self.enqueue(stream, lambda: self.write(to, content))

    def download(self, to: int, source: int, size: int, stream: object) -> None:
        self.find(source, size)
        self.find(to, size, device=False)
        self.enqueue(stream, lambda: self.write(to, self.read(source, size)))

    def copy(self, to: int, source: int, size: int, stream: object) -> None:
        self.find(source, size)
        self.find(to, size)
        self.enqueue(stream, lambda: self.write(to, self.read(source, size)))

    def begin_capture(self, stream: object) -> None:
        self.need_context()
        thing = self.thing(stream, Stream)
        self.forbid(thing.recording is not None, "capture begun twice")
        self.forbid(thing.queue, "capture begun with work pending")
        thing.recording, thing.recorder = [], threading.get_ident()

    def end_capture(self, stream: object) -> Graph:
        self.need_context()
        thing = self.thing(stream, Stream)
        self.forbid(thing.recording is None, "capture ended that never began")
        self.forbid(thing.recorder != threading.get_ident(), "capture ended by another thread")
        graph = Graph(thing.recording)
        thing.recording = thing.recorder = None
        return graph

    def launch(self, graph: object, stream: object) -> None:
        work = self.thing(graph, GraphExec).work
        self.launches += 1
        for step in work:
            self.enqueue(stream, step)

    def record(self, event: object, stream: object) -> None:
        thing = self.thing(event, Event)
        thing.happened = None

        def happen() -> None:
            thing.happened = next(self._ticks)

        self.enqueue(stream, happen)

    def elapsed(self, start: object, end: object) -> float:
        first, last = self.thing(start, Event).happened, self.thing(end, Event).happened
        self.forbid(first is None or last is None, "time of an event that has not happened")
        return float(last - first)


class Graph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work


class GraphExec(Graph):
    pass


@contextlib.contextmanager
def installed(gpu: Gpu, binding: str = "cuda-bindings", tensorrt: str = "10.3.0") -> Iterator[Gpu]:
    """Within: the modules that this machine would have with this GPU; after: everything must be gone."""
    modules = {"cuda": None, "cuda.bindings": None, "cuda.bindings.driver": None, "cuda.cuda": None}
    modules |= {"pycuda": None, "pycuda.driver": None, "tensorrt_rtx": None, "tensorrt": tensorrt_module(gpu, tensorrt)}
    if binding == "cuda-bindings":
        modules["cuda"], modules["cuda.bindings"] = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
        modules["cuda.bindings.driver"] = cuda_bindings_module(gpu)
    elif binding == "pycuda":
        modules["pycuda"], modules["pycuda.driver"] = types.ModuleType("pycuda"), pycuda_module(gpu)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield gpu
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    gpu.check_clean()


def cuda_bindings_module(gpu: Gpu) -> types.ModuleType:
    """`cuda.bindings.driver` of CUDA 12: tuples that begin with the error."""
    driver = types.ModuleType("cuda.bindings.driver")

    class CUresult(enum.IntEnum):
        CUDA_SUCCESS = 0
        CUDA_ERROR_OUT_OF_MEMORY = 2
        CUDA_ERROR_UNKNOWN = 999

    class CUdevice_attribute(enum.IntEnum):
        CU_DEVICE_ATTRIBUTE_INTEGRATED = 18
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76

    class CUstreamCaptureMode(enum.IntEnum):
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

    class CUstream_flags(enum.IntEnum):
        CU_STREAM_NON_BLOCKING = 1

    class CUevent_flags(enum.IntEnum):
        CU_EVENT_DEFAULT = 0

    for kind in (CUresult, CUdevice_attribute, CUstreamCaptureMode, CUstream_flags, CUevent_flags):
        setattr(driver, kind.__name__, kind)
    driver.CU_MEMHOSTALLOC_DEVICEMAP = 2

    def cuInit(Flags): ...

    def cuDeviceGetCount():
        return 1

    def cuDeviceGet(ordinal):
        return ordinal

    def cuDeviceGetName(length, dev):
        return gpu.name.encode().ljust(length, b"\0")

    def cuDriverGetVersion():
        return gpu.driver

    def cuDeviceGetAttribute(attrib, dev):
        return {18: int(gpu.integrated), 75: 8, 76: 7}[int(attrib)]

    def cuDevicePrimaryCtxRetain(dev):
        gpu.retained += 1
        return "primary"

    def cuDevicePrimaryCtxRelease(dev):
        gpu.release()

    def cuCtxPushCurrent(ctx):
        gpu.push()

    def cuCtxPopCurrent():
        gpu.pop()
        return "primary"

    def cuMemAlloc(bytesize):
        return gpu.allocate(bytesize, pinned=False).address

    def cuMemFree(dptr):
        gpu.free(int(dptr), pinned=False)

    def cuMemHostAlloc(bytesize, Flags):
        gpu.forbid(Flags != 2, "host memory that is not mapped")
        return gpu.allocate(bytesize, pinned=True).address

    def cuMemFreeHost(p):
        gpu.free(int(p), pinned=True)

    def cuMemHostGetDevicePointer(p, Flags):
        gpu.forbid(Flags != 0, "flags must be 0")
        return gpu.find(p, 1)[0].address

    def cuStreamCreate(Flags):
        gpu.need_context()
        gpu.forbid(Flags != 1, "a stream that waits for the default stream")
        return gpu.make(Stream())

    def cuStreamDestroy(hStream):
        gpu.destroy(hStream, Stream)

    def cuStreamSynchronize(hStream):
        gpu.synchronize(hStream)

    def cuMemcpyHtoDAsync(dstDevice, srcHost, ByteCount, hStream):
        gpu.upload(dstDevice, srcHost, ByteCount, hStream)

    def cuMemcpyDtoHAsync(dstHost, srcDevice, ByteCount, hStream):
        gpu.download(dstHost, srcDevice, ByteCount, hStream)

    def cuMemcpyDtoDAsync(dstDevice, srcDevice, ByteCount, hStream):
        gpu.copy(dstDevice, srcDevice, ByteCount, hStream)

    def cuStreamBeginCapture(hStream, mode):
        gpu.begin_capture(hStream)

    def cuStreamEndCapture(hStream):
        return gpu.make(gpu.end_capture(hStream))

    def cuGraphInstantiate(hGraph, flags):
        return gpu.make(GraphExec(gpu.thing(hGraph, Graph).work))

    def cuGraphDestroy(hGraph):
        gpu.destroy(hGraph, Graph)

    def cuGraphExecDestroy(hGraphExec):
        gpu.destroy(hGraphExec, GraphExec)

    def cuGraphLaunch(hGraphExec, hStream):
        gpu.launch(hGraphExec, hStream)

    def cuEventCreate(Flags):
        gpu.need_context()
        return gpu.make(Event())

    def cuEventDestroy(hEvent):
        gpu.destroy(hEvent, Event)

    def cuEventRecord(hEvent, hStream):
        gpu.record(hEvent, hStream)

    def cuEventElapsedTime(hStart, hEnd):
        return gpu.elapsed(hStart, hEnd)

    def answering(function):
        # What gives things back does so even when it reports an error: a leak test must blame the caller alone.
        gives_back = any(word in function.__name__ for word in ("Free", "Destroy", "Release", "Pop"))

        @functools.wraps(function)
        def call(*arguments):
            fails = gpu.called(function.__name__)
            if fails and not gives_back:
                if function.__name__ == "cuStreamEndCapture":
                    gpu.end_capture(*arguments)
                if function.__name__ == "cuCtxPushCurrent":
                    gpu.lose()
                return (CUresult.CUDA_ERROR_OUT_OF_MEMORY,)
            result = function(*arguments)
            code = CUresult.CUDA_ERROR_UNKNOWN if fails else CUresult.CUDA_SUCCESS
            return (code,) if result is None else (code, result)

        return call

    for name, value in list(locals().items()):
        if name.startswith("cu") and isinstance(value, types.FunctionType):
            setattr(driver, name, answering(value))
    return driver


def pycuda_module(gpu: Gpu) -> types.ModuleType:
    """`pycuda.driver`: objects and exceptions; nothing of graphs."""
    driver = types.ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    def attempt(name: str) -> None:
        if gpu.called(name):
            raise Error(f"{name} failed: out of memory")

    class Context:
        def __init__(self) -> None:
            attempt("cuDevicePrimaryCtxRetain")
            gpu.retained += 1
            self._thread = threading.current_thread()

        def push(self) -> None:
            try:
                attempt("cuCtxPushCurrent")
            except Error:
                gpu.lose()
                raise
            gpu.push()

        @staticmethod
        def pop() -> None:
            gpu.pop()

        def detach(self) -> None:
            """As in cuda.hpp: nothing in another thread; in its own the context is current afterwards."""
            if self._thread is threading.current_thread():
                gpu.release()
                gpu.stacks.setdefault(self._thread, []).append("released")

    class Device:
        def __init__(self, ordinal: int) -> None: ...

        def name(self) -> str:
            return gpu.name

        def compute_capability(self) -> tuple[int, int]:
            return (8, 7)

        def get_attribute(self, attribute: str) -> int:
            return {"INTEGRATED": int(gpu.integrated)}[attribute]

        def retain_primary_context(self) -> Context:
            return Context()

    class DeviceAllocation:
        def __init__(self, address: int) -> None:
            self._address = address

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            gpu.free(self._address, pinned=False)

    class PagelockedHostAllocation:
        def __init__(self, address: int) -> None:
            self._address = address

        def get_device_pointer(self) -> int:
            return self._address

        def free(self) -> None:
            gpu.free(self._address, pinned=True)

    class Based(np.ndarray):
        """numpy would name another array as the base."""

        base = None  # type: ignore[assignment]

    class Stream_:
        def __init__(self, flags: int = 0) -> None:
            attempt("cuStreamCreate")
            gpu.need_context()
            gpu.forbid(flags != 1, "a stream that waits for the default stream")
            self.handle = gpu.make(Stream())

        def synchronize(self) -> None:
            handle = self.handle
            del self  # PyCUDA is C++: none of its frames keeps a stream beyond the call
            attempt("cuStreamSynchronize")
            gpu.synchronize(handle)

        def __del__(self) -> None:
            if hasattr(self, "handle") and not gpu.lost:
                with contextlib.suppress(ContractError):  # noted in gpu.broken
                    gpu.destroy(self.handle, Stream)

    class Event_:
        def __init__(self, flags: int = 0) -> None:
            attempt("cuEventCreate")
            self.handle = gpu.make(Event())

        def record(self, stream: Stream_) -> None:
            handle, into = self.handle, stream.handle
            del self, stream
            gpu.record(handle, into)

        def time_till(self, other: Event_) -> float:
            return gpu.elapsed(self.handle, other.handle)

        def __del__(self) -> None:
            if hasattr(self, "handle") and not gpu.lost:
                with contextlib.suppress(ContractError):
                    gpu.destroy(self.handle, Event)

    def mem_alloc(size: int) -> DeviceAllocation:
        attempt("cuMemAlloc")
        return DeviceAllocation(gpu.allocate(size, pinned=False).address)

    def pagelocked_empty(shape: int, dtype: type, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        attempt("cuMemHostAlloc")
        gpu.forbid(mem_flags != 2, "host memory that is not mapped")
        block = gpu.allocate(shape, pinned=True)
        array = block.data.view(Based)
        array.base = PagelockedHostAllocation(block.address)
        return array

    def memcpy_htod_async(dest: int, src: np.ndarray, stream: Stream_) -> None:
        handle = stream.handle
        del stream
        attempt("cuMemcpyHtoDAsync")
        gpu.upload(dest, src.ctypes.data, src.nbytes, handle)

    def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Stream_) -> None:
        handle = stream.handle
        del stream
        attempt("cuMemcpyDtoHAsync")
        gpu.download(dest.ctypes.data, src, dest.nbytes, handle)

    def memcpy_dtod_async(dest: int, src: int, size: int, stream: Stream_) -> None:
        handle = stream.handle
        del stream
        attempt("cuMemcpyDtoDAsync")
        gpu.copy(dest, src, size, handle)

    driver.Error, driver.Device, driver.Context, driver.Stream, driver.Event = Error, Device, Context, Stream_, Event_
    driver.init = lambda flags=0: attempt("cuInit")
    driver.get_driver_version = lambda: gpu.driver
    driver.device_attribute = types.SimpleNamespace(INTEGRATED="INTEGRATED")
    driver.host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2)
    for function in (mem_alloc, pagelocked_empty, memcpy_htod_async, memcpy_dtoh_async, memcpy_dtod_async):
        setattr(driver, function.__name__, function)
    return driver


def tensorrt_module(gpu: Gpu, version: str = "10.3.0") -> types.ModuleType:
    """`tensorrt` of one version. A plan is the ONNX graph behind the version and the GPU that it is for."""
    trt = types.ModuleType("tensorrt")
    trt.__spec__ = ModuleSpec("tensorrt", None)
    trt.__version__ = version
    trt.builds = 0
    major = int(version.split(".")[0])
    magic = f"plan of {version} for {gpu.name}\n".encode()

    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

        def __init__(self) -> None: ...

    class DataType(enum.Enum):
        FLOAT, HALF, INT8, INT32, BOOL, UINT8, INT64 = range(7)

    class TensorIOMode(enum.Enum):
        NONE, INPUT, OUTPUT = range(3)

    class MemoryPoolType(enum.Enum):
        WORKSPACE = 0

    flags = {"EXPLICIT_BATCH": 0} if major < 11 else {}
    flags |= {"STRONGLY_TYPED": 1} if major > 8 else {}
    trt.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)
    names = ["TF32"] if major >= 11 else ["TF32", "FP16", "INT8"]
    trt.BuilderFlag = enum.Enum("BuilderFlag", names)
    types_of = {onnx.TensorProto.FLOAT: DataType.FLOAT, onnx.TensorProto.UINT8: DataType.UINT8}

    def fails(name: str, log: ILogger) -> bool:
        gpu.need_context()
        if gpu.called(name):
            log.log(Severity.ERROR, f"{name}: made to fail")
            return True
        return False

    class IProgressMonitor:
        def __init__(self) -> None:
            self.made = True

    if major > 8:
        trt.IProgressMonitor = IProgressMonitor

    class Network:
        def __init__(self, flags: int) -> None:
            self.flags, self.model = flags, b""

    class Config:
        def __init__(self, log: ILogger) -> None:
            self._log, self._flags, self._cache = log, {trt.BuilderFlag.TF32}, None
            self._monitor: IProgressMonitor | None = None

        def __setattr__(self, name: str, value: object) -> None:
            """As pybind11 has it, an attribute that a version does not know would be an error."""
            known = name.startswith("_") or (name == "progress_monitor" and major > 8)
            gpu.forbid(not known, f"IBuilderConfig has no {name}")
            if name == "progress_monitor":
                gpu.forbid(not hasattr(value, "made"), "__init__ of IProgressMonitor was not called")
                name = "_monitor"
            super().__setattr__(name, value)

        def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None: ...

        def set_flag(self, flag: enum.Enum) -> None:
            self._flags.add(flag)

        def clear_flag(self, flag: enum.Enum) -> None:
            self._flags.discard(flag)

        def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
            if serialized_timing_cache and not serialized_timing_cache.startswith(magic):
                self._log.log(Severity.ERROR, "timing cache of another device")
                return None
            return TimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            gpu.forbid(not isinstance(cache, TimingCache), "no timing cache")
            gpu.forbid(ignore_mismatch, "timings of another device")
            self._cache = cache
            return True

        def get_timing_cache(self) -> TimingCache | None:
            return self._cache

    class TimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = content or magic

        def serialize(self) -> memoryview:
            return memoryview(self._content + b".")

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self._log = logger
            if fails("Builder", logger):
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int = 0) -> Network | None:
            expected = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if major > 8 else 1
            gpu.forbid(flags != expected, f"network flags {flags}, expected {expected}")
            return None if fails("create_network", self._log) else Network(flags)

        def create_builder_config(self) -> Config | None:
            return None if fails("create_builder_config", self._log) else Config(self._log)

        def build_serialized_network(self, network: Network, config: Config) -> memoryview | None:
            if fails("build_serialized_network", self._log):
                return None
            gpu.forbid(not network.model, "a network that was not parsed")
            graph = onnx.load_from_string(network.model).graph
            quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)
            half = quantized or any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in graph.initializer)
            gpu.forbid(major == 8 and half != (trt.BuilderFlag.FP16 in config._flags), "8.6 needs FP16 said")
            gpu.forbid(major == 8 and quantized != (trt.BuilderFlag.INT8 in config._flags), "8.6 needs INT8 said")
            if not self._steps(config._monitor):
                self._log.log(Severity.ERROR, "BuildCanceled (Build canceled by user)")
                return None
            trt.builds += 1
            return memoryview(magic + network.model)

        def _steps(self, monitor: IProgressMonitor | None) -> bool:
            """As TensorRT: phases in phases; whether nobody stopped the build."""
            if monitor:
                monitor.phase_start("Building engine", None, 1)
                monitor.phase_start("Timing tactics", "Building engine", BUILD_STEPS)
            going_on = True
            for step in range(BUILD_STEPS):
                gpu.on_build_step(step)
                if monitor and not monitor.step_complete("Timing tactics", step):
                    going_on = False
                    break
            if monitor:
                monitor.phase_finish("Timing tactics")
                monitor.phase_finish("Building engine")
            return going_on

    class ParserError:
        def desc(self) -> str:
            return "made to fail"

    class OnnxParser:
        def __init__(self, network: Network, logger: ILogger) -> None:
            self._network, self._log = network, logger
            self.num_errors = 0

        def parse(self, model: bytes, path: str | None = None) -> bool:
            if fails("parse", self._log):
                self.num_errors = 1
                return False
            proto = onnx.load_from_string(model)
            onnx.checker.check_model(proto, full_check=True)
            bytes_in = {v.name for v in proto.graph.input if v.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
            constants = {weight.name: onnx.numpy_helper.to_array(weight) for weight in proto.graph.initializer}
            for node in proto.graph.node:
                if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                    scale, zero = (constants[name] for name in node.input[1:])
                    gpu.forbid(zero.dtype != np.int8 or zero.any(), "only symmetric signed quantization")
                    gpu.forbid(major == 8 and scale.dtype != np.float32, "8.6 knows no fp16 scales")
                wrong = node.op_type != "Cast" and bytes_in & set(node.input)
                gpu.forbid(wrong, f"bytes go into {node.op_type}, only Cast takes them")
            self._network.model = model
            return True

        def get_error(self, index: int) -> ParserError:
            return ParserError()

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._log = logger
            if fails("Runtime", logger):
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
            if fails("deserialize_cuda_engine", self._log):
                return None
            if not serialized_engine.startswith(magic):
                self._log.log(Severity.ERROR, "Serialization assertion failed: version tag does not match")
                return None
            return CudaEngine(serialized_engine[len(magic) :], self._log)

    class CudaEngine:
        def __init__(self, model: bytes, log: ILogger) -> None:
            self._log = log
            self.session = _session(model)
            graph = onnx.load_from_string(model).graph
            self.contexts: weakref.WeakSet[ExecutionContext] = weakref.WeakSet()
            self.values = {
                value.name: (
                    mode,
                    tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
                    types_of[value.type.tensor_type.elem_type],
                )
                for values, mode in ((graph.input, TensorIOMode.INPUT), (graph.output, TensorIOMode.OUTPUT))
                for value in values
            }
            for output in self.session.get_outputs():  # fixed here, while the file may have names
                mode, _, dtype = self.values[output.name]
                self.values[output.name] = (mode, tuple(output.shape), dtype)

        @property
        def num_io_tensors(self) -> int:
            return len(self.values)

        def get_tensor_name(self, index: int) -> str:
            return list(self.values)[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return self.values[name][0]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self.values[name][1]

        def get_tensor_dtype(self, name: str) -> DataType:
            return self.values[name][2]

        def create_execution_context(self) -> ExecutionContext | None:
            if fails("create_execution_context", self._log):
                return None
            context = ExecutionContext(self)
            self.contexts.add(context)
            return context

        def __del__(self) -> None:
            if gpu.lost:
                return
            with contextlib.suppress(ContractError):
                gpu.forbid(len(self.contexts), "engine destroyed before its context")
                gpu.need_context()

    class ExecutionContext:
        def __init__(self, engine: CudaEngine) -> None:
            self._engine, self._log = engine, engine._log
            self._addresses: dict[str, int] = {}
            self._scratch = gpu.allocate(1024, pinned=False)
            self._ran = False

        def set_tensor_address(self, name: str, memory: int) -> bool:
            if fails("set_tensor_address", self._log):
                return False
            gpu.forbid(name not in self._engine.values, f"{name} is no tensor of the engine")
            gpu.forbid(memory % 256, f"{name}: {memory:#x} is not aligned to 256 bytes")
            gpu.find(memory, self._bytes(name))
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            gpu.forbid(not isinstance(stream_handle, int), "a stream's address is a number")
            stream = gpu.thing(stream_handle, Stream)
            if fails("execute_async_v3", self._log):
                return False
            missing = set(self._engine.values) - set(self._addresses)
            gpu.forbid(missing, f"no address set for {missing}")
            for name, address in self._addresses.items():
                gpu.find(address, self._bytes(name))
            gpu.forbid(stream.recording is not None and not self._ran, "first run inside a capture")
            addresses = dict(self._addresses)  # what a capture keeps
            me = weakref.ref(self)

            def work() -> None:
                gpu.forbid(me() is None, "run of a context that is destroyed")
                me()._compute(addresses)

            gpu.enqueue(stream_handle, work)
            return True

        def _compute(self, addresses: dict[str, int]) -> None:
            self._ran = True
            feeds = {}
            for name, (mode, shape, dtype) in self._engine.values.items():
                if mode is TensorIOMode.INPUT:
                    raw = gpu.read(addresses[name], self._bytes(name))
                    feeds[name] = raw.view(_NUMPY[dtype.name]).reshape(shape).copy()
            outputs = [name for name, value in self._engine.values.items() if value[0] is TensorIOMode.OUTPUT]
            for name, result in zip(outputs, self._engine.session.run(outputs, feeds), strict=True):
                gpu.write(addresses[name], np.ascontiguousarray(gpu.distort(result)).reshape(-1).view(np.uint8))

        def _bytes(self, name: str) -> int:
            _, shape, dtype = self._engine.values[name]
            return int(np.prod(shape)) * np.dtype(_NUMPY[dtype.name]).itemsize

        def __del__(self) -> None:
            if hasattr(self, "_scratch") and not gpu.lost:
                with contextlib.suppress(ContractError):
                    gpu.free(self._scratch.address, pinned=False)

    trt.IBuilderConfig, trt.INetworkDefinition, trt.ITimingCache = Config, Network, TimingCache
    trt.ICudaEngine, trt.IExecutionContext = CudaEngine, ExecutionContext
    for kind in (ILogger, DataType, TensorIOMode, MemoryPoolType, Builder, OnnxParser, ParserError, Runtime):
        setattr(trt, kind.__name__, kind)
    return trt


_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64}
_sessions: dict[str, ort.InferenceSession] = {}


def _session(model: bytes) -> ort.InferenceSession:
    digest = hashlib.sha256(model).hexdigest()
    if digest not in _sessions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        _sessions[digest] = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return _sessions[digest]

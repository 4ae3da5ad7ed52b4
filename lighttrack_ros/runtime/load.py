"""Load a graph into the backend that the user names; no other file chooses a backend."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime.engine import Engine
from lighttrack_ros.runtime.host import threads_of

_logger = logging.getLogger(__name__)

# The name of a backend, or a function that makes the engine itself, from the graph and the sizes of its dimensions.
Backend = str | Callable[[Path, Mapping[str, int]], Engine]

# "tensorrt" computes in fp16 where that is safe, else in fp32. "tensorrt-int8" does the same in layers in which int8
# would cost accuracy. "tensorrt-int8-simulated" runs the same int8 graph on the CPU: slow, to measure the accuracy.
TENSORRT_PRECISIONS = {"tensorrt": "fp16", "tensorrt-fp32": "fp32", "tensorrt-int8": "int8"}
BACKENDS = (
    "auto",
    "onnxruntime",
    "onnxruntime-int8",
    "openvino",
    *TENSORRT_PRECISIONS,
    "tensorrt-int8-simulated",
)


def load_engine(
    graph: Path,
    backend: Backend = "auto",
    threads: int = 0,
    dimensions: Mapping[str, int] | None = None,
    spin: bool = False,
) -> Engine:
    """Load an ONNX graph into a backend.

    Args:
        graph: path of the .onnx file.
        backend: one of BACKENDS; "auto" takes TensorRT if it and a GPU are found, else ONNX Runtime, and logs why.
            Or a function that makes the engine; it gets the graph and the dimensions.
        threads: CPU threads inside one run; 0: half of the cores.
        dimensions: sizes of the graph's free dimensions by name, fixed from now on.
        spin: let ONNX Runtime's threads wait busily between two runs too, and not only between a run's operators; see
            docs/performance.md.

    Raises:
        LightTrackError: no such file, unknown backend, threads under 0, the backend is not installed, or it cannot
            load the graph.
    """
    if not graph.is_file():
        raise LightTrackError(f"{graph}: no such graph")
    if threads < 0:
        raise LightTrackError(f"threads is {threads}, expected 0 (half of the cores) or more")
    if not isinstance(backend, str):
        return backend(graph, dimensions or {})
    if backend not in BACKENDS:
        raise LightTrackError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    threads = threads_of(threads)
    # Backends are imported here, so that only the one in use has to be installed.
    if backend in TENSORRT_PRECISIONS:
        from lighttrack_ros.runtime.tensorrt import TensorRTEngine

        return TensorRTEngine(graph, dimensions or {}, TENSORRT_PRECISIONS[backend])
    if backend == "openvino":
        from lighttrack_ros.runtime.openvino import OpenVinoEngine

        return OpenVinoEngine(graph, dimensions or {}, threads)
    if backend == "auto" and tensorrt_is_here():
        try:
            return load_engine(graph, "tensorrt", threads, dimensions, spin)
        except LightTrackError as error:
            _logger.warning("running on ONNX Runtime instead of TensorRT: %s", error)
    from lighttrack_ros.runtime.onnxruntime import OnnxRuntimeEngine

    if backend in ("onnxruntime-int8", "tensorrt-int8-simulated"):
        from lighttrack_ros.runtime.conversion import convert, convert_for_onnxruntime

        sizes = dimensions or {}
        signed = backend == "tensorrt-int8-simulated"
        model = convert(graph, sizes, "int8") if signed else convert_for_onnxruntime(graph, sizes)
        return OnnxRuntimeEngine(graph, sizes, threads, spin, backend, model)
    return OnnxRuntimeEngine(graph, dimensions or {}, threads, spin)


@functools.cache
def tensorrt_is_here() -> bool:
    """Whether TensorRT, a CUDA binding and a GPU are found. Looked up and logged once per process."""
    from lighttrack_ros.runtime.build import find_tensorrt, import_tensorrt
    from lighttrack_ros.runtime.cuda import open_cuda

    try:
        find_tensorrt()
        cuda = open_cuda()
        version = import_tensorrt().__version__  # last: its libraries are large
    except LightTrackError as error:
        _logger.info("no TensorRT here, so ONNX Runtime on the CPU (for an NVIDIA GPU: docs/tensorrt.md)")
        _logger.debug("no TensorRT: %s", error)
        return False
    _logger.info("backend auto: TensorRT %s on %s, called through %s", version, cuda.device.name, cuda.binding)
    cuda.close()
    return True

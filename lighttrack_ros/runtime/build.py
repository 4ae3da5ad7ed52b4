"""The TensorRT library itself: finding it, its log, and its builder, which turns a converted graph into a plan."""

from __future__ import annotations

import collections
import functools
import importlib
import importlib.util
import logging
import traceback
from types import ModuleType
from typing import Any

from lighttrack_ros.errors import LightTrackError

VERSION = 2  # of `conversion` and the settings below; after a change raise it, and every plan is built again
_WORKSPACE = 512 << 20  # bytes; these networks need far less, and a robot's other programs need memory too
_HOW_TO_INSTALL = (
    "TensorRT's Python package is not installed. JetPack 6 and 7: sudo apt install python3-libnvinfer, and a virtual "
    "environment must see it (python3 -m venv --system-site-packages). Desktop: pip install tensorrt-cu12 with a "
    "driver for CUDA 12, tensorrt-cu13 with one for CUDA 13"
)

_logger = logging.getLogger(__name__)


def find_tensorrt() -> str:
    """The name of the package: TensorRT, else TensorRT for RTX, which has the same interface.

    Raises:
        LightTrackError: neither is installed; the message says how to install one.
    """
    for name in ("tensorrt", "tensorrt_rtx"):
        if importlib.util.find_spec(name):
            return name
    raise LightTrackError(_HOW_TO_INSTALL)


def import_tensorrt() -> ModuleType:
    """TensorRT.

    Raises:
        LightTrackError: it is not installed, or its libraries cannot be loaded.
    """
    name = find_tensorrt()
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise LightTrackError(f"TensorRT is installed but the package {name} cannot be imported ({error})") from error


def build_plan(
    trt: ModuleType,
    model: bytes,
    precision: str,
    timings: bytes = b"",
    progress: Progress | None = None,
    compute_capability: tuple[int, int] | None = None,
) -> tuple[bytes, bytes]:
    """Compile a graph.

    Args:
        trt: from `import_tensorrt`.
        model: serialised ONNX from `conversion.convert`.
        precision: the precision that it was converted to.
        timings: the timing cache of earlier builds with this TensorRT on this GPU; makes the build faster.
        progress: updated during the build, and asked whether to stop; only TensorRT 9 and later can do so.
        compute_capability: of the target GPU, if it is not this machine's; TensorRT for RTX only.

    Returns:
        The plan, and the timing cache with this build added.

    Raises:
        LightTrackError: the build failed; the message contains TensorRT's log lines.
    """
    log = tensorrt_log(trt)
    log.errors.clear()
    builder = log.made(trt.Builder, log)
    network = log.made(builder.create_network, _network_flags(trt))
    parser = log.made(trt.OnnxParser, network, log)
    if not parser.parse(model):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise LightTrackError("TensorRT cannot parse the graph: " + ("; ".join(reasons) or log.reasons()))
    config = log.made(builder.create_builder_config)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # TF32 drops 13 bits; fp32 is the reference
    if precision != "fp32" and not is_strongly_typed(trt):
        config.set_flag(trt.BuilderFlag.FP16)
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
    if compute_capability:
        config.num_compute_capabilities = 1
        wanted = getattr(trt.ComputeCapability, "SM{}{}".format(*compute_capability), None)
        possible = wanted is not None and config.set_compute_capability(wanted, 0)
        log.check(possible, f"it cannot build for compute capability {compute_capability}")
    if progress is not None and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, progress)
    keeps_timings = trt.__name__ != "tensorrt_rtx"  # which ignores them
    if keeps_timings:
        # TensorRT refuses timings of another version or GPU; then start from none.
        cache = config.create_timing_cache(timings) or log.made(config.create_timing_cache, b"")
        if not config.set_timing_cache(cache, False):
            cache = log.made(config.create_timing_cache, b"")
            log.check(config.set_timing_cache(cache, False), "it refuses an empty timing cache")
    plan = log.made(builder.build_serialized_network, network, config)
    return bytes(plan), bytes(config.get_timing_cache().serialize()) if keeps_timings else b""


def is_strongly_typed(trt: ModuleType) -> bool:
    """Whether networks take their types from the graph; TensorRT 8.6 chooses types itself, among those flags allow."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


class Progress:
    """Shared by the build and the thread that waits for it: the build's progress, and the request to stop."""

    def __init__(self) -> None:
        self.stop = False
        self.phases: dict[str, tuple[int, int]] = {}  # in progress, innermost last: steps done, steps in total

    def text(self) -> str:
        """E.g. ", Timing tactics 3/40"; empty if nothing is known."""
        for name, (done, steps) in reversed(list(self.phases.items())):
            return f", {name} {done}/{steps}"
        return ""


def drop_locals(error: BaseException | None) -> None:
    """Drop the variables that an error's traceback keeps alive: TensorRT's objects must not outlive CUDA's context."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@functools.cache
def tensorrt_log(trt: ModuleType) -> Any:
    """The one `trt.ILogger` of the process: TensorRT keeps the first logger that it gets and ignores later ones."""

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: collections.deque[str] = collections.deque(maxlen=20)  # since the last `reasons`

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message.strip())
                _logger.debug("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                _logger.debug("TensorRT: %s", message)

        def reasons(self) -> str:
            """What TensorRT logged about the current failure."""
            lines = "; ".join(self.errors) or "TensorRT gave no reason"
            self.errors.clear()
            return lines

        def check(self, done: bool, problem: str) -> None:
            if not done:
                raise LightTrackError(f"TensorRT: {problem} ({self.reasons()})")

        def made(self, make: Any, *arguments: Any) -> Any:
            """Call `make`; if it returns nothing, raise an error with TensorRT's reasons."""
            name = getattr(make, "__name__", str(make))
            try:
                result = make(*arguments)
            except TypeError as error:  # how pybind11 reports a constructor that returns null
                raise LightTrackError(f"TensorRT: {name} failed ({self.reasons()}; {error})") from error
            if result is None:
                raise LightTrackError(f"TensorRT: {name} failed ({self.reasons()})")
            return result

    return Log()


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        """Called from any thread; an exception here would stop the build."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.phases[phase_name] = (0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in progress.phases:
                progress.phases[phase_name] = (step + 1, progress.phases[phase_name][1])
            return not progress.stop

        def phase_finish(self, phase_name: str) -> None:
            progress.phases.pop(phase_name, None)

    return Monitor()


def _network_flags(trt: ModuleType) -> int:
    """Strongly typed, so that TensorRT uses the graph's types; TensorRT 8.6 has no such flag."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED if is_strongly_typed(trt) else flags.EXPLICIT_BATCH)

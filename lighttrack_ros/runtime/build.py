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

VERSION = 2  # of what this file and `conversion` make of a graph; raise it and every plan is built anew
_WORKSPACE = 512 << 20  # bytes; far more than these networks want, and a robot's other programs need memory too
_HOW_TO_INSTALL = (
    "TensorRT's Python package is not installed. JetPack 6 and 7: sudo apt install python3-libnvinfer, and a virtual "
    "environment must see it (python3 -m venv --system-site-packages). Desktop: pip install tensorrt-cu12 with a "
    "driver for CUDA 12, tensorrt-cu13 with one for CUDA 13"
)

_logger = logging.getLogger(__name__)


def find_tensorrt() -> str:
    """The name of the package: TensorRT, else TensorRT for RTX, which has the same interface.

    Raises:
        LightTrackError: neither is installed; says how to.
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
        model: what `conversion.convert` gave.
        precision: the one it was converted to.
        timings: of earlier builds with this TensorRT on this GPU; makes the build faster.
        progress: is kept up to date, and asked whether to stop, where this TensorRT can (from 9 on).
        compute_capability: of the GPU to build for where that is not this machine's; TensorRT for RTX only.

    Returns:
        The plan, and the timings with this build's added.

    Raises:
        LightTrackError: TensorRT's own log lines.
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
        config.clear_flag(trt.BuilderFlag.TF32)  # the reference is not to lose 13 bits
    if precision != "fp32" and not is_strongly_typed(trt):
        config.set_flag(trt.BuilderFlag.FP16)
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
    if compute_capability:
        config.num_compute_capabilities = 1
        wanted = getattr(trt.ComputeCapability, "SM{}{}".format(*compute_capability), None)
        possible = wanted is not None and config.set_compute_capability(wanted, 0)
        log.check(possible, f"it does not build for {compute_capability}")
    if progress is not None and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, progress)
    keeps_timings = trt.__name__ != "tensorrt_rtx"  # there they do nothing
    if keeps_timings:
        # Timings of another TensorRT or GPU are refused; then there are none.
        cache = config.create_timing_cache(timings) or log.made(config.create_timing_cache, b"")
        if not config.set_timing_cache(cache, False):
            cache = log.made(config.create_timing_cache, b"")
            log.check(config.set_timing_cache(cache, False), "it takes no empty timing cache")
    plan = log.made(builder.build_serialized_network, network, config)
    return bytes(plan), bytes(config.get_timing_cache().serialize()) if keeps_timings else b""


def is_strongly_typed(trt: ModuleType) -> bool:
    """Whether networks take their types from the graph; TensorRT 8.6 chooses types itself, within what flags allow."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


class Progress:
    """How far a build is, for another thread to see, and whether that thread wants it to go on."""

    def __init__(self) -> None:
        self.stop = False
        self.phases: dict[str, tuple[int, int]] = {}  # under way, the innermost last: steps done, steps in all

    def text(self) -> str:
        """E.g. ", Timing tactics 3/40"; empty where nothing is known."""
        for name, (done, steps) in reversed(list(self.phases.items())):
            return f", {name} {done}/{steps}"
        return ""


def drop_locals(error: BaseException | None) -> None:
    """A traceback keeps its frames' variables, and TensorRT's objects among them would outlive CUDA's context."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@functools.cache
def tensorrt_log(trt: ModuleType) -> Any:
    """The `trt.ILogger` of the process: TensorRT keeps the first that it gets and ignores every other."""

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: collections.deque[str] = collections.deque(maxlen=20)  # since they were last told

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message.strip())
                _logger.debug("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                _logger.debug("TensorRT: %s", message)

        def reasons(self) -> str:
            """What TensorRT logged about the failure at hand."""
            lines = "; ".join(self.errors) or "TensorRT gave no reason"
            self.errors.clear()
            return lines

        def check(self, done: bool, problem: str) -> None:
            if not done:
                raise LightTrackError(f"TensorRT: {problem} ({self.reasons()})")

        def made(self, make: Any, *arguments: Any) -> Any:
            """What `make` returns, or TensorRT's reasons why that is nothing."""
            name = getattr(make, "__name__", str(make))
            try:
                result = make(*arguments)
            except TypeError as error:  # pybind11's word for a constructor that gives nothing
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
    """Strongly typed, so that the graph's own types count; TensorRT 8.6 knows only hints."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED if is_strongly_typed(trt) else flags.EXPLICIT_BATCH)

"""Get a graph's plan from the cache; compile it if it is not there."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime import build
from lighttrack_ros.runtime.conversion import convert
from lighttrack_ros.runtime.cuda import Device, open_cuda
from lighttrack_ros.runtime.plan_cache import Entry, PlanCache, PlanKey
from lighttrack_ros.runtime.ranges import load_ranges
from lighttrack_ros.runtime.watch import watch

_TELL_EVERY = 10.0  # seconds
_LOOK_EVERY = 0.1

_logger = logging.getLogger(__name__)


def plan_key(trt: ModuleType, device: Device, graph: Path, dimensions: Mapping[str, int], precision: str) -> PlanKey:
    """The cache key of this graph's plan on this GPU.

    Raises:
        LightTrackError: the precision is int8 and the model folder's ranges are missing or of another graph.
    """
    ranges = load_ranges(graph) if precision == "int8" else None
    if precision == "int8" and ranges is None:
        precision = "fp16"  # a graph that is not quantized: the same plan as fp16
    return PlanKey(
        graph=hashlib.sha256(graph.read_bytes()).hexdigest(),
        dimensions=dict(dimensions),
        precision=precision,
        builder=build.VERSION,
        tensorrt=f"{trt.__name__} {trt.__version__}",
        cuda=device.driver,
        gpu=device.name,
        compute_capability="{}.{}".format(*device.compute_capability),
        ranges=ranges.digest if ranges else "",
    )


def has_checked_plan(graph: Path, dimensions: Mapping[str, int], precision: str) -> bool:
    """Whether there is a plan for this machine, and it has passed its comparison.

    Raises:
        LightTrackError: no TensorRT, no GPU, or as `plan_key`.
    """
    cuda = open_cuda()
    device = cuda.device
    cuda.close()
    return PlanCache().is_checked(plan_key(build.import_tensorrt(), device, graph, dimensions, precision))


def find_plans(trt: ModuleType, key: PlanKey, graph: Path, dimensions: Mapping[str, int]) -> Iterator[bytes]:
    """The cached plan if there is one; if the caller asks again because it does not load, a new one.

    Raises:
        LightTrackError: the graph does not compile, or the compilation was told to stop.
    """
    cache = PlanCache()
    old = cache.load(key)
    if old is not None:
        yield old
    with watch() as waiting, contextlib.ExitStack() as stack:
        writable = True
        try:
            stack.enter_context(cache.building(waiting.stop))
        except OSError as error:
            _logger.warning("%s: the plan will not be kept (%s)", graph, error)
            writable = False
        plan = cache.load(key)  # another process may have built it meanwhile
        if plan is None or plan == old:
            _logger.info("%s: compiling for %s in %s", graph, key.gpu, key.precision)
            started = time.monotonic()
            plan, timings = _compile(trt, key, graph, dimensions, cache.load_timings(key))
            seconds = time.monotonic() - started
            _logger.info("%s: compiled in %.1f s", graph, seconds)
            if writable:
                try:
                    cache.store(key, plan, f"{graph.parent.name}/{graph.name}", seconds)
                    if timings:
                        cache.store_timings(key, timings)
                except OSError as error:
                    _logger.warning("%s: the plan is not kept (%s)", graph, error)
    yield plan


def _compile(
    trt: ModuleType, key: PlanKey, graph: Path, dimensions: Mapping[str, int], timings: bytes
) -> tuple[bytes, bytes]:
    """Compile in another thread (a Jetson takes minutes), so that this one reports progress and can be interrupted."""
    progress = build.Progress()

    def compile_it() -> tuple[bytes, bytes]:
        cuda = open_cuda()  # holds the context itself, because the waiting thread may end first
        try:
            with cuda.current():
                try:
                    strongly_typed = build.is_strongly_typed(trt)
                    model = convert(graph, dimensions, key.precision, strongly_typed=strongly_typed)
                    return build.build_plan(trt, model, key.precision, timings, progress)
                except BaseException as error:
                    build.drop_locals(error)
                    raise
        finally:
            cuda.close()

    started = told = time.monotonic()
    name = f"{graph.parent.name}/{graph.name}"
    with (
        watch() as waiting,
        waiting.doing(f"compiling {name} for {key.gpu} in {key.precision}"),
        concurrent.futures.ThreadPoolExecutor(1, "compiling") as worker,
    ):
        if waiting.stop.is_set():
            raise LightTrackError("not compiled: told to stop")
        compilation = worker.submit(compile_it)
        try:
            while not concurrent.futures.wait([compilation], _LOOK_EVERY).done:
                if waiting.stop.is_set():
                    raise LightTrackError("told to stop while compiling")
                if time.monotonic() - told >= _TELL_EVERY:
                    told = time.monotonic()
                    _logger.info("%s: still compiling after %.0f s%s", graph, told - started, progress.text())
        except BaseException:
            progress.stop = True
            when = "soon" if hasattr(trt, "IProgressMonitor") else "at its end: this TensorRT cannot be interrupted"
            _logger.info("%s: the compilation stops %s", graph, when)
            raise
        return compilation.result()


def useless_plans(cache: PlanCache, places: Iterable[Path]) -> list[Entry]:
    """Plans that this machine cannot use: for another TensorRT, driver or GPU, or of graphs that no model has any more.

    Args:
        places: folders that hold model folders.

    Raises:
        LightTrackError: no TensorRT, or no GPU.
    """
    cuda = open_cuda()
    device = cuda.device
    cuda.close()
    trt = build.import_tensorrt()
    present = (build.VERSION, f"{trt.__name__} {trt.__version__}", device.driver, device.name)
    here = [graph for place in places for graph in place.glob("*/*.onnx")]
    graphs = {hashlib.sha256(graph.read_bytes()).hexdigest() for graph in here}
    ranges = {""}
    for graph in here:
        with contextlib.suppress(LightTrackError):  # not calibrated
            measured = load_ranges(graph)
            ranges |= {measured.digest} if measured else set()
    return [
        entry
        for entry in cache.entries()
        if (entry.key.builder, entry.key.tensorrt, entry.key.cuda, entry.key.gpu) != present
        or entry.key.graph not in graphs
        or entry.key.ranges not in ranges
    ]

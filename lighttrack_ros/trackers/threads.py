"""How many CPU threads a model's networks are best run with on this machine: a short measurement, kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import Model
from lighttrack_ros.runtime.host import usable_cores
from lighttrack_ros.runtime.plan_cache import write_whole
from lighttrack_ros.trackers.base import Tracker
from lighttrack_ros.user_folders import cache_folder

_STEPS = 15  # of which the median counts
_MOST = 8  # threads; the networks are small
_GAIN = 0.9  # of the time with half as many: more threads must be that much faster to be worth their core

_logger = logging.getLogger(__name__)


def find_threads(model: Model, backend: str, make: Callable[[int], Tracker]) -> int:
    """The smallest number of threads that is nearly as fast as any; never more than half of the cores, at least 1.

    Measured once for a machine, a model and a backend: about a second.

    Args:
        backend: one that runs on the CPU.
        make: makes the tracker with so many threads.

    Raises:
        LightTrackError: what `make` raises.
    """
    counts = [1]
    while 2 * counts[-1] <= min(usable_cores() // 2, _MOST):
        counts.append(2 * counts[-1])
    if len(counts) == 1:
        return 1
    path = _cached(model, backend)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_bytes())["threads"]
        if known in counts:
            return int(known)
    times = {}
    for count in counts:
        tracker = make(count)
        try:
            times[count] = _step_seconds(tracker)
        finally:
            tracker.close()
        if count > 1 and times[count] > _GAIN * times[count // 2]:
            break
    best = 1
    for count in list(times)[1:]:
        if times[count] <= _GAIN * times[count // 2]:
            best = count
    words = ", ".join(f"{count}: {1e3 * seconds:.1f} ms" for count, seconds in times.items())
    _logger.info("%s on %s is run with %d threads on this machine's %d cores (a step with %s)", model.name, backend,
                 best, usable_cores(), words)  # fmt: skip
    facts = {"model": model.name, "backend": backend, "threads": best, "step_seconds": times, "machine": _machine()}
    with contextlib.suppress(OSError):  # a cache that cannot be written: measured again the next time
        write_whole(path, json.dumps(facts, indent=1).encode())
    return best


def _step_seconds(tracker: Tracker) -> float:
    """Median time of a step."""
    frame = from_bgr(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    tracker.init(frame, Box(280.0, 200.0, 80.0, 80.0))
    seconds = []
    for _ in range(_STEPS):
        began = time.perf_counter()
        tracker.update(frame)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _cached(model: Model, backend: str) -> Path:
    graph = hashlib.sha256(model.search_graph.read_bytes()).hexdigest()
    key = json.dumps([_machine(), graph, model.search_sides, backend])
    return cache_folder() / "threads" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _machine() -> str:
    """Processor and number of usable cores."""
    name = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {usable_cores()} cores"

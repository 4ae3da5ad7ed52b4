"""How the node is doing: counts, latencies and problems, for the log and for /diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

LOG_PERIOD = 5.0  # seconds in which a kind of problem is logged once
CREDIBLE = 60.0  # seconds: an image that seems older has a stamp of another clock
UNKNOWN = "unknown"
WINDOW = 10.0  # seconds over which rates and percentiles are taken

COUNTS = {
    "images_received": "images that arrived",
    "images_decoded": "images that were decoded",
    "images_processed": "images that something was published of",
    "images_dropped": "images that were skipped, as a newer one was there",
    "targets_lost": "how often a target became lost",
    "targets_found": "how often a lost target was found again",
}


class Problem(NamedTuple):
    """A kind of them: how its line in the log begins, and what is counted."""

    words: str
    what: str


PROBLEMS = {
    "bad_images": Problem(
        "image not used", "images that could not be used: not readable, or a single one of another size than a target's"
    ),
    "images_lost": Problem(
        "images lost",
        "images that the camera sent and that never arrived, told by the gaps between the stamps of the others",
    ),
    "flat_images": Problem("picture", "targets that began on an image of hardly any grey levels"),
    "strange_stream": Problem("camera", "messages of the diagnostics that found the stream strange (below)"),
    "silent_camera": Problem("no images", "messages of the diagnostics that found no image to have come for 3 s"),
    "bad_boxes": Problem("init box not used", "boxes that were refused"),
    "stamps_gone": Problem("init box", "boxes that were taken on another image than the one they were drawn on"),
    "no_bearings": Problem("no bearing", "directions that were not known although somebody listens to `~/bearing`"),
    "bad_detections": Problem("detection not used", "messages on `detections` with a box that cannot be"),
    "incompatible_publishers": Problem("camera", "publishers of images whose QoS does not go with the node's"),
    "messages_lost": Problem("message not sent", "messages of the node's own that the middleware did not take"),
    "tracker_errors": Problem(
        "tracker", "how often the tracker failed, and messages of the diagnostics that found it hanging"
    ),
    "internal_errors": Problem("internal error", "errors in the node itself: please report them"),
}

_LATENCY = "of the time from an image's stamp to its target's publication, over the last 10 s of images with a target"
_LATENCY += "; `unknown` when the stamps are not of this clock (a replayed bag)"
_PROCESSING = "of the part of it that the tracking thread takes"

# What the status holds, for docs/node.md (`make docs`).
VALUES = {
    "state": "the state that all targets are in; else how many are in which: `2 tracking, 1 lost`",
    "targets": "how many there are",
    "enabled": "whether images are worked on (`~/enable`)",
    "model": "the name of the one that is loaded, or else the parameter",
    "backend": "what runs its networks, or else the parameter",
    "image_transport": "the parameter",
    "reliability": "what is asked of the camera now; while the node is not active, the parameter",
    "images_received_hz": "images a second that arrived, over the last 10 s",
    "images_processed_hz": "the same of `images_processed`",
    "latency_p50_ms": f"median {_LATENCY}",
    "latency_p95_ms": "95th percentile of the same",
    "latency_p99_ms": "99th percentile of the same",
    "processing_p50_ms": f"median {_PROCESSING}",
    "processing_p95_ms": "95th percentile of the same",
    "processing_p99_ms": "99th percentile of the same",
    **COUNTS,
    **{kind: problem.what for kind, problem in PROBLEMS.items()},
    "stopped_at_exit_N": "images on which the network stopped at that exit; of networks with exits",
    "image_topic": "its full name; this and the next three while the node is active",
    "publishers": "how many it has",
    "kept_images": "images that the buffer holds",
    "kept_bytes": "their size",
    "target 'NAME' state": "of each target by its id; the next five likewise, since it began",
    "target 'NAME' confidence": "0 to 1",
    "target 'NAME' images_processed": "images on which it was updated",
    "target 'NAME' images_dropped": "images that were skipped for it",
    "target 'NAME' lost": "how often it became lost",
    "target 'NAME' found": "how often it was found again",
}


class Health:
    """Counts and latencies since the node was started; callable from any thread.

    Args:
        warn: logs one line.
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._exits: Counter[int] = Counter()
        self._logged: dict[str, float] = {}
        self._silent: Counter[str] = Counter()
        self._times: dict[str, deque[float]] = {"images_received": deque(), "images_processed": deque()}
        self._latencies: deque[tuple[float, float, float]] = deque()

    def count(self, name: str, number: int = 1) -> None:
        now = time.monotonic()
        with self._lock:
            self._counts[name] += number
            if name in self._times:
                self._times[name].append(now)
                _forget(self._times[name], now)

    def problem(self, kind: str, message: str, throttled: bool = True, number: int = 1) -> None:
        """Count it, and log it unless one of its kind was logged a moment ago.

        Args:
            kind: one of PROBLEMS.
            throttled: False for what follows from somebody's order: it is always logged.
            number: how many of them.
        """
        now = time.monotonic()
        with self._lock:
            self._counts[kind] += number
            if throttled and now - self._logged.get(kind, -LOG_PERIOD) < LOG_PERIOD:
                self._silent[kind] += 1
                return
            self._logged[kind] = now
            silent = self._silent.pop(kind, 0)
        more = f" ({silent} more like this since the last such line)" if silent else ""
        self._warn(f"{PROBLEMS[kind].words}: {message}{more}")

    def latency(self, since_stamp: float, processing: float) -> None:
        """Seconds from an image's stamp to its target's publication, and those of them that the loop took."""
        now = time.monotonic()
        with self._lock:
            self._latencies.append((now, since_stamp, processing))
            while self._latencies and now - self._latencies[0][0] > WINDOW:
                self._latencies.popleft()

    def stopped_at(self, exit_index: int) -> None:
        """An image was processed up to this exit of the network; -1 where it has none."""
        if exit_index >= 0:
            with self._lock:
                self._exits[exit_index] += 1

    def exits(self) -> dict[str, int]:
        """How many images stopped at each exit; empty for networks without exits."""
        with self._lock:
            return {f"stopped_at_exit_{index}": self._exits[index] for index in range(max(self._exits, default=-1) + 1)}

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {name: self._counts[name] for name in (*COUNTS, *PROBLEMS)}

    def rates(self) -> dict[str, float]:
        """Images a second that arrived and that were processed."""
        now = time.monotonic()
        with self._lock:
            for times in self._times.values():
                _forget(times, now)
            return {f"{name}_hz": _rate(times) for name, times in self._times.items()}

    def percentiles(self) -> dict[str, str]:
        """Latencies in milliseconds."""
        with self._lock:
            samples = np.array([sample[1:] for sample in self._latencies]).reshape(-1, 2) * 1e3
        values = {}
        for column, name in enumerate(("latency", "processing")):
            # A replayed bag or a camera with a clock of its own: the difference says nothing.
            known = len(samples) and (column or bool(np.all(np.abs(samples[:, 0]) < CREDIBLE * 1e3)))
            for percent in (50, 95, 99):
                value = f"{np.percentile(samples[:, column], percent):.2f}" if known else UNKNOWN
                values[f"{name}_p{percent}_ms"] = value
        return values


def diagnostic_array(name: str, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticArray:
    """One status; the caller fills in the stamp."""
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id="none")
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticArray(status=[status])


def _forget(times: deque[float], now: float) -> None:
    while times and now - times[0] > WINDOW:
        times.popleft()


def _rate(times: deque[float]) -> float:
    return round((len(times) - 1) / (times[-1] - times[0]), 2) if len(times) > 1 else 0.0

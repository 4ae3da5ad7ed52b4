"""How the node is doing: counts, latencies and problems, for the log and for /diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

LOG_PERIOD = 5.0  # seconds in which a kind of problem is logged once
CREDIBLE = 60.0  # seconds: an image that seems older has a stamp of another clock
UNKNOWN = "unknown"
WINDOW = 10.0  # seconds over which rates and percentiles are taken

COUNTS = (
    "images_received",
    "images_decoded",
    "images_processed",
    "images_dropped",
    "targets_lost",
    "targets_found",
)
PROBLEMS = {
    "bad_images": "image not used",
    "images_lost": "images lost",
    "flat_images": "picture",
    "strange_stream": "camera",
    "silent_camera": "no images",
    "bad_boxes": "init box not used",
    "stamps_gone": "init box",
    "no_bearings": "no bearing",
    "bad_detections": "detection not used",
    "incompatible_publishers": "camera",
    "messages_lost": "message not sent",
    "tracker_errors": "tracker",
    "internal_errors": "internal error",
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
        self._warn(f"{PROBLEMS[kind]}: {message}{more}")

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

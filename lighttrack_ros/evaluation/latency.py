"""Latency figures of runs over ROS 2, in the terms of NVIDIA's ros2_benchmark, with percentiles added.

A run is what an observer in another process saw: when each image was stamped, when its box arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Where the time of an image goes, in order; the last ends with the box's arrival at the observer.
PARTS = ("transport", "wait", "crop", "network", "decode", "publish")
MISSED_LIMIT = 0.05  # share of missed frames up to which a node keeps up with a rate


@dataclass(frozen=True)
class Sample:
    """What the processes had taken at one moment.

    Attributes:
        seconds: time.monotonic().
        cpu_seconds: by process; "others" is what the rest of the machine took of the same CPUs.
        resident_bytes: by process.
    """

    seconds: float
    cpu_seconds: Mapping[str, float]
    resident_bytes: Mapping[str, int]


@dataclass(frozen=True)
class Run:
    """One node, one rate; frames at the beginning and at the end are left out already.

    Attributes:
        sent: (N,) int64, stamps of the frames that the camera sent, nanoseconds, in order.
        stamps: (M,) int64, those of them whose box arrived, in the order of arrival.
        arrivals: (M,) int64, when, nanoseconds of the same clock.
        skipped: frames that arrived and were left alone for a newer one.
        parts: (M, 5) float64, seconds of PARTS but the last; nan where the node told nothing.
        samples: from the first frame to the last.
        answers: boxes that came of frames that were sent; of several targets up to as many for each frame.
    """

    sent: NDArray[np.int64]
    stamps: NDArray[np.int64]
    arrivals: NDArray[np.int64]
    skipped: int
    parts: NDArray[np.float64]
    samples: Sequence[Sample] = field(default=())
    answers: int = 0

    @property
    def latencies(self) -> NDArray[np.float64]:
        """(M,) float64 seconds from stamp to arrival."""
        return np.asarray((self.arrivals - self.stamps) / 1e9, np.float64)

    @property
    def all_parts(self) -> NDArray[np.float64]:
        """(M, 6) float64 seconds of PARTS; a row adds up to the latency."""
        return np.column_stack([self.parts, self.latencies - self.parts.sum(axis=1)])

    @property
    def missed(self) -> int:
        """Frames without a box."""
        return len(self.sent) - len(self.stamps)

    @property
    def camera_rate(self) -> float:
        """Frames a second that were sent."""
        return _rate(self.sent)

    @property
    def step(self) -> float:
        """Mean seconds of crop, network and decode: what bounds the rate."""
        return float(np.nanmean(self.parts[:, 2:].sum(axis=1)))

    @property
    def keeps_up(self) -> bool:
        return self.missed < MISSED_LIMIT * len(self.sent)

    def figures(self) -> dict[str, Any]:
        """Nested by kind and unit, as in the JSON file; see docs/latency.md."""
        jitter = np.abs(np.diff(self.arrivals, 2)) / 1e6
        figures: dict[str, Any] = {
            "latency_ms": _spread(self.latencies * 1e3),
            "jitter_ms": {"mean": float(jitter.mean()), "max": float(jitter.max()), "std": float(jitter.std())},
            "frames": {
                "sent": len(self.sent),
                "received": len(self.stamps),
                "missed": self.missed,
                "skipped": self.skipped,
            },
            "rate_hz": {"camera": self.camera_rate, "boxes": _rate(self.arrivals)},
        }
        told = self.all_parts[np.isfinite(self.all_parts).all(axis=1)] * 1e3
        if len(told):
            figures["parts_ms"] = {name: _spread(told[:, column]) for column, name in enumerate(PARTS)}
            figures["ready_ms"] = _spread(told[:, :-1].sum(axis=1))
        if len(self.samples) > 1:
            first, last = self.samples[0], self.samples[-1]
            seconds = last.seconds - first.seconds
            figures["cpu_percent"] = {
                name: 100 * (last.cpu_seconds[name] - first.cpu_seconds[name]) / seconds for name in last.cpu_seconds
            }
            figures["memory_mb"] = {name: size / 1e6 for name, size in last.resident_bytes.items()}
        return figures


def cut(
    sent: Sequence[int],
    boxes: Mapping[int, tuple[int, int]],
    parts: Mapping[int, Sequence[float]],
    samples: Sequence[Sample],
    begin: int,
    end: int,
    answers: Mapping[int, int] = MappingProxyType({}),
) -> Run:
    """The run between two stamps.

    Args:
        sent: stamp of every frame that was sent, nanoseconds.
        boxes: time of arrival, and frames skipped before it, by stamp; in the order of arrival.
        parts: seconds of PARTS but the last, by stamp.
        begin, end: nanoseconds; frames stamped within count.
        answers: number of boxes that came, by stamp; 1 where it is not told.
    """
    counted = [stamp for stamp in sent if begin <= stamp <= end]
    known = set(counted)
    answered = [stamp for stamp in boxes if stamp in known]
    nothing = (np.nan,) * (len(PARTS) - 1)
    return Run(
        sent=np.array(counted, np.int64),
        stamps=np.array(answered, np.int64),
        arrivals=np.array([boxes[stamp][0] for stamp in answered], np.int64),
        skipped=sum(boxes[stamp][1] for stamp in answered),
        parts=np.array([parts.get(stamp, nothing) for stamp in answered], np.float64).reshape(-1, len(nothing)),
        samples=samples,
        answers=sum(answers.get(stamp, 1) for stamp in answered),
    )


def conclude(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of several runs as one: of each, best and worst are dropped if there are three, the rest averaged.

    Of what is called max the greatest is taken, of what is called min the least, as ros2_benchmark does.
    """
    concluded: dict[str, Any] = {}
    for name, value in runs[0].items():
        if isinstance(value, Mapping):
            concluded[name] = conclude([run[name] for run in runs if name in run])
            continue
        values = sorted(run[name] for run in runs if name in run)
        rest = values[1:-1] if len(values) > 2 else values
        together: Callable[[list[float]], float] = {"max": max, "min": min}.get(name, _mean)
        concluded[name] = together(rest)
    return concluded


def added(node: Sequence[Run], echo: Sequence[Run]) -> dict[str, float]:
    """What the node adds to the transport, milliseconds: its latency less that of the echo in the run beside it.

    `all` is the difference of the medians, `network` the network's median, `rest` what remains: crop, decode, and
    whatever the node does with an image and a message that the echo does not.
    """
    differences = []
    for run, beside in zip(node, echo, strict=True):
        total = float(np.median(run.latencies) - np.median(beside.latencies)) * 1e3
        network = float(np.nanmedian(run.parts[:, PARTS.index("network")])) * 1e3
        differences.append({"all": total, "network": network, "rest": total - network})
    return conclude(differences)


def over_time(run: Run, pieces: int = 5) -> dict[str, list[float]]:
    """Whether anything grows: the latency's median over equal pieces of the run, the node's memory at as many times."""
    latencies = [float(np.median(piece)) * 1e3 for piece in np.array_split(run.latencies, pieces)]
    times = np.linspace(0, len(run.samples) - 1, pieces).round().astype(int)
    return {
        "latency_p50_ms": latencies,
        "node_memory_mb": [run.samples[time].resident_bytes["node"] / 1e6 for time in times],
    }


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(values.max()),
        "std": float(values.std()),
    }


def _rate(times: NDArray[np.int64]) -> float:
    return float((len(times) - 1) / ((times[-1] - times[0]) / 1e9))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))

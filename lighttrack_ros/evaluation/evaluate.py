"""One-pass evaluation: start on the first truth box, never restart, compare every box with the truth.

The tracker runs as published, without the session's word on lost targets, so that the figures stand
beside those of papers and of other implementations. What that word is worth is measured in `sessions`.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media import sequences
from lighttrack_ros.runtime.host import usable_cores
from lighttrack_ros.trackers.base import Tracker


@dataclass(frozen=True)
class SequenceResult:
    """One sequence, tracked once.

    Attributes:
        name: the sequence's.
        boxes: (frames, 4) float64; row 0 is the box given at the start.
        confidences: (frames,) float64; row 0 is 1.
        step_seconds: time of each `Tracker.update`, crop to box, decoding of the file not included.
        accuracy: against the sequence's truth, row 0 included.
    """

    name: str
    boxes: NDArray[np.float64]
    confidences: NDArray[np.float64]
    step_seconds: list[float]
    accuracy: metrics.Accuracy

    @property
    def step_times(self) -> metrics.StepTimes:
        return metrics.step_times(self.step_seconds)


@dataclass(frozen=True)
class Evaluation:
    """Results over sequences; every sequence weighs the same in the means, every step in the times."""

    results: Sequence[SequenceResult]

    @property
    def mean(self) -> metrics.Accuracy:
        scores = [result.accuracy for result in self.results]

        def mean(name: str) -> float:
            return float(np.mean([getattr(score, name) for score in scores]))

        return metrics.Accuracy(
            auc=mean("auc"),
            iou=mean("iou"),
            sr50=mean("sr50"),
            precision20=mean("precision20"),
            frames=sum(score.frames for score in scores),
        )

    @property
    def step_times(self) -> metrics.StepTimes:
        return metrics.step_times([seconds for result in self.results for seconds in result.step_seconds])

    def as_json(self) -> dict[str, Any]:
        """`{"mean": {"auc", "iou", "sr50", "precision20", "step_ms"}, "sequences": {name: the same}}`."""
        return {
            "mean": _figures(self.mean, self.step_times),
            "sequences": {result.name: _figures(result.accuracy, result.step_times) for result in self.results},
        }


def evaluate_sequence(
    tracker: Tracker, sequence: sequences.Sequence, on_frame: Callable[[], object] | None = None
) -> SequenceResult:
    """Track one sequence from its first box to its end.

    Args:
        tracker: its earlier target is forgotten.
        sequence: with a truth.
        on_frame: called after every frame, e.g. to move a progress bar.

    Raises:
        LightTrackError: no truth, a frame that cannot be decoded, or fewer frames than truth boxes.
    """
    if sequence.truth is None:
        raise LightTrackError(f"{sequence.name}: no ground truth to evaluate against (only a first box)")
    boxes: list[tuple[float, ...]] = []
    confidences: list[float] = []
    step_seconds: list[float] = []
    for index, image in enumerate(sequence.frames):
        frame = from_bgr(image)
        if index == 0:
            tracker.init(frame, sequence.init_box)
            boxes.append(sequence.init_box)
            confidences.append(1.0)
        else:
            start = time.perf_counter()
            estimate = tracker.update(frame)
            step_seconds.append(time.perf_counter() - start)
            boxes.append(estimate.box)
            confidences.append(estimate.confidence)
            while tracker.idle_work():  # no camera waits: the published results have it all done
                pass
        if on_frame is not None:
            on_frame()
    if len(boxes) != len(sequence.truth):
        raise LightTrackError(f"{sequence.name}: {len(boxes)} frames decoded, {len(sequence.truth)} lines of truth")
    array = np.array(boxes, np.float64)
    score = metrics.accuracy(array, sequence.truth)
    return SequenceResult(sequence.name, array, np.array(confidences), step_seconds, score)


def describe_machine() -> str:
    """The machine in a few words, for the head of a table of timings."""
    name = platform.machine()
    for path, pattern in ((Path("/proc/device-tree/model"), ""), (Path("/proc/cpuinfo"), "model name")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if line.startswith(pattern)]
        if lines:
            name = lines[0].split(":")[-1].strip("\0 \t")
            break
    return f"{name}, {usable_cores()} CPUs, Python {platform.python_version()}"


def _figures(score: metrics.Accuracy, times: metrics.StepTimes) -> dict[str, Any]:
    # JSON knows no nan: a clip of one frame has no step times.
    step_ms = {name: value if math.isfinite(value) else None for name, value in vars(times).items()}
    return {
        "auc": score.auc,
        "iou": score.iou,
        "sr50": score.sr50,
        "precision20": score.precision20,
        "step_ms": step_ms,
    }

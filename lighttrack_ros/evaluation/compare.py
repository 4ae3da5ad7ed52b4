"""Several trackers over the same sequences, accuracy against time.

Every frame is decoded once and given to one tracker after the other, each time beginning with another, so
that whatever else the machine does falls on all of them alike: the ratios of a run can be believed, the
milliseconds are this machine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.evaluation.evaluate import Evaluation, SequenceResult
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame, from_bgr
from lighttrack_ros.media import sequences
from lighttrack_ros.trackers.base import Estimate


class Follower(Protocol):
    """What is asked of a tracker here; see `trackers.Tracker`."""

    def init(self, frame: Frame, box: Box) -> None: ...

    def update(self, frame: Frame) -> Estimate: ...

    def idle_work(self) -> bool: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Entrant:
    """One row of the table.

    Attributes:
        ours: a model of this project, not a tracker of OpenCV.
        backend: what runs it.
    """

    name: str
    ours: bool
    backend: str
    tracker: Follower


@dataclass(frozen=True)
class Standing:
    """How one entrant did.

    Attributes:
        evaluation: of all sequences. Its step times are those of the steps that found something: a tracker that
            has given up takes no time.
        cpu_ms: median processor time of those steps, all threads; nan where there is none. Hardly moves where the
            machine does other things too.
        failures: how often the target was lost, see `count_failures`, by sequence.
    """

    entrant: Entrant
    evaluation: Evaluation
    cpu_ms: float
    failures: dict[str, int]


def compare(
    entrants: Sequence[Entrant], with_truth: Sequence[sequences.Sequence], on_frame: Callable[[], object]
) -> list[Standing]:
    """Track every sequence with every entrant, frame by frame; nobody is ever started anew.

    Args:
        with_truth: sequences that have ground truth.
        on_frame: called after every frame.

    Raises:
        LightTrackError: frames and truth do not fit, or a tracker does not start.
    """
    results: list[list[SequenceResult]] = [[] for _ in entrants]
    failures: list[dict[str, int]] = [{} for _ in entrants]
    cpu_seconds: list[list[float]] = [[] for _ in entrants]
    for sequence in with_truth:
        truth = sequence.truth
        if truth is None:
            raise LightTrackError(f"{sequence.name}: no ground truth to compare with")
        for number, track in enumerate(_track(entrants, sequence, on_frame)):
            boxes = np.array(track.boxes, np.float64)
            if len(boxes) != len(truth):
                raise LightTrackError(f"{sequence.name}: {len(boxes)} frames decoded, {len(truth)} lines of truth")
            score = metrics.accuracy(boxes, truth)
            confidences = np.array(track.confidences)
            results[number].append(SequenceResult(sequence.name, boxes, confidences, track.seconds, score))
            failures[number][sequence.name] = count_failures(boxes, truth)
            cpu_seconds[number] += track.cpu_seconds
    return [
        Standing(entrant, Evaluation(rows), 1000 * median(seconds or [math.nan]), lost)
        for entrant, rows, seconds, lost in zip(entrants, results, cpu_seconds, failures, strict=True)
    ]


def count_failures(boxes: NDArray[np.float64], truth: NDArray[np.float64]) -> int:
    """How often a box stops touching its target, over the frames where the target can be seen.

    Args:
        boxes, truth: (N, 4) float64, x, y, width, height; rows of nan where the target cannot be seen.
    """
    seen = np.isfinite(truth).all(axis=1)
    off = metrics.overlaps(boxes[seen], truth[seen]) == 0
    return int(off[:1].sum() + (off[1:] & ~off[:-1]).sum())


@dataclass
class _Track:
    """One entrant's way through one sequence."""

    boxes: list[Box]
    confidences: list[float]
    seconds: list[float]
    cpu_seconds: list[float]


def _track(entrants: Sequence[Entrant], sequence: sequences.Sequence, on_frame: Callable[[], object]) -> list[_Track]:
    tracks = [_Track([sequence.init_box], [1.0], [], []) for _ in entrants]
    for index, image in enumerate(sequence.frames):
        frame = from_bgr(image)
        for turn in range(len(entrants)):
            number = (index + turn) % len(entrants)
            tracker, track = entrants[number].tracker, tracks[number]
            if index == 0:
                tracker.init(frame, sequence.init_box)
                continue
            began, cpu_began = perf_counter(), process_time()
            estimate = tracker.update(frame)
            taken, cpu_taken = perf_counter() - began, process_time() - cpu_began
            track.boxes.append(estimate.box)
            track.confidences.append(estimate.confidence)
            if index > 1 and estimate.confidence > 0:  # in their first step some trackers still set up their networks
                track.seconds.append(taken)
                track.cpu_seconds.append(cpu_taken)
            while tracker.idle_work():
                pass
        on_frame()
    return tracks

"""A DyTrack over sequences in several ways at once: at fixed exits, in its modes, and all exits of every frame.

All ways share the engines and take turns on every frame, so that whatever else the machine does falls on all of
them, and times may be compared.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation import metrics
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame, from_bgr
from lighttrack_ros.media.sequences import Sequence
from lighttrack_ros.models import DyTrackHyperParameters, Model
from lighttrack_ros.trackers.base import Estimate
from lighttrack_ros.trackers.dytrack import DyTrackTracker, ExitPolicy

_LOST = 0.2  # overlap under which the probe starts again from the truth


@dataclass
class Track:
    """One sequence, tracked in one way.

    Attributes:
        boxes: (frames, 4), row 0 the box at the start.
        exits: (frames - 1,) where each frame stopped.
        seconds: (frames - 1,) of the network, from its start to its answer.
        step_seconds: (frames - 1,) of the whole step.
    """

    boxes: list[Box]
    exits: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)

    def accuracy(self, truth: NDArray[np.float64]) -> metrics.Accuracy:
        return metrics.accuracy(np.array(self.boxes, np.float64), truth)


@dataclass
class Probe:
    """What every exit said of every frame, on the way of the last exit; begun again from the truth where that is lost.

    Attributes:
        qualities, overlaps: (frames - 1, exits); of the overlaps with the truth, nan where the target is hidden.
    """

    qualities: NDArray[np.float64]
    overlaps: NDArray[np.float64]


@dataclass(frozen=True)
class Record:
    """One sequence.

    Attributes:
        tracks: by the name of the way.
        probe: see there.
        from_truth: (frames - 1, exits) overlaps where every frame is looked at from the truth of the frame before, so
            that any two models see the same crops; nan where the target is hidden in one of the two.
    """

    sequence: Sequence
    tracks: dict[str, Track]
    probe: Probe
    from_truth: NDArray[np.float64]


def fixed_exits(model: Model) -> dict[str, DyTrackHyperParameters]:
    """`exit 0` and so on: that exit for every frame."""
    own = model.parameters_of(DyTrackHyperParameters)
    never = {own.mode: (math.inf,) * (len(model.search_graphs) - 1)}
    return {f"exit {k}": dataclasses.replace(own, max_exit=k, modes=never) for k in range(len(model.search_graphs))}


def modes_of(model: Model) -> dict[str, DyTrackHyperParameters]:
    """The model's modes, with their guards."""
    own = model.parameters_of(DyTrackHyperParameters)
    return {mode: dataclasses.replace(own, mode=mode) for mode in own.modes}


def record(
    tracker: DyTrackTracker,
    ways: dict[str, DyTrackHyperParameters],
    sequences: Iterable[Sequence],
    on_frame: Callable[[], object] = lambda: None,
) -> list[Record]:
    """Track sequences in all ways, one frame after the other.

    Raises:
        LightTrackError: a sequence without truth.
    """
    return [_record(tracker, ways, sequence, on_frame) for sequence in sequences]


def _record(
    tracker: DyTrackTracker,
    ways: dict[str, DyTrackHyperParameters],
    sequence: Sequence,
    on_frame: Callable[[], object],
) -> Record:
    if sequence.truth is None:
        raise LightTrackError(f"{sequence.name}: no ground truth to evaluate against (only a first box)")
    start = sequence.init_box
    tracks = {name: Track([start]) for name in ways}
    policies = {name: ExitPolicy(parameters) for name, parameters in ways.items()}
    names = list(ways)
    probe_at, qualities, overlaps, from_truth = start, [], [], []
    for number, image in enumerate(sequence.frames):
        frame = from_bgr(image)
        if number == 0:
            tracker.init(frame, start)
            on_frame()
            continue
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            _step(tracker, policies[name], tracks[name], frame)
        before, truth = sequence.truth[number - 1], sequence.truth[number]
        tracker.target = probe_at
        answers = tracker.answers(frame)
        qualities.append([answer.confidence for answer in answers])
        overlaps.append(_overlaps(answers, truth))
        lost = overlaps[-1][-1] < _LOST  # not where the target is hidden: nobody knows
        probe_at = Box(*truth.tolist()) if lost else answers[-1].box
        if np.isfinite(before).all():
            tracker.target = Box(*before.tolist())
            from_truth.append(_overlaps(tracker.answers(frame), truth))
        else:
            from_truth.append(np.full(len(answers), np.nan))
        on_frame()
    return Record(sequence, tracks, Probe(np.array(qualities), np.array(overlaps)), np.array(from_truth))


def _overlaps(answers: list[Estimate], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """(exits,), nan without a truth."""
    if np.isnan(truth).any():
        return np.full(len(answers), np.nan)
    return metrics.overlaps(np.array([answer.box for answer in answers]), np.repeat(truth[None], len(answers), 0))


def _step(tracker: DyTrackTracker, policy: ExitPolicy, track: Track, frame: Frame) -> None:
    tracker.target, tracker.policy = track.boxes[-1], policy
    started = time.perf_counter()
    estimate = tracker.update(frame)
    ended = time.perf_counter()
    track.boxes.append(estimate.box)
    track.exits.append(estimate.exit_index)
    track.step_seconds.append(ended - started)
    network_started, network_ended = estimate.network or (started, ended)
    track.seconds.append(network_ended - network_started)

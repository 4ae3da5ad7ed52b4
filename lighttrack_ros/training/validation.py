"""Validation on held-out videos: the real tracker runs the student, exported as a model folder."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lighttrack_ros.evaluation.evaluate import Evaluation, evaluate_sequence
from lighttrack_ros.export.importer import import_checkpoint
from lighttrack_ros.media.sequences import Sequence
from lighttrack_ros.models import DyTrackHyperParameters, LightTrackHyperParameters, Model, load_model
from lighttrack_ros.trackers import create_tracker

_NEAR_SCORE = 2.0  # log odds; a student that learns on small crops scores there as in large ones


def validate(
    checkpoint: Path, architecture: str | None, sequences: Iterable[Sequence], near_size: int = 0, threads: int = 1
) -> Evaluation:
    """Evaluate a student like `lighttrack evaluate`; a DyTrack in full depth, because its decisions are trained last.

    Args:
        checkpoint: `student.pt` of a run.
        architecture: a LightTrack's path string; None for a DyTrack.
        sequences: those to track.
        near_size: side of the crop that a LightTrack searches first; 0: it searches the whole crop.

    Raises:
        LightTrackError: a sequence is damaged, or the checkpoint does not fit the architecture.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = import_checkpoint(checkpoint, "student", architecture, Path(scratch), checkpoint.name, "not stated")
        tracker = create_tracker(_as_trained(load_model(folder), near_size), "auto", threads)
        try:
            return Evaluation([evaluate_sequence(tracker, sequence) for sequence in sequences])
        finally:
            tracker.close()


def _as_trained(model: Model, near_size: int) -> Model:
    settings = model.hyper_parameters
    if isinstance(settings, DyTrackHyperParameters):
        never = {settings.mode: (float("inf"),) * settings.max_exit}
        return dataclasses.replace(model, hyper_parameters=dataclasses.replace(settings, modes=never))
    if near_size and isinstance(settings, LightTrackHyperParameters):
        settings = dataclasses.replace(settings, near_size=near_size, near_score=_NEAR_SCORE, near_shift=0.0)
    return dataclasses.replace(model, hyper_parameters=settings)

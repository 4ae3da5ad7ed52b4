"""Held-out validation: the student as a real model folder, run by the real tracker over whole videos."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lighttrack_ros.evaluation.evaluate import Evaluation, evaluate_sequence
from lighttrack_ros.export.importer import import_checkpoint
from lighttrack_ros.media.sequences import find_sequences
from lighttrack_ros.models import DyTrackHyperParameters, Model, load_model
from lighttrack_ros.trackers import create_tracker


def validate(
    checkpoint: Path, architecture: str | None, videos: Path, names: Iterable[str], threads: int = 1
) -> Evaluation:
    """What `lighttrack evaluate` says of a student; of a DyTrack in full depth, as its decisions are trained last.

    Args:
        checkpoint: `student.pt` of a run.
        architecture: of a LightTrack its path string; else None.
        videos: a folder of sequences.
        names: those to track.

    Raises:
        LightTrackError: a sequence is missing or damaged, or the checkpoint does not fit the architecture.
    """
    sequences = find_sequences(videos, only=names)
    with tempfile.TemporaryDirectory() as scratch:
        folder = import_checkpoint(checkpoint, "student", architecture, Path(scratch), checkpoint.name, "not stated")
        tracker = create_tracker(_in_full_depth(load_model(folder)), "auto", threads)
        try:
            return Evaluation([evaluate_sequence(tracker, sequence) for sequence in sequences])
        finally:
            tracker.close()


def _in_full_depth(model: Model) -> Model:
    settings = model.hyper_parameters
    if not isinstance(settings, DyTrackHyperParameters):
        return model
    never = {settings.mode: (float("inf"),) * settings.max_exit}
    return dataclasses.replace(model, hyper_parameters=dataclasses.replace(settings, modes=never))

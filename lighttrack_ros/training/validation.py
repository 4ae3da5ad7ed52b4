"""Held-out validation: the student as a real model folder, run by the real tracker over whole videos."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from lighttrack_ros.evaluation.evaluate import Evaluation, evaluate_sequence
from lighttrack_ros.evaluation.sequences import find_sequences
from lighttrack_ros.models import load_model
from lighttrack_ros.networks.importer import import_checkpoint
from lighttrack_ros.trackers import create_tracker


def validate(checkpoint: Path, architecture: str, videos: Path, names: Iterable[str], threads: int = 1) -> Evaluation:
    """What `lighttrack evaluate` says of a student.

    Args:
        checkpoint: `student.pt` of a run.
        architecture: its path string.
        videos: a folder of sequences.
        names: those to track.

    Raises:
        LightTrackError: a sequence is missing or damaged, or the checkpoint does not fit the architecture.
    """
    sequences = find_sequences(videos, only=names)
    with tempfile.TemporaryDirectory() as scratch:
        folder = import_checkpoint(checkpoint, "student", architecture, Path(scratch), checkpoint.name, "not stated")
        tracker = create_tracker(load_model(folder), "auto", threads)
        try:
            return Evaluation([evaluate_sequence(tracker, sequence) for sequence in sequences])
        finally:
            tracker.close()

"""Rewrite a model's graphs from a checkpoint; tuned settings in its folder stay."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.export.importer import plan_of, put_in_place, write_graphs
from lighttrack_ros.models import load_model, save_model


def export_checkpoint(checkpoint: Path, name: str) -> Path:
    """Give a model the weights of a checkpoint, with graphs as this version writes them; returns the folder.

    Hyper-parameters, session settings, licence and all other files of the folder stay.

    Args:
        checkpoint: see `importer.import_checkpoint`.
        name: of the model, or the path of its folder.

    Raises:
        LightTrackError: no such model, a checkpoint of another tracker or architecture, or a folder that cannot be
            written; the model is then unchanged.
    """
    model = load_model(name)
    plan = plan_of(checkpoint, model.architecture if model.tracker == "lighttrack" else None)
    for field in ("tracker", "architecture", "search_sizes"):
        if plan.fields[field] != getattr(model, field):
            raise LightTrackError(
                f"{checkpoint}: {field} is {plan.fields[field]}, {model.name}'s is {getattr(model, field)}"
                " (`lighttrack import` makes a new model)"
            )
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=model.folder.parent) as scratch:
            folder = Path(scratch) / model.folder.name
            shutil.copytree(model.folder, folder)
            provenance = dataclasses.replace(model.provenance, sha256=digest)
            renewed = dataclasses.replace(model, folder=folder, provenance=provenance, scores={})  # the old weights'
            write_graphs(plan, renewed)
            save_model(renewed)
            put_in_place(folder, model.folder)
    except OSError as error:
        raise LightTrackError(f"{model.folder.parent}: cannot be written ({error.strerror})") from error
    return model.folder

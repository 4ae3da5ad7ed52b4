"""Record a run's inputs beside its result: the recipe, this package's commit, and a hash of the data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import lighttrack_ros
from lighttrack_ros.models import find_model
from lighttrack_ros.training.recipe import Recipe


def write_record(recipe: Recipe, target: Path, step: int) -> None:
    """Write `{"commit", "data", "recipe", "step"}` as JSON; a run resumed with a changed recipe writes it again.

    `commit` is null if this package does not run from a git checkout, and ends in "-dirty" if its files were changed.
    `data` is a SHA-256 over the names and contents of all pictures and weights that the run reads.
    """
    record = {
        "commit": commit(),
        "data": data_hash(sources(recipe)),
        "recipe": dataclasses.asdict(recipe),
        "step": step,
    }
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def commit() -> str | None:
    """The git commit from which this package runs."""
    place = Path(lighttrack_ros.__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(place), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def sources(recipe: Recipe) -> list[Path]:
    """Files and folders that a recipe reads."""
    data = recipe.data
    folders = [(data.videos, data.held_out), (data.clips, data.held_out_clips)]
    found = [
        entry
        for folder, held_out in folders
        if folder
        for entry in Path(folder).iterdir()
        if entry.name not in held_out
    ]
    found += [Path(path) for path in (data.photos, data.classes, recipe.teacher.checkpoint) if path]
    if recipe.start:
        found.append(Path(recipe.start) if Path(recipe.start).is_file() else find_model(recipe.start))
    return found


def data_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents, independent of the folders' location and order."""
    lines = []
    for path in paths:
        for file in [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file()):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            lines.append(f"{digest} {file.relative_to(path.parent)}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()

"""Run a recipe; the result is a checkpoint that `lighttrack import` turns into a model folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.sequences import Sequence, find_sequences
from lighttrack_ros.training import dytrack, lighttrack, mixformerv2
from lighttrack_ros.training.data import Clip, Library, generate_scenes, read_clips, read_photos, read_videos
from lighttrack_ros.training.distill import Supply
from lighttrack_ros.training.pairs import CROPPINGS, PairSource
from lighttrack_ros.training.recipe import SEARCHED, DataSettings, Recipe
from lighttrack_ros.training.record import write_record
from lighttrack_ros.training.supernet import classes, objective
from lighttrack_ros.training.supernet.classes import ClassSource
from lighttrack_ros.training.trainer import Trainer
from lighttrack_ros.training.validation import validate

# Each prepares a student of its kind.
_STUDENTS = {
    ("lighttrack", "student"): lighttrack,
    ("lighttrack", "classes"): classes,
    ("lighttrack", "supernet"): objective,
    ("dytrack", "student"): dytrack,
    ("mixformerv2", "student"): mixformerv2,
}


def train_stages(
    stages: Mapping[str, Recipe],
    output: Path,
    devices: int = 1,
    machines: int = 1,
    accelerator: str = "auto",
    threads: int = 1,
    validating: bool = True,
) -> Path:
    """Run a recipe's stages, each in its folder of `output`, as far as they are not done; returns the last student.

    Args:
        stages: see `recipe.read_stages`.
        devices: GPUs, or processes on a CPU, of each machine.
        accelerator: Lightning Fabric's name: auto, cpu, cuda.
        threads: CPU threads of each training process.
        validating: whether students track the held-out videos now and then.

    Raises:
        LightTrackError: a path of a recipe is wrong, a student cannot start from what the recipe says, or a folder
            holds a run of another recipe.
    """
    fabric = _launched(list(stages.values()), devices, machines, accelerator, threads)
    pictures: dict[DataSettings, list[Clip]] = {}
    for name, recipe in stages.items():
        if recipe.start == SEARCHED:
            raise LightTrackError(f"start: {SEARCHED} is known only to lighttrack search, which trains it from there")
        folder = output / name
        if done(recipe, folder):
            continue
        if recipe.data not in pictures and recipe.method != "classes":
            pictures[recipe.data] = read_pictures(recipe)
        _train(fabric, recipe, folder, pictures.get(recipe.data, []), threads, validating)
    return folder / "student.pt"


def _launched(recipes: list[Recipe], devices: int, machines: int, accelerator: str, threads: int) -> Fabric:
    torch.set_num_threads(threads)
    precision = {recipe.precision for recipe in recipes}
    if len(precision) > 1:
        raise LightTrackError(f"precision: {', '.join(sorted(precision))} in one recipe, expected one for all stages")
    # Of a supernet each step leaves most layers out.
    several = "ddp_find_unused_parameters_true" if any(recipe.method != "student" for recipe in recipes) else "ddp"
    fabric = Fabric(
        accelerator=accelerator,
        strategy="auto" if devices * machines == 1 else several,
        devices=devices,
        num_nodes=machines,
        precision=cast(Any, precision.pop()),
    )
    fabric.launch()
    return fabric


def done(recipe: Recipe, folder: Path) -> bool:
    """Whether a run has come to its end with this recipe."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    same = record.get("recipe") == json.loads(json.dumps(dataclasses.asdict(recipe)))
    return same and record.get("step") == recipe.steps and (folder / "student.pt").is_file()


def _train(fabric: Fabric, recipe: Recipe, folder: Path, pictures: list[Clip], threads: int, validating: bool) -> None:
    held_out = held_out_sequences(recipe) if validating else []
    trainer = build(fabric, recipe, folder, pictures)
    if fabric.is_global_zero:
        write_record(recipe, folder / "run.json", trainer.step)
    while trainer.step < recipe.steps:
        trainer.run(until=trainer.step - trainer.step % recipe.validate_every + recipe.validate_every)
        if held_out and trainer.objective.tracks and fabric.is_global_zero:
            _validate(recipe, held_out, folder, trainer.step, threads)
        fabric.barrier()
    if fabric.is_global_zero:
        write_record(recipe, folder / "run.json", trainer.step)


def build(fabric: Fabric, recipe: Recipe, folder: Path, pictures: list[Clip]) -> Trainer:
    """Load the teacher, make the student, and take up the run in `folder`.

    Args:
        pictures: of the recipe; method classes reads its own.

    Raises:
        LightTrackError: a path of the recipe is wrong, or the student cannot start from what the recipe says.
    """
    fabric.seed_everything(recipe.seed, verbose=False)
    if (recipe.tracker, recipe.method) not in _STUDENTS:
        raise LightTrackError(f"method {recipe.method}: not for the tracker {recipe.tracker}")
    # With workers the pairs are made in other processes, which have no business on the training device.
    device = torch.device("cpu") if recipe.workers else fabric.device
    source: Any
    if recipe.method == "classes":
        source = ClassSource(Path(recipe.data.classes), recipe.pairs.template_size, recipe.seed, device)
    else:
        source = PairSource(Library(pictures, device), recipe.pairs, recipe.seed, CROPPINGS[recipe.tracker])
    student, teacher = _STUDENTS[recipe.tracker, recipe.method].prepare(recipe, source, device)
    cache = Path(recipe.teacher.cache) if recipe.teacher.cache and recipe.method != "classes" else None
    return Trainer(fabric, student, Supply(source, teacher, cache, recipe.pairs_count), recipe, folder)


def held_out_sequences(recipe: Recipe) -> list[Sequence]:
    """The videos and clips of a recipe that are kept for validation.

    Raises:
        LightTrackError: one is missing or damaged.
    """
    data = recipe.data
    folders = [(data.videos, data.held_out), (data.clips, data.held_out_clips)]
    return [found for folder, names in folders if names for found in find_sequences(Path(folder), only=names)]


def _validate(recipe: Recipe, held_out: list[Sequence], folder: Path, step: int, threads: int) -> None:
    """Track the held-out videos, add the result to validation.csv, and keep the best student as best.pt."""
    table, student = folder / "validation.csv", folder / "student.pt"
    earlier = table.read_text().splitlines()[1:] if table.is_file() else []
    best = max((float(line.split(",")[1]) for line in earlier), default=-1.0)
    architecture = recipe.architecture if recipe.tracker == "lighttrack" else None
    near = min(recipe.windows, default=recipe.pairs.search_size)
    mean = validate(student, architecture, held_out, near if near < recipe.pairs.search_size else 0, threads).mean
    if not earlier:
        table.write_text("step,auc,sr50,precision20\n")
    with table.open("a") as file:
        file.write(f"{step},{mean.auc:.4f},{mean.sr50:.4f},{mean.precision20:.4f}\n")
    print(f"step {step}: success AUC {mean.auc:.3f} on {len(held_out)} held-out videos")
    if mean.auc > best:
        shutil.copyfile(student, folder / "best.pt")


def read_pictures(recipe: Recipe) -> list[Clip]:
    """The training pictures of a recipe, without the held-out videos."""
    data = recipe.data
    clips: list[Clip] = []
    if data.clips:
        cache, every = Path(data.clips_cache), data.clips_every
        clips += read_clips(Path(data.clips), cache, exclude=data.held_out_clips, every=every, side=data.side)
    if data.videos:
        clips += read_videos(Path(data.videos), exclude=data.held_out, side=data.side)
    if data.photos:
        clips += read_photos(Path(data.photos), side=data.side)
    if data.scenes:
        clips += generate_scenes(data.scenes, recipe.seed, data.side)
    return clips

"""Run a recipe; the result is a checkpoint that `lighttrack import` turns into a model folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.sequences import Sequence, find_sequences
from lighttrack_ros.training import dytrack, lighttrack
from lighttrack_ros.training.data import Clip, Library, generate_scenes, read_clips, read_photos, read_videos
from lighttrack_ros.training.distill import Supply
from lighttrack_ros.training.pairs import CROPPINGS, PairSource
from lighttrack_ros.training.recipe import Recipe
from lighttrack_ros.training.record import write_record
from lighttrack_ros.training.supernet import objective
from lighttrack_ros.training.trainer import Trainer
from lighttrack_ros.training.validation import validate

# Each prepares a student of its kind.
_STUDENTS = {
    ("lighttrack", "student"): lighttrack,
    ("lighttrack", "supernet"): objective,
    ("dytrack", "student"): dytrack,
}


def train(
    recipe: Recipe, output: Path, devices: int = 1, machines: int = 1, accelerator: str = "auto", threads: int = 1
) -> Path:
    """Run a recipe to its end, or continue the unfinished run in `output`; returns the student's checkpoint.

    Args:
        devices: GPUs, or processes on a CPU, of each machine.
        accelerator: Lightning Fabric's name: auto, cpu, cuda.
        threads: CPU threads of each training process.

    Raises:
        LightTrackError: a path of the recipe is wrong, the student cannot inherit from the teacher, or `output` holds
            a run of another recipe.
    """
    torch.set_num_threads(threads)
    supernet = recipe.method == "supernet"
    fabric = Fabric(
        accelerator=accelerator,
        # Of a supernet each step leaves most layers out.
        strategy="auto" if devices * machines == 1 else "ddp_find_unused_parameters_true" if supernet else "ddp",
        devices=devices,
        num_nodes=machines,
        precision=cast(Any, recipe.precision),
    )
    fabric.launch()
    held_out = held_out_sequences(recipe)
    trainer = build(fabric, recipe, output)
    if fabric.is_global_zero:
        write_record(recipe, output / "run.json")
    while trainer.step < recipe.steps:
        trainer.run(until=trainer.step - trainer.step % recipe.validate_every + recipe.validate_every)
        if held_out and not supernet and fabric.is_global_zero:
            _validate(recipe, held_out, output, trainer.step, threads)
        fabric.barrier()
    return output / "student.pt"


def build(fabric: Fabric, recipe: Recipe, folder: Path) -> Trainer:
    """Load pictures and teacher, make the student, and take up the run in `folder`.

    Raises:
        LightTrackError: a path of the recipe is wrong, or the student cannot inherit from the teacher.
    """
    fabric.seed_everything(recipe.seed, verbose=False)
    # With workers the pairs are made in other processes, which have no business on the training device.
    pair_device = torch.device("cpu") if recipe.workers else fabric.device
    source = PairSource(
        Library(read_pictures(recipe), pair_device), recipe.pairs, recipe.seed, CROPPINGS[recipe.tracker]
    )
    if (recipe.tracker, recipe.method) not in _STUDENTS:
        raise LightTrackError(f"method {recipe.method}: not for the tracker {recipe.tracker}")
    student, teacher = _STUDENTS[recipe.tracker, recipe.method].prepare(recipe, source, pair_device)
    cache = Path(recipe.teacher.cache) if recipe.teacher.cache else None
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


def read_held_out(recipe: Recipe) -> list[Clip]:
    """The pictures of a recipe that are kept for validation.

    Raises:
        LightTrackError: there are none, or one is missing or damaged.
    """
    data = recipe.data
    clips: list[Clip] = []
    if data.held_out:
        clips += read_videos(Path(data.videos), include=data.held_out, side=data.side)
    if data.held_out_clips:
        cache, every = Path(data.clips_cache), data.clips_every
        clips += read_clips(Path(data.clips), cache, include=data.held_out_clips, every=every, side=data.side)
    if not clips:
        raise LightTrackError("data: held_out and held_out_clips are empty: paths are compared on held-out videos")
    return clips

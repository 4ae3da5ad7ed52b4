"""`lighttrack train`: run a recipe; the result is a checkpoint that `lighttrack import` turns into a model folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.training.recipe import read_stages
from lighttrack_ros.training.train import train_stages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="a YAML file such as lighttrack_ros/training/recipes/nano.yaml")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run; continues an unfinished run")
    parser.add_argument("--devices", type=int, default=1, help="GPUs, or processes on a CPU, of each machine")
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each training process")


def run(args: argparse.Namespace) -> int:
    stages = read_stages(args.recipe, args.output)
    for name in ("devices", "machines", "threads"):
        if getattr(args, name) < 1:
            raise LightTrackError(f"--{name} is {getattr(args, name)}, expected at least 1")
    student = train_stages(stages, args.output, args.devices, args.machines, args.accelerator, args.threads)
    last = list(stages.values())[-1]
    of = f" --architecture {last.architecture}" if last.tracker == "lighttrack" else ""
    print(f"{student}: make it a model with\n  lighttrack import {student}{of} --name NAME")
    return 0

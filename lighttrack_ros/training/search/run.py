"""A search from a recipe to model folders: train the supernet, measure this device, try paths, write the front."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.export.importer import import_checkpoint
from lighttrack_ros.training.folding import official_state
from lighttrack_ros.training.held_out import held_out_pairs
from lighttrack_ros.training.recipe import SEARCHED, Recipe
from lighttrack_ros.training.search.evolution import Cost, Found, Limits, accuracy_of, evolve
from lighttrack_ros.training.search.latency import LatencyModel, Timing, measure_latency, measure_paths
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.objective import load_supernet
from lighttrack_ros.training.supernet.space import Space
from lighttrack_ros.training.train import train_stages


def trained_supernet(
    stages: Mapping[str, Recipe], folder: Path, threads: int = 1
) -> tuple[Supernet, Space, Recipe, dict[str, Recipe]]:
    """The supernet of a recipe with averaged weights; its stages are trained in `folder` as far as they are not yet.

    Returns:
        the supernet, its space, its last stage, and the stages that come after it: what the winner goes through.

    Raises:
        LightTrackError: the recipe has no stage of method supernet, or its paths are wrong.
    """
    names = list(stages)
    last = max((k for k, name in enumerate(names) if stages[name].method == "supernet"), default=None)
    if last is None:
        raise LightTrackError("method: no stage of the recipe is 'supernet'; expected one to search")
    until = {name: stages[name] for name in names[: last + 1]}
    recipe = stages[names[last]]
    checkpoint = train_stages(until, folder, accelerator="cpu", threads=threads)
    supernet, space = load_supernet(recipe, checkpoint)
    return supernet, space, recipe, {name: stages[name] for name in names[last + 1 :]}


def device_latency(supernet: Supernet, space: Space, timing: Timing, folder: Path) -> LatencyModel:
    """Of this device; what was measured before, in the same way and kept in `folder`, is read again."""
    settings = json.dumps([dataclasses.asdict(timing), space.base])
    path = folder / f"latency-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.json"
    if path.is_file():
        return LatencyModel(**json.loads(path.read_text())["model"])
    model = measure_latency(supernet, space, timing)
    document = {"timing": dataclasses.asdict(timing), "base": space.base, "model": dataclasses.asdict(model)}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return model


def prediction_errors(
    supernet: Supernet, space: Space, model: LatencyModel, timing: Timing, count: int = 20, seed: int = 99
) -> list[float]:
    """Predicted by measured time, less 1, of so many random paths that the model was not fitted on."""
    rng = np.random.default_rng(seed)
    paths = [space.random_path(rng) for _ in range(count)]
    measured = measure_paths(supernet, paths, timing)
    return [model.predict(path) / ms - 1 for path, ms in zip(paths, measured, strict=True)]


def path_cost(supernet: Supernet, model: LatencyModel, path: str, side: int) -> Cost:
    """Time by the model, the rest counted."""
    network = supernet.network(path)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        template = network.template_features(torch.zeros(1, 3, 128, 128))
        before = counter.get_total_flops()
        network(template, torch.zeros(1, 3, side, side))
    parameters = sum(tensor.numel() for tensor in network.parameters())
    return Cost(model.predict(path), (counter.get_total_flops() - before) / 2e6, parameters / 1e6)


class Searched(NamedTuple):
    """What a search has found.

    Attributes:
        found: all paths tried that keep the limits, the fastest first.
        supernet, space, model: see their classes.
        after: the recipe's stages after the supernet's.
    """

    found: list[Found]
    supernet: Supernet
    space: Space
    model: LatencyModel
    after: dict[str, Recipe]


def search(
    stages: Mapping[str, Recipe], folder: Path, limits: Limits, timing: Timing, trials: int, population: int = 32
) -> Searched:
    """Train, measure, try paths; whatever of it is in `folder` already is not done again.

    Raises:
        LightTrackError: see `trained_supernet` and `evolution.evolve`.
    """
    supernet, space, recipe, after = trained_supernet(stages, folder, timing.threads or 1)
    model = device_latency(supernet, space, timing, folder)
    pairs = held_out_pairs(recipe, timing.side)
    found = evolve(
        space,
        lambda path: path_cost(supernet, model, path, timing.side),
        lambda path: accuracy_of(supernet, path, pairs),
        limits,
        trials,
        folder / f"search-{timing.backend}-{timing.side}.journal",
        population,
        recipe.seed,
    )
    return Searched(found, supernet, space, model, after)


def retrain(after: Mapping[str, Recipe], winner: Found, model: Path, folder: Path, threads: int) -> Path:
    """Take a path through the stages after the supernet's; returns the last student's checkpoint.

    Args:
        winner: the path.
        model: its folder of `write_models`, from which the first such stage starts.

    Raises:
        LightTrackError: see `train.train_stages`.
    """
    stages = {}
    for name, recipe in after.items():
        start = str(model) if recipe.start == SEARCHED else recipe.start
        stages[name] = dataclasses.replace(recipe, architecture=winner.path, start=start)
    return train_stages(stages, folder, accelerator="cpu", threads=threads)


def write_models(supernet: Supernet, found: Sequence[Found], folder: Path, prefix: str) -> list[Path]:
    """A model folder of each path, as it is in the supernet: a start for its training (`start:` of a recipe).

    Raises:
        LightTrackError: the folder cannot be written.
    """
    folders = []
    for number, item in enumerate(found):
        checkpoint = folder / f"{prefix}_{number}.pt"
        torch.save(official_state(supernet.network(item.path)), checkpoint)
        source = f"searched by lighttrack_ros: {item.path}, {item.cost.ms:.2f} ms"
        folders.append(
            import_checkpoint(checkpoint, f"{prefix}_{number}", item.path, folder / "engines", source, "not stated")
        )
        checkpoint.unlink()
    return folders

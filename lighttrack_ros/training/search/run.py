"""A search from a recipe to model folders: train the supernet, measure this device, try paths, write the front."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.flop_counter import FlopCounterMode

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.export.importer import import_checkpoint
from lighttrack_ros.networks.lighttrack import MOBILE
from lighttrack_ros.training.data import Library
from lighttrack_ros.training.folding import official_state
from lighttrack_ros.training.pairs import Batch, PairSource
from lighttrack_ros.training.recipe import Recipe
from lighttrack_ros.training.search.evolution import Cost, Found, Limits, accuracy_of, evolve
from lighttrack_ros.training.search.latency import LatencyModel, Timing, measure_latency, measure_paths
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.space import Space
from lighttrack_ros.training.train import build, read_held_out, train

_PAIRS = 192  # held-out pairs on which paths are compared
_SEED = 12345  # of these pairs


def trained_supernet(recipe: Recipe, folder: Path, threads: int = 1) -> tuple[Supernet, Space]:
    """The supernet of a recipe with averaged weights; it is trained in `folder` as far as it is not yet.

    Raises:
        LightTrackError: the recipe is of another method, or its paths are wrong.
    """
    if recipe.method != "supernet":
        raise LightTrackError(f"method is {recipe.method!r}, expected 'supernet' to search")
    train(recipe, folder, accelerator="cpu", threads=threads)
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    supernet = build(fabric, dataclasses.replace(recipe, workers=0), folder).average
    if not isinstance(supernet, Supernet):
        raise LightTrackError(f"{folder}: holds no supernet")
    return supernet.eval(), Space(recipe.teacher.architecture or MOBILE)


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


def held_out_pairs(recipe: Recipe, side: int) -> Batch:
    """Pairs of held-out videos with search crops of that side, the same in every call."""
    settings = dataclasses.replace(
        recipe.pairs, video=1.0, photo=0.0, patch=0.0, absent=0.0, look_alike=0.0, occlusion=0.0, hard=0.0,
        search_size=side, shift=0.25 * side,
    )  # fmt: skip
    source = PairSource(Library(read_held_out(recipe), torch.device("cpu")), settings, _SEED)
    return source.batch(list(range(_PAIRS)))


def path_cost(supernet: Supernet, model: LatencyModel, path: str, side: int) -> Cost:
    """Time by the model, the rest counted."""
    network = supernet.network(path)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        template = network.template_features(torch.zeros(1, 3, 128, 128))
        before = counter.get_total_flops()
        network(template, torch.zeros(1, 3, side, side))
    parameters = sum(tensor.numel() for tensor in network.parameters())
    return Cost(model.predict(path), (counter.get_total_flops() - before) / 2e6, parameters / 1e6)


def search(
    recipe: Recipe, folder: Path, limits: Limits, timing: Timing, trials: int, population: int = 32
) -> tuple[list[Found], Supernet, Space, LatencyModel]:
    """All paths tried that keep the limits, the fastest first; whatever of it is in `folder` already is not done again.

    Raises:
        LightTrackError: see `trained_supernet` and `evolution.evolve`.
    """
    supernet, space = trained_supernet(recipe, folder, timing.threads or 1)
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
    return found, supernet, space, model


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

"""Training of a supernet: in each step one path, drawn uniformly, learns on the batch (single-path one-shot)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lighttrack_ros.networks.checkpoint import load_strictly
from lighttrack_ros.networks.lighttrack import MOBILE, Architecture, LightTrack, load_checkpoint, read_checkpoint
from lighttrack_ros.training.distill import Labeller, Teacher, normalise
from lighttrack_ros.training.lighttrack import LightTrackObjective
from lighttrack_ros.training.pairs import Batch, PairSource
from lighttrack_ros.training.recipe import Recipe
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.space import Space
from lighttrack_ros.training.trainer import Objective

_IMAGES = 32  # over which the teacher's magnitudes and gates are averaged


def prepare(recipe: Recipe, source: PairSource, device: torch.device) -> tuple[Objective, Labeller | None]:
    """The supernet with its losses, and the teacher, if there is one.

    Raises:
        LightTrackError: see `new_supernet`.
    """
    supernet, space = new_supernet(recipe, normalise(source.batch(list(range(_IMAGES))).search).cpu())
    objective = SupernetObjective(supernet, space, recipe)
    if not recipe.teacher.checkpoint:
        return objective, None
    return objective, Teacher(_base(recipe, space), device)


def new_supernet(recipe: Recipe, images: Tensor) -> tuple[Supernet, Space]:
    """The supernet with which a recipe starts, and its space.

    With `teacher: inherit` its layers are the teacher's, cut in all ways; else those of a fresh network, scaled so that
    the images' activations have unit variance, because paths have no batch norms. `start` is a supernet's checkpoint.

    Args:
        images: (B, 3, n, n), normalised, B 2 or more.

    Raises:
        LightTrackError: the teacher does not fit its architecture, or that is no base for a search, or `start` is of
            another space.
    """
    space = Space(recipe.teacher.architecture or MOBILE)
    if recipe.teacher.checkpoint and recipe.teacher.inherit:
        base = _base(recipe, space)
    else:
        base = _with_statistics(LightTrack(Architecture.parse(space.base)), images)
    supernet = Supernet(space, base, images)
    if recipe.start:
        load_strictly(supernet, read_checkpoint(Path(recipe.start)), f"a supernet of {space.base}")
    return supernet, space


def load_supernet(recipe: Recipe, checkpoint: Path) -> tuple[Supernet, Space]:
    """A trained supernet, in evaluation mode, and its space.

    Raises:
        LightTrackError: see `new_supernet`.
    """
    start = dataclasses.replace(recipe, start=str(checkpoint))
    supernet, space = new_supernet(start, torch.randn(2, 3, 64, 64))
    return supernet.eval(), space


def _base(recipe: Recipe, space: Space) -> LightTrack:
    return load_checkpoint(Path(recipe.teacher.checkpoint), Architecture.parse(space.base))


@torch.no_grad()
def _with_statistics(network: LightTrack, images: Tensor) -> LightTrack:
    """In evaluation mode, batch norms with the statistics of the images."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    template = network.train().template_features(nn.functional.interpolate(images, (128, 128)))
    network(template, images)
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


class SupernetObjective(Objective):
    """The losses of a single LightTrack, on the path of the step."""

    tracks = False

    def __init__(self, network: Supernet, space: Space, recipe: Recipe) -> None:
        super().__init__(network)
        self.network: Supernet = network
        self._space, self._recipe = space, recipe
        self._single: tuple[LightTrackObjective, ...] = ()  # of the step; in a tuple, lest it counts as a part of this

    def seen(self, batch: Batch, targets: Any, step: int) -> tuple[Batch, Any]:
        # From the step alone, so that a run that goes on draws what it would have drawn.
        path = self._space.random_path(np.random.default_rng((self._recipe.seed, step)))
        self._single = (LightTrackObjective(self.network.network(path), self._recipe),)
        return self._single[0].seen(batch, targets, step)

    def fresh(self, name: str) -> bool:
        return name.startswith(("layers.cls", "layers.reg"))

    def published(self, network: nn.Module) -> dict[str, Tensor]:
        return dict(network.state_dict())

    def forward(self, batch: Batch, targets: Any) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self._single[0](batch, targets)
        return losses

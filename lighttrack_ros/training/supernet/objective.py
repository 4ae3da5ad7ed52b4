"""Training of a supernet: in each step one path, drawn uniformly, learns on the batch (single-path one-shot)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.lighttrack import MOBILE, Architecture, load_checkpoint
from lighttrack_ros.training.distill import Labeller, Teacher, normalise
from lighttrack_ros.training.lighttrack import LightTrackObjective
from lighttrack_ros.training.pairs import Batch, PairSource
from lighttrack_ros.training.recipe import Recipe
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.space import Space
from lighttrack_ros.training.trainer import Objective

_IMAGES = 32  # over which the teacher's magnitudes and gates are averaged


def prepare(recipe: Recipe, source: PairSource, device: torch.device) -> tuple[Objective, Labeller | None]:
    """The supernet under the recipe's teacher with its losses, and that teacher.

    Raises:
        LightTrackError: there is no teacher, it does not fit its architecture, or that is no base for a search.
    """
    if not recipe.teacher.checkpoint:
        raise LightTrackError("method supernet: needs a teacher's checkpoint, whose layers it starts from")
    architecture = recipe.teacher.architecture or MOBILE
    path = Path(recipe.teacher.checkpoint)
    teacher = load_checkpoint(path, Architecture.parse(architecture), recipe.pairs.template_size)
    space = Space(architecture)
    supernet = Supernet(space, teacher, normalise(source.batch(list(range(_IMAGES))).search).cpu())
    return SupernetObjective(supernet, space, recipe), Teacher(teacher, device)


class SupernetObjective(Objective):
    """The losses of a single LightTrack, on the path of the step."""

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

"""Training of LightTrack: its losses, and those against a teacher of its own kind."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lighttrack_ros.networks.lighttrack import MOBILE, Architecture, LightTrack, load_checkpoint
from lighttrack_ros.training.distill import Labeller, Targets, Teacher, normalise
from lighttrack_ros.training.folding import official_state
from lighttrack_ros.training.losses import (
    box_loss,
    classification_loss,
    feature_distillation,
    labels,
    map_distillation,
    trusted,
)
from lighttrack_ros.training.pairs import Batch, PairSource
from lighttrack_ros.training.prune import inherit
from lighttrack_ros.training.recipe import LossWeights, Recipe
from lighttrack_ros.training.trainer import Objective


def prepare(recipe: Recipe, source: PairSource, device: torch.device) -> tuple[Objective, Labeller | None]:
    """The student with its losses, and the teacher that labels its pairs, on `device`.

    Raises:
        LightTrackError: a checkpoint does not fit, or the student cannot inherit from the teacher.
    """
    student = LightTrack(Architecture.parse(recipe.architecture), recipe.pairs.template_size)
    objective = LightTrackObjective(student, recipe.losses)
    if not recipe.teacher.checkpoint:
        return objective, None
    path = Architecture.parse(recipe.teacher.architecture or MOBILE)
    network = load_checkpoint(Path(recipe.teacher.checkpoint), path, recipe.pairs.template_size)
    if recipe.teacher.inherit:
        inherit(student, network, normalise(source.batch(list(range(32))).search).cpu())
    return objective, Teacher(network, device)


class LightTrackObjective(Objective):
    """Losses against the annotated boxes, and against a teacher's maps and features where there is one."""

    def __init__(self, network: LightTrack, weights: LossWeights) -> None:
        super().__init__(network)
        self.network: LightTrack = network
        self._weights = weights

    def fresh(self, name: str) -> bool:
        return name.startswith("head.")

    def published(self, network: nn.Module) -> dict[str, Tensor]:
        return official_state(network)

    def forward(self, batch: Batch, targets: Targets | None) -> dict[str, Tensor]:
        network, w = self.network, self._weights
        template = network.template_features(normalise(batch.template))
        search = network.search_features(normalise(batch.search))
        # Each search crop is also matched against its neighbour's template, which it does not show.
        fused = network.feature_fusor(torch.cat([template, template.roll(1, 0)]), torch.cat([search, search]))
        logits, strangers = network.head.cls_logits(fused).float().chunk(2)
        distances = network.head.reg_distances(fused[: len(search)]).float()
        label = labels(batch, logits.shape[-1])
        exact = label.positive * batch.exact[:, None, None, None]
        losses = {
            "cls": w.cls * classification_loss(logits, label),
            "box": w.box * box_loss(distances, label.distances, exact),
            "stranger": w.stranger * torch.nn.functional.softplus(strangers).mean(),
        }
        if targets is not None:
            score, sides = map_distillation(logits, distances, targets, trusted(targets, label))
            losses |= {"teacher_cls": w.teacher_cls * score, "teacher_box": w.teacher_box * sides}
            losses["teacher_template"] = w.teacher_features * feature_distillation(template, targets.template, 2)
            losses["teacher_search"] = w.teacher_features * feature_distillation(search, targets.search, 1)
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses

"""Training of LightTrack: losses against annotated boxes, and against a LightTrack teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.models import load_model
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
from lighttrack_ros.training.recipe import Recipe
from lighttrack_ros.training.start import read_graphs
from lighttrack_ros.training.trainer import Objective
from lighttrack_ros.training.windows import cut_windows


def prepare(recipe: Recipe, source: PairSource, device: torch.device) -> tuple[Objective, Labeller | None]:
    """The student with its losses, and the teacher that labels its pairs, on `device`.

    Raises:
        LightTrackError: a checkpoint or the start model does not fit, or the student cannot inherit from the teacher.
    """
    student = _student(recipe)
    objective = LightTrackObjective(student, recipe)
    if not recipe.teacher.checkpoint:
        return objective, None
    path = Architecture.parse(recipe.teacher.architecture or MOBILE)
    network = load_checkpoint(Path(recipe.teacher.checkpoint), path, recipe.pairs.template_size)
    if recipe.teacher.inherit and not recipe.start:
        inherit(student, network, normalise(source.batch(list(range(32))).search).cpu())
    return objective, Teacher(network, device)


def _student(recipe: Recipe) -> LightTrack:
    architecture = Architecture.parse(recipe.architecture)
    for side in recipe.windows:
        if side % (2 * architecture.stride) or not side <= recipe.pairs.search_size:
            raise LightTrackError(
                f"windows: {side}, expected multiples of {2 * architecture.stride} up to the search crop's"
                f" {recipe.pairs.search_size}"
            )
    if not recipe.start:
        return LightTrack(architecture, recipe.pairs.template_size)
    model = load_model(recipe.start)
    if model.architecture != recipe.architecture:
        raise LightTrackError(f"start: {model.folder} is {model.architecture}, the recipe's is {recipe.architecture}")
    return read_graphs(model)


class LightTrackObjective(Objective):
    """Losses against the annotated boxes and, if there is a teacher, against its maps and features."""

    def __init__(self, network: LightTrack, recipe: Recipe) -> None:
        super().__init__(network)
        self.network: LightTrack = network
        self._weights, self._windows, self._seed = recipe.losses, recipe.windows, recipe.seed
        self._goes_on = bool(recipe.start)

    def train(self, mode: bool = True) -> LightTrackObjective:
        super().train(mode)
        if self._goes_on:  # keep the statistics: they come from more data than this run sees per crop size
            self.network.neck.eval()
        return self

    def seen(self, batch: Batch, targets: Any, step: int) -> tuple[Batch, Any]:
        side = self._windows[step % len(self._windows)] if self._windows else batch.search.shape[-1]
        if side == batch.search.shape[-1]:
            return batch, targets
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + step)
        # Windows begin at cells of both the student's map and the teacher's.
        stride = self.network.architecture.stride
        cells = batch.search.shape[-1] // stride if targets is None else targets.logits.shape[-1]
        return cut_windows(batch, targets, side, max(stride, batch.search.shape[-1] // cells), generator)

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
            # Where one map is finer, each cell of the coarser lies on every second of its cells.
            ours, of_teacher = logits.shape[-1], targets.logits.shape[-1]
            finer = slice(None, None, max(1, ours // of_teacher))
            logits, distances = logits[..., finer, finer], distances[..., finer, finer]
            score, sides = map_distillation(logits, distances, targets, trusted(targets, labels(batch, of_teacher)))
            losses |= {"teacher_cls": w.teacher_cls * score, "teacher_box": w.teacher_box * sides}
            # A path of a search may end in another stage than the teacher; its features then learn from the maps alone.
            weight = w.teacher_features * (template.shape == targets.template.shape)
            for name, made, wanted, channel_dim in (
                ("teacher_template", template, targets.template, 2),
                ("teacher_search", search, targets.search, 1),
            ):
                distance = feature_distillation(made, wanted, channel_dim) if weight else made.new_zeros(())
                losses[name] = weight * distance
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses

"""Training of DyTrack: first all exits together, where early exits learn from the last; then only the decisions."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.dytrack import Architecture, DyTrack, Passed, Prediction, load
from lighttrack_ros.networks.lighttrack import MOBILE, load_checkpoint, read_checkpoint
from lighttrack_ros.networks.lighttrack import Architecture as LightTrackArchitecture
from lighttrack_ros.training.distill import Labeller, normalise
from lighttrack_ros.training.dytrack_losses import (
    decision_loss,
    exit_losses,
    imitation,
    iou,
    relation,
    target_mask,
    true_box,
    worth_imitating,
)
from lighttrack_ros.training.feature_teacher import Features, FeatureTeacher, reading_loss
from lighttrack_ros.training.pairs import Batch, PairSource
from lighttrack_ros.training.recipe import DyTrackSettings, Recipe
from lighttrack_ros.training.trainer import Objective
from lighttrack_ros.training.transformer_start import start_from_pictures

_FIRST_WEIGHT = 0.4  # of the first exit's losses; rises linearly to 1 at the last exit
_TEACHER_SIZES = 96, 192  # sides of the teacher's crops; its usual 128 and 256 would double the time of a pair


def prepare(recipe: Recipe, source: PairSource, device: torch.device) -> tuple[Objective, Labeller | None]:
    """The student with its losses, and the labeller of its pairs, on `device`.

    Raises:
        LightTrackError: the architecture or a checkpoint does not fit.
    """
    architecture = Architecture.parse(recipe.architecture)
    settings = recipe.dytrack
    if (architecture.template_size, architecture.search_size) != (
        source.settings.template_size,
        source.settings.search_size,
    ):
        raise LightTrackError(f"pairs: template_size and search_size are not those of {architecture}")
    if recipe.start:
        network = load(read_checkpoint(Path(recipe.start)))
        if network.architecture != architecture:
            raise LightTrackError(f"{recipe.start}: is {network.architecture}, the recipe asks for {architecture}")
    else:
        network = DyTrack(architecture)
        images = normalise(source.batch(list(range(64))).search).cpu()
        start_from_pictures(network.patch_embed, network.blocks, images)
        _place_tokens(network)
    if settings.stage == "decisions":
        return Decisions(network), FrozenNetwork(network, device)
    if not recipe.teacher.checkpoint:
        return Exits(network, settings, 0), None
    path = LightTrackArchitecture.parse(recipe.teacher.architecture or MOBILE)
    teacher = load_checkpoint(Path(recipe.teacher.checkpoint), path)
    labeller = FeatureTeacher(teacher, *_TEACHER_SIZES, device)
    return Exits(network, settings, labeller.channels), labeller


def _place_tokens(network: DyTrack) -> None:
    """Position tables become waves; a vector marks template tokens."""
    with torch.no_grad():
        for table in (network.pos_embed_template, network.pos_embed_search):
            table.copy_(0.3 * _waves(table.shape[1], table.shape[2]))
        network.pos_embed_template.add_(0.3 * torch.randn(network.architecture.channels))


class Exits(Objective):
    """Losses of every exit; with `distillation` also those of the early exits against the last one.

    The decisions are not trained here.

    Args:
        teacher_channels: number of channels of a `FeatureTeacher`'s features; 0: there is no such teacher.
    """

    def __init__(self, network: DyTrack, settings: DyTrackSettings, teacher_channels: int) -> None:
        super().__init__(network)
        self.network: DyTrack = network
        self._settings = settings
        channels, exits = network.architecture.channels, len(network.exits)
        for exit_ in network.exits:
            exit_.decision.requires_grad_(False)
        if settings.distillation:
            self.projections = nn.ModuleList(_identity(channels) for _ in range(exits - 1))
        if teacher_channels:
            self.readers = nn.ModuleList(nn.Linear(channels, teacher_channels) for _ in range(exits))

    def fresh(self, name: str) -> bool:
        return name.startswith("exits.")

    def forward(self, batch: Batch, targets: Features | None) -> dict[str, Tensor]:
        box, seen = true_box(batch)
        outputs = list(run_stages(self.network, batch))
        losses: dict[str, Tensor] = {}
        for index, output in enumerate(outputs):
            weight = _FIRST_WEIGHT + (1 - _FIRST_WEIGHT) * index / max(1, len(outputs) - 1)
            centre, overlap = exit_losses(output.prediction, box, seen)
            losses |= {f"centre_{index}": weight * centre, f"box_{index}": weight * overlap}
        overlaps = torch.stack([iou(output.prediction.box.float(), box) for output in outputs], 1).detach()
        if targets is not None:
            # Each exit's tokens predict the teacher's features at the same place.
            each = [
                reading_loss(reader, output.template, output.passed.tokens, targets)
                for reader, output in zip(self.readers, outputs, strict=True)
            ]
            losses["teacher"] = self._settings.teacher_features * torch.stack(each).mean()
        if self._settings.distillation:
            mask = target_mask(box, self.network.architecture.cells)
            pairs = zip(self.projections, outputs[:-1], overlaps.T[:-1], strict=True)
            learnt = [
                self._distil(early, outputs[-1], seen * worth_imitating(overlap, overlaps[:, -1]), mask, projection)
                for projection, early, overlap in pairs
            ]
            for name, values in zip(
                ("distilled_features", "distilled_relations"), zip(*learnt, strict=True), strict=True
            ):
                losses[name] = self._settings.distillation * torch.stack(values).sum()
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses | {f"iou_{k}": mean for k, mean in enumerate(_mean(overlaps, seen[:, None]))}

    def _distil(
        self, early: Output, last: Output, worth: Tensor, mask: Tensor, projection: nn.Module
    ) -> tuple[Tensor, Tensor]:
        feature = imitation(projection(early.passed.tokens), last.passed.tokens, mask)
        related = relation((early.passed.tokens, early.template), (last.passed.tokens, last.template), mask)
        return _mean(feature, worth), _mean(related, worth)


class Decisions(Objective):
    """Losses of the decisions. Everything else is frozen, so the decisions' inputs are computed once per pair."""

    def __init__(self, network: DyTrack) -> None:
        super().__init__(network)
        self.network: DyTrack = network
        network.requires_grad_(False)
        for exit_ in network.exits:
            exit_.decision.requires_grad_(True)

    def fresh(self, name: str) -> bool:
        return True

    def forward(self, batch: Batch, targets: Judgement) -> dict[str, Tensor]:
        qualities: list[Tensor] = []
        for index, exit_ in enumerate(self.network.exits):
            qualities.append(exit_.judge(targets.facts[:, index], qualities[-1] if qualities else None))
        quality = torch.stack(qualities, 1).float()
        error = (quality - targets.overlap).abs().mean(0).detach()
        return {"loss": decision_loss(quality, targets.overlap)} | {f"error_{k}": each for k, each in enumerate(error)}


class Judgement(NamedTuple):
    """Inputs and targets of the decisions on B pairs.

    Attributes:
        facts: (B, exits, 2 exit channels + 2), see `Prediction`.
        overlap: (B, exits), of each exit's box with the true box; 0 if the search crop does not show the target.
    """

    facts: Tensor
    overlap: Tensor


class FrozenNetwork:
    """Computes the decisions' inputs and targets with a frozen copy of the network."""

    kind = Judgement

    def __init__(self, network: DyTrack, device: torch.device) -> None:
        self._network = copy.deepcopy(network).eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Judgement:
        box, seen = true_box(batch)
        predictions = [output.prediction for output in run_stages(self._network, batch)]
        overlap = torch.stack([iou(prediction.box, box) * seen for prediction in predictions], 1)
        return Judgement(torch.stack([prediction.facts for prediction in predictions], 1), overlap)


class Output(NamedTuple):
    """Of one stage: what it passes on, its exit's prediction, and the template's tokens after it."""

    passed: Passed
    prediction: Prediction
    template: Tensor


def run_stages(network: DyTrack, batch: Batch) -> Iterator[Output]:
    passed: Tensor | Passed = normalise(batch.search)
    for index, share in enumerate(network.template_shares(normalise(batch.template))):
        passed, prediction = network.stage(index, passed, share)
        yield Output(passed, prediction, share.tokens)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the pairs; 0 if all weights are 0."""
    return (values * weight).sum(0) / weight.sum().clamp_min(1)


def _identity(channels: int) -> nn.Linear:
    layer = nn.Linear(channels, channels)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _waves(count: int, channels: int) -> Tensor:
    """(count, channels): sines and cosines of the position on a square grid, row by row."""
    side = math.isqrt(count)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rates = 10 ** -torch.linspace(0, 2, channels // 4)
    angles = [place.flatten()[:, None] * rates for place in (x, y)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)

"""Training of MixFormerV2: from a dense teacher to sparse edges, from deep to shallow, then the score head alone.

The stages are the paper's (section 4); docs/training.md tells what each recipe's entry does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits, interpolate, mse_loss

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.checkpoint import load_strictly
from lighttrack_ros.networks.lighttrack import MOBILE, LightTrack, load_checkpoint, read_checkpoint
from lighttrack_ros.networks.lighttrack import Architecture as LightTrackArchitecture
from lighttrack_ros.networks.mixformerv2 import EDGES, Architecture, MixFormerV2, load
from lighttrack_ros.networks.transformer import PATCH
from lighttrack_ros.training import corner_network
from lighttrack_ros.training.corner_network import CornerNetwork, is_corner_network, marginals
from lighttrack_ros.training.distill import Labeller, normalise
from lighttrack_ros.training.feature_teacher import Features, reading_loss
from lighttrack_ros.training.folding import fold
from lighttrack_ros.training.losses import cell_points
from lighttrack_ros.training.mixformerv2_losses import (
    box_loss,
    edge_divergence,
    gate,
    mimicked,
    narrowed,
    spread,
    true_box,
    without_blocks,
)
from lighttrack_ros.training.pairs import Batch, PairSource
from lighttrack_ros.training.recipe import MixFormerV2Settings, Recipe
from lighttrack_ros.training.trainer import Objective
from lighttrack_ros.training.transformer_start import start_from_pictures

_SURE = 0.3  # score under which a LightTrack's cell says nothing about the edges
_TEMPLATE = 128  # side of a LightTrack teacher's template; its search crop is enlarged to the same scale


def prepare(recipe: Recipe, source: PairSource, device: torch.device) -> tuple[Objective, Labeller | None]:
    """The student with its losses, and the teacher that labels its pairs, on `device`.

    Raises:
        LightTrackError: the architecture, the start or the teacher does not fit.
    """
    architecture, settings = Architecture.parse(recipe.architecture), recipe.mixformerv2
    if (architecture.template_size, architecture.search_size) != (
        source.settings.template_size,
        source.settings.search_size,
    ):
        raise LightTrackError(f"pairs: template_size and search_size are not those of {recipe.architecture}")
    if len(set(settings.removed)) != len(settings.removed) or min(settings.removed, default=0) < 0:
        raise LightTrackError(f"mixformerv2: removed is {settings.removed}, expected different blocks from 0 on")
    images = normalise(source.batch(list(range(64))).search).cpu() if not recipe.start else torch.empty(0)
    if settings.stage == "dense":
        corners = _corner_network(architecture, recipe.start, images)
        teacher = _teacher(recipe, architecture, source, device)
        if teacher is not None and teacher.kind is not Dense:
            raise LightTrackError(f"teacher: {recipe.teacher.checkpoint} is no LightTrack; stage dense learns from one")
        return Corners(corners, settings, teacher.channels if isinstance(teacher, DenseTeacher) else 0), teacher
    student = _student(architecture, recipe, images)
    if settings.stage == "score":
        if recipe.teacher.checkpoint:
            raise LightTrackError("teacher: stage score has none")
        return Score(student), None
    teacher = _teacher(recipe, architecture, source, device)
    channels = teacher.channels if isinstance(teacher, DenseTeacher) else 0
    return Sparse(student, settings, channels), teacher


class Edges(NamedTuple):
    """A corner network's word on B pairs.

    Attributes:
        edges: (B, 4, bins), distributions of the positions of left, right, top, bottom; zeros: nothing is known.
    """

    edges: Tensor


class Mimicry(NamedTuple):
    """A MixFormerV2's word.

    Attributes:
        edges: see `Edges`.
        tokens: (B, blocks, tokens, channels), after each block that is mimicked.
    """

    edges: Tensor
    tokens: Tensor


class Dense(NamedTuple):
    """A LightTrack's word.

    Attributes:
        edges: see `Edges`.
        template, search: see `feature_teacher.Features`.
    """

    edges: Tensor
    template: Tensor
    search: Tensor


class CornerTeacher:
    """A corner network that labels pairs: the marginals of its maps."""

    kind = Edges

    def __init__(self, network: CornerNetwork, device: torch.device) -> None:
        self._network = network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Edges:
        return Edges(marginals(self._network(*_images(batch))[0]))


class SparseTeacher:
    """A MixFormerV2 that labels pairs: its distributions, and its tokens after the blocks that are mimicked."""

    kind = Mimicry

    def __init__(self, network: MixFormerV2, blocks: list[int], device: torch.device) -> None:
        self._network, self._blocks = network.eval().requires_grad_(False).to(device), blocks

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Mimicry:
        outputs = self._network.block_outputs(*_images(batch))
        edges = self._network.box_head.logits(outputs[-1][:, -EDGES:]).softmax(2)
        return Mimicry(edges, torch.stack([outputs[block] for block in self._blocks], 1))


class DenseTeacher:
    """A LightTrack that labels pairs: where its sure cells see the edges, and its features at the student's tokens.

    Args:
        search_size: side to which the search crop is enlarged.
        bins: of the student.
    """

    kind = Dense

    def __init__(self, network: LightTrack, search_size: int, bins: int, device: torch.device) -> None:
        fold(network)
        self._network = network.eval().requires_grad_(False).to(device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._search_size, self._bins = search_size, bins
        self.channels: int = network.neck.BN_x.num_features

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Dense:
        network, size = self._network, self._search_size
        template = network.template_features(_enlarged(batch.first_template, _TEMPLATE))
        search = network.search_features(_enlarged(batch.search, size))
        logits, distances = network.match(template, search)
        weight = logits.sigmoid().flatten(1)
        weight = weight * (weight > _SURE)
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)
        at = cell_points(size, logits.shape[-1], logits.device).float()
        y, x = (place.flatten() for place in torch.meshgrid(at, at, indexing="ij"))
        left, top, right, bottom = distances.flatten(2).unbind(1)
        positions = torch.stack([x - left, x + right, y - top, y + bottom], 1) / size
        template_map = template.transpose(1, 2).unflatten(2, (round(template.shape[1] ** 0.5),) * 2)
        cells = batch.first_template.shape[-1] // PATCH, batch.search.shape[-1] // PATCH
        pooled = (
            adaptive_avg_pool2d(features, (n, n)).flatten(2).transpose(1, 2)
            for features, n in zip((template_map, search), cells, strict=True)
        )
        return Dense(spread(positions, weight, self._bins), *pooled)


class Corners(Objective):
    """Losses of a corner network: its boxes, and with a LightTrack teacher its features."""

    tracks = False

    def __init__(self, network: CornerNetwork, settings: MixFormerV2Settings, teacher_channels: int) -> None:
        super().__init__(network)
        self.network: CornerNetwork = network
        self._settings = settings
        if teacher_channels:
            self.reader = nn.Linear(network.architecture.channels, teacher_channels)

    def fresh(self, name: str) -> bool:
        return name.startswith("corner_head.")

    def forward(self, batch: Batch, targets: Dense | None) -> dict[str, Tensor]:
        maps, tokens = self.network(*_images(batch))
        left, right, top, bottom = _means(marginals(maps)).unbind(1)
        losses = {"box": self._settings.box * box_loss(torch.stack([left, top, right, bottom], 1), *true_box(batch))}
        if targets is not None:
            losses["teacher"] = _reading_loss(self.reader, tokens, targets, self._settings)
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses


class Sparse(Objective):
    """Losses of a MixFormerV2's boxes, against its teacher's edges and tokens; removed blocks fade out, if they do.

    Args:
        teacher_channels: of a LightTrack teacher's features; 0: the teacher is none.
    """

    def __init__(self, network: MixFormerV2, settings: MixFormerV2Settings, teacher_channels: int) -> None:
        super().__init__(network)
        self.network: MixFormerV2 = network
        self._settings = settings
        self._gate = 1.0
        network.score_head.requires_grad_(False)  # learns in the last stage
        depth, removed = network.architecture.depth, settings.removed
        if settings.fade:
            self._blocks = mimicked(depth, removed)
            for number in removed:
                block = network.backbone.blocks[number].requires_grad_(False)
                for branch in (block.attn.proj, block.mlp):
                    branch.register_forward_hook(self._fade)
        else:
            kept = [block for block in range(depth + len(removed)) if block not in removed]
            before = mimicked(depth + len(removed), removed)
            self._blocks = [*(kept.index(block) for block in before[:-1]), depth - 1]
        if teacher_channels:
            self.reader = nn.Linear(network.architecture.channels, teacher_channels)

    def _fade(self, branch: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self._gate * output

    def seen(self, batch: Batch, targets: Batch, step: int) -> tuple[Batch, Batch]:
        self._gate = gate(step, self._settings.fade) if self._settings.fade else 1.0
        return batch, targets

    def fresh(self, name: str) -> bool:
        return name.startswith("box_head.")

    def published(self, network: nn.Module) -> dict[str, Tensor]:
        state = dict(network.state_dict())
        return without_blocks(state, self._settings.removed) if self._settings.fade else state

    def forward(self, batch: Batch, targets: Edges | Mimicry | Dense | None) -> dict[str, Tensor]:
        settings = self._settings
        outputs = self.network.block_outputs(*_images(batch))
        logits = self.network.box_head.logits(outputs[-1][:, -EDGES:]).float()
        left, right, top, bottom = _means(logits.softmax(2)).unbind(1)
        true, seen = true_box(batch)
        losses = {"box": settings.box * box_loss(torch.stack([left, top, right, bottom], 1), true, seen)}
        if targets is not None:
            divergence = edge_divergence(logits, targets.edges)
            losses["edges"] = settings.edges * (divergence * seen).sum() / seen.sum().clamp_min(1)
        if isinstance(targets, Mimicry):
            tokens = torch.stack([outputs[block] for block in self._blocks], 1).float()
            losses["features"] = settings.features * mse_loss(tokens, targets.tokens)
        if isinstance(targets, Dense):
            losses["teacher"] = _reading_loss(self.reader, outputs[-1], targets, settings)
        losses["loss"] = torch.stack(list(losses.values())).sum()
        return losses | {"gate": losses["loss"].new_tensor(self._gate)}


class Score(Objective):
    """Loss of the score head; everything else is frozen."""

    def __init__(self, network: MixFormerV2) -> None:
        super().__init__(network)
        self.network: MixFormerV2 = network
        network.requires_grad_(False)
        network.score_head.requires_grad_(True)

    def fresh(self, name: str) -> bool:
        return True

    def forward(self, batch: Batch, targets: None) -> dict[str, Tensor]:
        with torch.no_grad():
            tokens = self.network.block_outputs(*_images(batch))[-1]
        logits = self.network.score_head(tokens[:, -EDGES:]).float()
        _, seen = true_box(batch)
        right = ((logits > 0) == (seen > 0)).float().mean()
        return {"loss": binary_cross_entropy_with_logits(logits, seen), "right": right}


def _images(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return normalise(batch.template[:, 0]), normalise(batch.template[:, 1]), normalise(batch.search)


def _enlarged(crops: Tensor, size: int) -> Tensor:
    larger = interpolate(normalise(crops), size=(size, size), mode="bilinear", align_corners=False)
    return larger.contiguous(memory_format=torch.channels_last)


def _means(distributions: Tensor) -> Tensor:
    """(..., bins) to (...): mean position, as the box head takes it."""
    bins = distributions.shape[-1]
    return (distributions * (torch.arange(bins, device=distributions.device) / bins)).sum(-1)


def _reading_loss(reader: nn.Module, tokens: Tensor, targets: Dense, settings: MixFormerV2Settings) -> Tensor:
    """Of the first template's and the search crop's tokens."""
    template, search = targets.template.shape[1], targets.search.shape[1]
    places = tokens[:, :template], tokens[:, -search - EDGES : -EDGES]
    return settings.teacher_features * reading_loss(reader, *places, Features(targets.template, targets.search))


def _corner_network(architecture: Architecture, start: str, images: Tensor) -> CornerNetwork:
    if not start:
        network = CornerNetwork(architecture)
        start_from_pictures(network.body.backbone.patch_embed, network.body.backbone.blocks, images)
        return network
    network = corner_network.load(read_checkpoint(Path(start)))
    if network.architecture != architecture:
        raise LightTrackError(f"{start}: is {network.architecture}, the recipe asks for {architecture}")
    return network.train()


def _student(architecture: Architecture, recipe: Recipe, images: Tensor) -> MixFormerV2:
    """From pictures alone, a corner network's transformer, or a MixFormerV2 with blocks and MLP units to spare."""
    settings = recipe.mixformerv2
    whole = dataclasses.replace(architecture, depth=architecture.depth + len(settings.removed))
    if max(settings.removed, default=0) >= whole.depth:
        raise LightTrackError(f"mixformerv2: removed is {settings.removed}, of {whole.depth} blocks counted from 0")
    if not recipe.start:
        if settings.fade:
            raise LightTrackError("mixformerv2: fade needs a start that has the blocks which are to go")
        network = MixFormerV2(architecture)
        start_from_pictures(network.backbone.patch_embed, network.backbone.blocks, images)
        return network
    tensors = read_checkpoint(Path(recipe.start))
    if is_corner_network(tensors):
        body = {name.removeprefix("body."): value for name, value in tensors.items() if name.startswith("body.")}
        heads = {name: value for name, value in MixFormerV2(architecture).state_dict().items() if "_head." in name}
        tensors = body | heads
    found = Architecture.of(tensors)
    if found.mlp_channels > architecture.mlp_channels:
        tensors = narrowed(tensors, architecture.mlp_channels)
    if settings.removed and not settings.fade and found.depth == whole.depth:
        tensors = without_blocks(tensors, settings.removed)
    wanted = whole if settings.fade else architecture
    return load_strictly(MixFormerV2(wanted), tensors, f"{wanted}, the student that starts from {recipe.start}").train()


def _teacher(
    recipe: Recipe, architecture: Architecture, source: PairSource, device: torch.device
) -> CornerTeacher | SparseTeacher | DenseTeacher | None:
    path, settings = recipe.teacher.checkpoint, recipe.mixformerv2
    if not path:
        return None
    tensors = read_checkpoint(Path(path))
    if is_corner_network(tensors):
        corners = corner_network.load(tensors)
        _check_fits(path, corners.architecture, architecture, ("template_size", "search_size", "bins"))
        return CornerTeacher(corners, device)
    if "backbone.reg_tokens" in tensors:
        network = load(tensors)
        _check_fits(path, network.architecture, architecture, ("template_size", "search_size", "bins", "channels"))
        if network.architecture.depth != architecture.depth + len(settings.removed):
            raise LightTrackError(
                f"teacher: {path} has {network.architecture.depth} blocks, the student {architecture.depth} and"
                f" {len(settings.removed)} removed"
            )
        return SparseTeacher(network, mimicked(network.architecture.depth, settings.removed), device)
    made_for = LightTrackArchitecture.parse(recipe.teacher.architecture or MOBILE)
    factor = source.settings.search_factor or 2 * architecture.search_size / architecture.template_size
    size = 32 * round(_TEMPLATE * factor / 2 / 32)
    return DenseTeacher(load_checkpoint(Path(path), made_for), size, architecture.bins, device)


def _check_fits(path: str, teacher: Architecture, student: Architecture, names: Sequence[str]) -> None:
    for name in names:
        theirs, ours = getattr(teacher, name), getattr(student, name)
        if theirs != ours:
            raise LightTrackError(f"teacher: {path} has {name} {theirs}, the student {ours}")

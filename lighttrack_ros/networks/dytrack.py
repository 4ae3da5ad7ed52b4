"""DyTrack (TNNLS 2025): a transformer tracker that runs only as many blocks as a frame needs.

From the paper's abstract: exits on intermediate layers of one transformer, a learned decision per exit, and features
of a rejected exit used again by the next. The rest of the paper was not available. How each of these is done is this
project's own design (docs/dytrack.md says which is which). So is that template tokens do not attend to the search
image, so that their share is computed once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.checkpoint import load_strictly
from lighttrack_ros.networks.transformer import HEAD_CHANNELS, PATCH, Block, KeysValues, PatchEmbedding


@dataclass(frozen=True)
class Architecture:
    """Everything that determines the network's shape; image sides are in pixels, multiples of 16."""

    channels: int
    exit_channels: int
    exits: tuple[int, ...] = (3, 6, 9, 12)  # number of blocks before each exit
    template_size: int = 128
    search_size: int = 256

    def __post_init__(self) -> None:
        if not self.exits or min(self.exits) < 1 or list(self.exits) != sorted(set(self.exits)):
            raise LightTrackError(f"exits {self.exits}: expected counts of blocks, rising, e.g. (3, 6, 9, 12)")

    def __str__(self) -> str:
        sizes, channels = f"{self.template_size}_{self.search_size}", f"{self.channels}_{self.exit_channels}"
        return f"sizes_{sizes}_channels_{channels}_exits_{'_'.join(map(str, self.exits))}"

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """The inverse of `str`, e.g. "sizes_128_256_channels_384_192_exits_3_6_9_12".

        Raises:
            LightTrackError: the text does not have this form.
        """
        found = re.fullmatch(r"sizes_(\d+)_(\d+)_channels_(\d+)_(\d+)_exits((?:_\d+)+)", text)
        if not found:
            raise LightTrackError(f"architecture {text!r}: expected one like {SMALL}")
        template, search, channels, exit_channels = (int(number) for number in found.groups()[:4])
        exits = tuple(int(number) for number in found[5].split("_")[1:])
        if template % PATCH or search % PATCH or channels % HEAD_CHANNELS:
            raise LightTrackError(f"architecture {text!r}: sizes are multiples of {PATCH}, channels of {HEAD_CHANNELS}")
        return cls(channels, exit_channels, exits, template, search)

    @property
    def depth(self) -> int:
        return self.exits[-1]

    @property
    def cells(self) -> int:
        """Number of cells along one side of the search image."""
        return self.search_size // PATCH

    def blocks_of(self, stage: int) -> range:
        """Indices of the blocks between the exit before and exit `stage`."""
        return range(*((0, *self.exits)[stage : stage + 2]))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Architecture:
        """The architecture that a checkpoint's tensors were made for.

        Raises:
            LightTrackError: they are not the tensors of a DyTrack.
        """

        def shape(name: str, dimensions: int) -> tuple[int, ...]:
            if name not in tensors or tensors[name].dim() != dimensions:
                found = tuple(tensors[name].shape) if name in tensors else "missing"
                raise LightTrackError(f"not a DyTrack checkpoint: {name} is {found}")
            return tuple(tensors[name].shape)

        shape("exit_blocks", 1)
        return cls(
            channels=shape("patch_embed.proj.weight", 4)[0],
            exit_channels=shape("exits.0.neck.weight", 2)[0],
            exits=tuple(tensors["exit_blocks"].tolist()),
            template_size=math.isqrt(shape("pos_embed_template", 3)[1]) * PATCH,
            search_size=math.isqrt(shape("pos_embed_search", 3)[1]) * PATCH,
        )


SMALL = Architecture(channels=384, exit_channels=192)
BASE = Architecture(channels=768, exit_channels=256)


class TemplateShare(NamedTuple):
    """What one stage needs from a template; computed once per template.

    Attributes:
        keys_values: one for each of the stage's blocks.
        mean: (B, exit channels), mean of the template's features at the stage's exit.
        tokens: (B, template tokens, channels) after the stage's blocks; for distillation only.
    """

    keys_values: list[KeysValues]
    mean: Tensor
    tokens: Tensor


class Passed(NamedTuple):
    """What one exit passes to the next stage; n = architecture.cells.

    Attributes:
        tokens: (B, n * n, channels) of the search image.
        features: (B, exit channels, n, n), the exit's g.
        centre: (B, 1, n, n), the exit's centre map.
        quality: (B,), the exit's quality.
    """

    tokens: Tensor
    features: Tensor
    centre: Tensor
    quality: Tensor


class Prediction(NamedTuple):
    """One exit's outputs.

    Attributes:
        box: (B, 4), centre x, centre y, width, height, in units of the search image's side.
        quality: (B,), 0..1, the expected overlap of the box with the true box.
        centre_logits: (B, 1, n, n).
        offset: (B, 2, n, n), x, y of the centre in its cell, in cells.
        size: (B, 2, n, n), width, height, in units of the search image's side.
        facts: (B, 2 exit channels + 2), the decision's inputs except the quality of the exit before.
    """

    box: Tensor
    quality: Tensor
    centre_logits: Tensor
    offset: Tensor
    size: Tensor
    facts: Tensor


class DyTrack(nn.Module):
    """The network of one architecture. Images are RGB, (B, 3, side, side) float32, normalised by MEAN and STD."""

    exit_blocks: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels = architecture.channels
        self.register_buffer("exit_blocks", torch.tensor(architecture.exits))  # stored in the checkpoint
        self.patch_embed = PatchEmbedding(channels)
        self.pos_embed_template = nn.Parameter(torch.zeros(1, (architecture.template_size // PATCH) ** 2, channels))
        self.pos_embed_search = nn.Parameter(torch.zeros(1, architecture.cells**2, channels))
        blocks = nn.ModuleList(Block(channels, 4 * channels) for _ in range(architecture.depth))
        self.blocks = cast("Sequence[Block]", blocks)  # what torch's own types do not tell
        exits = nn.ModuleList(_Exit(architecture, first=index == 0) for index in range(len(architecture.exits)))
        self.exits = cast("Sequence[_Exit]", exits)
        self.apply(_initialise)
        for position in (self.pos_embed_template, self.pos_embed_search):
            nn.init.trunc_normal_(position, std=0.02)
        for exit_ in self.exits:
            exit_.start()

    def forward(self, template: Tensor, search: Tensor) -> list[Prediction]:
        """Every exit's prediction: for training, and as the reference for running stage by stage."""
        passed: Tensor | Passed = search
        predictions = []
        for index, share in enumerate(self.template_shares(template)):
            passed, prediction = self.stage(index, passed, share)
            predictions.append(prediction)
        return predictions

    def template_shares(self, template: Tensor) -> list[TemplateShare]:
        """What each stage needs from a template image."""
        tokens = self.patch_embed(template) + self.pos_embed_template
        shares = []
        for index, exit_ in enumerate(self.exits):
            keys_values = []
            for number in self.architecture.blocks_of(index):
                block = self.blocks[number]
                keys_values.append(block.keys_values(tokens))
                tokens = block.attend(tokens, keys_values[-1])
            shares.append(TemplateShare(keys_values, exit_.project(tokens).mean(1), tokens))
        return shares

    def stage(self, index: int, before: Tensor | Passed, share: TemplateShare) -> tuple[Passed, Prediction]:
        """Run one stage: the blocks after the exit before, then exit `index`.

        Args:
            index: of the stage and its exit, from 0.
            before: what stage `index - 1` passed on; for stage 0 the search image.
            share: the template's share for this stage.
        """
        previous = before if isinstance(before, Passed) else None
        tokens = before.tokens if isinstance(before, Passed) else self.patch_embed(before) + self.pos_embed_search
        for number, template in zip(self.architecture.blocks_of(index), share.keys_values, strict=True):
            block = self.blocks[number]
            own = block.keys_values(tokens)
            seen = KeysValues(torch.cat((template.keys, own.keys), 2), torch.cat((template.values, own.values), 2))
            tokens = block.attend(tokens, seen)
        return self.exits[index](tokens, share.mean, previous)  # type: ignore[no-any-return]


def load(tensors: Mapping[str, Tensor]) -> DyTrack:
    """The network that a checkpoint's tensors describe, float32, in evaluation mode.

    Raises:
        LightTrackError: they do not fit; see `load_strictly`.
    """
    architecture = Architecture.of(tensors)
    return load_strictly(DyTrack(architecture), tensors, f"a DyTrack {architecture}")


class _Exit(nn.Module):
    """Neck, box head and decision. Symbols in comments are those of docs/dytrack.md."""

    corners: Tensor

    def __init__(self, architecture: Architecture, first: bool) -> None:
        super().__init__()
        channels = architecture.exit_channels
        self.cells = architecture.cells
        rows, columns = torch.meshgrid(torch.arange(self.cells), torch.arange(self.cells), indexing="ij")
        self.register_buffer("corners", torch.stack((columns, rows)).flatten(1).float(), persistent=False)  # x, y
        self.norm = nn.LayerNorm(architecture.channels, eps=1e-6)
        self.neck = nn.Linear(architecture.channels, channels)  # A
        if not first:
            self.recycle = nn.Linear(channels, channels, bias=False)  # B
            self.recycle_gain = nn.Parameter(torch.zeros(()))  # a: at 0 the exits are independent
        self.centre = _Branch(channels if first else channels + 1, 1)  # the other channel: the previous centre map
        self.offset = _Branch(channels, 2)
        self.size = _Branch(channels, 2)
        self.decision = nn.Sequential(nn.Linear(2 * channels + 3, channels), nn.ReLU(), nn.Linear(channels, 1))

    def start(self) -> None:
        """Initial values that matter for training."""
        nn.init.constant_(cast("Tensor", self.centre.out.bias), -2.19)  # a prior of 0.1, for the focal loss
        if hasattr(self, "recycle"):
            with torch.no_grad():
                self.centre.first.pointwise.weight[:, -1] = 0

    def project(self, tokens: Tensor) -> Tensor:
        """Normalise and project tokens, A LN(f): (B, tokens, channels) to (B, tokens, exit channels)."""
        projected: Tensor = self.neck(self.norm(tokens))
        return projected

    def forward(self, tokens: Tensor, template_mean: Tensor, previous: Passed | None) -> tuple[Passed, Prediction]:
        features = self.project(tokens).transpose(1, 2).unflatten(2, (self.cells, self.cells))
        if previous is not None:
            recycled = self.recycle(previous.features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            features = features + self.recycle_gain * recycled  # g
        h = features.relu()
        centre_logits = self.centre(h if previous is None else torch.cat((h, previous.centre), 1))
        offset, size = self.offset(h), self.size(h).sigmoid()
        centre = centre_logits.sigmoid()

        log_weights = centre_logits.flatten(2).log_softmax(2)
        weights = log_weights.exp()  # w
        target = (weights * h.flatten(2)).sum(2)  # v
        certainty = centre.flatten(1).amax(1)
        entropy = -(weights * log_weights).sum((1, 2)) / math.log(self.cells**2)
        facts = torch.cat((target, template_mean, torch.stack((certainty, entropy), 1)), 1)
        quality = self.judge(facts, None if previous is None else previous.quality)

        boxes = torch.cat(((self.corners + offset.flatten(2)) / self.cells, size.flatten(2)), 1)
        best = centre.flatten(1).argmax(1)
        box = boxes.gather(2, best[:, None, None].expand(-1, 4, 1)).squeeze(2)
        prediction = Prediction(box, quality, centre_logits, offset, size, facts)
        return Passed(tokens, features, centre, quality), prediction

    def judge(self, facts: Tensor, earlier: Tensor | None) -> Tensor:
        """The quality q (B,): the expected overlap of the exit's box with the true box.

        Args:
            facts: see `Prediction`.
            earlier: (B,), the quality of the exit before; None for the first exit.
        """
        verdict = facts.new_zeros(len(facts)) if earlier is None else earlier
        quality: Tensor = self.decision(torch.cat((facts, verdict[:, None]), 1)).sigmoid().squeeze(1)
        return quality


class _Branch(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _Separable(inputs, 128)
        self.second = _Separable(128, 64)
        self.out = nn.Conv2d(64, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.second(self.first(x)))
        return y


class _Separable(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.pointwise(self.depthwise(x))).relu()
        return y


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""MixFormerV2 (NeurIPS 2023): the fully transformer tracking network, under the official key names.

The same weights can be run in three ways:

- `forward` is the published computation: everything, for every frame;
- `template_cache`, once per pair of templates, then `track`, once per frame, give the same result;
- `template_tokens` and `template_block` compute the template cache in steps, for a caller who has to interrupt it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.checkpoint import load_strictly
from lighttrack_ros.networks.transformer import HEAD_CHANNELS, PATCH, Block, KeysValues, PatchEmbedding

EDGES = 4  # prediction tokens: left, right, top, bottom
_RECIPE = re.compile(r"sizes_(\d+)_(\d+)_channels_(\d+)_mlp_(\d+)_depth_(\d+)_bins_(\d+)")


@dataclass(frozen=True)
class Architecture:
    """Everything that determines the network's shape; image sides are in pixels, multiples of 16."""

    depth: int
    mlp_channels: int
    template_size: int
    search_size: int
    channels: int = 768
    bins: int = 96  # of the distribution over an edge's position

    def __str__(self) -> str:
        """The authors' form of configuration name, e.g. 224_depth4_mlp1_score."""
        return f"{self.search_size}_depth{self.depth}_mlp{self.mlp_channels / self.channels:g}_score"

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read e.g. `sizes_112_224_channels_768_mlp_768_depth_4_bins_96` (template and search side), MixFormerV2-S.

        Raises:
            LightTrackError: it is no such text, or sides or channels do not go up in patches and heads.
        """
        match = _RECIPE.fullmatch(text)
        if match is None:
            raise LightTrackError(
                f"architecture {text!r}: expected one like sizes_112_224_channels_768_mlp_768_depth_4_bins_96"
            )
        template, search, channels, mlp, depth, bins = map(int, match.groups())
        if template % PATCH or search % PATCH or channels % HEAD_CHANNELS or not all(map(int, match.groups())):
            raise LightTrackError(
                f"architecture {text!r}: expected sides in multiples of {PATCH}, channels of {HEAD_CHANNELS}, no zeros"
            )
        return cls(depth, mlp, template, search, channels, bins)

    @property
    def heads(self) -> int:
        return self.channels // HEAD_CHANNELS

    @property
    def template_count(self) -> int:
        """Tokens of one template."""
        return (self.template_size // PATCH) ** 2

    @property
    def search_count(self) -> int:
        return (self.search_size // PATCH) ** 2

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Architecture:
        """The architecture that a checkpoint's tensors were made for.

        Raises:
            LightTrackError: they are not the tensors of a MixFormerV2.
        """

        def shape(name: str, dimensions: int) -> tuple[int, ...]:
            if name not in tensors or tensors[name].dim() != dimensions:
                found = tuple(tensors[name].shape) if name in tensors else "missing"
                raise LightTrackError(f"not a MixFormerV2 checkpoint: {name} is {found}")
            return tuple(tensors[name].shape)

        def side(name: str) -> int:
            return math.isqrt(shape(name, 3)[1]) * PATCH

        blocks = [re.match(r"backbone\.blocks\.(\d+)\.", name) for name in tensors]
        return cls(
            depth=1 + max((int(match[1]) for match in blocks if match), default=-1),
            mlp_channels=shape("backbone.blocks.0.mlp.fc1.weight", 2)[0],
            template_size=side("backbone.pos_embed_t"),
            search_size=side("backbone.pos_embed_s"),
            channels=shape("backbone.patch_embed.proj.weight", 4)[0],
            bins=shape("box_head.layers.1.0.weight", 2)[0],
        )


SMALL = Architecture(depth=4, mlp_channels=768, template_size=112, search_size=224)
BASE = Architecture(depth=8, mlp_channels=3072, template_size=128, search_size=288)


class MixFormerV2(nn.Module):
    """The network of one architecture. Images are RGB, (B, 3, side, side) float32, normalised by MEAN and STD.

    `forward` and `track` return a pair: box (B, 4), which is centre x, centre y, width, height in units of the
    search image's side (the network may give a negative width or height), and the logit of the score (B,).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = _Backbone(architecture)
        self.box_head = _BoxHead(architecture.channels, architecture.bins)
        self.score_head = _ScoreHead(architecture.channels)

    def forward(self, template: Tensor, online_template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """The published computation: every token through every block."""
        return self._heads(self.block_outputs(template, online_template, search)[-1])

    def block_outputs(self, template: Tensor, online_template: Tensor, search: Tensor) -> list[Tensor]:
        """All tokens after each block, (B, tokens, channels): of templates, search image, prediction."""
        templates = self.template_tokens(template, online_template)
        tokens = torch.cat((templates, self.backbone.search_tokens(search)), 1)
        outputs = []
        for block in self.backbone.blocks:
            tokens = block(tokens, templates.shape[1])
            outputs.append(tokens)
        return outputs

    def template_cache(self, template: Tensor, online_template: Tensor) -> list[KeysValues]:
        """What `track` needs from a pair of templates, block by block. If one template changes, all of it changes."""
        tokens = self.template_tokens(template, online_template)
        cache = []
        for index in range(self.architecture.depth):
            tokens, keys_values = self.template_block(index, tokens)
            cache.append(keys_values)
        return cache

    def template_tokens(self, template: Tensor, online_template: Tensor) -> Tensor:
        """(B, 2 * template tokens, channels) before the first block."""
        backbone = self.backbone
        return torch.cat(
            [backbone.patch_embed(image) + backbone.pos_embed_t for image in (template, online_template)], 1
        )

    def template_block(self, index: int, tokens: Tensor) -> tuple[Tensor, KeysValues]:
        """One block of the templates' share. The last block's tokens are not needed, and returned unchanged."""
        block = self.backbone.blocks[index]
        keys_values = block.keys_values(tokens)
        if index + 1 < self.architecture.depth:
            tokens = block.attend(tokens, keys_values)
        return tokens, keys_values

    def track(self, search: Tensor, cache: Sequence[KeysValues]) -> tuple[Tensor, Tensor]:
        """The same result as `forward`, from the search image and the output of `template_cache`.

        The last block is computed for the four prediction tokens only, because nothing reads the others.
        """
        tokens = self.backbone.search_tokens(search)
        last = self.architecture.depth - 1
        for index, (block, templates) in enumerate(zip(self.backbone.blocks, cache, strict=True)):
            own = block.keys_values(tokens)
            seen = KeysValues(torch.cat((templates.keys, own.keys), 2), torch.cat((templates.values, own.values), 2))
            tokens = block.attend(tokens[:, -EDGES:] if index == last else tokens, seen)
        return self._heads(tokens)

    def _heads(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        predictions = tokens[:, -EDGES:]
        return self.box_head(predictions), self.score_head(predictions)


def load(tensors: Mapping[str, Tensor]) -> MixFormerV2:
    """The network that a checkpoint's tensors describe, float32, in evaluation mode.

    Raises:
        LightTrackError: they do not fit; the message names every key that is missing or not expected,
            and every shape that differs.
    """
    architecture = Architecture.of(tensors)
    return load_strictly(MixFormerV2(architecture), tensors, f"a MixFormerV2 {architecture}")


class _Backbone(nn.Module):
    pos_embed_s: Tensor
    pos_embed_t: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.channels
        self.register_buffer("pos_embed_s", _sine_table(architecture.search_size // PATCH, channels))
        self.register_buffer("pos_embed_t", _sine_table(architecture.template_size // PATCH, channels))
        self.reg_tokens = nn.Parameter(0.02 * torch.randn(1, EDGES, channels))
        self.pos_embed_reg = nn.Parameter(0.02 * torch.randn(1, EDGES, channels))
        self.patch_embed = PatchEmbedding(channels)
        blocks = nn.ModuleList(Block(channels, architecture.mlp_channels) for _ in range(architecture.depth))
        self.blocks = cast("Sequence[Block]", blocks)  # what torch's own types do not tell

    def search_tokens(self, image: Tensor) -> Tensor:
        """(B, search tokens + 4, channels): the image's patches, then the prediction tokens."""
        patches = self.patch_embed(image) + self.pos_embed_s
        predictions = (self.reg_tokens + self.pos_embed_reg).expand(len(image), -1, -1)
        return torch.cat((patches, predictions), 1)


class _BoxHead(nn.Module):
    """Predicts a distribution of each edge's position from its prediction token; the box is made of the mean edges."""

    positions: Tensor

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, outputs), nn.LayerNorm(outputs)) for outputs in (channels, bins)
        )
        self.register_buffer("positions", torch.arange(bins, dtype=torch.float32) / bins, persistent=False)

    def logits(self, predictions: Tensor) -> Tensor:
        """(B, 4, bins), of the position of left, right, top, bottom."""
        return self.layers[1](functional.relu(self.layers[0](predictions)))  # type: ignore[no-any-return]

    def forward(self, predictions: Tensor) -> Tensor:
        left, right, top, bottom = (self.logits(predictions).softmax(2) * self.positions).sum(2).unbind(1)
        return torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), 1)


class _ScoreHead(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((nn.Sequential(nn.Linear(channels, channels)), nn.Linear(channels, 1)))

    def forward(self, predictions: Tensor) -> Tensor:
        logits = self.layers[1](functional.relu(self.layers[0](predictions)))
        return logits.mean((1, 2))  # type: ignore[no-any-return]


def _sine_table(side: int, channels: int) -> Tensor:
    """(1, side * side, channels): sin and cos of the column, then of the row, each for channels / 4 wavelengths."""
    wavelengths = 10000 ** (torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
    phases = torch.arange(side, dtype=torch.float64)[:, None] / wavelengths
    one_axis = torch.cat((phases.sin(), phases.cos()), 1)
    columns = one_axis[None].expand(side, -1, -1)
    rows = one_axis[:, None].expand(-1, side, -1)
    return torch.cat((columns, rows), 2).flatten(0, 1)[None].float()

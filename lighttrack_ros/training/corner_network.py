"""A dense tracking network: MixFormerV2's transformer under a corner head, the teacher of its dense-to-sparse stage.

Two towers read the search image's tokens as a map and give, at stride 4, where the box's top left and bottom right
corners are (MixFormer, CVPR 2022, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.networks.checkpoint import load_strictly
from lighttrack_ros.networks.mixformerv2 import EDGES, Architecture, MixFormerV2
from lighttrack_ros.networks.transformer import PATCH

STRIDE = 4  # pixels a cell of the maps


class CornerNetwork(nn.Module):
    """Of an architecture whose bins are the maps' cells along a side.

    Raises:
        LightTrackError: they are not.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if architecture.bins != architecture.search_size // STRIDE:
            raise LightTrackError(
                f"architecture: {architecture.bins} bins; a corner network's maps of a search crop of"
                f" {architecture.search_size} px have {architecture.search_size // STRIDE} cells a side"
            )
        self.architecture = architecture
        self.body = MixFormerV2(architecture)
        del self.body.box_head, self.body.score_head
        self.corner_head = nn.ModuleList(_tower(architecture.channels) for _ in range(2))

    def forward(self, template: Tensor, online_template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """Images as of `MixFormerV2`.

        Returns:
            maps (B, 2, n, n): probability of each cell to hold the top left and the bottom right corner, each summing
            to 1; the tokens after the last block (B, tokens, channels).
        """
        tokens = self.body.block_outputs(template, online_template, search)[-1]
        side = self.architecture.search_size // PATCH
        count = self.architecture.search_count
        image = tokens[:, -count - EDGES : -EDGES].transpose(1, 2).unflatten(2, (side, side))
        logits = torch.cat([tower(image) for tower in self.corner_head], 1).float()
        return logits.flatten(2).softmax(2).unflatten(2, logits.shape[2:]), tokens


def marginals(maps: Tensor) -> Tensor:
    """(B, 2, n, n) maps of corners to (B, 4, n): distributions of the positions of left, right, top, bottom."""
    top_left, bottom_right = maps.unbind(1)
    return torch.stack([top_left.sum(1), bottom_right.sum(1), top_left.sum(2), bottom_right.sum(2)], 1)


def load(tensors: Mapping[str, Tensor]) -> CornerNetwork:
    """The network of a checkpoint, float32, in evaluation mode.

    Raises:
        LightTrackError: the tensors are not those of a corner network.
    """
    body = {name.removeprefix("body."): value for name, value in tensors.items() if name.startswith("body.")}
    side = int(body["backbone.pos_embed_s"].shape[1] ** 0.5) * PATCH if "backbone.pos_embed_s" in body else 0
    head: dict[str, Any] = {"box_head.layers.1.0.weight": torch.empty(side // STRIDE, 1)}
    architecture = Architecture.of(body | head)
    return load_strictly(CornerNetwork(architecture), tensors, f"a corner network {architecture}")


def is_corner_network(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("corner_head.") for name in tensors)


def _tower(channels: int) -> nn.Sequential:
    """(B, channels, n, n) to (B, 1, 4 n, 4 n)."""
    layers: list[nn.Module] = []
    for outputs in (channels // 2, channels // 4):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        channels = outputs
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))

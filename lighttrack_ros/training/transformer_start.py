"""Initialise a vision transformer without pretrained weights better than at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from lighttrack_ros.networks.transformer import PATCH, Block, PatchEmbedding


def start_from_pictures(patch_embed: PatchEmbedding, blocks: Sequence[Block], images: Tensor) -> None:
    """Set patch embedding and attention in place.

    Patch embeddings become whitened principal components of the patches, and keys equal queries, so that from the first
    step a token attends to similar tokens (after Trockman and Kolter's mimetic initialisation, ICML 2023).

    Args:
        images: (B, 3, side, side), normalised.
    """
    patches = unfold(images, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)  # (N, 3 * 16 * 16)
    mean = patches.mean(0)
    variance, axes = torch.linalg.eigh(torch.cov((patches - mean).T))
    count = min(patch_embed.proj.out_channels, len(variance))
    scale = (variance[-count:] + variance.mean()).rsqrt()
    with torch.no_grad():
        patch_embed.proj.weight.zero_()[:count] = (axes[:, -count:] * scale).T.unflatten(1, (3, PATCH, PATCH))
        patch_embed.proj.bias = nn.Parameter(-(patch_embed.proj.weight.flatten(1) @ mean))
        for block in blocks:
            queries, keys, _ = block.attn.qkv.weight.chunk(3)
            nn.init.normal_(queries, std=0.04)
            keys.copy_(queries)

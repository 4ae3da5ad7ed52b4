"""MixFormerV2's losses (paper, sections 3.3 and 4), and what a smaller student keeps of a larger one.

Boxes are (B, 4) left, top, right, bottom in units of the search crop's side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from lighttrack_ros.training.pairs import Batch


def true_box(batch: Batch) -> tuple[Tensor, Tensor]:
    """The true boxes, cut at the crop's sides, and (B,) 1 if the target's centre lies in the search crop, else 0."""
    box = batch.box / batch.search.shape[-1]
    centre = (box[:, :2] + box[:, 2:]) / 2
    inside = ((centre >= 0) & (centre < 1)).all(1)
    return box.clamp(0, 1), inside.float() * batch.present


def box_loss(found: Tensor, true: Tensor, seen: Tensor) -> Tensor:
    """2 (1 - CIoU) + 5 L1, mean over the pairs that show the target."""
    each = 2 * (1 - ciou(found, true)) + 5 * l1_loss(found, true, reduction="none").mean(1)
    return (each * seen).sum() / seen.sum().clamp_min(1)


def ciou(found: Tensor, true: Tensor) -> Tensor:
    """Complete IoU (Zheng et al., AAAI 2020), (B,), -1..1; the weight of the shape's term gets no gradient."""
    size, true_size = (found[:, 2:] - found[:, :2]).clamp_min(1e-6), (true[:, 2:] - true[:, :2]).clamp_min(1e-6)
    shared = (torch.minimum(found[:, 2:], true[:, 2:]) - torch.maximum(found[:, :2], true[:, :2])).clamp_min(0).prod(1)
    iou = shared / (size.prod(1) + true_size.prod(1) - shared)
    hull = torch.maximum(found[:, 2:], true[:, 2:]) - torch.minimum(found[:, :2], true[:, :2])
    away = (found[:, :2] + found[:, 2:] - true[:, :2] - true[:, 2:]) / 2
    distance = away.square().sum(1) / hull.square().sum(1).clamp_min(1e-9)
    angles = torch.atan(true_size[:, 0] / true_size[:, 1]) - torch.atan(size[:, 0] / size[:, 1])
    shape = 4 / math.pi**2 * angles.square()
    with torch.no_grad():
        weight = torch.where(iou > 0.5, shape / (1 - iou + shape).clamp_min(1e-9), torch.zeros_like(iou))
    return (iou - distance - weight * shape).clamp(-1, 1)


def edge_divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || softmax(logits)), mean over the edges, (B,); 0 where `wanted` is all zeros: nothing is known.

    Args:
        logits, wanted: (B, 4, bins); `wanted` gets no gradient.
    """
    wanted = wanted.detach()
    return (torch.xlogy(wanted, wanted) - wanted * logits.log_softmax(2)).sum(2).mean(1)


def spread(positions: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Distributions (B, 4, bins) with mean at weighted positions: each is shared by the two bins around it.

    Args:
        positions: (B, 4, cells) in units of the crop's side; those outside go to the first or last bin.
        weight: (B, cells), summing to 1, or all 0.
    """
    at = (positions * bins).clamp(0, bins - 1)
    low = at.floor()
    share = at - low
    weight = weight[:, None].expand_as(at)
    made = positions.new_zeros(*positions.shape[:2], bins)
    made.scatter_add_(2, low.long(), weight * (1 - share))
    return made.scatter_add_(2, (low.long() + 1).clamp_max(bins - 1), weight * share)


def gate(step: int, steps: int) -> float:
    """Share of a fading block's branches in this step, counted from 0: half a cosine, 0 from step `steps` - 1 on."""
    return 0.5 * (1 + math.cos(math.pi * min(step + 1, steps) / steps))


def mimicked(depth: int, removed: Sequence[int]) -> list[int]:
    """Blocks of a network so deep whose tokens are mimicked: the last before each removed one, and the last of all."""
    before = [block - 1 for block in removed if block > 0 and block - 1 not in removed]
    return [*before, depth - 1]


def without_blocks(tensors: Mapping[str, Tensor], removed: Sequence[int]) -> dict[str, Tensor]:
    """A checkpoint's tensors without some blocks, the others renumbered."""
    kept: dict[str, Tensor] = {}
    for name, value in tensors.items():
        match = re.match(r"backbone\.blocks\.(\d+)\.(.+)", name)
        if match is None:
            kept[name] = value
        elif int(match[1]) not in removed:
            number = int(match[1]) - sum(block < int(match[1]) for block in removed)
            kept[f"backbone.blocks.{number}.{match[2]}"] = value
    return kept


def narrowed(tensors: Mapping[str, Tensor], mlp_channels: int) -> dict[str, Tensor]:
    """A checkpoint's tensors with so many hidden units in each MLP: those of largest norm in times norm out."""
    kept = dict(tensors)
    for name, rows in tensors.items():
        if not name.endswith(".mlp.fc1.weight"):
            continue
        layer = name.removesuffix(".fc1.weight")
        columns = tensors[f"{layer}.fc2.weight"]
        worth = rows.norm(dim=1) * columns.norm(dim=0)
        keep = worth.argsort(descending=True)[:mlp_channels].sort().values
        kept |= {
            f"{layer}.fc1.weight": rows[keep],
            f"{layer}.fc1.bias": tensors[f"{layer}.fc1.bias"][keep],
            f"{layer}.fc2.weight": columns[:, keep],
        }
    return kept

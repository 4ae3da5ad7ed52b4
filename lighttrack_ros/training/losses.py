"""LightTrack's losses against annotated boxes, and those against a teacher's maps and features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lighttrack_ros.training.distill import Targets
from lighttrack_ros.training.pairs import Batch

# A cell is positive within this many cells of the target's centre (city-block distance), if it lies in the box.
_POSITIVE_REACH = 2.0


class Labels(NamedTuple):
    """Labels of a search crop's cells, from the annotated box.

    Attributes:
        positive: (B, 1, n, n) 1 where the target is.
        negative: (B, 1, n, n) 1 where it is not; cells that are neither are ignored.
        distances: (B, 4, n, n) to the sides of the box in pixels; negative outside the box.
    """

    positive: Tensor
    negative: Tensor
    distances: Tensor


def cell_points(size: int, n: int, device: torch.device) -> Tensor:
    """(n,) coordinate of each cell in the search crop, pixels: stride * (i - floor(n / 2)) + floor(size / 2)."""
    return (torch.arange(n, device=device) - n // 2) * (size // n) + size // 2


def labels(batch: Batch, n: int) -> Labels:
    """Cells inside the box and near its centre are positive, cells outside negative, the rest is ignored."""
    size = batch.search.shape[-1]
    at = cell_points(size, n, batch.box.device).float()
    left, top, right, bottom = (batch.box[:, k, None, None] for k in range(4))
    x, y = at[None, None, :], at[None, :, None]
    distances = torch.stack(torch.broadcast_tensors(x - left, y - top, right - x, bottom - y), 1)
    inside = distances.amin(1, keepdim=True) > 0
    away = ((x - (left + right) / 2).abs() + (y - (top + bottom) / 2).abs())[:, None] / (size // n)
    # The cell nearest to the centre is positive even if the target is smaller than a cell.
    nearest = away == away.amin((2, 3), keepdim=True)
    present = batch.present[:, None, None, None] > 0
    positive = ((inside & (away <= _POSITIVE_REACH)) | (nearest & (away <= 1))) & present
    negative = ~(inside & present) & ~positive
    return Labels(positive.float(), negative.float(), distances)


def classification_loss(logits: Tensor, label: Labels) -> Tensor:
    """Binary cross entropy; positives and negatives are averaged separately and have half of the weight each."""
    loss = binary_cross_entropy_with_logits(logits, label.positive, reduction="none")
    return 0.5 * (_mean(loss, label.positive) + _mean(loss, label.negative))


def box_loss(distances: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """-log((intersection + 1) / (union + 1)) of boxes that share a point, averaged by `weight`.

    Args:
        distances, target: (B, 4, n, n) left, top, right, bottom.
        weight: (B, 1, n, n).
    """
    target = target.clamp_min(0)
    left, top, right, bottom = torch.minimum(distances, target).unbind(1)
    intersection = (left + right) * (top + bottom)
    union = _area(distances) + _area(target) - intersection
    return _mean(-torch.log((intersection + 1) / (union + 1))[:, None], weight)


def map_distillation(logits: Tensor, distances: Tensor, targets: Targets, trust: Tensor) -> tuple[Tensor, Tensor]:
    """Losses against the teacher's score map as soft labels, and against its boxes where its score is high.

    Soft positives and negatives are averaged separately, like hard ones, so that 250 empty cells do not outweigh the
    target.

    Args:
        trust: (B, 1, 1, 1) 1 if the teacher's maps are used, else 0.
    """
    belief = targets.logits.sigmoid()
    loss = binary_cross_entropy_with_logits(logits, belief, reduction="none")
    loss = loss - binary_cross_entropy_with_logits(targets.logits, belief, reduction="none")  # 0 where they agree
    score = 0.5 * (_mean(loss, belief * trust) + _mean(loss, (1 - belief) * trust))
    weight = belief * (belief > 0.3) * trust
    sides = (distances - targets.distances).abs() / (targets.distances + 8)  # relative, or small targets count little
    return score, box_loss(distances, targets.distances, weight) + _mean(sides.mean(1, keepdim=True), weight)


def trusted(targets: Targets, label: Labels) -> Tensor:
    """(B, 1, 1, 1) 1 if the search crop shows the target and the teacher finds it at the right place, else 0."""
    seen = (targets.logits.sigmoid() * label.positive).amax((1, 2, 3), keepdim=True)
    return (seen > 0.3).float()


def feature_distillation(features: Tensor, target: Tensor, channel_dim: int) -> Tensor:
    """Mean squared error in units of each channel's variance over the batch (1: no better than the mean)."""
    other = [dim for dim in range(target.ndim) if dim != channel_dim]
    variance = target.var(dim=other, keepdim=True)
    return ((features - target) ** 2 / (variance + 1e-3 * variance.mean())).mean()


def _area(distances: Tensor) -> Tensor:
    left, top, right, bottom = distances.unbind(1)
    return (left + right) * (top + bottom)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)

"""DyTrack's losses: of an exit's boxes, of early exits against the last, and of the decisions.

Boxes are (B, 4) centre x, centre y, width, height in units of the search crop's side; B pairs, n cells along a side.
docs/dytrack.md describes the design; the losses of a single exit are OSTrack's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy,
    kl_div,
    l1_loss,
    layer_norm,
    logsigmoid,
    normalize,
    smooth_l1_loss,
)

from lighttrack_ros.networks.dytrack import Prediction
from lighttrack_ros.training.pairs import Batch

_TEMPERATURE = 0.1  # of the similarities of search and template tokens
_LEAST_SPREAD = 0.05  # of the mask, in units of the search crop's side
_TRUSTED = 0.5  # with less overlap the last exit is not imitated
_AS_GOOD = 0.05  # with a smaller gain of overlap it is not worth going on to the last exit


def true_box(batch: Batch) -> tuple[Tensor, Tensor]:
    """The true boxes, and (B,) 1 if the target's centre lies in the search crop, else 0."""
    corners = batch.box / batch.search.shape[-1]
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    inside = ((centre >= 0) & (centre < 1)).all(1)
    return torch.cat((centre, size), 1), inside.float() * batch.present


def exit_losses(prediction: Prediction, box: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss of the centre map, and 2 GIoU + 5 L1 of the boxes of the cells around the centre.

    Args:
        prediction: of the exit.
        box, seen: see `true_box`; without a target the whole map should be 0.
    """
    logits = prediction.centre_logits.float()
    heat = _heat(box, logits.shape[-1])[:, None] * seen[:, None, None, None]
    probability = logits.sigmoid()
    positive = (heat == 1).float()
    focal = positive * (1 - probability) ** 2 * logsigmoid(logits)
    focal = focal + (1 - positive) * (1 - heat) ** 4 * probability**2 * logsigmoid(-logits)

    weight = (heat / heat.sum((1, 2, 3), keepdim=True).clamp_min(1e-6)).flatten(1)  # sums to 1 in each pair
    found = _boxes(prediction).transpose(1, 2)  # (B, cells, 4)
    true = box[:, None].expand_as(found)
    overlap = 2 * (1 - giou(found, true)) + 5 * l1_loss(found, true, reduction="none").mean(2)
    return -focal.sum() / len(box), (weight * overlap).sum() / seen.sum().clamp_min(1)


def target_mask(box: Tensor, n: int) -> Tensor:
    """(B, n * n), a Gaussian of each search token's distance from the target: 1 at its centre.

    Its standard deviation is half the box's side. Tokens exist only inside the crop, so a box that lies partly outside
    has a smaller sum.
    """
    away_x, away_y = _away(box, n)
    spread = (box[:, 2:] / 2).clamp_min(_LEAST_SPREAD)
    x = torch.exp(-0.5 * (away_x / spread[:, :1]) ** 2)
    y = torch.exp(-0.5 * (away_y / spread[:, 1:]) ** 2)
    return (y[:, :, None] * x[:, None, :]).flatten(1)


def imitation(early: Tensor, last: Tensor, mask: Tensor) -> Tensor:
    """L_feat, (B,): distance of an early exit's tokens from the last exit's, around the target.

    Args:
        early: (B, n * n, channels), projected; gets the gradient.
        last: (B, n * n, channels); gets none.
        mask: see `target_mask`.
    """
    size = early.shape[-1:]
    distance = (layer_norm(early.float(), size) - layer_norm(last.detach().float(), size)).square().mean(2)
    return (mask * distance).sum(1) / mask.sum(1).clamp_min(1e-6)


def relation(early: tuple[Tensor, Tensor], last: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """L_rel, (B,): difference between two exits' matches of the search tokens around the target with the template.

    Args:
        early, last: search and template tokens (B, tokens, channels) of an exit; the last gets no gradient.
        mask: see `target_mask`.
    """
    student, teacher = _matches(*early), _matches(*(tokens.detach() for tokens in last))
    divergence = kl_div(student, teacher, reduction="none", log_target=True).sum(2)
    return (mask * divergence).sum(1) / mask.sum(1).clamp_min(1e-6)


def worth_imitating(early: Tensor, last: Tensor) -> Tensor:
    """(B,) 1 if the last exit found the target, and at least as well as the early one; arguments are overlaps (B,)."""
    return ((last >= _TRUSTED) & (early <= last)).float()


def decision_loss(quality: Tensor, overlap: Tensor) -> Tensor:
    """Error of each exit's predicted overlap; exits before the last also predict that going on is not worth it.

    Args:
        quality, overlap: (B, exits).
    """
    loss = smooth_l1_loss(quality, overlap, beta=0.1)
    if overlap.shape[1] > 1:
        enough = (overlap[:, -1:] - overlap[:, :-1] < _AS_GOOD).float()
        # A small share: if exits differ little, the label is nearly always 1 and would drive the quality to 1.
        loss = loss + 0.1 * binary_cross_entropy(quality[:, :-1], enough)
    return loss


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4)."""
    intersection, union, _ = _areas(a, b)
    return intersection / union.clamp_min(1e-9)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised intersection over union (Rezatofighi et al., CVPR 2019) of boxes (..., 4)."""
    intersection, union, hull = _areas(a, b)
    return intersection / union.clamp_min(1e-9) - (hull - union) / hull.clamp_min(1e-9)


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Areas of the intersection, of the union, and of the smallest box around both."""
    a_low, a_high = a[..., :2] - a[..., 2:] / 2, a[..., :2] + a[..., 2:] / 2
    b_low, b_high = b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2
    intersection = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp_min(0).prod(-1)
    hull = (torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)).prod(-1)
    return intersection, a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - intersection, hull


def _boxes(prediction: Prediction) -> Tensor:
    """(B, 4, cells), the box of each cell."""
    n = prediction.offset.shape[-1]
    at = torch.arange(n, device=prediction.offset.device)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    corners = torch.stack((columns, rows)).flatten(1)
    return torch.cat(((corners + prediction.offset.float().flatten(2)) / n, prediction.size.float().flatten(2)), 1)


def _heat(box: Tensor, n: int) -> Tensor:
    """(B, n, n), a Gaussian around the centre's cell, where it is 1; its width follows the size of the box."""
    at = torch.arange(n, device=box.device)
    cell = (box[:, :2] * n).floor()
    spread = (box[:, 2:] * n / 6).clamp_min(0.6)
    x = torch.exp(-0.5 * ((at - cell[:, :1]) / spread[:, :1]) ** 2)
    y = torch.exp(-0.5 * ((at - cell[:, 1:]) / spread[:, 1:]) ** 2)
    return y[:, :, None] * x[:, None, :]


def _away(box: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(B, n) each: offsets of the columns' and the rows' middles from the box's centre, in units of the crop's side."""
    at = (torch.arange(n, device=box.device) + 0.5) / n
    return at - box[:, :1], at - box[:, 1:2]


def _matches(search: Tensor, template: Tensor) -> Tensor:
    """(B, search tokens, template tokens): log of the softmax of the cosines."""
    cosines = normalize(search.float(), dim=2) @ normalize(template.float(), dim=2).transpose(1, 2)
    return (cosines / _TEMPERATURE).log_softmax(2)

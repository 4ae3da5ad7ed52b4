"""A trained LightTrack as a feature teacher: dense targets for a transformer without pretrained weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, mse_loss

from lighttrack_ros.networks.lighttrack import LightTrack
from lighttrack_ros.networks.transformer import PATCH
from lighttrack_ros.training.distill import normalise
from lighttrack_ros.training.folding import fold
from lighttrack_ros.training.pairs import Batch


class Features(NamedTuple):
    """The teacher's features of B pairs: a vector for each token of the student, row by row.

    Attributes:
        template: (B, template tokens, channels).
        search: (B, search tokens, channels).
    """

    template: Tensor
    search: Tensor


class FeatureTeacher:
    """Gives a LightTrack's features after its neck, for the student's crops enlarged to the given sizes."""

    kind = Features

    def __init__(self, network: LightTrack, template_size: int, search_size: int, device: torch.device) -> None:
        fold(network)
        self._network = network.eval().requires_grad_(False).to(device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._sizes = template_size, search_size
        self.channels: int = network.neck.BN_x.num_features

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Features:
        template, search = self._sizes
        return Features(self._of(batch.first_template, template), self._of(batch.search, search))

    def _of(self, crops: Tensor, size: int) -> Tensor:
        cells = crops.shape[-1] // PATCH
        larger = interpolate(normalise(crops), size=(size, size), mode="bilinear", align_corners=False)
        features = self._network.search_features(larger.contiguous(memory_format=torch.channels_last))
        return adaptive_avg_pool2d(features, (cells, cells)).flatten(2).transpose(1, 2)


def reading_loss(reader: nn.Module, template: Tensor, search: Tensor, wanted: Features) -> Tensor:
    """Mean squared error of what `reader` makes of the tokens, in units of the features' standard deviation.

    Args:
        reader: a linear layer from the student's channels to the teacher's.
        template, search: the student's tokens (B, tokens, channels) at the features' places.
    """
    losses = []
    for tokens, features in ((search, wanted.search), (template, wanted.template)):
        spread = features.std((0, 1))
        standard = (features - features.mean((0, 1))) / (spread + 0.1 * spread.mean())
        losses.append(mse_loss(reader(tokens).float(), standard))
    return torch.stack(losses).mean()

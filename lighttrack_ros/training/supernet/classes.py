"""The search's first stage: the supernet's backbone learns to tell classes of pictures, one path a step.

The paper pre-trains on ImageNet; any folder of CLASS/*.jpg serves. The classifier is dropped in the end.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from lighttrack_ros.training.data import read_classes
from lighttrack_ros.training.distill import Labeller, normalise
from lighttrack_ros.training.recipe import Recipe
from lighttrack_ros.training.supernet.network import Supernet
from lighttrack_ros.training.supernet.objective import new_supernet
from lighttrack_ros.training.supernet.space import Space
from lighttrack_ros.training.trainer import Objective

_FEATURES = 320  # between backbone and classifier, as in the paper's supernet


class ClassBatch(NamedTuple):
    """B pictures.

    Attributes:
        picture: (B, 3, side, side) uint8, R, G, B.
        label: (B,) int64, number of the class.
    """

    picture: Tensor
    label: Tensor

    def to(self, device: torch.device) -> ClassBatch:
        return ClassBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class ClassSource:
    """An endless, repeatable supply of pictures: a part of one, of any shape, flipped, brighter or darker.

    Raises:
        LightTrackError: no folder, under two classes in it, or a picture that cannot be read.
    """

    def __init__(self, folder: Path, side: int, seed: int, device: torch.device) -> None:
        self.names, pictures = read_classes(folder, 2 * side)
        self._pictures = [(torch.from_numpy(pixels).permute(2, 0, 1).to(device), label) for pixels, label in pictures]
        self._side, self._seed = side, seed

    def batch(self, indices: list[int]) -> ClassBatch:
        """The pictures with these numbers."""
        made = [self._one(np.random.default_rng((self._seed, index))) for index in indices]
        return ClassBatch(torch.stack([pixels for pixels, _ in made]), torch.tensor([label for _, label in made]))

    def _one(self, rng: np.random.Generator) -> tuple[Tensor, int]:
        pixels, label = self._pictures[rng.integers(len(self._pictures))]
        height, width = pixels.shape[1:]
        side, aspect = math.sqrt(rng.uniform(0.2, 1)), math.exp(rng.normal(0, 0.15))
        h, w = (max(1, min(full, round(full * side * k))) for full, k in ((height, aspect), (width, 1 / aspect)))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        crop = pixels[None, :, top : top + h, left : left + w].float()
        crop = interpolate(crop, (self._side, self._side), mode="bilinear", align_corners=False)[0]
        crop = crop.flip(-1) if rng.random() < 0.5 else crop
        middle = crop.mean()
        crop = (middle + (crop - middle) * math.exp(rng.normal(0, 0.2))) * math.exp(rng.normal(0, 0.2))
        return crop.round().clamp(0, 255).to(torch.uint8), label


def prepare(recipe: Recipe, source: ClassSource, device: torch.device) -> tuple[Objective, Labeller | None]:
    """The supernet with a classifier; there is no labeller.

    Raises:
        LightTrackError: see `objective.new_supernet`.
    """
    images = normalise(source.batch(list(range(32))).picture).cpu()
    supernet, space = new_supernet(recipe, images)
    return ClassObjective(supernet, space, len(source.names), recipe.seed), None


class ClassObjective(Objective):
    """Cross entropy of the classes, by the backbone of the step's path."""

    tracks = False

    def __init__(self, network: Supernet, space: Space, classes: int, seed: int) -> None:
        super().__init__(network)
        self.network: Supernet = network
        self._space, self._seed, self._path = space, seed, space.base
        self.classifiers = nn.ModuleDict(
            {
                str(channels): nn.Sequential(
                    nn.Conv2d(channels, _FEATURES, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                    nn.Linear(_FEATURES, classes),
                )
                for channels in space.output_channels
            }
        )  # fmt: skip

    def seen(self, batch: ClassBatch, targets: None, step: int) -> tuple[ClassBatch, None]:
        # From the step alone, so that a run that goes on draws what it would have drawn.
        self._path = self._space.random_path(np.random.default_rng((self._seed, step)))
        return batch, targets

    def fresh(self, name: str) -> bool:
        return False

    def forward(self, batch: ClassBatch, targets: None) -> dict[str, Tensor]:
        features = self.network.network(self._path).features(normalise(batch.picture))
        logits = self.classifiers[str(features.shape[1])](features).float()
        right = (logits.argmax(1) == batch.label).float().mean()
        return {"loss": cross_entropy(logits, batch.label), "right": right}

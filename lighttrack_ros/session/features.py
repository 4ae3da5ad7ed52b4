"""A candidate's features: of the cells about it, and on the mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.trackers.base import Sight

Floats = NDArray[np.float32]


def likeness_features(sight: Sight) -> tuple[Floats, Floats]:
    """The candidates' cells, (k, 16, channels), and means over them, (k, channels); float32 of length 1."""
    assert sight.patches is not None
    patches = sight.patches.reshape(len(sight.patches), -1, sight.patches.shape[-1])
    return unit(patches), unit(patches.sum(axis=1))


def unit(vectors: Floats) -> Floats:
    """Vectors along the last axis, at length 1."""
    lengths = np.sqrt(np.einsum("...f,...f->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)

"""Whether a candidate is the target: what was learned about a model's features from its own failures.

Two linear maps bring the features to coordinates in which the same thing at another time is near and a look-alike is
not (within-class covariance normalisation, Hatch et al., Interspeech 2006). Three logistic regressions weigh the
evidence. Two are of the followed box, from evidence smoothed over the frames: how likely it is right, and how likely
the target is in view. The third says whether a candidate somewhere in the picture is the target, from a single look.
"""

from __future__ import annotations

import math
import zipfile
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.session.evidence import RECENT, SMOOTHED
from lighttrack_ros.trackers.base import Estimate, Sight, unit

Floats = NDArray[np.float32]

FILE = "verifier.npz"  # in the model's folder
LOOK_NUMBERS = (
    "logit",
    "prominence",  # how far it lies over the map's mean, in standard deviations
    "mean",  # of the map's logits
    "deviation",
    "margin",  # over the best other candidate
    "first",  # whether the tracker took it
    "cells",  # likeness to the start, cell by cell
    "look",  # likeness to the start, means over the cells
    "memory",  # to the mean look while it was believed
    "distractor",  # to the most alike of the known distractors
    "rival",  # likeness to the start of the most alike of the others in sight
    "size",  # absolute log of its size over the target's last
)
_MEMORY, _DISTRACTOR = LOOK_NUMBERS.index("memory"), LOOK_NUMBERS.index("distractor")
_MARGIN = 0.1  # by which it must be more like the target than like any known distractor
_KEPT = 30  # believed frames over which the memory's mean runs, and distractors' looks that are kept
_DISTRACTORS_EVERY = 3  # believed frames
_MOST_BYTES = 16_000_000  # of the arrays; those of the shipped models have 0.1 million
_MOST = 4.0  # standard deviations that a number may be from its mean


@dataclass(frozen=True)
class Regression:
    """A logistic regression on standardised numbers, cut at _MOST deviations.

    Attributes:
        mean, deviation, weights: (numbers,) float32.
        bias: (1,) float32.
    """

    mean: Floats
    deviation: Floats
    weights: Floats
    bias: Floats

    def log_odds(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """(...) float64 of (..., numbers)."""
        return np.asarray(self.standard(numbers) @ self.weights + self.bias[0], np.float64)

    def standard(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the weights are for, (..., numbers)."""
        # np.clip takes several times as long on so few numbers.
        standard = (numbers - self.mean) / self.deviation
        return np.asarray(np.minimum(np.maximum(standard, -_MOST), _MOST))


@dataclass(frozen=True)
class Verifier:
    """What was learned of one model.

    Attributes:
        cell_mean, look_mean: (channels,) float32, of features of length 1.
        cell_map, look_map: (channels, channels) float32.
        right: of SMOOTHED numbers: the followed box overlaps the truth by over a half.
        present: of the RECENT first of them: the target is in view.
        same: of LOOK_NUMBERS: the candidate is the target.
    """

    cell_mean: Floats
    cell_map: Floats
    look_mean: Floats
    look_map: Floats
    right: Regression
    present: Regression
    same: Regression

    def save(self, path: Path) -> None:
        """The maps go in half precision, which is plenty."""
        arrays: dict[str, NDArray[np.float32] | NDArray[np.float16]] = {}
        for name in _MAPS:
            array = getattr(self, name)
            arrays[name] = array.astype(np.float16) if array.ndim == 2 else array
        for name in _REGRESSIONS:
            for item in fields(Regression):
                arrays[f"{name}_{item.name}"] = getattr(getattr(self, name), item.name)
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stubs take keywords for flags

    @classmethod
    def load(cls, path: Path) -> Verifier:
        """Read what `save` wrote.

        Raises:
            LightTrackError: it cannot be read, or its arrays are not those of this version.
        """
        try:
            with zipfile.ZipFile(path) as file:
                size = sum(entry.file_size for entry in file.infolist())
            if size > _MOST_BYTES:
                raise ValueError(f"{size:,} bytes when unpacked, over {_MOST_BYTES:,}")
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: np.asarray(file[name], np.float32) for name in file.files}
            right, present, same = (
                Regression(**{item.name: arrays[f"{name}_{item.name}"] for item in fields(Regression)})
                for name in _REGRESSIONS
            )
            verifier = cls(
                arrays["cell_mean"], arrays["cell_map"], arrays["look_mean"], arrays["look_map"], right, present, same
            )
        except Exception as error:  # zipfile, zlib and numpy raise many kinds
            raise LightTrackError(
                f"{path}: not a verifier ({error}); write it anew with lighttrack fit-session, or import the model "
                "again"
            ) from None
        channels = len(verifier.cell_mean)
        shapes = [
            (verifier.cell_map.shape, (channels, channels)),
            (verifier.look_mean.shape, (channels,)),
            (verifier.look_map.shape, (channels, channels)),
            (verifier.right.weights.shape, (SMOOTHED,)),
            (verifier.present.weights.shape, (RECENT,)),
            (verifier.same.weights.shape, (len(LOOK_NUMBERS),)),
        ]
        if any(found != expected for found, expected in shapes):
            raise LightTrackError(
                f"{path}: arrays of {[found for found, _ in shapes]}, expected {[expected for _, expected in shapes]}; "
                "write it anew with lighttrack fit-session, or import the model again"
            )
        return verifier

    def cells(self, sight: Sight) -> Floats:
        """The candidates' cells in the learned coordinates, (k, 16, channels), of length 1."""
        return _mapped(sight.cells, self.cell_mean, self.cell_map)

    def looks(self, sight: Sight) -> Floats:
        """The means over them, (k, channels), of length 1."""
        return _mapped(sight.looks, self.look_mean, self.look_map)


_MAPS = ("cell_mean", "cell_map", "look_mean", "look_map")
_REGRESSIONS = ("right", "present", "same")


def known_distractors(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which candidates look too much like a known distractor to be taken for a lost target, (k,), of LOOK_NUMBERS."""
    return np.asarray(numbers[:, _MEMORY] - numbers[:, _DISTRACTOR] < _MARGIN)


class Acquaintance:
    """What is known of one target and of the things round it: how they have looked.

    Args:
        estimate, sight: of the very frame and box of the start.
    """

    def __init__(self, verifier: Verifier, estimate: Estimate, sight: Sight) -> None:
        self._verifier = verifier
        self._size = math.sqrt(estimate.box.area)  # when it was last believed
        cells, looks = verifier.cells(sight), verifier.looks(sight)
        self._cells, self._look = cells[0], looks[0]
        self._memory = looks[0].copy()
        self._believed = 1
        self._distractors: deque[Floats] = deque(maxlen=_KEPT)
        self._distractors.extend(looks[1:])

    def learn(self, estimate: Estimate, sight: Sight) -> None:
        """Take in how a target that is believed in looks, and what is seen beside it."""
        self._size = math.sqrt(estimate.box.area)
        looks = self._verifier.looks(sight)
        self._memory += (looks[0] - self._memory) / min(self._believed + 1, _KEPT)
        if self._believed % _DISTRACTORS_EVERY == 0:
            self._distractors.extend(looks[1:4])
        self._believed += 1

    def numbers(self, sight: Sight) -> NDArray[np.float64]:
        """(k, len(LOOK_NUMBERS)) float64."""
        cells, looks = self._verifier.cells(sight), self._verifier.looks(sight)
        cell_likeness = np.einsum("kcf,cf->k", cells, self._cells) / len(self._cells)
        look_likeness = looks @ self._look
        memory = looks @ (self._memory / max(float(np.linalg.norm(self._memory)), 1e-9))
        count = len(looks)
        distractor = (looks @ np.stack(self._distractors, axis=1)).max(axis=1) if self._distractors else np.zeros(count)
        numbers = np.empty((count, len(LOOK_NUMBERS)))
        numbers[:, 0] = sight.logits
        numbers[:, 1] = (sight.logits - sight.mean) / max(sight.deviation, 1e-3)
        numbers[:, 2] = sight.mean
        numbers[:, 3] = sight.deviation
        numbers[:, 4] = sight.logits - _best_other(sight.logits, -12.0)
        numbers[:, 5] = np.arange(count) == 0
        numbers[:, 6] = cell_likeness
        numbers[:, 7] = look_likeness
        numbers[:, 8] = memory
        numbers[:, 9] = distractor
        numbers[:, 10] = _best_other(look_likeness, -0.3)
        sizes = np.sqrt(np.maximum(sight.boxes[:, 2] * sight.boxes[:, 3], 1e-6))
        numbers[:, 11] = np.abs(np.log(sizes / max(self._size, 1e-3)))
        return numbers


def _mapped(features: Floats, mean: Floats, map_: Floats) -> Floats:
    return unit(np.asarray((features - mean) @ map_, np.float32))


def _best_other(values: NDArray[np.floating], nothing: float) -> NDArray[np.float64]:
    """Of each value the largest of the others, (k,)."""
    if len(values) == 1:
        return np.array([nothing])
    order = np.argsort(values)
    best = np.full(len(values), float(values[order[-1]]))
    best[order[-1]] = values[order[-2]]
    return best

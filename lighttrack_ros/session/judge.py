"""What the evidence is worth: how likely the box is right, and which candidate is the target."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lighttrack_ros.image import Frame
from lighttrack_ros.models import SessionSettings
from lighttrack_ros.session.evidence import RECENT, Evidence
from lighttrack_ros.session.start_filter import StartFilter
from lighttrack_ros.session.verifier import Acquaintance, Verifier, known_distractors
from lighttrack_ros.trackers.base import Estimate, Sight

NEVER = -50.0  # log odds: of what is known to be another thing
_NEWS = 0.1  # share of the newest frame in what is known of how the target looks


class Verdict(NamedTuple):
    """Of the tracker's box on one frame."""

    confidence: float  # how likely it is that the box overlaps the target by over a half
    presence: float  # how likely it is that the target is in view at all


class Judge(ABC):
    """Judges one target's estimates, from its start on."""

    @abstractmethod
    def verdict(self, frame: Frame, estimate: Estimate, sight: Sight | None) -> Verdict:
        """What the estimate is worth. Ask once a frame: evidence adds up over them."""

    @abstractmethod
    def same(self, estimate: Estimate, sight: Sight | None) -> npt.NDArray[np.float64]:
        """Log odds that what was seen is the target, one of each candidate; of the estimate alone without a sight."""

    @abstractmethod
    def learn(self, estimate: Estimate, sight: Sight | None) -> None:
        """The target is believed to be what the estimate says."""

    @abstractmethod
    def restart(self) -> None:
        """The next estimates are of another place."""


class VerifierJudge(Judge):
    """With what was learned of the model's features and scores.

    Args:
        estimate, sight: what the tracker says of the very frame and box of the start.
        start_filter: learned there.
    """

    def __init__(self, verifier: Verifier, estimate: Estimate, sight: Sight, start_filter: StartFilter) -> None:
        self._verifier = verifier
        self._evidence = Evidence(estimate, sight, start_filter)
        self._acquaintance = Acquaintance(verifier, estimate, sight)

    def restart(self) -> None:
        self._evidence.restart()

    def verdict(self, frame: Frame, estimate: Estimate, sight: Sight | None) -> Verdict:
        assert sight is not None
        numbers = self._evidence.add((frame.width, frame.height), estimate, sight)
        right, present = self._verifier.right, self._verifier.present
        return Verdict(
            probability(float(right.log_odds(numbers))), probability(float(present.log_odds(numbers[:RECENT])))
        )

    def same(self, estimate: Estimate, sight: Sight | None) -> npt.NDArray[np.float64]:
        assert sight is not None
        numbers = self._acquaintance.numbers(sight)
        return np.where(known_distractors(numbers), NEVER, self._verifier.same.log_odds(numbers))

    def learn(self, estimate: Estimate, sight: Sight | None) -> None:
        assert sight is not None
        self._acquaintance.learn(estimate, sight)


class ScoreJudge(Judge):
    """With the network's score alone, and how the target looks where the network gives features."""

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._mean: npt.NDArray[np.float32] | None = None
        self._count = 0

    def verdict(self, frame: Frame, estimate: Estimate, sight: Sight | None) -> Verdict:
        chance = probability(self._log_odds(estimate, sight))
        return Verdict(chance, chance)

    def same(self, estimate: Estimate, sight: Sight | None) -> npt.NDArray[np.float64]:
        return np.array([self._log_odds(estimate, sight)])

    def learn(self, estimate: Estimate, sight: Sight | None) -> None:
        """All frames count the same at first, later the newer ones more."""
        look = _look(sight)
        if look is None:
            return
        self._count += 1
        if self._mean is None:
            self._mean = look.copy()
        else:
            self._mean += (look - self._mean) * np.float32(max(1 / self._count, _NEWS))

    def restart(self) -> None:
        """Every frame is judged by itself."""

    def _log_odds(self, estimate: Estimate, sight: Sight | None) -> float:
        look = _look(sight) if self._settings.unlikeness else None
        unlike = 0.0
        if look is not None and self._mean is not None:
            unlike = 1 - float(look @ self._mean) / max(float(np.linalg.norm(self._mean)), 1e-12)
        evidence = score_log_odds(estimate) - self._settings.unlikeness * unlike
        return self._settings.slope * (evidence - self._settings.midpoint)


def score_log_odds(estimate: Estimate) -> float:
    """Of the network's score that the target is in view; within +-27.6."""
    score = estimate.confidence if estimate.evidence is None else estimate.evidence
    score = min(max(score, 1e-12), 1 - 1e-12)
    return math.log(score / (1 - score))


def probability(log_odds: float) -> float:
    """0..1 of log odds."""
    return 1 / (1 + math.exp(-min(max(log_odds, NEVER), -NEVER)))


def _look(sight: Sight | None) -> npt.NDArray[np.float32] | None:
    """How the estimate's box looks, (channels,) float32 of length 1."""
    if sight is None or sight.patches is None:
        return None
    mean = sight.patches[0].mean(axis=(0, 1), dtype=np.float32)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)

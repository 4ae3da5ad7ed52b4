"""What an observer in another process saw of one run of the node over one source, and the figures of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.evaluation import metrics
from lighttrack_ros.geometry import Box
from lighttrack_ros.session import State


@dataclass(frozen=True)
class Observation:
    """What the node published about one frame, as an observer in another process saw it.

    Attributes:
        index: of the frame in its source.
        latency: seconds from the image's stamp to the box's arrival.
        processing: seconds, as the node told.
    """

    index: int
    box: Box
    state: State
    confidence: float
    latency: float
    processing: float


@dataclass(frozen=True)
class ObservedRun:
    """One run over one source.

    Attributes:
        sent: number of frames that the camera published.
        observations: by index of the frame; frames that the node skipped are missing.
        truth: (frames, 4) float64, nan where the target cannot be seen; None where it is not known.
        visible: (frames,) float64, share of the target that can be seen; with `truth`.
    """

    title: str
    subtitle: str
    fps: float
    sent: int
    observations: Mapping[int, Observation]
    truth: NDArray[np.float64] | None
    visible: NDArray[np.float64] | None

    @property
    def accuracy(self) -> metrics.Accuracy | None:
        """Over the frames that were answered and show the target; None without truth."""
        if self.truth is None:
            return None
        indices = [index for index in sorted(self.observations) if np.isfinite(self.truth[index]).all()]
        if not indices:
            return None
        boxes = np.array([self.observations[index].box for index in indices])
        return metrics.accuracy(boxes, self.truth[indices])

    @property
    def overlaps(self) -> dict[int, float]:
        """Overlap with the truth by index of the frame, nan where the target cannot be seen; empty without truth."""
        if self.truth is None:
            return {}
        indices = sorted(self.observations)
        truth = self.truth[indices]
        values = metrics.overlaps(np.array([self.observations[index].box for index in indices]).reshape(-1, 4), truth)
        seen = np.isfinite(truth).all(axis=1)
        return dict(zip(indices, np.where(seen, values, np.nan).tolist(), strict=True))

    def figures(self) -> dict[str, Any]:
        """Accuracy, latency, states, drops, as they go into the JSON file; times in milliseconds."""
        observations = [self.observations[index] for index in sorted(self.observations)]
        score = self.accuracy
        return {
            "frames": {
                "sent": self.sent,
                "answered": len(observations),
                "dropped": self.sent - len(observations),
            },
            "latency_ms": _spread([observation.latency * 1000 for observation in observations]),
            "processing_ms": _spread([observation.processing * 1000 for observation in observations]),
            "accuracy": None
            if score is None
            else {name: value for name, value in vars(score).items() if name != "frames"} | {"frames": score.frames},
            "states": dict(Counter(observation.state.name.lower() for observation in observations)),
            "hidden": self._hidden(),
        }

    def _hidden(self) -> dict[str, int] | None:
        """How lost is reported: frames on which the target cannot be seen, and what was said about them."""
        if self.truth is None:
            return None
        gone = {index for index, box in enumerate(self.truth) if not np.isfinite(box).all()}
        lost = {index for index, observation in self.observations.items() if observation.state == State.LOST}
        unsure = {index for index, observation in self.observations.items() if observation.state == State.UNCERTAIN}
        return {
            "frames": len(gone),
            "reported_lost": len(gone & lost),
            "reported_uncertain": len(gone & unsure),
            "visible_reported_lost": len(lost - gone),
        }


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {
        "mean": float(np.mean(values)),
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(np.max(values)),
    }

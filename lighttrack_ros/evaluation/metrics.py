"""One-pass evaluation's figures (Wu, Lim, Yang: Object Tracking Benchmark, TPAMI 2015): success and precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUCCESS_THRESHOLDS = np.linspace(0.0, 1.0, 21)
PRECISION_PIXELS = 20.0


@dataclass(frozen=True)
class Accuracy:
    """How well boxes follow the truth, over the frames where the target can be seen.

    Attributes:
        auc: area under the success curve: mean share of frames whose overlap exceeds each of the 21
            thresholds 0, 0.05 .. 1.
        iou: mean overlap.
        sr50: share of frames with an overlap over 0.5.
        precision20: share of frames whose centre is at most 20 pixels from the truth's.
        frames: number of frames that counted.
    """

    auc: float
    iou: float
    sr50: float
    precision20: float
    frames: int


@dataclass(frozen=True)
class StepTimes:
    """Percentiles of the time of one tracking step, milliseconds."""

    p50: float
    p95: float
    p99: float


def accuracy(boxes: NDArray[np.float64], truth: NDArray[np.float64]) -> Accuracy:
    """Compare tracked boxes with the truth, frame by frame; frames with a nan truth are left out.

    Args:
        boxes: (N, 4) float64, x, y, width, height; a nan box counts as a miss.
        truth: (N, 4) float64, likewise.

    Raises:
        ValueError: the shapes differ, or no frame has a truth.
    """
    if boxes.shape != truth.shape or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes are {boxes.shape}, truth is {truth.shape}, expected (N, 4) twice")
    seen = np.isfinite(truth).all(axis=1)
    if not seen.any():
        raise ValueError("no frame has a truth")
    boxes, truth = boxes[seen], truth[seen]
    overlap = overlaps(boxes, truth)
    return Accuracy(
        auc=float(success_curve(overlap).mean()),
        iou=float(overlap.mean()),
        sr50=float((overlap > 0.5).mean()),
        precision20=float((centre_errors(boxes, truth) <= PRECISION_PIXELS).mean()),
        frames=int(seen.sum()),
    )


def overlaps(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union row by row, (N,) float64; 0 where a box is empty or nan."""
    corner = np.maximum(a[:, :2], b[:, :2])
    far = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    intersection = np.prod(np.clip(far - corner, 0, None), axis=1)
    union = np.prod(a[:, 2:], axis=1) + np.prod(b[:, 2:], axis=1) - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(intersection > 0, intersection / union, 0.0)
    return np.asarray(ratio, np.float64)


def centre_errors(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of the centres row by row, (N,) float64 pixels; nan where a box is nan."""
    return np.asarray(np.hypot(*((a[:, :2] + a[:, 2:] / 2) - (b[:, :2] + b[:, 2:] / 2)).T), np.float64)


def success_curve(overlap: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of frames whose overlap exceeds each of SUCCESS_THRESHOLDS, (21,) float64."""
    return np.asarray((overlap[:, None] > SUCCESS_THRESHOLDS).mean(axis=0), np.float64)


def step_times(seconds: Sequence[float]) -> StepTimes:
    """Percentiles of step times given in seconds; all nan where there is none."""
    if not seconds:
        return StepTimes(np.nan, np.nan, np.nan)
    return StepTimes(*(float(value) for value in np.percentile(np.asarray(seconds) * 1000, (50, 95, 99))))

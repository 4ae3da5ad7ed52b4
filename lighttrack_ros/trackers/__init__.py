"""The tracking algorithms: one file a tracker, one way to make one."""

from __future__ import annotations

from lighttrack_ros.models import Model
from lighttrack_ros.trackers.base import Estimate, Tracker

__all__ = ["Estimate", "Tracker", "create_tracker"]


def create_tracker(model: Model, backend: str = "auto", threads: int = 0) -> Tracker:
    """The tracker that drives a model, its engines loaded.

    Args:
        model: from `models.load_model`.
        backend: see `runtime.load_engine`.
        threads: CPU threads inside one run of a network; 0 lets the backend choose.

    Raises:
        LightTrackError: unknown or absent backend, or a graph that it cannot load.
    """
    if model.tracker == "mixformerv2":
        from lighttrack_ros.trackers.mixformerv2 import MixFormerV2Tracker

        return MixFormerV2Tracker(model, backend, threads)

    if model.tracker == "dytrack":
        from lighttrack_ros.trackers.dytrack import DyTrackTracker

        return DyTrackTracker(model, backend, threads)

    from lighttrack_ros.trackers.lighttrack import LightTrackTracker

    return LightTrackTracker(model, backend, threads)

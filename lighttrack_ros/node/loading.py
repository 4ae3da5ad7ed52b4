"""Load a model and take it through a first target, so that the first real one finds everything warm."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import Model, load_model
from lighttrack_ros.node.parameters import Parameters
from lighttrack_ros.session import Session, SessionPool
from lighttrack_ros.trackers import Tracker, create_tracker


@dataclass(frozen=True)
class Loaded:
    """What configure makes.

    Attributes:
        tracker: whose engines all sessions share.
        seconds: that it took.
    """

    model: Model
    tracker: Tracker
    sessions: SessionPool
    seconds: float


def load(chosen: Parameters, schedule: Callable[[], object]) -> Loaded:
    """Load the model of the parameters.

    Args:
        schedule: called before the backend starts its threads, which inherit what it arranges.

    Raises:
        LightTrackError: no such model or backend, or it cannot be loaded.
    """
    began = time.perf_counter()
    model = load_model(chosen.model)
    schedule()
    tracker = create_tracker(model, chosen.backend, chosen.threads, chosen.spin)
    session = Session.of(tracker, model)
    frame = from_bgr(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    session.start(frame, Box(280.0, 200.0, 80.0, 80.0))
    for _ in range(3):
        session.step(frame)
    session.reset()
    return Loaded(model, tracker, SessionPool(session), time.perf_counter() - began)

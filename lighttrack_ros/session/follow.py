"""One target followed through a video, without ROS.

The same session as in the node decides what may be believed, so the states here are those that the node would publish.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import Model
from lighttrack_ros.session.session import Session
from lighttrack_ros.session.states import Report
from lighttrack_ros.trackers import create_tracker


class Step(NamedTuple):
    """What came of one frame."""

    image: NDArray[np.uint8]  # (height, width, 3) BGR, as given
    report: Report
    seconds: float  # that the session took; nan for the first frame, which is given and not tracked


def follow(
    images: Iterable[NDArray[np.uint8]], box: Box, model: Model, backend: str = "auto", threads: int = 0
) -> Generator[Step, None, None]:
    """Load a model's tracker and follow the target; closing the generator frees what was loaded.

    Args:
        images: (height, width, 3) uint8 BGR.
        box: the target in the first image, pixels.
        backend, threads: see `trackers.create_tracker`.

    Raises:
        LightTrackError: a backend that cannot run the model, or a box outside the first image.
    """
    tracker = create_tracker(model, backend, threads)
    try:
        session = Session.of(tracker, model)
        frames = iter(images)
        first = next(frames)
        yield Step(first, session.start(from_bgr(first), box), math.nan)
        for image in frames:
            start = time.perf_counter()
            report = session.step(from_bgr(image))
            yield Step(image, report, time.perf_counter() - start)
            while tracker.idle_work():
                pass
    finally:
        tracker.close()

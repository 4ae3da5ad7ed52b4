"""The frames of a run with the boxes that were published for them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lighttrack_ros.evaluation.observed_run import Observation, ObservedRun
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.frames import FrameSource
from lighttrack_ros.media.video import ANNOTATED, VideoWriter
from lighttrack_ros.pictures.target import draw_target, draw_truth


def write_video(path: Path, source: FrameSource, run: ObservedRun) -> None:
    """The source's frames with the boxes that were published for them; a skipped frame keeps the last one.

    Raises:
        LightTrackError: the file cannot be written.
    """
    last: Observation | None = None
    with contextlib.ExitStack() as stack:
        writer = None
        frames = stack.enter_context(
            tqdm(source, desc="annotating", total=source.count, unit="frame", leave=False, disable=None)
        )
        for index, image in enumerate(frames):
            if writer is None:
                height, width = image.shape[:2]
                writer = stack.enter_context(VideoWriter(path, width, height, run.fps, ANNOTATED))
            last = run.observations.get(index, last)
            writer.write(annotated(image, index, last, run))


def annotated(
    image: NDArray[np.uint8], index: int, observation: Observation | None, run: ObservedRun
) -> NDArray[np.uint8]:
    """A copy of frame `index` with its truth and what is known of the target; (height, width, 3) uint8, BGR."""
    copy = image.copy()
    if run.truth is not None:
        draw_truth(copy, Box(*(float(value) for value in run.truth[index])))
    if observation is not None:
        draw_target(copy, observation.box, observation.state, observation.confidence)
    return copy

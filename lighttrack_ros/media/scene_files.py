"""The generated scene as a rosbag2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.media.bag import write_bag
from lighttrack_ros.media.scene import SceneFrame
from lighttrack_ros.media.sequences import save_truth

TOPIC = "/camera/image_raw"
_BEGIN = 1_700_000_000 * 10**9  # the first stamp: the same bag every time


def save_scene_as_bag(
    scene: Iterable[SceneFrame], fps: float, folder: Path, on_frame: Callable[[], object] | None = None
) -> None:
    """Write a generated scene as a rosbag2 (mcap) of raw images; `groundtruth.txt` and `visible.txt` lie in its folder.

    Args:
        scene: a Scene, or the beginning of one; drawn frame by frame.
        fps: its rate; the stamps are those of a camera in 2023.
        folder: the bag's, which must not be there yet.
        on_frame: called after every frame, e.g. to move a progress bar.

    Raises:
        LightTrackError: it is there, or cannot be written.
    """
    truths: list[SceneFrame] = []

    def images() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for index, frame in enumerate(scene):
            truths.append(replace(frame, image=np.empty((0, 0, 3), np.uint8)))  # of the picture nothing is kept
            yield _BEGIN + round(index * 1e9 / fps), frame.image
            if on_frame is not None:
                on_frame()

    # For a second, as `ros2 bag play` does not wait until it is heard; a box that comes again starts the target again.
    write_bag(folder, images(), TOPIC, "camera", lambda index: truths[index].box if index < fps else None)
    save_truth(truths, folder)

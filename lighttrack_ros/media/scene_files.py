"""`lighttrack scene`: the generated scene on disk, as a sequence with its truth or as a rosbag2."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.bag import write_bag
from lighttrack_ros.media.scene import DEFAULT_SEED, Scene, SceneFrame
from lighttrack_ros.media.sequences import save_scene, save_truth
from lighttrack_ros.media.video import parse_size

TOPIC = "/camera/image_raw"
_BEGIN = 1_700_000_000 * 10**9  # the first stamp: the same bag every time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--bag", action="store_true", help=f"a rosbag2 (mcap) with {TOPIC} and /init_roi instead of a sequence"
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of the scene (default: %(default)s)")
    parser.add_argument("--size", default="640x480", help="width x height (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second (default: %(default)g)")
    parser.add_argument("--first", type=int, metavar="N", help="the first N frames alone (default: ten seconds)")


def run(args: argparse.Namespace) -> int:
    if not 0 < args.rate <= 1000:
        raise LightTrackError(f"--rate is {args.rate}, expected frames a second, more than 0")
    if args.first is not None and args.first < 1:
        raise LightTrackError(f"--first is {args.first}, expected at least 1")
    scene = Scene(args.seed, *parse_size(args.size), args.rate)
    count = min(len(scene), args.first or len(scene))
    with tqdm(desc="painting the scene", total=count, unit="frame", leave=False, disable=None) as bar:
        if args.bag:
            save_scene_as_bag(islice(scene, count), args.rate, args.out, bar.update)
        else:
            save_scene(islice(scene, count), args.out, bar.update)
    print(f"{count} frames and their truth in {args.out}")
    return 0


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
    frames = iter(scene)
    first = next(frames)
    truths = []

    def images() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for index, frame in enumerate(chain([first], frames)):
            yield _BEGIN + round(index * 1e9 / fps), frame.image
            truths.append(replace(frame, image=np.empty((0, 0, 3), np.uint8)))  # of the picture nothing is kept
            if on_frame is not None:
                on_frame()

    write_bag(folder, images(), TOPIC, "camera", first.box)
    save_truth(truths, folder)

"""`lighttrack scene`: write the generated scene to disk, as a sequence with ground truth or as a rosbag2."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.frames import parse_size
from lighttrack_ros.media.scene import DEFAULT_SEED, Scene
from lighttrack_ros.media.scene_files import TOPIC, save_scene_as_bag
from lighttrack_ros.media.sequences import save_scene


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--bag", action="store_true", help=f"a rosbag2 (mcap) with {TOPIC} and /init_roi instead of a sequence"
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of the scene (default: %(default)s)")
    parser.add_argument("--size", default="640x480", help="width x height (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=30.0, help="frames per second (default: %(default)g)")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N frames (default: ten seconds)")


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
    print(f"{count} frames and their ground truth in {args.out}")
    return 0

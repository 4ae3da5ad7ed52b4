"""`lighttrack replay`: publish a rosbag2, a video, a folder of frames or the generated scene as a camera."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from pathlib import Path

import numpy as np

from lighttrack_ros.commands.arguments import parse_rate
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.bag import ImageBag, is_bag
from lighttrack_ros.media.camera import without_password
from lighttrack_ros.media.frames import open_source, parse_size
from lighttrack_ros.outputs import check_outputs
from lighttrack_ros.rig.replay import DEFAULT_TOPIC, Camera, Clip, Frames, play


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", help="a bag (ROS 2 or 1; folder or file), a video, a folder of images, a camera, or scene[:SEED]"
    )
    parser.add_argument(
        "--topic",
        help="topic to publish on (default: image); of a bag: the topic to play, under its own name "
        "(default: the only image topic)",
    )
    parser.add_argument("--publish-as", metavar="TOPIC", help="publish a bag's topic under another name")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", help="frames per second, or max (default: as recorded)")
    pace.add_argument("--speed", type=float, default=1.0, help="times the recorded speed (default: %(default)g)")
    parser.add_argument("--loop", action="store_true", help="start again at the end, until Ctrl-C")
    parser.add_argument(
        "--ping-pong",
        action="store_true",
        help="play forwards and backwards in turn, until Ctrl-C, so that the target never jumps",
    )
    parser.add_argument("--first", type=int, metavar="N", help="play only the first N frames")
    parser.add_argument(
        "--keep-stamps", action="store_true", help="publish a bag's recorded stamps instead of the current time"
    )
    parser.add_argument(
        "--size", default="640x480", help="width x height of the generated scene (default: %(default)s)"
    )
    parser.add_argument("--preload", action="store_true", help="decode everything first, so that playing costs little")
    parser.add_argument(
        "--partial", action="store_true", help="exit with status 0 even if frames of the recording are missing"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for a subscriber")
    parser.add_argument(
        "--reliability",
        choices=("reliable", "best_effort"),
        default="reliable",
        help="of the publisher; reliable suits every subscriber (default: %(default)s)",
    )
    parser.add_argument(
        "--frame-id", default="camera", help="header.frame_id of frames that have none (default: %(default)s)"
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="write the index and the stamp (ns) of every frame sent"
    )


def run(args: argparse.Namespace) -> int:
    rate = None if args.rate is None else parse_rate(args.rate)
    if not (np.isfinite(args.speed) and args.speed > 0):
        raise LightTrackError(f"--speed is {args.speed}, expected more than 0")
    if args.first is not None and args.first < 1:
        raise LightTrackError(f"--first is {args.first}, expected at least 1")
    endless = args.loop or args.ping_pong
    clip = _open_clip(args, rate, endless)
    check_outputs([args.log], clip.files)
    if args.first is not None:
        clip.cut(args.first)
    if args.preload or args.ping_pong:
        clip.preload()
    if args.ping_pong:
        clip.and_back()
    with contextlib.ExitStack() as stack:
        # Line by line, so that it is whole even if this process is killed.
        log = stack.enter_context(args.log.open("w", 1, encoding="utf-8")) if args.log is not None else None
        camera = stack.enter_context(Camera(clip, args.reliability, args.frame_id, args.keep_stamps))
        try:
            if not args.no_wait:
                camera.wait_for_subscriber()
            sent = play(clip, camera, rate, args.speed, endless, log)
            camera.drain()
        except KeyboardInterrupt:
            # The one way to end a loop, and no failure of it.
            return 0 if endless else 130
    print(f"{sent} frames published on {camera.topic}")
    shortfall = None if args.first is not None else clip.shortfall
    if shortfall:
        print(f"lighttrack replay: {clip.name}: {shortfall}", file=sys.stderr)
    return 1 if shortfall and not args.partial else 0


def _open_clip(args: argparse.Namespace, rate: float | None, endless: bool) -> Clip:
    path = Path(args.source)
    if is_bag(path):
        bag = ImageBag(path, args.topic)
        if bag.others:
            print(f"playing {bag.topic} alone, not {', '.join(bag.others)}", file=sys.stderr)
        compressed = bag.message_type == "sensor_msgs/msg/CompressedImage"
        return Clip(path.stem, args.publish_as or bag.topic, compressed, bag.count, bag, bag.files)
    for name in ("publish_as", "keep_stamps"):
        if getattr(args, name):
            raise LightTrackError(f"--{name.replace('_', '-')} is for bags, {without_password(args.source)} is none")
    # The scene is drawn at the rate at which it is shown; what was filmed keeps its frames.
    fps = rate if rate is not None and math.isfinite(rate) else 30.0
    source = open_source(args.source, parse_size(args.size), fps)
    if source.live and endless:
        raise LightTrackError(f"{source.name}: a live camera cannot be looped")
    return Clip(source.name, args.topic or DEFAULT_TOPIC, False, source.count, Frames(source), source.files)

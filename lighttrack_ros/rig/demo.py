"""The whole thing at work: a camera, the tracker node and an observer, three processes over real ROS 2.

The camera is `lighttrack replay`, the node runs as it would on a robot, and this process points at the
target once, listens, and keeps what the node says of every frame.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.observed_run import Observation
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.frames import FrameSource, open_source
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.sequences import Sequence, save_scene, sequence_of
from lighttrack_ros.media.video import VideoFile
from lighttrack_ros.models import Model
from lighttrack_ros.rig import processes
from lighttrack_ros.rig.processes import Child, Observer
from lighttrack_ros.session import State

_TARGET_ID = "demo"


@dataclass(frozen=True)
class Film:
    """What the camera shows."""

    title: str
    source: str  # for `lighttrack replay`
    frames: FrameSource
    fps: float
    box: Box
    sequence: Sequence | None  # where there is a truth


def film_of_scene(seed: int, size: tuple[int, int], fps: float, folder: Path) -> Film:
    """The generated scene, painted into `folder`."""
    scene = Scene(seed, *size, fps)
    with tqdm(desc="painting the scene", total=len(scene), unit="frame", leave=False, disable=None) as bar:
        painted = save_scene(scene, folder, bar.update)
    title = f"generated scene {seed}, {size[0]}x{size[1]}"
    return Film(title, str(folder), painted.frames, fps, painted.init_box, painted)


def film_of_video(name: str, box: Box | None, rate: float | None) -> Film:
    """A video, or a folder of images.

    Args:
        box: the target in the first frame, pixels; None takes what lies beside the video.
        rate: frames a second; None: the video's own.

    Raises:
        LightTrackError: it cannot be read, is a live camera, or the box is missing or outside.
    """
    frames = open_source(name)
    if isinstance(frames, VideoFile) and frames.count is None:
        frames.count = frames.count_frames()
    if frames.live or frames.count is None:
        raise LightTrackError(
            f"{frames.name}: the demo needs a video or a folder, to draw on afterwards; for a live camera use "
            "`lighttrack track` or `lighttrack replay`"
        )
    sequence = sequence_of(name)
    if box is not None:
        if sequence is not None and box != sequence.init_box:
            sequence = None  # another target than the one whose truth lies there
    elif sequence is not None:
        box = sequence.init_box
    else:
        raise LightTrackError("--box is missing: which target? (left,top,width,height in the first frame, pixels)")
    first = next(iter(frames))
    height, width = first.shape[:2]
    if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
        raise LightTrackError(f"--box {','.join(f'{v:g}' for v in box)} lies outside the {width}x{height} frame")
    return Film(f"{frames.name}, {width}x{height}", name, frames, rate or frames.fps, box, sequence)


def run_processes(film: Film, model: Model, backend: str, folder: Path) -> tuple[dict[int, Observation], int]:
    """Start the node and the camera, watch the target; returns the observations by frame, and the frames sent."""
    processes.prepare_environment()
    namespace = f"/lighttrack_demo_{os.getpid()}"  # nobody else's topics
    log_path, stamps_path = folder / "node.log", folder / "stamps.csv"
    stamps_path.unlink(missing_ok=True)
    received: list[tuple[int, Any, int]] = []  # image stamp (ns), message, arrival (ns)

    def on_target(stamp: int, message: Any, arrival: int) -> None:
        if message.target_id == _TARGET_ID:
            received.append((stamp, message, arrival))

    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.interruptible())
        node = stack.enter_context(Child(processes.node_command(namespace, model, backend), log_path))
        observer = stack.enter_context(Observer())
        observer.listen(namespace, on_target)
        print(f"node: {model.name}; its log is {log_path}")
        observer.wait_for(namespace, node)
        command = processes.camera_command(film.source, f"{namespace}/image", film.fps, stamps_path)
        camera = stack.enter_context(Child(command, folder / "camera.log"))
        observer.point_at_first(namespace, film.box, [_TARGET_ID], camera, stamps_path)
        _watch(observer, received, camera, node, film.frames.count)
    stamps = processes.read_stamps(stamps_path)
    observations = {}
    for stamp, message, arrival in received:
        index = stamps.get(stamp)
        if index is not None:
            observations[index] = Observation(
                index=index,
                box=Box(message.x, message.y, message.width, message.height),
                state=State(message.state),
                confidence=float(message.confidence),
                latency=(arrival - stamp) / 1e9,
                processing=float(message.processing_time),
            )
    if not observations:
        raise LightTrackError(f"the node answered none of {len(stamps)} frames; see {log_path}")
    first = min(observations)
    if first > 0:
        print(f"the node began on frame {first}, so the box for frame 0 may have missed its target", file=sys.stderr)
    return observations, len(stamps)


def _watch(
    observer: Observer, received: list[tuple[int, Any, int]], camera: Child, node: Child, total: int | None
) -> None:
    """Listen until the camera has ended and the node has answered its last frame."""
    with tqdm(total=total, desc="tracking", unit="frame", disable=None) as bar:
        last_report, quiet_since = time.monotonic(), time.monotonic()
        while True:
            before = len(received)
            observer.spin_once()
            if len(received) > before:
                quiet_since = time.monotonic()
                stamp, message, arrival = received[-1]
                state = State(message.state).name.lower()
                words = f"{state} {message.confidence:.2f}, {(arrival - stamp) / 1e6:.1f} ms"
                bar.set_postfix_str(words, refresh=False)
                bar.update()
                if bar.disable and time.monotonic() - last_report > 2:
                    print(f"{len(received)} frames: {words}", flush=True)
                    last_report = time.monotonic()
            if node.status is not None:
                raise LightTrackError(f"the node ended ({node.last_words}); its log is {node.log}")
            if camera.status is not None and time.monotonic() - quiet_since > 0.5:
                if camera.status != 0:
                    raise LightTrackError(f"the camera failed ({camera.last_words})")
                return

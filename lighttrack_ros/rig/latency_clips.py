"""What the latency benchmark's camera shows: the generated scene, a bag, or a sequence; with the target's first box."""

from __future__ import annotations

import itertools
from pathlib import Path

from tqdm import tqdm

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.bag import ImageBag
from lighttrack_ros.media.scene import DEFAULT_SEED, Scene
from lighttrack_ros.media.sequences import INIT_FILE, TRUTH_FILES, load_sequence, save_scene
from lighttrack_ros.media.truth import read_boxes
from lighttrack_ros.media.video import VideoFile
from lighttrack_ros.node.messages import read_compressed_image, read_header, read_image
from lighttrack_ros.rig.latency_rig import Clip
from lighttrack_ros.trackers.base import check_box

_SCENE_FPS = 30.0
_CLIP_BYTES = 512 << 20  # of pixels: the camera holds them all
_CLIP_FRAMES = 300


def clip_of_scene(width: int, height: int, folder: Path) -> Clip:
    """The generated scene, painted into `folder`.

    Raises:
        LightTrackError: the folder cannot be written.
    """
    count = _affordable(3 * width * height)
    scene = Scene(DEFAULT_SEED, width, height, _SCENE_FPS)
    with tqdm(desc="painting the scene", total=count, unit="frame", leave=False, disable=None) as bar:
        painted = save_scene(itertools.islice(scene, count), folder, bar.update)
    return Clip(f"generated scene {width}x{height}", str(folder), None, False, count, painted.init_box)


def clip_of_bag(path: Path, topic: str | None, box: Box | None) -> Clip:
    """A bag's images.

    Args:
        topic: None takes the only one with images.
        box: None takes it from the file of boxes beside the bag.

    Raises:
        LightTrackError: no such bag or topic, no box, or one outside the picture.
    """
    bag = ImageBag(path, topic)
    try:
        _, message = next(iter(bag))
    finally:
        bag.close()
    if box is None:
        place = path if path.is_dir() else path.parent
        known = next((place / name for name in (*TRUTH_FILES, INIT_FILE) if (place / name).is_file()), None)
        if known is None:
            raise LightTrackError(f"{path}: --box is missing: which target? (left,top,width,height)")
        box = Box(*(float(value) for value in read_boxes(known)[0]))
    compressed = bag.message_type.endswith("CompressedImage")
    header = read_header(message)
    check_box(read_compressed_image(header) if compressed else read_image(header), box)
    frames = min(bag.count, _affordable(len(message)))
    return Clip(f"{path.name} {bag.topic}", str(path), bag.topic, compressed, frames, box)


def clip_of_sequence(path: Path, box: Box | None) -> Clip:
    """A labelled sequence's frames; `box` None takes its first.

    Raises:
        LightTrackError: see `media.sequences.load_sequence`; or a box outside the picture.
    """
    sequence = load_sequence(path)
    frames = sequence.frames
    first = next(iter(frames))
    height, width = first.shape[:2]
    box = box or sequence.init_box
    check_box(from_bgr(first), box)
    source = frames.path if isinstance(frames, VideoFile) else path
    count = min(frames.count or _CLIP_FRAMES, _affordable(3 * width * height))
    return Clip(f"{sequence.name} {width}x{height}", str(source), None, False, count, box)


def _affordable(frame_bytes: int) -> int:
    return max(2, min(_CLIP_FRAMES, _CLIP_BYTES // frame_bytes))

"""Sequences with ground truth on disk: frames read lazily, one target each, one truth box a frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.scene import SceneFrame
from lighttrack_ros.media.video import FrameSource, ImageFolder, VideoFile

# In the order in which they are looked for.
TRUTH_FILES = ("groundtruth.txt", "groundtruth_rect.txt", "boxes.txt")
INIT_FILE = "init_box.txt"
VISIBLE_FILE = "visible.txt"
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg")


@dataclass(frozen=True)
class Sequence:
    """One clip and its target.

    Attributes:
        name: the folder's name.
        frames: BGR frames, read lazily.
        init_box: the box to start on in the first frame.
        truth: (frames, 4) float64, x, y, width, height in pixels; a row of nan where the target cannot
            be seen. None where the clip has no ground truth beyond its first box.
        visible: (frames,) float64, share of the target that can be seen, 0..1; where the clip does not
            say, 0 for the rows of nan and 1 for the others. None without truth.
    """

    name: str
    frames: FrameSource
    init_box: Box
    truth: NDArray[np.float64] | None
    visible: NDArray[np.float64] | None


def find_sequences(folder: Path, only: Iterable[str] = (), skip: Iterable[str] = ()) -> list[Sequence]:
    """The sequences in a folder (or the one that the folder is), sorted by name.

    Args:
        folder: holds one folder a sequence, or is itself a sequence.
        only: names to keep; empty keeps all.
        skip: names to leave out.

    Raises:
        LightTrackError: no such folder, no sequence in it, a damaged one, or a name that is not there.
    """
    if not folder.is_dir():
        raise LightTrackError(f"{folder}: no such folder of sequences")
    if is_sequence(folder):
        return [load_sequence(folder)]
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and is_sequence(path)}
    if not found:
        raise LightTrackError(
            f"{folder}: no sequence in it (a sequence is a folder of frames or a video, beside "
            f"{', '.join(TRUTH_FILES)} or {INIT_FILE})"
        )
    wanted, unwanted = set(only), set(skip)
    unknown = sorted((wanted | unwanted) - set(found))
    if unknown:
        raise LightTrackError(f"{folder}: no sequence named {', '.join(unknown)} (there are {', '.join(found)})")
    names = [name for name in found if name not in unwanted and (not wanted or name in wanted)]
    if not names:
        raise LightTrackError(f"{folder}: every sequence was left out")
    return [load_sequence(found[name]) for name in names]


def load_sequence(folder: Path) -> Sequence:
    """One sequence: frames in `img/` or in the folder itself, or one video file, beside a file of boxes.

    The boxes are lines of `x,y,w,h` (commas, tabs or spaces): a truth file with one line a frame, or
    `init_box.txt` with the first frame's alone.

    Raises:
        LightTrackError: frames or boxes are missing, damaged, or of different number.
    """
    frames = _frames(folder)
    truth_path = next((folder / name for name in TRUTH_FILES if (folder / name).is_file()), None)
    if truth_path is None:
        init_path = folder / INIT_FILE
        if not init_path.is_file():
            raise LightTrackError(f"{folder}: no {', '.join(TRUTH_FILES)} or {INIT_FILE} beside the frames")
        boxes, truth = read_boxes(init_path), None
        boxes_path = init_path
    else:
        boxes = truth = read_boxes(truth_path)
        boxes_path = truth_path
        if frames.count is not None and len(truth) != frames.count:
            raise LightTrackError(f"{truth_path}: {len(truth)} lines for {frames.count} frames")
    first = boxes[0]
    if not np.all(np.isfinite(first)) or min(first[2:]) <= 0:
        raise LightTrackError(f"{boxes_path}: line 1 is {_line(first)}, expected a box of positive size to start on")
    visible = None if truth is None else _visible(folder / VISIBLE_FILE, truth)
    return Sequence(folder.name, frames, Box(*(float(value) for value in first)), truth, visible)


def resized(sequence: Sequence, width: int, height: int) -> Sequence:
    """The same clip as from a camera of that size, in pixels; its shape is not kept.

    Raises:
        LightTrackError: the first frame cannot be decoded.
    """
    first = next(iter(sequence.frames))
    factors = np.tile([width / first.shape[1], height / first.shape[0]], 2)
    return replace(
        sequence,
        frames=_ResizedFrames(sequence.frames, width, height),
        init_box=Box(*(factors * sequence.init_box).tolist()),
        truth=None if sequence.truth is None else sequence.truth * factors,
    )


def save_scene(scene: Iterable[SceneFrame], folder: Path, on_frame: Callable[[], object] | None = None) -> Sequence:
    """Write a generated scene as a sequence: `img/0001.jpg` .., `groundtruth.txt`, `visible.txt`.

    Args:
        scene: a Scene, or the beginning of one; drawn frame by frame.
        folder: made where it is missing; a sequence already in it is replaced.
        on_frame: called after every frame, e.g. to move a progress bar.

    Raises:
        LightTrackError: it cannot be written.
    """
    painted = []
    try:
        (folder / "img").mkdir(parents=True, exist_ok=True)
        for old in (folder / "img").glob("*.jpg"):
            old.unlink()
        for index, frame in enumerate(scene):
            path = folder / "img" / f"{index + 1:04d}.jpg"
            path.write_bytes(cv2.imencode(".jpg", frame.image, (cv2.IMWRITE_JPEG_QUALITY, 95))[1].tobytes())
            painted.append(replace(frame, image=np.empty((0, 0, 3), np.uint8)))  # of the picture nothing is kept
            if on_frame is not None:
                on_frame()
        save_truth(painted, folder)
    except OSError as error:
        raise LightTrackError(f"{folder}: cannot be written ({error.strerror})") from None
    return load_sequence(folder)


def save_truth(frames: Iterable[SceneFrame], folder: Path) -> None:
    """`groundtruth.txt` and `visible.txt` of a generated scene.

    Raises:
        OSError: they cannot be written.
    """
    boxes, shares = [], []
    for frame in frames:
        boxes.append(",".join("nan" if frame.truth is None else f"{value:.2f}" for value in frame.box))
        shares.append(f"{frame.visible:.3f}")
    (folder / TRUTH_FILES[0]).write_text("\n".join(boxes) + "\n", encoding="utf-8")
    (folder / VISIBLE_FILE).write_text("\n".join(shares) + "\n", encoding="utf-8")


def sequence_of(source: str) -> Sequence | None:
    """The sequence that a folder or a video is part of, with its boxes; None where no boxes lie beside it."""
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not is_sequence(folder):
        return None
    sequence = load_sequence(folder)
    if path.is_file() and not (isinstance(sequence.frames, VideoFile) and sequence.frames.path == path):
        return None
    return sequence


def read_boxes(path: Path) -> NDArray[np.float64]:
    """Lines of four numbers (commas, semicolons, tabs or spaces between) as an (N, 4) float64 array.

    Raises:
        LightTrackError: unreadable, empty, or a line that is not four numbers; half a nan is an error too.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LightTrackError(f"{path}: cannot be read ({error})") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise LightTrackError(f"{path}: empty, expected a line x,y,w,h")
    boxes = np.empty((len(lines), 4))
    for number, line in enumerate(lines):
        try:
            values = [float(part) for part in re.split(r"[,;\s]+", line.strip())]
        except ValueError:
            values = []
        if len(values) != 4 or not (np.all(np.isfinite(values)) or np.all(np.isnan(values))):
            raise LightTrackError(
                f"{path}: line {number + 1} is {line.strip()!r}, expected x,y,w,h (nan,nan,nan,nan: not visible)"
            )
        boxes[number] = values
    return boxes


def _visible(path: Path, truth: NDArray[np.float64]) -> NDArray[np.float64]:
    if not path.is_file():
        return np.asarray(np.isfinite(truth).all(axis=1), np.float64)
    try:
        shares = np.array([float(line) for line in path.read_text(encoding="utf-8").split()])
    except (OSError, ValueError) as error:
        raise LightTrackError(f"{path}: cannot be read ({error})") from None
    if len(shares) != len(truth) or not ((shares >= 0) & (shares <= 1)).all():
        raise LightTrackError(f"{path}: expected {len(truth)} lines from 0 to 1, found {len(shares)}")
    return shares


def is_sequence(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*TRUTH_FILES, INIT_FILE))


def _frames(folder: Path) -> FrameSource:
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    if len(videos) == 1 and not (folder / "img").is_dir():
        return VideoFile(videos[0])
    return ImageFolder(folder)


def _line(values: NDArray[np.float64]) -> str:
    return ",".join(f"{value:g}" for value in values)


class _ResizedFrames:
    """A `FrameSource`."""

    def __init__(self, frames: FrameSource, width: int, height: int) -> None:
        self._frames = frames
        self._size = width, height
        self.name, self.fps, self.count = frames.name, frames.fps, frames.count

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for image in self._frames:
            yield cv2.resize(image, self._size).astype(np.uint8, copy=False)

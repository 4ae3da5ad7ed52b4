"""Sequences with ground truth on disk: frames read lazily, one target each, one truth box a frame."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.folder import FRAME_FOLDERS, IMAGE_SUFFIXES, ImageFolder, Images, frame_folder
from lighttrack_ros.media.frames import FrameSource
from lighttrack_ros.media.scene import SceneFrame
from lighttrack_ros.media.truth import ABSENCE_FILES, COVER_FILE, VISIBLE_FILE, Floats, read_boxes, read_flags
from lighttrack_ros.media.video import VideoFile, is_annotated

# In the order in which they are looked for.
TRUTH_FILES = ("groundtruth.txt", "groundtruth_rect.txt", "boxes.txt")
INIT_FILE = "init_box.txt"
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv")
SCENE_FILE = "scene.txt"  # marks a folder that `lighttrack scene` may write anew
_SEVERAL = re.compile(r"groundtruth_rect\.(\d+)\.txt")  # OTB: one file a target
# OTB: first and last number of the frames that the truth is of, where a sequence has more.
_OTB_RANGES = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Tiger1": (1, 354),
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sequence:
    """One clip and its target.

    Attributes:
        name: the folder's name; of several targets in one folder, with the target's number.
        frames: BGR frames, read lazily.
        init_box: the box to start on in the first frame.
        truth: (frames, 4) float64, x, y, width, height in pixels; a row of nan where the target cannot
            be seen. None where the clip has no ground truth beyond its first box.
        visible: (frames,) float64, share of the target that can be seen, 0..1; where the clip does not
            say, 0 for the rows of nan and 1 for the others. None without truth.
        files: what all this was read from.
    """

    name: str
    frames: FrameSource
    init_box: Box
    truth: Floats | None
    visible: Floats | None
    files: tuple[Path, ...] = ()


def find_sequences(folder: Path, only: Iterable[str] = (), skip: Iterable[str] = ()) -> list[Sequence]:
    """The sequences in a folder (or the one that the folder is), sorted by name.

    What cannot be used is left out, and named in the log with the reason.

    Args:
        folder: holds one folder a sequence (or folders of such), is itself a sequence, or is laid out like TrackingNet
            (`frames/NAME`, `anno/NAME.txt`) or UAV123 (`data_seq/UAV123/NAME`, `anno/UAV123/NAME.txt`).
        only: names to keep; empty keeps all.
        skip: names to leave out.

    Raises:
        LightTrackError: no such folder, none in it that can be used, or a name that is not there.
    """
    if not folder.is_dir():
        raise LightTrackError(f"{folder}: no such folder of sequences")
    places = _places(folder)
    if all(place.truth is None for place in places):
        raise LightTrackError(
            f"{folder}: no sequence in it (a sequence is a folder of frames or a video, beside "
            f"{', '.join(TRUTH_FILES)} or {INIT_FILE})"
        )
    found = {place.name: place for place in places}
    itself = [place for place in places if place.folder == folder]
    wanted, unwanted = set(only), set(skip)
    unknown = sorted((wanted | unwanted) - set(found)) if not itself else []
    if unknown:
        raise LightTrackError(f"{folder}: no sequence named {', '.join(unknown)} (there are {', '.join(found)})")
    names = [name for name in found if itself or (name not in unwanted and (not wanted or name in wanted))]
    if not names:
        raise LightTrackError(f"{folder}: every sequence was left out")
    usable: list[Sequence] = []
    faults: list[str] = []
    for name in names:
        _load_or_tell(found[name], usable, faults)
    if not usable:
        more = f" (and {len(faults) - 1} more that cannot be used)" if len(faults) > 1 else ""
        raise LightTrackError(faults[0] + more)
    for fault in faults:
        _LOG.warning("left out: %s", fault)
    return usable


def find_labelled(folder: Path, only: Iterable[str] = (), skip: Iterable[str] = ()) -> tuple[list[Sequence], list[str]]:
    """The sequences that have ground truth, and the names of those that have none.

    Raises:
        LightTrackError: none has; see `find_sequences` too.
    """
    found = find_sequences(folder, only, skip)
    labelled = [sequence for sequence in found if sequence.truth is not None]
    if not labelled:
        raise LightTrackError(f"{folder}: no sequence with ground truth in it")
    return labelled, [sequence.name for sequence in found if sequence.truth is None]


def load_sequence(folder: Path) -> Sequence:
    """One sequence: frames in `img/`, `color/` or in the folder itself, or one video file, beside a file of boxes.

    The boxes are those of `truth.read_boxes`: a truth file with one line a frame, or the first frame's box alone, in
    `init_box.txt` or as the only line of a truth file.

    Raises:
        LightTrackError: frames or boxes are missing, damaged, or of different number; or there are several targets.
    """
    places = _places_of(folder)
    if not places:
        raise LightTrackError(f"{folder}: no {', '.join(TRUTH_FILES)} or {INIT_FILE} beside the frames")
    if len(places) > 1:
        files = ", ".join(place.truth.name for place in places if place.truth)
        raise LightTrackError(f"{folder}: {len(places)} targets ({files}); which one? Give its box with --box")
    return _load(places[0])


def files_of(sequences: Iterable[Sequence]) -> list[Path]:
    """What was read for them."""
    return [path for sequence in sequences for path in sequence.files]


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

    It is written inside the folder and moved into place at the end: what was there before stays until then.

    Args:
        scene: a Scene, or the beginning of one; drawn frame by frame.
        folder: made where it is missing; an earlier scene in it is replaced.
        on_frame: called after every frame, e.g. to move a progress bar.

    Raises:
        LightTrackError: the folder holds something that is no scene of ours, or it cannot be written.
    """
    check_scene_folder(folder)
    painted = []
    beside = folder / f".scene.{os.getpid()}.part"
    try:
        (beside / "img").mkdir(parents=True)
        for index, frame in enumerate(scene):
            path = beside / "img" / f"{index + 1:04d}.jpg"
            path.write_bytes(cv2.imencode(".jpg", frame.image, (cv2.IMWRITE_JPEG_QUALITY, 95))[1].tobytes())
            painted.append(replace(frame, image=np.empty((0, 0, 3), np.uint8)))  # of the picture nothing is kept
            if on_frame is not None:
                on_frame()
        save_truth(painted, beside)
        (beside / SCENE_FILE).write_text(
            "written by lighttrack scene, which may replace this folder\n", encoding="utf-8"
        )
        shutil.rmtree(folder / "img", ignore_errors=True)
        for path in beside.iterdir():
            path.replace(folder / path.name)
    except OSError as error:
        raise LightTrackError(f"{folder}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return load_sequence(folder)


def check_scene_folder(folder: Path) -> None:
    """Refuse to write a scene over anything that is not an earlier one.

    Raises:
        LightTrackError: the folder holds something else, or is none.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise LightTrackError(f"{folder}: cannot be written (it is no folder)")
    names = {path.name for path in folder.iterdir()}
    ours = {"img", TRUTH_FILES[0], VISIBLE_FILE, SCENE_FILE}
    strange = sorted(names - ours) if SCENE_FILE in names else sorted(names)
    if not strange and (folder / "img").is_dir():
        strange = sorted(
            f"img/{path.name}" for path in (folder / "img").iterdir() if not re.fullmatch(r"\d{4,}\.jpg", path.name)
        )
    if strange:
        raise LightTrackError(
            f"{folder}: holds what no scene wrote ({', '.join(strange[:3])}{', ..' if len(strange) > 3 else ''}); "
            "choose another folder"
        )


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
    """The sequence that a folder or a video is part of, with its boxes; None where no boxes lie beside it.

    Raises:
        LightTrackError: there are boxes, but the sequence cannot be used.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if not path.exists() or not is_sequence(folder):
        return None
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return None
        videos = _videos(folder)
        if not any(os.path.samefile(path, video) for video in videos) or len(videos) > 1:
            return None
    return load_sequence(folder)


def boxes_beside(source: str) -> list[Path]:
    """The files of boxes that lie beside a video or in a folder of frames, whether they are used or not."""
    path = Path(source)
    if not path.exists() or path.is_char_device():
        return []
    folder = path if path.is_dir() else path.parent
    names = (*TRUTH_FILES, INIT_FILE, VISIBLE_FILE, COVER_FILE, *ABSENCE_FILES)
    return [*_truth_files(folder), *(folder / name for name in names if (folder / name).is_file())]


def is_sequence(folder: Path) -> bool:
    """Whether boxes lie in a folder; whether they can be used is another question."""
    return bool(_truth_files(folder)) or (folder / INIT_FILE).is_file()


@dataclass(frozen=True)
class _Place:
    """Where one sequence lies.

    Attributes:
        folder: of the frames.
        truth: the file of boxes; None where there is none.
        numbers: first and last number of the frames that the truth is of; None for all.
    """

    name: str
    folder: Path
    truth: Path | None
    numbers: tuple[int, int] | None = None


def _places(folder: Path, depth: int = 1) -> list[_Place]:
    """The sequences in a folder, whether they can be used or not, sorted by name."""
    places = _places_of(folder) or _annotated_places(folder)
    if places:
        return places
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        found = _places_of(child)
        if not found and depth and not _has_frames(child):
            found = _places(child, depth - 1)
        elif not found and _has_frames(child):
            found = [_Place(child.name, child, None)]
        places += found
    names = [place.name for place in places]
    return [
        replace(place, name=f"{place.folder.parent.name}/{place.name}") if names.count(place.name) > 1 else place
        for place in places
    ]


def _places_of(folder: Path) -> list[_Place]:
    """The sequence that a folder is: one, or one for every target; none if no boxes lie in it."""
    name = folder.resolve().name
    truths = _truth_files(folder)
    if len(truths) > 1:
        return [_Place(f"{name}-{_SEVERAL.fullmatch(path.name)[1]}", folder, path) for path in truths]  # type: ignore[index]
    if truths:
        return [_Place(name, folder, truths[0])]
    return [_Place(name, folder, folder / INIT_FILE)] if (folder / INIT_FILE).is_file() else []


def _truth_files(folder: Path) -> list[Path]:
    """The truth file, or those of several targets."""
    one = next((folder / name for name in TRUTH_FILES if (folder / name).is_file()), None)
    return (
        [one]
        if one
        else sorted(path for path in folder.glob("groundtruth_rect.*.txt") if _SEVERAL.fullmatch(path.name))
    )


def _annotated_places(folder: Path) -> list[_Place]:
    """Sequences whose boxes lie in a folder of their own, as TrackingNet and UAV123 have it."""
    pairs = [(folder / "frames", folder / "anno")]
    if (folder / "data_seq").is_dir():
        pairs += [(path, folder / "anno" / path.name) for path in sorted((folder / "data_seq").iterdir())]
    pairs += [(folder, folder.parent / "anno")] if folder.name == "frames" else []
    pairs += [(folder, folder.parent.parent / "anno" / folder.name)] if folder.parent.name == "data_seq" else []
    places = []
    for frames, boxes in pairs:
        if not (frames.is_dir() and boxes.is_dir()):
            continue
        parts = _parts_of_uav123(frames)
        for path in sorted(path for path in boxes.glob("*.txt") if not path.name.startswith(".")):
            place, numbers = parts.get(path.stem, (path.stem, None))
            places.append(_Place(path.stem, frames / place, path, numbers))
    return places


def _parts_of_uav123(frames: Path) -> dict[str, tuple[str, tuple[int, int]]]:
    """Of UAV123's list, in which several sequences are parts of one: name -> folder, first and last frame."""
    lists = [path for folder in (frames, *frames.parents[:3]) for path in folder.glob("configSeqs.m")]
    if not lists:
        return {}
    text = lists[0].read_text(encoding="utf-8", errors="replace")
    pattern = re.compile(
        r"'name','([^']+)','path','[^']*?([^'/\\\\]+)[/\\\\]?','startFrame',(\d+),'endFrame',(\d+)", re.IGNORECASE
    )
    return {
        name: (place, (int(first), int(last)))
        for name, place, first, last in pattern.findall(re.sub(r"\s*,\s*|\.\.\.\s*", ",", text))
    }


def _load(place: _Place) -> Sequence:
    """Read the boxes of a sequence and look at its frames."""
    folder, path = place.folder, place.truth
    if path is None:
        raise LightTrackError(f"{folder}: no {', '.join(TRUTH_FILES)} or {INIT_FILE} beside the frames")
    if not folder.is_dir():
        raise LightTrackError(f"{path}: no folder of frames {folder}")
    boxes = read_boxes(path)
    frames = _frames(folder)
    if place.numbers:
        frames = _numbered(frames, *place.numbers)
    count = frames.count_frames() if isinstance(frames, VideoFile) else frames.count
    if path.name == INIT_FILE or (len(boxes) == 1 and count != 1):
        truth, visible = None, None
        files: list[Path] = []
    else:
        if len(boxes) != count:
            part = _in_otb_range(place, frames, len(boxes))
            if part is None:
                raise LightTrackError(f"{path}: {len(boxes)} lines for {count} frames")
            frames = part
        truth, visible, files = _seen(path, boxes)
    if np.isnan(boxes[0]).any():
        raise LightTrackError(f"{path}: line 1 is {_line(boxes[0])}, expected a box of positive size to start on")
    first = Box(*(float(value) for value in boxes[0]))
    return Sequence(place.name, frames, first, truth, visible, (path, *files, *frames.files))


def _load_or_tell(place: _Place, usable: list[Sequence], faults: list[str]) -> None:
    try:
        usable.append(_load(place))
    except LightTrackError as error:
        faults.append(str(error))


def _frames(folder: Path) -> Images | VideoFile:
    """The images, or the one video, of a sequence's folder; a video that `track` wrote there is none of it."""
    inner = frame_folder(folder)
    videos = _videos(folder)
    if inner != folder or not videos:
        return ImageFolder(folder)
    if _has_images(folder) or len(videos) > 1:
        names = ", ".join(path.name for path in videos)
        others = "images and " if _has_images(folder) else ""
        raise LightTrackError(
            f"{folder}: {others}{len(videos)} video(s) ({names}) in one folder; which are the frames?"
        )
    return VideoFile(videos[0])


def _videos(folder: Path) -> list[Path]:
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    return [path for path in found if not is_annotated(path)] if found else []


def _has_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(
            not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
            for entry in entries
        )


def _has_frames(folder: Path) -> bool:
    """Whether a folder looks like a sequence, boxes or not."""
    inside = any((folder / name).is_dir() and _has_images(folder / name) for name in FRAME_FOLDERS)
    return inside or _has_images(folder)


def _numbered(frames: Images | VideoFile, first: int, last: int) -> Images | VideoFile:
    """Those images whose names have a number from `first` to `last`; a video as it is."""
    if isinstance(frames, VideoFile):
        return frames
    numbers = [int((re.findall(r"\d+", path.stem) or ["0"])[-1]) for path in frames.paths]
    kept = [path for path, number in zip(frames.paths, numbers, strict=True) if first <= number <= last]
    return Images(frames.name, kept, frames.fps)


def _in_otb_range(place: _Place, frames: Images | VideoFile, lines: int) -> Images | VideoFile | None:
    """The frames that OTB's truth is of, where it has fewer lines than there are frames; None if it is not that."""
    if place.folder.resolve().name not in _OTB_RANGES:
        return None
    part = _numbered(frames, *_OTB_RANGES[place.folder.resolve().name])
    return part if part.count == lines else None


def _seen(path: Path, boxes: Floats) -> tuple[Floats, Floats, list[Path]]:
    """Truth and visible share by the boxes and by what lies beside them, and the files of that."""
    truth = boxes.copy()
    files: list[Path] = []
    for name in ABSENCE_FILES:
        if (path.parent / name).is_file():
            truth[_per_frame(path.parent / name, len(boxes)) > 0] = np.nan
            files.append(path.parent / name)
    visible = np.asarray(np.isfinite(truth).all(axis=1), np.float64)
    for name, whole in ((VISIBLE_FILE, 1.0), (COVER_FILE, 8.0)):
        if (path.parent / name).is_file():
            shares = _per_frame(path.parent / name, len(boxes)) / whole
            if not ((shares >= 0) & (shares <= 1)).all():
                raise LightTrackError(f"{path.parent / name}: expected {len(boxes)} lines from 0 to {whole:g}")
            visible = shares if name == VISIBLE_FILE else shares * visible
            files.append(path.parent / name)
    return truth, visible, files


def _per_frame(path: Path, count: int) -> Floats:
    values = read_flags(path)
    if len(values) != count:
        raise LightTrackError(f"{path}: expected {count} lines, found {len(values)}")
    return values


def _line(values: NDArray[np.float64]) -> str:
    return ",".join(f"{value:g}" for value in values)


class _ResizedFrames:
    """A `FrameSource`."""

    def __init__(self, frames: FrameSource, width: int, height: int) -> None:
        self._frames = frames
        self._size = width, height
        self.name, self.fps, self.count = frames.name, frames.fps, frames.count
        self.live, self.files = frames.live, frames.files
        self.shortfall: str | None = None

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (image for _, image in self.timed())

    def timed(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        for seconds, image in self._frames.timed():
            yield seconds, cv2.resize(image, self._size).astype(np.uint8, copy=False)
        self.shortfall = self._frames.shortfall

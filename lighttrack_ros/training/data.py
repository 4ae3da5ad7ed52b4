"""Training pictures with boxes, decoded once: videos, photos, clips, generated scenes."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.scene import DURATION, Scene
from lighttrack_ros.media.sequences import find_sequences


@dataclass(frozen=True)
class Picture:
    """One decoded picture and its annotated boxes.

    Attributes:
        pixels: (height, width, 3) uint8, R, G, B.
        boxes: any number of objects in a photo; in a video's frame the target, or none if it is not visible.
    """

    pixels: NDArray[np.uint8]
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Clip:
    """A video's frames in order, or a single photo."""

    name: str
    pictures: tuple[Picture, ...]


def read_videos(folder: Path, exclude: Iterable[str] = (), include: Iterable[str] = (), side: int = 512) -> list[Clip]:
    """Every `folder/NAME` with frames `*.jpg` and a `boxes.txt` of `x,y,w,h` lines; boxes of `nan` mean not visible.

    Args:
        exclude: names to leave out.
        include: if any, only these names are read.
        side: pictures with a longer side are shrunk to it.

    Raises:
        LightTrackError: no video in the folder, an unknown name, an unreadable file, or unequal numbers of frames and
            boxes.
    """
    if not folder.is_dir():
        raise LightTrackError(f"{folder}: no such folder of videos")
    names = sorted(entry.name for entry in folder.iterdir() if (entry / "boxes.txt").is_file())
    unknown = (set(exclude) | set(include)) - set(names)
    if unknown:
        raise LightTrackError(f"{folder}: has no video {', '.join(sorted(unknown))}")
    chosen = [name for name in names if name not in set(exclude) and (not include or name in set(include))]
    if not chosen:
        raise LightTrackError(f"{folder}: no video in it (expected NAME/boxes.txt beside NAME/0001.jpg ...)")
    clips = []
    for name in chosen:
        frames = sorted((folder / name).glob("*.jpg"))
        lines = (folder / name / "boxes.txt").read_text().split()
        if len(frames) != len(lines):
            raise LightTrackError(f"{folder / name}: {len(frames)} frames but {len(lines)} boxes")
        pictures = []
        for frame, line in zip(frames, lines, strict=True):
            values = _numbers(line.split(","), f"{folder / name}/boxes.txt")
            pictures.append(_picture(frame, [values] if np.isfinite(values).all() else [], side))
        clips.append(Clip(name, tuple(pictures)))
    return clips


def read_clips(
    folder: Path,
    cache: Path,
    exclude: Iterable[str] = (),
    include: Iterable[str] = (),
    every: int = 3,
    side: int = 512,
) -> list[Clip]:
    """Every labelled video `folder/NAME/clip.mp4` with `groundtruth.txt` beside it, of which each `every`-th frame.

    A video is decoded once into `cache`; its frames are memory-mapped from there and take memory only while used.

    Args:
        exclude: names to leave out.
        include: if any, only these names are read.
        side: frames with a longer side are shrunk to it.

    Raises:
        LightTrackError: no clip in the folder, an unknown name, a clip without ground truth, or one that cannot be
            decoded.
    """
    clips = []
    for sequence in find_sequences(folder, include, exclude):
        if sequence.truth is None:
            raise LightTrackError(f"{folder / sequence.name}: no ground truth to train on (only a first box)")
        source = folder / sequence.name
        stamps = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source.iterdir())
        mark = hashlib.sha256(repr((stamps, every, side)).encode()).hexdigest()[:12]
        decoded = cache / f"{sequence.name}-{mark}.npy"
        if not decoded.is_file():
            _decode(sequence.frames, every, side, decoded)
        frames = np.load(decoded, mmap_mode="c")  # copy on write: PyTorch warns of arrays that cannot be written
        first = next(iter(sequence.frames))
        scale = frames.shape[2] / first.shape[1]
        boxes = scale * sequence.truth[::every]
        if len(boxes) != len(frames):
            raise LightTrackError(f"{source}: {len(frames)} frames decoded for {len(boxes)} boxes")
        clips.append(
            Clip(
                sequence.name,
                tuple(
                    Picture(frame, (Box(*map(float, box)),) if np.isfinite(box).all() and min(box[2:]) > 0 else ())
                    for frame, box in zip(frames, boxes, strict=True)
                ),
            )
        )
    return clips


def _decode(frames: Iterable[NDArray[np.uint8]], every: int, side: int, target: Path) -> None:
    """Save each `every`-th frame as (frames, height, width, 3) uint8 R, G, B; the file is written atomically."""
    kept = [_shrunk(image, side)[0][:, :, ::-1] for index, image in enumerate(frames) if index % every == 0]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, np.stack(kept))
    part.replace(target)


def read_photos(folder: Path, side: int = 512) -> list[Clip]:
    """Every photo of `folder/boxes.csv` (columns file, x, y, w, h; several rows per photo).

    Raises:
        LightTrackError: the table or a photo is missing, or a value is not a number.
    """
    table = folder / "boxes.csv"
    if not table.is_file():
        raise LightTrackError(f"{table}: no such file")
    boxes: dict[str, list[list[float]]] = {}
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        if set("xywh") | {"file"} > set(reader.fieldnames or ()):
            raise LightTrackError(f"{table}: columns {reader.fieldnames}, expected file,x,y,w,h")
        for row in reader:
            boxes.setdefault(row["file"], []).append(_numbers([row[k] for k in "xywh"], str(table)))
    return [Clip(name, (_picture(folder / name, rows, side),)) for name, rows in sorted(boxes.items())]


def read_classes(folder: Path, side: int) -> tuple[list[str], list[tuple[NDArray[np.uint8], int]]]:
    """Names of the classes `folder/CLASS/*.jpg`, and every picture (height, width, 3) R, G, B with its class's number.

    Args:
        side: pictures with a longer side are shrunk to it.

    Raises:
        LightTrackError: no such folder, under two classes in it, or a picture that cannot be read.
    """
    if not folder.is_dir():
        raise LightTrackError(f"{folder}: no such folder of classes")
    names = sorted(entry.name for entry in folder.iterdir() if any(entry.glob("*.jpg")))
    if len(names) < 2:
        raise LightTrackError(f"{folder}: {len(names)} classes in it, expected two or more folders with pictures *.jpg")
    pictures = [
        (_picture(path, [], side).pixels, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).glob("*.jpg"))
    ]
    return names, pictures


def generate_scenes(count: int, seed: int, side: int = 512) -> list[Clip]:
    """Clips of generated drone video, 24 frames each, with other seeds than the demo's.

    Half of the frames are spread over the scene; in the other half the look-alike passes the target.
    """
    times = sorted([*np.linspace(0, 0.98 * DURATION, 12), *np.linspace(4.5, 5.9, 12)])
    clips = []
    for i in range(count):
        scene = Scene(seed=1000 * (seed + 1) + i, width=side, height=side * 3 // 4)
        shots = (scene[round(time * scene.fps)] for time in times)
        pictures = [
            Picture(np.ascontiguousarray(shot.image[:, :, ::-1]), () if shot.truth is None else (shot.truth,))
            for shot in shots
        ]
        clips.append(Clip(f"scene {i}", tuple(pictures)))
    return clips


class Library:
    """All pictures, on the device where pairs are made.

    Attributes:
        pixels: of each picture (3, height, width) uint8; on the CPU views of the clips' pixels.
        means: (N, 3, 1, 1) float32, the mean colours, with which crops are filled outside a picture.
        sizes: width and height of each picture.
        boxes: of each picture.
        clips: of each clip the range of its pictures.

    Raises:
        LightTrackError: there are no pictures.
    """

    def __init__(self, clips: list[Clip], device: torch.device) -> None:
        pictures = [picture for clip in clips for picture in clip.pictures]
        if not pictures:
            raise LightTrackError("no training pictures: name a folder of videos or of photos, or some scenes")
        self.device = device
        self.pixels = [torch.from_numpy(p.pixels).permute(2, 0, 1).to(device) for p in pictures]
        means = np.stack([np.floor(picture.pixels.mean((0, 1))) for picture in pictures])
        self.means = torch.from_numpy(means.astype(np.float32))[:, :, None, None].to(device)
        self.sizes = [(picture.pixels.shape[1], picture.pixels.shape[0]) for picture in pictures]
        self.boxes = [picture.boxes for picture in pictures]
        ends = np.cumsum([len(clip.pictures) for clip in clips]).tolist()
        self.clips = [range(end - len(clip.pictures), end) for clip, end in zip(clips, ends, strict=True)]


def _numbers(texts: list[str], where: str) -> list[float]:
    try:
        x, y, width, height = (float(text) for text in texts)
    except ValueError as error:
        raise LightTrackError(f"{where}: {','.join(texts)!r} is not x,y,w,h") from error
    return [x, y, width, height]


def _picture(path: Path, boxes: list[list[float]], side: int) -> Picture:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise LightTrackError(f"{path}: cannot be read as a picture")
    image, scale = _shrunk(image, side)
    kept = tuple(Box(*(scale * value for value in box)) for box in boxes if box[2] > 0 and box[3] > 0)
    return Picture(np.ascontiguousarray(image[:, :, ::-1]).astype(np.uint8, copy=False), kept)


def _shrunk(image: NDArray[Any], side: int) -> tuple[NDArray[np.uint8], float]:
    """A picture shrunk to a longer side of at most `side`, and the scale."""
    scale = min(1.0, side / max(image.shape[:2]))
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return image.astype(np.uint8, copy=False), scale

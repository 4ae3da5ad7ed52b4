"""What a tracker says, frame by frame, where it follows and where it fails: the material of a session's judgement.

The tracker goes over a sequence as in one-pass evaluation, its failures included, once more from its end to its start,
and once while the picture turns to and fro: other failures, and a target that looks otherwise, without another label.
Now and then it also looks elsewhere in the frame, as a session does for a lost target.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box, context_side
from lighttrack_ros.image import Frame, from_bgr
from lighttrack_ros.media import sequences
from lighttrack_ros.trackers.base import Estimate, Sight, Tracker

CANDIDATES = 3  # kept of each frame, at most
LOOK_EVERY = 8  # frames between two looks elsewhere
BACKWARDS, TURNED = "_backwards", "_turned"  # at the end of a track's name
_FURTHEST = (25.0, 100.0)  # degrees that a picture turns to either side
_PERIOD = (60.0, 220.0)  # frames in which it turns to and fro
_MOST_BYTES = 1 << 30  # of frames held to go backwards; of a longer sequence the end

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Records:
    """What a tracker said of some frames, a row a frame.

    Attributes:
        frames: (n,) int64, their numbers in the sequence.
        truth: (n, 4) float64; nan where the target cannot be seen.
        estimates: (n, 4) float64, the tracker's boxes.
        scores: (n,) float64, the tracker's.
        boxes: (n, CANDIDATES, 4) float64, what was seen; nan where there was less.
        logits: (n, CANDIDATES) float64, likewise.
        levels: (n, 2) float64, mean and deviation of the logits.
        patches: (n, CANDIDATES, 4, 4, channels) float16; (n, 0, 4, 4, 0) of a tracker that gives no sight.
    """

    frames: NDArray[np.int64]
    truth: Floats
    estimates: Floats
    scores: Floats
    boxes: Floats
    logits: Floats
    levels: Floats
    patches: NDArray[np.float16]

    def estimate(self, row: int) -> Estimate:
        return Estimate(Box(*self.estimates[row].tolist()), float(self.scores[row]))

    def sight(self, row: int) -> Sight | None:
        """As the tracker gave it."""
        seen = int(np.isfinite(self.logits[row]).sum())
        if not seen:
            return None
        mean, deviation = self.levels[row].tolist()
        patches = self.patches[row, :seen].astype(np.float32)
        return Sight(self.boxes[row, :seen], self.logits[row, :seen], patches, mean, deviation)


@dataclass(frozen=True)
class Track:
    """One target followed through a sequence.

    Attributes:
        name: the sequence's.
        size: width and height of its frames.
        followed: row 0 is the frame of the start, looked at as well.
        looked: what was seen on looks elsewhere.
        surroundings: (2, channels, n, n) float16, the features at the start, see `Tracker.surroundings`;
            (0, 0, 0, 0) of a tracker that gives none.
    """

    name: str
    size: tuple[int, int]
    followed: Records
    looked: Records
    surroundings: NDArray[np.float16]

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {"size": np.array(self.size), "surroundings": self.surroundings}
        for part in ("followed", "looked"):
            arrays |= {f"{part}_{name}": array for name, array in vars(getattr(self, part)).items()}
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Track:
        """What `save` wrote.

        Raises:
            LightTrackError: it cannot be read.
        """
        names = [item.name for item in dataclasses.fields(Records)]
        try:
            with np.load(path, allow_pickle=False) as file:
                width, height = file["size"].tolist()
                surroundings = file["surroundings"]
                parts = [Records(**{name: file[f"{part}_{name}"] for name in names}) for part in ("followed", "looked")]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise LightTrackError(f"{path}: not the records of a track ({error}); delete it") from None
        return cls(path.stem, (width, height), parts[0], parts[1], surroundings)


def harvest(tracker: Tracker, sequence: sequences.Sequence, on_frame: Callable[[], object] | None = None) -> Track:
    """Go over a sequence once, from its first box.

    Args:
        sequence: with a truth.
        on_frame: called after every frame, e.g. to move a progress bar.

    Raises:
        LightTrackError: a frame that cannot be decoded, or fewer frames than truth boxes.
    """
    assert sequence.truth is not None
    return _follow(tracker, sequence.name, sequence.frames, sequence.init_box, sequence.truth, on_frame)


def harvest_backwards(
    tracker: Tracker, sequence: sequences.Sequence, on_frame: Callable[[], object] | None = None
) -> Track:
    """As `harvest`, from the last frame with a target to the first."""
    assert sequence.truth is not None
    in_view = np.flatnonzero(np.isfinite(sequence.truth).all(axis=1))
    held: deque[NDArray[np.uint8]] = deque()
    for number, image in enumerate(sequence.frames):
        if number > in_view[-1]:
            break
        held.appendleft(np.array(image))  # a source may use its buffer again
        if len(held) * image.nbytes > _MOST_BYTES:
            held.pop()
    if number < in_view[-1]:
        raise LightTrackError(f"{sequence.name}: {number + 1} frames decoded, {len(sequence.truth)} lines of truth")
    truth = sequence.truth[: in_view[-1] + 1][::-1][: len(held)]
    return _follow(tracker, sequence.name + BACKWARDS, held, Box(*truth[0].tolist()), truth, on_frame)


def harvest_turned(
    tracker: Tracker, sequence: sequences.Sequence, on_frame: Callable[[], object] | None = None
) -> Track:
    """As `harvest`, while the picture turns to and fro about the target, as a camera that rolls or a thing that turns.

    The truth is then the box round the turned ellipse that the box held.
    """
    assert sequence.truth is not None
    name = sequence.name + TURNED
    rng = _rng_of(name)
    furthest = np.radians(rng.uniform(*_FURTHEST)) * rng.choice((-1, 1))
    angles = furthest * np.sin(2 * np.pi * np.arange(len(sequence.truth)) / rng.uniform(*_PERIOD))
    turns, truth = _turns(sequence.truth, angles)
    return _follow(tracker, name, _turned(sequence.frames, turns), sequence.init_box, truth, on_frame)


def _turns(truth: Floats, angles: Floats) -> tuple[list[Floats], Floats]:
    """Of each frame the map of its points, (2, 3), and the box after it, (n, 4); nan where there is no target.

    Args:
        truth: (n, 4) float64, the first row not nan.
        angles: (n,) float64, radians anticlockwise.
    """
    turns, boxes = [], truth.copy()
    middle = centre = truth[0, :2] + truth[0, 2:] / 2
    for row, (box, angle) in enumerate(zip(truth, angles.tolist(), strict=True)):
        there = bool(np.isfinite(box).all())
        if there:
            centre = box[:2] + box[2:] / 2
        middle = middle + 0.2 * (centre - middle)  # smoothly: what a label jumps by is no motion of the camera's
        turn = cv2.getRotationMatrix2D(middle.tolist(), float(np.degrees(angle)), 1.0)
        turns.append(np.asarray(turn, np.float64))
        if there:
            along, across = abs(np.cos(angle)), abs(np.sin(angle))
            half = np.hypot(box[2:] / 2 * along, box[:1:-1] / 2 * across)
            boxes[row] = np.concatenate((turn @ np.append(centre, 1) - half, 2 * half))
    return turns, boxes


def _turned(frames: Iterable[NDArray[np.uint8]], turns: Iterable[Floats]) -> Iterator[NDArray[np.uint8]]:
    for image, turn in zip(frames, turns, strict=False):
        height, width = image.shape[:2]
        yield np.asarray(cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _follow(
    tracker: Tracker,
    name: str,
    frames: Iterable[NDArray[np.uint8]],
    first: Box,
    truth: Floats,
    on_frame: Callable[[], object] | None,
) -> Track:
    rng = _rng_of(name)
    rows: list[_Row] = []
    looks: list[_Row] = []
    size = 0, 0
    surroundings: NDArray[np.float32] | None = None
    for number, image in enumerate(frames):
        frame = from_bgr(image)
        if not rows:
            size = frame.width, frame.height
            tracker.init(frame, first)
            surroundings = tracker.surroundings(frame)
            rows.append(_Row.of(number, truth[number], tracker.update(frame), tracker.sight()))
            tracker.init(frame, first)
        else:
            rows.append(_Row.of(number, truth[number], tracker.update(frame), tracker.sight()))
            if number % LOOK_EVERY == 0:
                true = Box(*truth[number].tolist()) if np.isfinite(truth[number]).all() else None
                there = tracker.target
                tracker.target = _elsewhere(there, true, frame, rng)
                looks.append(_Row.of(number, truth[number], tracker.update(frame), tracker.sight()))
                tracker.target = there  # not its place: the next frame is searched whole, so such are learned from too
        while tracker.idle_work():
            pass
        if on_frame is not None:
            on_frame()
    if len(rows) != len(truth):
        raise LightTrackError(f"{name}: {len(rows)} frames decoded, {len(truth)} lines of truth")
    seen = np.zeros((0, 0, 0, 0)) if surroundings is None else surroundings
    return Track(name, size, _stacked(rows), _stacked(looks), seen.astype(np.float16))


def _rng_of(name: str) -> np.random.Generator:
    """The same in every run."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


@dataclass(frozen=True)
class _Row:
    """One row of Records."""

    frames: int
    truth: Floats
    estimates: Floats
    scores: float
    boxes: Floats
    logits: Floats
    levels: tuple[float, float]
    patches: NDArray[np.float16]

    @classmethod
    def of(cls, number: int, truth: Floats, estimate: Estimate, sight: Sight | None) -> _Row:
        seen = 0 if sight is None or sight.patches is None else len(sight.boxes)
        boxes, logits = np.full((CANDIDATES, 4), np.nan), np.full(CANDIDATES, np.nan)
        patches: NDArray[np.float16] = np.zeros((0, 4, 4, 0), np.float16)
        if seen:
            assert sight is not None
            assert sight.patches is not None
            boxes[:seen], logits[:seen] = sight.boxes, sight.logits
            patches = np.zeros((CANDIDATES, *sight.patches.shape[1:]), np.float16)
            patches[:seen] = sight.patches
        return cls(
            number,
            truth,
            np.array(estimate.box),
            estimate.confidence if estimate.evidence is None else estimate.evidence,
            boxes,
            logits,
            (sight.mean, sight.deviation) if sight else (0.0, 1.0),
            patches,
        )


def _stacked(rows: Sequence[_Row]) -> Records:
    if not rows:  # a sequence too short for a look
        return Records(
            np.zeros(0, np.int64),
            np.zeros((0, 4)),
            np.zeros((0, 4)),
            np.zeros(0),
            np.zeros((0, CANDIDATES, 4)),
            np.zeros((0, CANDIDATES)),
            np.zeros((0, 2)),
            np.zeros((0, CANDIDATES, 4, 4, 0), np.float16),
        )
    columns = [item.name for item in dataclasses.fields(Records)]
    return Records(**{name: np.array([getattr(row, name) for row in rows]) for name in columns})


def _elsewhere(target: Box, true: Box | None, frame: Frame, rng: np.random.Generator) -> Box:
    """Half of the time about the truth, else anywhere in the frame; of the target's size."""
    if true is not None and rng.random() < 0.5:
        reach = context_side(true.width, true.height) / 2
        centre_x, centre_y = true.centre + rng.uniform(-reach, reach, 2)
        width, height = np.array(true[2:]) * np.exp(rng.normal(0, 0.2))
    else:
        centre_x, centre_y = rng.random(2) * (frame.width, frame.height)
        width, height = target[2:]
    return Box(float(centre_x - width / 2), float(centre_y - height / 2), float(width), float(height))

"""Files of boxes as data sets write them: OTB, LaSOT, GOT-10k, VOT, TrackingNet, UAV123 and this project's own."""

from __future__ import annotations

import codecs
import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError

Floats = NDArray[np.float64]
_NAN = (math.nan,) * 4
# Of LaSOT and GOT-10k, beside the boxes: 1 where there is no target, whatever the box says.
ABSENCE_FILES = ("full_occlusion.txt", "out_of_view.txt", "absence.label")
VISIBLE_FILE = "visible.txt"  # this project's: share of the target that can be seen, 0..1
COVER_FILE = "cover.label"  # GOT-10k's: the same in eighths


def read_boxes(path: Path) -> Floats:
    """A box a line, as an (N, 4) float64 array of x, y, width, height; a row of nan where there is no target.

    A line holds four numbers, or the corners of a polygon (eight or more numbers), or a mask of VOT's (`m x,y,w,h,..`,
    run lengths), of which the box is the one round it. Between numbers stand commas, semicolons, tabs or spaces. No
    target is four times nan, a box of no size, VOT's `0` or an empty line between others. A byte order mark, a line of
    titles and separators at the ends of lines do no harm.

    Raises:
        LightTrackError: unreadable, empty, or a line that is none of these; half a nan is an error too.
    """
    lines = read_lines(path)
    if lines and re.fullmatch(r"[\"']?[A-Za-z_]+[\"']?([,;\s]+[\"']?[A-Za-z_]+[\"']?){3,}", lines[0]):
        titles = {word.strip("\"'").lower() for word in re.split(r"[,;\s]+", lines[0])}
        lines = lines if titles & {"nan", "none"} else lines[1:]
    if not lines:
        raise LightTrackError(f"{path}: empty, expected a line x,y,w,h")
    boxes = np.empty((len(lines), 4))
    number = 0
    try:
        for number, line in enumerate(lines):
            boxes[number] = _box(line)
    except ValueError:
        raise LightTrackError(
            f"{path}: line {number + 1} is {lines[number][:80]!r}, expected x,y,w,h (nan,nan,nan,nan: not visible)"
        ) from None
    return boxes


def read_flags(path: Path) -> Floats:
    """Numbers, a line or a value each, as (N,) float64.

    Raises:
        LightTrackError: unreadable, or something that is no number.
    """
    try:
        return np.array([float(value) for line in read_lines(path) for value in re.split(r"[,;\s]+", line) if value])
    except ValueError as error:
        raise LightTrackError(f"{path}: cannot be read ({error})") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without what is empty at their ends and at the file's.

    Raises:
        LightTrackError: unreadable.
    """
    try:
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LightTrackError(f"{path}: cannot be read ({error})") from None
    lines = [line.strip().rstrip(",;").rstrip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _box(line: str) -> Floats | tuple[float, ...]:
    """x, y, width, height of one line.

    Raises:
        ValueError: it is none.
    """
    if line[:1] in ("m", "M"):
        return _box_of_mask([int(part) for part in _parts(line[1:].lstrip(" :,"))])
    values = np.array([math.nan if part.lower() in ("none", "null") else float(part) for part in _parts(line)])
    if len(values) <= 1:
        if not len(values) or values[0] == 0 or np.isnan(values[0]):
            return _NAN
        raise ValueError(line)
    if np.isnan(values).all():
        return _NAN
    if len(values) < 4 or not np.isfinite(values).all() or (len(values) > 4 and len(values) % 2) or len(values) == 6:
        raise ValueError(line)
    if len(values) > 4:
        xs, ys = values[0::2], values[1::2]
        values = np.array([xs.min(), ys.min(), xs.max() - xs.min(), ys.max() - ys.min()])
    return values if values[2] > 0 and values[3] > 0 else _NAN


def _parts(line: str) -> list[str]:
    return re.split(r"\s*[,;]\s*|\s+", line) if line else []


def _box_of_mask(numbers: list[int]) -> tuple[float, ...]:
    """Round the ones of a mask: its left, top, width, height, then lengths of runs of zeros and ones in turn."""
    left, top, width, height = numbers[:4]
    runs = np.array(numbers[4:], np.int64)
    mask = np.repeat(np.arange(len(runs)) % 2, runs)[: width * height]
    mask = np.pad(mask, (0, width * height - len(mask))).reshape(height, width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return _NAN
    return left + columns[0], top + rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1

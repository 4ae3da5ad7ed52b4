"""What int8 needs to know of a model's graphs beyond the graphs: measured on real crops, kept beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lighttrack_ros import config
from lighttrack_ros.errors import LightTrackError

FILE = "ranges.yaml"
_VERSION = 1


@dataclass(frozen=True)
class Ranges:
    """Of one graph.

    Attributes:
        sha256: of the graph's file; ranges are worth nothing for another graph.
        inputs: how many were run to measure them.
        kept: names of the nodes that stay in floating point, as int8 would cost too much accuracy there.
        ranges: tensor -> its lowest and highest value.
    """

    sha256: str
    inputs: int
    kept: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Calibration:
    """All of a model folder.

    Attributes:
        sequences: names of those that the inputs came from.
        graphs: file name -> its ranges; those that run once a target or less often are not worth it.
    """

    sequences: tuple[str, ...]
    graphs: Mapping[str, Ranges]


def save_calibration(calibration: Calibration, folder: Path) -> Path:
    """Write it into a model folder, one line a tensor; returns the file."""
    path = folder / FILE
    config.save(path, asdict(calibration), _VERSION, inline=True)
    return path


def load_ranges(graph: Path) -> Ranges | None:
    """The ranges of a graph, from the file beside it; None for a graph that is not to be quantized.

    Raises:
        LightTrackError: there is no such file, it cannot be read, or it was measured on another graph; names the
            command that makes it.
    """
    path = graph.parent / FILE
    command = f"lighttrack calibrate {graph.parent} --sequences DIR"
    if not path.is_file():
        raise LightTrackError(f"{graph.parent}: no {FILE}, which int8 needs (make it with: {command})")
    data = config.load(path, _VERSION, f"make it anew with: {command}")
    try:
        ranges = config.check(Calibration, data, "its content").graphs.get(graph.name)
    except LightTrackError as error:
        raise LightTrackError(f"{path}: cannot be read ({error}; make it anew with: {command})") from error
    if ranges is None:
        return None
    if ranges.sha256 != file_hash(graph):
        raise LightTrackError(f"{path}: was measured on another {graph.name} (measure again with: {command})")
    return ranges


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

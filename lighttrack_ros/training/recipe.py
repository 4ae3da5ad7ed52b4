"""A training recipe: one YAML file, read against one schema."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.training.pairs import CROPPINGS, PairSettings

_PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class DataSettings:
    """Where pictures come from. Paths are taken from the working directory."""

    videos: str = ""  # a folder of NAME/0001.jpg ... and NAME/boxes.txt
    photos: str = ""  # a folder of photos and boxes.csv
    scenes: int = 0  # generated clips
    held_out: tuple[str, ...] = ()  # videos kept for validation
    side: int = 512  # pictures are shrunk to it


@dataclass(frozen=True)
class TeacherSettings:
    """A LightTrack's checkpoint to learn from."""

    checkpoint: str = ""  # empty: no teacher
    architecture: str = ""  # its path string; empty: LightTrack-Mobile's
    inherit: bool = True  # a LightTrack starts with what fits of the teacher's weights
    cache: str = ""  # folder for pairs and targets, 0.3 MB a pair of 256 px; empty: made anew each time


@dataclass(frozen=True)
class LossWeights:
    cls: float = 0.5
    box: float = 0.5
    stranger: float = 0.5
    teacher_cls: float = 2.0
    teacher_box: float = 1.0
    teacher_features: float = 2.0


@dataclass(frozen=True)
class DyTrackSettings:
    """Of a DyTrack alone; see docs/dytrack.md."""

    start: str = ""  # a checkpoint to start from; empty: from nothing
    stage: str = "exits"  # or "decisions": only these are trained
    teacher_features: float = 3.0  # weight of the teacher's features, in units of their variance
    distillation: float = 0.5  # weight of what early exits learn from the last; 0: nothing


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    architecture: str  # of a LightTrack its path string, of a DyTrack e.g. sizes_128_256_channels_384_192_exits_3_6
    steps: int
    tracker: str = "lighttrack"  # or "dytrack"
    data: DataSettings = DataSettings()
    pairs: PairSettings = field(default_factory=PairSettings)
    teacher: TeacherSettings = TeacherSettings()
    losses: LossWeights = LossWeights()  # of a LightTrack
    dytrack: DyTrackSettings = DyTrackSettings()
    pairs_count: int = 24_000  # different pairs; they come round again after that
    batch_size: int = 16  # over all devices
    lr: float = 5e-4
    head_lr: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 100  # steps
    clip: float = 5.0  # gradient norm
    precision: str = "32-true"  # Lightning Fabric's name; "bf16-mixed" pays for a transformer where the CPU has it
    frozen: tuple[str, ...] = ()  # beginnings of the names of weights that stay as they are
    ema: float = 0.998
    seed: int = 1
    workers: int = 1  # processes that make pairs; 0 makes them on the training device
    log_every: int = 50  # steps
    save_every: int = 500  # steps
    validate_every: int = 1000  # steps between looks at the held-out videos


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        LightTrackError: no such file, or an entry that is unknown, missing or of the wrong type.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise LightTrackError(f"{path}: cannot be read ({error})") from error
    recipe: Recipe = _read(Recipe, content, str(path))
    if recipe.tracker not in CROPPINGS:
        raise LightTrackError(f"{path}: tracker is {recipe.tracker!r}, expected one of {', '.join(CROPPINGS)}")
    if recipe.precision not in _PRECISIONS:
        raise LightTrackError(f"{path}: precision is {recipe.precision!r}, expected one of {', '.join(_PRECISIONS)}")
    for name in ("steps", "batch_size", "pairs_count", "log_every", "save_every", "validate_every", "warmup"):
        if getattr(recipe, name) < 1:
            raise LightTrackError(f"{path}: {name} is {getattr(recipe, name)}, expected at least 1")
    if recipe.pairs_count < recipe.batch_size:
        raise LightTrackError(f"{path}: pairs_count {recipe.pairs_count} is under batch_size {recipe.batch_size}")
    return recipe


def _read(kind: type, content: Any, where: str) -> Any:
    if not isinstance(content, dict):
        raise LightTrackError(f"{where}: expected `key: value` lines, found {type(content).__name__}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in content:
        if key not in fields:
            raise LightTrackError(f"{where}: {key!r} is unknown, expected one of {', '.join(fields)}")
    values = {}
    for name, f in fields.items():
        if name not in content:
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise LightTrackError(f"{where}: {name} is missing")
            continue
        value = content[name]
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if dataclasses.is_dataclass(default):
            values[name] = _read(type(default), value, f"{where}: {name}")
        elif isinstance(default, tuple):
            values[name] = tuple(value) if isinstance(value, list) else value
        elif isinstance(default, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
            values[name] = float(value)
        else:
            values[name] = value
        expected = {"str": str, "int": int, "float": float, "bool": bool, "tuple[str, ...]": tuple}.get(str(f.type))
        if expected and type(values[name]) is not expected:
            raise LightTrackError(f"{where}: {name} is {value!r}, expected {f.type}")
    return kind(**values)

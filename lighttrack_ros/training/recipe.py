"""A training recipe: one YAML file, read against one schema."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from lighttrack_ros import config
from lighttrack_ros.config import at_least, one_of
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.training.pairs import CROPPINGS, PairSettings

Count = Annotated[int, at_least(1)]
_STAGE = "stage:"
SEARCHED = "searched"  # as `start`: the path that a search found


@dataclass(frozen=True)
class DataSettings:
    """Where pictures come from. Paths are taken from the working directory."""

    videos: str = ""  # a folder of NAME/0001.jpg ... and NAME/boxes.txt
    photos: str = ""  # a folder of photos and boxes.csv
    clips: str = ""  # a folder of NAME/clip.mp4 and NAME/groundtruth.txt
    clips_every: Count = 3  # step between the frames kept of a clip
    clips_cache: str = "build/clips"  # where clips are kept decoded, 0.3 MB a frame of 384 x 288
    scenes: int = 0  # generated clips
    held_out: tuple[str, ...] = ()  # videos kept for validation
    held_out_clips: tuple[str, ...] = ()  # likewise; keep clips of one recording together
    side: int = 512  # pictures are shrunk to it
    classes: str = ""  # of method classes: a folder of CLASS/*.jpg


@dataclass(frozen=True)
class TeacherSettings:
    """A checkpoint to learn from: a LightTrack's; for a MixFormerV2 also a MixFormerV2's or a corner network's."""

    checkpoint: str = ""  # empty: no teacher
    architecture: str = ""  # a LightTrack's path string; empty: LightTrack-Mobile's
    inherit: bool = True  # a LightTrack or supernet starts with what fits of the teacher's weights
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

    stage: Annotated[str, one_of("exits", "decisions")] = "exits"  # "decisions": only these are trained
    teacher_features: float = 3.0  # weight of the teacher's features, in units of their variance
    distillation: float = 0.5  # weight of what early exits learn from the last; 0: nothing


@dataclass(frozen=True)
class MixFormerV2Settings:
    """Of a MixFormerV2 alone; see docs/training.md#mixformerv2. Blocks are the teacher's, counted from 0."""

    # "dense": the corner network, which gives maps of corners; "score": the score head alone
    stage: Annotated[str, one_of("dense", "sparse", "score")] = "sparse"
    removed: tuple[int, ...] = ()  # blocks that the student does not have, if it starts from all: that go
    fade: Annotated[int, at_least(0)] = 0  # steps over which they go; 0: at once
    box: float = 1.0  # weight of 2 (1 - CIoU) + 5 L1
    edges: float = 5.0  # of the divergence from the teacher's distributions of the edges
    features: float = 0.2  # of the mean squared error of the tokens before each removed block, and of the last
    teacher_features: float = 3.0  # of a LightTrack teacher's features, in units of their variance


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    # Of a LightTrack its path string, of a DyTrack e.g. sizes_128_256_channels_384_192_exits_3_6, of a MixFormerV2 e.g.
    # sizes_112_224_channels_768_mlp_768_depth_4_bins_96
    architecture: str
    steps: Count
    tracker: Annotated[str, one_of(*CROPPINGS)] = "lighttrack"
    data: DataSettings = DataSettings()
    pairs: PairSettings = field(default_factory=PairSettings)
    teacher: TeacherSettings = TeacherSettings()
    losses: LossWeights = LossWeights()  # of a LightTrack
    dytrack: DyTrackSettings = DyTrackSettings()
    mixformerv2: MixFormerV2Settings = MixFormerV2Settings()
    # "supernet": all paths under a LightTrack teacher's; "classes": their backbones, on a folder of classes
    method: Annotated[str, one_of("student", "supernet", "classes")] = "student"
    # What to go on from: a checkpoint, of a LightTrack also a model folder or its name; empty: nothing, or the teacher;
    # "searched": the path that `lighttrack search` found, whose architecture counts then
    start: str = ""
    windows: tuple[Count, ...] = ()  # sides of what the student sees of the search crop, in turn; empty: all of it
    pairs_count: Count = 24_000  # different pairs; they come round again after that
    batch_size: Count = 16  # over all devices
    lr: float = 5e-4
    head_lr: float = 2e-3
    weight_decay: float = 1e-4
    warmup: Count = 100  # steps
    clip: float = 5.0  # gradient norm
    # Lightning Fabric's names; "bf16-mixed" pays for a transformer where the CPU has it
    precision: Annotated[str, one_of("32-true", "bf16-mixed")] = "32-true"
    frozen: tuple[str, ...] = ()  # beginnings of the names of weights that stay as they are
    ema: float = 0.998
    seed: int = 1
    workers: int = 1  # processes that make pairs; 0 makes them on the training device
    log_every: Count = 50  # steps
    save_every: Count = 500  # steps
    validate_every: Count = 1000  # steps between looks at the held-out videos


def read_stages(path: Path, output: Path) -> dict[str, Recipe]:
    """The stages of a recipe file; see `stages_of`.

    Raises:
        LightTrackError: no such file, or it is wrong.
    """
    return stages_of(config.load(path), path, output)


def stages_of(data: dict[str, Any], where: str | Path, output: Path) -> dict[str, Recipe]:
    """The stages of a recipe in the order in which they run, by name; a recipe without stages is itself one, named "".

    A stage of `stages:` is the recipe's other entries, changed by its own. In `start` and `teacher: checkpoint`,
    `stage:NAME` is the student of an earlier stage of the run in `output`.

    Args:
        where: what errors name.

    Raises:
        LightTrackError: an entry is unknown, missing or of the wrong type, or a stage's name or a reference is wrong.
    """
    stages = data.get("stages")
    if "stages" not in data:
        return {"": _checked(data, where)}
    if not isinstance(stages, dict) or not stages:
        raise LightTrackError(f"{where}: stages is {stages!r:.100}, expected a section of sections")
    common = {key: value for key, value in data.items() if key != "stages"}
    found: dict[str, Recipe] = {}
    for name, changes in stages.items():
        if not re.fullmatch(r"[a-z0-9_]+", name) or not isinstance(changes, dict):
            raise LightTrackError(f"{where}: stages: {name}: expected a section, its name of a-z, 0-9 and _")
        merged = merge(common, changes)
        for section, key in ((merged, "start"), (merged.get("teacher"), "checkpoint")):
            value = section.get(key) if isinstance(section, dict) else None
            if isinstance(section, dict) and isinstance(value, str) and value.startswith(_STAGE):
                earlier = value.removeprefix(_STAGE)
                if earlier not in found:
                    raise LightTrackError(f"{where}: stages: {name}: {key} is {value!r}, and no earlier stage is that")
                section[key] = str(output / earlier / "student.pt")
        found[name] = _checked(merged, f"{where}: stages: {name}")
    return found


def merge(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`data` with the entries of `changes`; sections of both are merged, all else is replaced."""
    merged = {key: merge(value, {}) if isinstance(value, dict) else value for key, value in data.items()}
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _checked(data: dict[str, Any], where: str | Path) -> Recipe:
    recipe = config.check(Recipe, data, where)
    if recipe.pairs_count < recipe.batch_size:
        raise LightTrackError(f"{where}: pairs_count {recipe.pairs_count} is under batch_size {recipe.batch_size}")
    return recipe

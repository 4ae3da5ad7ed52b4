"""A training recipe: one YAML file, read against one schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from lighttrack_ros import config
from lighttrack_ros.config import at_least, one_of
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.training.pairs import CROPPINGS, PairSettings

Count = Annotated[int, at_least(1)]


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
    steps: Count
    tracker: Annotated[str, one_of(*CROPPINGS)] = "lighttrack"  # or "dytrack"
    data: DataSettings = DataSettings()
    pairs: PairSettings = field(default_factory=PairSettings)
    teacher: TeacherSettings = TeacherSettings()
    losses: LossWeights = LossWeights()  # of a LightTrack
    dytrack: DyTrackSettings = DyTrackSettings()
    method: Annotated[str, one_of("student", "supernet")] = "student"  # "supernet": all paths under the teacher's
    start: str = ""  # of a LightTrack a model folder, or its name, to go on from; empty: from nothing, or the teacher
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


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        LightTrackError: no such file, or an entry that is unknown, missing or of the wrong type.
    """
    recipe = config.check(Recipe, config.load(path), path)
    if recipe.pairs_count < recipe.batch_size:
        raise LightTrackError(f"{path}: pairs_count {recipe.pairs_count} is under batch_size {recipe.batch_size}")
    return recipe

"""Model folders: what `model.yaml` may say, checked once at the door, and where the folders are found."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from lighttrack_ros import config
from lighttrack_ros.config import not_empty, one_of, within
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.user_folders import data_folder, package_folders

VERSION = 1
DEFAULT_MODEL = "lighttrack_nano"

Text = Annotated[str, not_empty]
Share = Annotated[float, within(0, 1)]
LogOdds = Annotated[float, within(-20, 20)]
Factor = Annotated[float, within(1, 10)]
Count = Annotated[int, within(1, 10_000)]


@dataclass(frozen=True)
class Graphs:
    """File names of the ONNX graphs, inside the model folder, in the order in which they run."""

    template: tuple[Text, ...] = ("template.onnx",)
    search: tuple[Text, ...] = ("search.onnx",)


@dataclass(frozen=True)
class Preprocessing:
    """What the graphs do to the crop's bytes before the network; for the reader's information only."""

    colour: Text = "bgr"  # channel order in which the graphs take uint8 crops
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # R, G, B, after division by 255
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LightTrackHyperParameters:
    """Of LightTrack's decoding; the defaults are the authors' for VOT2019."""

    penalty_k: Share = 0.007  # strength of the penalty on change of size and shape
    window_influence: Share = 0.225  # share of the cosine window in the ranking
    lr: Share = 0.616  # base rate of the size update
    small_target: Share = 0.004  # share of the picture under which the larger search size is taken
    # Ours, not the authors': a smaller crop is searched first while the target moves little; docs/performance.md.
    near_size: Annotated[int, within(0, 1024)] = 0  # its side; 0: never
    middle_size: Annotated[int, within(0, 1024)] = 0  # of one between it and the whole, for more movement; 0: none
    near_shift: LogOdds = 0.0  # by how much scores are lower there than in a full crop
    near_score: LogOdds = 0.0  # of the best cell, shifted: under it more is searched
    # 0: under it the whole crop is searched in the same frame. Else never twice a frame: under it the middle crop is
    # searched in the next one, and the whole once in so many frames.
    whole_interval: Annotated[int, within(0, 10_000)] = 0


@dataclass(frozen=True)
class MixFormerV2HyperParameters:
    """Of MixFormerV2's crops and its online template; the defaults are the authors' for any video."""

    template_factor: Factor = 2.0  # side of the crop, in roots of the target's area
    search_factor: Factor = 4.5  # of the search crop; the authors' runs have 4.4 to 5.0
    update_interval: Count = 200  # frames between two online templates; 10 to 25 on short sequences
    update_score: Share = 0.5  # confidence over which a frame may become the online template


@dataclass(frozen=True)
class DyTrackHyperParameters:
    """Of DyTrack's crops and of when it stops; see docs/dytrack.md for what each is for."""

    max_exit: Annotated[int, within(0, 126)]  # the deepest exit that may run, counted from 0
    modes: dict[str, tuple[Share, ...]]  # of every exit but the last: the quality from which it stops
    mode: Text = "balanced"  # the one of `modes` in use
    hysteresis: Share = 0.02  # how much easier it is to stop where the last frame stopped
    audit_interval: Count = 60  # stops at the first exit in a row after which one frame runs to the end
    doubt: Share = 0.4  # quality under which the frames that follow run to the end
    template_factor: Factor = 2.0  # side of the crop, in roots of the target's area
    search_factor: Factor = 4.0  # of the search crop


HyperParameters = LightTrackHyperParameters | MixFormerV2HyperParameters | DyTrackHyperParameters
TRACKERS: dict[str, type[HyperParameters]] = {
    "lighttrack": LightTrackHyperParameters,
    "mixformerv2": MixFormerV2HyperParameters,
    "dytrack": DyTrackHyperParameters,
}
_Kind = TypeVar("_Kind", bound=HyperParameters)


@dataclass(frozen=True)
class SessionSettings:
    """When an estimate may be believed; see docs/lost.md, and `lighttrack fit-session` for how values are found.

    `unlikeness`, `midpoint` and `slope` serve models without a verifier. Their confidence is 1 / (1 + exp(-slope
    (log odds of the network's score - unlikeness (1 - cosine) - midpoint))), the cosine being that of how the target
    looks and how it has looked.
    """

    unlikeness: Annotated[float, within(0, 1000)] = 0.0  # log odds that looking unlike takes away
    midpoint: Annotated[float, within(-100, 100)] = 0.0  # log odds where there or gone are as likely
    slope: Annotated[float, within(0.01, 100)] = 1.0
    uncertain: Share = 0.3  # confidence under which the target is uncertain
    sure: Share = 0.5  # confidence from which an uncertain one may be believed again
    lost: Share = 0.3  # chance of being in view under which it may be lost
    lost_frames: Count = 5  # so many frames in a row under it: the target is lost
    again: Share = 0.5  # chance of being in view from which a lost one may be believed again where the tracker was led
    found: Share = 0.5  # chance of being the target from which what is seen while it is lost may be believed
    found_frames: Count = 2  # so many frames in a row, at one place: for `sure`, `again` and `found`


@dataclass(frozen=True)
class Provenance:
    """Where the weights came from."""

    source: Text
    licence: Text
    sha256: Text  # of the checkpoint file


@dataclass(frozen=True)
class Model:
    """One model folder. Field names are the keys of `model.yaml`; `folder` is where it was found."""

    folder: Path
    name: Text
    tracker: Text  # one of TRACKERS
    architecture: Text
    template_size: Annotated[int, within(16, 1024)]  # side of the template crop, pixels
    search_sizes: tuple[int, ...]  # sides of the search crop; LightTrack: ordinary targets, small targets
    stride: Annotated[int, one_of(8, 16)]  # crop pixels per cell
    provenance: Provenance
    hyper_parameters: HyperParameters  # the tracker's own kind
    session: SessionSettings = SessionSettings()
    preprocessing: Preprocessing = Preprocessing()
    graphs: Graphs = Graphs()
    scores: dict[str, float] = field(default_factory=dict)  # what it measured, by name

    @property
    def search_sides(self) -> tuple[int, ...]:
        """Every side at which a search graph runs: `search_sizes`, and LightTrack's smaller ones, smallest first."""
        parameters = self.hyper_parameters
        if not isinstance(parameters, LightTrackHyperParameters):
            return self.search_sizes
        return (*self.search_sizes, *(side for side in (parameters.near_size, parameters.middle_size) if side))

    @property
    def usual_search_sides(self) -> tuple[int, ...]:
        """The sides at which most frames are searched: LightTrack's smaller ones where it has some."""
        return self.search_sides[len(self.search_sizes) :] or self.search_sizes

    @property
    def verifier(self) -> Path | None:
        """What a session knows of the model's features, `verifier.npz`; None where the folder has none."""
        path = self.folder / "verifier.npz"
        return path if path.is_file() else None

    @property
    def template_graphs(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.graphs.template)

    @property
    def search_graphs(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.graphs.search)

    @property
    def template_graph(self) -> Path:
        return self.template_graphs[0]

    @property
    def search_graph(self) -> Path:
        return self.search_graphs[0]

    def parameters_of(self, kind: type[_Kind]) -> _Kind:
        """The hyper-parameters of a tracker's own kind.

        Raises:
            LightTrackError: this model is for another tracker.
        """
        if isinstance(self.hyper_parameters, kind):
            return self.hyper_parameters
        wanted = next(name for name, of_tracker in TRACKERS.items() if of_tracker is kind)
        raise LightTrackError(f"{self.folder}: a model for the tracker {self.tracker!r}, not for {wanted!r}")


def load_model(name_or_path: str | Path) -> Model:
    """Find a model folder and read its `model.yaml`.

    Raises:
        LightTrackError: no such model; or the file has an unknown, missing or wrong entry, or
            names a graph that is not there.
    """
    folder = find_model(name_or_path)
    path = folder / "model.yaml"
    data = config.load(path, VERSION, "import the checkpoint again")
    tracker = data.get("tracker")
    if not isinstance(tracker, str) or tracker not in TRACKERS:
        raise config.wrong(path, "tracker", tracker, "one of " + ", ".join(TRACKERS))
    parameters = config.check(TRACKERS[tracker], data.pop("hyper_parameters", None), f"{path}: hyper_parameters")
    model = config.check(Model, data, path, folder=folder, hyper_parameters=parameters)
    _check(model, path)
    return model


def save_model(model: Model) -> None:
    """Write `model.yaml` into the model's folder."""
    data = dataclasses.asdict(model)
    del data["folder"]
    config.save(model.folder / "model.yaml", data, VERSION)


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model, by its name in one of `model_places()` or by its path.

    Raises:
        LightTrackError: it is nowhere; the message lists where it was looked for and which models exist.
    """
    path = Path(name_or_path).expanduser()
    if (path / "model.yaml").is_file():
        return path
    name = str(name_or_path)
    places = model_places()
    if path.name == name:
        for place in places:
            if (place / name / "model.yaml").is_file():
                return place / name
    raise LightTrackError(
        f"model {name!r}: no folder with a model.yaml there, nor of that name in "
        + ", ".join(map(str, places))
        + f" (models found: {', '.join(model_names()) or 'none; see `lighttrack import --help`'})"
    )


def model_names() -> list[str]:
    """The models that are found by name, sorted."""
    return sorted({file.parent.name for place in model_places() for file in place.glob("*/model.yaml")})


def model_places() -> list[Path]:
    """Folders that may hold model folders, the user's own first."""
    return list(dict.fromkeys([Path("engines").resolve(), user_models(), *package_folders("engines")]))


def user_models() -> Path:
    """Where a user's own models live: `engines` in the user's data directory."""
    return data_folder() / "engines"


def _check(model: Model, path: Path) -> None:
    """What concerns several entries, and the graphs."""
    fail = functools.partial(config.wrong, path)
    sides = (2, "two sides: ordinary targets, small targets") if model.tracker == "lighttrack" else (1, "one side")
    if len(model.search_sizes) != sides[0]:
        raise fail("search_sizes", list(model.search_sizes), sides[1])
    for size in model.search_sizes:
        if size % model.stride or not model.template_size < size <= 2048:
            nearest = max(round(size / model.stride), 1) * model.stride
            expected = f"a multiple of {model.stride} over the template's {model.template_size} (try {nearest})"
            raise fail("search_sizes", size, expected)
    if isinstance(model.hyper_parameters, LightTrackHyperParameters):
        near = model.hyper_parameters.near_size
        cells = 2 * model.stride  # an even number, as the target is in the middle
        if near and (near % cells or not model.template_size < near < min(model.search_sizes)):
            raise fail("near_size", near, f"0, or a multiple of {cells} between template_size and search_sizes")
        middle = model.hyper_parameters.middle_size
        if middle and (middle % cells or not 0 < near < middle < min(model.search_sizes)):
            raise fail("middle_size", middle, f"0, or a multiple of {cells} between near_size and search_sizes")
    if isinstance(model.hyper_parameters, DyTrackHyperParameters):
        _check_exits(model.hyper_parameters, len(model.graphs.search), fail)
    for graph in model.template_graphs + model.search_graphs:
        if not graph.is_file():
            raise LightTrackError(f"{path}: graph {graph.name} is not in {model.folder} (import the checkpoint again)")


def _check_exits(
    parameters: DyTrackHyperParameters, exits: int, fail: Callable[[str, object, str], LightTrackError]
) -> None:
    if parameters.max_exit >= exits:
        raise fail("max_exit", parameters.max_exit, f"0 to {exits - 1}: there is a search graph per exit")
    if parameters.mode not in parameters.modes:
        raise fail("mode", parameters.mode, "one of " + ", ".join(parameters.modes))
    for mode, thresholds in parameters.modes.items():
        if len(thresholds) != exits - 1:
            expected = f"{exits - 1} thresholds, 0 to 1: of every exit but the last"
            raise fail(f"modes: {mode}", list(thresholds), expected)

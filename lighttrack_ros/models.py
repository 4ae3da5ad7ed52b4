"""Model folders: what `model.yaml` may say, checked once at the door, and where the folders are found."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lighttrack_ros.errors import LightTrackError

VERSION = 1
DEFAULT_MODEL = "lighttrack_nano"
_LOG_ODDS = {"range": (-20, 20)}
_FACTOR = {"range": (1, 10)}  # what a number may be, where that is not 0 to 1, or for whole ones 1 to 10,000


@dataclass(frozen=True)
class Graphs:
    """File names of the ONNX graphs, inside the model folder, in the order in which they run."""

    template: tuple[str, ...] = ("template.onnx",)
    search: tuple[str, ...] = ("search.onnx",)


@dataclass(frozen=True)
class Preprocessing:
    """What the graphs do to the crop's bytes before the network; for the reader's information only."""

    colour: str = "bgr"  # channel order in which the graphs take uint8 crops
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # R, G, B, after division by 255
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LightTrackHyperParameters:
    """Of LightTrack's decoding; the defaults are the authors' for VOT2019."""

    penalty_k: float = 0.007  # strength of the penalty on change of size and shape
    window_influence: float = 0.225  # share of the cosine window in the ranking
    lr: float = 0.616  # base rate of the size update
    small_target: float = 0.004  # share of the picture under which the larger search size is taken
    # Ours, not the authors': a smaller crop is searched first while the target moves little; docs/performance.md.
    near_size: int = field(default=0, metadata={"range": (0, 1024)})  # its side; 0: never
    near_shift: float = field(default=0.0, metadata=_LOG_ODDS)  # by how much scores are lower there than in a full crop
    near_score: float = field(default=0.0, metadata=_LOG_ODDS)  # of the best cell, shifted: under it all is searched


@dataclass(frozen=True)
class MixFormerV2HyperParameters:
    """Of MixFormerV2's crops and its online template; the defaults are the authors' for any video."""

    template_factor: float = field(default=2.0, metadata=_FACTOR)  # side of the crop, in roots of the target's area
    search_factor: float = field(default=4.5, metadata=_FACTOR)  # of the search crop; the authors' runs have 4.4 to 5.0
    update_interval: int = 200  # frames between two online templates; 10 to 25 on short sequences
    update_score: float = 0.5  # confidence over which a frame may become the online template


@dataclass(frozen=True)
class DyTrackHyperParameters:
    """Of DyTrack's crops and of when it stops; see docs/dytrack.md for what each is for."""

    max_exit: int = field(metadata={"range": (0, 126)})  # the deepest exit that may run, counted from 0
    modes: dict[str, tuple[float, ...]]  # of every exit but the last: the quality from which it stops
    mode: str = "balanced"  # the one of `modes` in use
    hysteresis: float = 0.02  # how much easier it is to stop where the last frame stopped
    audit_interval: int = 60  # stops at the first exit in a row after which one frame runs to the end
    doubt: float = 0.4  # quality under which the frames that follow run to the end
    template_factor: float = field(default=2.0, metadata=_FACTOR)  # side of the crop, in roots of the target's area
    search_factor: float = field(default=4.0, metadata=_FACTOR)  # of the search crop


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

    The confidence that a session reports is 1 / (1 + exp(-slope (log odds of the network's score
    - unlikeness (1 - cosine) - midpoint))), the cosine being that of how the target looks and how it has looked.
    """

    unlikeness: float = field(default=0.0, metadata={"range": (0, 1000)})  # log odds that looking unlike takes away
    midpoint: float = field(default=0.0, metadata={"range": (-100, 100)})  # log odds where there or gone are as likely
    slope: float = field(default=1.0, metadata={"range": (0.01, 100)})
    uncertain: float = 0.3  # confidence under which the target is uncertain
    lost_frames: int = 5  # so many frames in a row under it: the target is lost
    found: float = 0.5  # confidence from which an uncertain or lost target may be believed again
    found_frames: int = 2  # so many frames in a row, at one place


@dataclass(frozen=True)
class Provenance:
    """Where the weights came from."""

    source: str
    licence: str
    sha256: str  # of the checkpoint file


@dataclass(frozen=True)
class Model:
    """One model folder. Field names are the keys of `model.yaml`; `folder` is where it was found."""

    folder: Path = field(metadata={"stored": False})
    name: str
    tracker: str  # one of TRACKERS
    architecture: str
    template_size: int  # side of the template crop, pixels
    search_sizes: tuple[int, ...]  # sides of the search crop; LightTrack: ordinary targets, small targets
    stride: int  # crop pixels per cell
    provenance: Provenance
    hyper_parameters: HyperParameters  # the tracker's own kind
    session: SessionSettings = SessionSettings()
    preprocessing: Preprocessing = Preprocessing()
    graphs: Graphs = Graphs()
    scores: dict[str, float] = field(default_factory=dict)  # what it measured, by name

    @property
    def search_sides(self) -> tuple[int, ...]:
        """Every side at which a search graph runs: `search_sizes`, and LightTrack's near one."""
        near = self.hyper_parameters.near_size if isinstance(self.hyper_parameters, LightTrackHyperParameters) else 0
        return (*self.search_sizes, near) if near else self.search_sizes

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
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LightTrackError(f"{path}: cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise LightTrackError(f"{path}: expected `key: value` lines, found {type(data).__name__}")
    version = data.pop("version", None)
    if version != VERSION:
        raise LightTrackError(f"{path}: version is {version!r}, expected {VERSION} (import the checkpoint again)")
    tracker = data.get("tracker")
    if not isinstance(tracker, str) or tracker not in TRACKERS:
        raise LightTrackError(f"{path}: tracker is {tracker!r}, expected one of {', '.join(TRACKERS)}")
    parameters = _read(TRACKERS[tracker], data.pop("hyper_parameters", None), f"{path}: hyper_parameters")
    model: Model = _read(Model, data, str(path), {"folder": folder, "hyper_parameters": parameters})
    _check(model, path)
    return model


def save_model(model: Model) -> None:
    """Write `model.yaml` into the model's folder."""
    data = {"version": VERSION, **dataclasses.asdict(model)}
    del data["folder"]
    text = yaml.safe_dump(_plain(data), sort_keys=False, allow_unicode=True, width=120)
    (model.folder / "model.yaml").write_text(text, encoding="utf-8")


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
    existing = sorted({file.parent.name for place in places for file in place.glob("*/model.yaml")})
    raise LightTrackError(
        f"model {name!r}: no folder with a model.yaml there, nor of that name in "
        + ", ".join(map(str, places))
        + f" (models found: {', '.join(existing) or 'none; see `lighttrack import --help`'})"
    )


def model_places() -> list[Path]:
    """Folders that may hold model folders, the user's own first."""
    installed = [sys.prefix, *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    package = Path(__file__).resolve().parent
    places = [
        Path("engines").resolve(),
        user_models(),
        *(Path(prefix) / "share/lighttrack_ros/engines" for prefix in installed if prefix),
        *(parent / "share/lighttrack_ros/engines" for parent in package.parents[3:4]),  # lib/python3.x/site-packages
        package.parent / "engines",  # a checkout that is not the current directory
    ]
    return list(dict.fromkeys(places))


def user_models() -> Path:
    """Where a user's own models live: `engines` in the user's data directory."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data) / "lighttrack_ros/engines"


def _check(model: Model, path: Path) -> None:
    def fail(key: str, value: object, expected: str) -> LightTrackError:
        return LightTrackError(f"{path}: {key} is {value!r}, expected {expected}")

    if model.stride not in (8, 16):
        raise fail("stride", model.stride, "8 or 16")
    if not 16 <= model.template_size <= 1024:
        raise fail("template_size", model.template_size, "16 to 1024")
    if model.tracker == "lighttrack" and len(model.search_sizes) != 2:
        raise fail("search_sizes", list(model.search_sizes), "two sides: ordinary targets, small targets")
    if model.tracker != "lighttrack" and len(model.search_sizes) != 1:
        raise fail("search_sizes", list(model.search_sizes), "one side")
    for size in model.search_sizes:
        if size % model.stride or not model.template_size < size <= 2048:
            nearest = max(round(size / model.stride), 1) * model.stride
            raise fail(
                "search_sizes",
                size,
                f"a multiple of {model.stride} over the template's {model.template_size} (try {nearest})",
            )
    for section in (model.hyper_parameters, model.session):
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            if not isinstance(value, (int, float)):
                continue
            low, high = item.metadata.get("range", (1, 10_000) if isinstance(value, int) else (0, 1))
            if not low <= value <= high:
                raise fail(item.name, value, f"{low} to {high}")
    if isinstance(model.hyper_parameters, LightTrackHyperParameters):
        near, cells = (
            model.hyper_parameters.near_size,
            2 * model.stride,
        )  # an even number, as the target is in the middle
        if near and (near % cells or not model.template_size < near < min(model.search_sizes)):
            raise fail("near_size", near, f"0, or a multiple of {cells} between template_size and search_sizes")
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
        if len(thresholds) != exits - 1 or not all(0 <= threshold <= 1 for threshold in thresholds):
            raise fail(
                f"modes: {mode}", list(thresholds), f"{exits - 1} thresholds, 0 to 1: of every exit but the last"
            )


def _read(cls: Any, data: Any, where: str, given: dict[str, Any] | None = None) -> Any:
    """`data` as an instance of the dataclass `cls`, or an error that names the entry."""
    if not isinstance(data, dict):
        raise LightTrackError(f"{where}: is {data!r}, expected a section with keys")
    given = given or {}
    types = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls) if item.name not in given}
    for key in data:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(fields)
            raise LightTrackError(f"{where}: unknown key {key!r} ({hint})")
    values = dict(given)
    for name, item in fields.items():
        if name in data:
            values[name] = _convert(types[name], data[name], f"{where}: {name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise LightTrackError(f"{where}: {name} is missing")
    return cls(**values)


def _convert(expected: Any, value: Any, where: str) -> Any:
    """`value` as the field's type; YAML's own types are taken as they are, an int where a float is due."""
    if dataclasses.is_dataclass(expected):
        return _read(expected, value, where)
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _convert(arguments[1], item, f"{where}: {key}") for key, item in value.items()}
    if expected is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if expected is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if expected is str and isinstance(value, str) and value:
        return value
    names = {float: "a number", int: "a whole number", str: "a text", tuple: "a list", dict: "a section with keys"}
    raise LightTrackError(f"{where}: is {value!r}, expected {names[origin or expected]}")


def _plain(value: Any) -> Any:
    """Only what YAML knows: tuples become lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value

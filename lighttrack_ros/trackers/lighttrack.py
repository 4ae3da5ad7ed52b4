"""LightTrack's tracking algorithm, as its authors published it, on compiled networks."""

from __future__ import annotations

import copy
import itertools
import math
import time
from typing import NamedTuple

import cv2
import numpy as np

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.geometry import Box, context_side, hann_window, round_half_away
from lighttrack_ros.image import Frame
from lighttrack_ros.models import LightTrackHyperParameters, Model
from lighttrack_ros.runtime import WARM_UP_RUNS, Engine, load_engine, warm_up
from lighttrack_ros.runtime.engine import Array
from lighttrack_ros.runtime.load import Backend
from lighttrack_ros.runtime.pairs import load_pair_engine, pays_in_pairs
from lighttrack_ros.trackers.base import Estimate, Sight, Tracker, check_box
from lighttrack_ros.trackers.crop import SquareCropper
from lighttrack_ros.trackers.pairs import Pairs

_MARGIN = 0.325  # of the template's side: so much further than the target moved in the last frame a small crop reaches
_LOOK = 2  # cells to each side of a target's centre that tell how it looks: half the template's
_MOST_CANDIDATES = 3
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_SMALLEST = 10.0  # pixels; the authors' lower limit on the target's sides
_LEAST = 2.0  # pixels; of a target that is smaller than that limit from the start


class LightTrackTracker(Tracker):
    """LightTrack (CVPR 2021): one template, never updated; one run of the search network per frame.

    Beyond the paper, where `near_size` is set: while the target moves little, a smaller crop is searched (that of
    `middle_size` where it moves more than that bears). The whole is searched in the same frame if the target is not
    plainly there; or, with `whole_interval`, once in so many frames, so that no frame takes much longer than others.
    Two targets for which crops of one size are searched can share a run where that pays; see `look_ahead`.

    Args:
        model: one with `tracker: lighttrack`.
        backend, threads, spin: see `runtime.load_engine`.
    """

    has_sight = True

    def __init__(self, model: Model, backend: Backend = "auto", threads: int = 0, spin: bool = False) -> None:
        self._parameters = model.parameters_of(LightTrackHyperParameters)
        self._near_score = 1 / (1 + math.exp(-self._parameters.near_score))
        self._template_size = model.template_size
        self._template_engine = load_engine(model.template_graph, backend, threads, {"side": model.template_size}, spin)
        self.backend = self._template_engine.backend
        self._search_engines = [
            load_engine(model.search_graph, backend, threads, {"side": side}, spin) for side in model.search_sides
        ]
        ordinary, small, *smaller = self._search_engines
        self._searches = [_Search(engine, model.stride) for engine in (ordinary, small)]
        for search, engine in itertools.product(self._searches, smaller):
            search.smaller.append(_Search(engine, model.stride, search, self._parameters.near_shift))
        self._pairs = _pairs_of(model, self.backend if backend == "auto" else backend, threads, spin)
        self._cropper = SquareCropper()
        self._slots = itertools.count()  # of all trackers on these engines
        self._slot = next(self._slots)
        self._target: _Target | None = None
        self._template: dict[str, Array] = {}  # for runs with another target's
        self._ahead: _Run | None = None
        self._looked: _Look | None = None
        self._warm_up()

    def another(self) -> LightTrackTracker:
        tracker = copy.copy(self)
        tracker._slot = next(self._slots)
        tracker._target = tracker._ahead = tracker._looked = None
        if self._pairs is not None:
            self._pairs.make()
        return tracker

    def init(self, frame: Frame, box: Box) -> None:
        check_box(frame, box)
        box = Box(*map(float, box))
        centre_x, centre_y = box.centre
        small = box.area < self._parameters.small_target * frame.width * frame.height
        # Every later frame has the same limit; without it a huge box would need a huge crop.
        width, height = min(box.width, float(frame.width)), min(box.height, float(frame.height))
        side = max(1, round(context_side(width, height)))
        fill = frame.mean_colour().astype(np.uint8)
        crop = self._template_engine.input_buffers["crop"]
        self._cropper.crop(frame, _corner(centre_x, side), _corner(centre_y, side), side, fill, crop)
        search = self._searches[small]
        template = self._template_engine.run({})
        for sized in (search, *search.smaller):
            sized.engine.hold(template, self._slot)
        if self._pairs is not None:
            self._template = {name: np.array(tensor) for name, tensor in template.items()}
        least = _least(width), _least(height)
        self._target = _Target(centre_x, centre_y, width, height, *least, fill, search, moved=0.0, since_whole=0)
        self._ahead = self._looked = None

    def look_ahead(self, frame: Frame, other: Tracker) -> bool:
        assert isinstance(other, LightTrackTracker)
        pairs, both = self._pairs, (self, other)
        if pairs is None:
            return False
        targets = [tracker._known_target() for tracker in both]
        searches = [tracker._next_search(target) for tracker, target in zip(both, targets, strict=True)]
        engine = pairs.engine(searches[0].side)
        if engine is None or searches[0].engine is not searches[1].engine:
            return False
        for row, (tracker, target, search) in enumerate(zip(both, targets, searches, strict=True)):
            self._cut(frame, target, search, engine.input_buffers["crop"][row])
            for name, tensor in tracker._template.items():
                engine.input_buffers[name][row] = tensor[0]
        started = time.perf_counter()
        try:
            outputs = {name: np.asarray(tensor) for name, tensor in engine.run({}).items()}
        except EngineError as error:
            pairs.give_up(error)
            return False
        network = (started, time.perf_counter())
        for row, (tracker, target, search) in enumerate(zip(both, targets, searches, strict=True)):
            own = {name: array[row : row + 1] for name, array in outputs.items()}
            tracker._ahead = _Run(frame, target, search, own, network if tracker is self else None)
        return True

    def update(self, frame: Frame) -> Estimate:
        target = self._known_target()
        scale = self._scale(target)
        interval = self._parameters.whole_interval
        search = self._next_search(target)
        look = self._look(frame, target, search)
        started = look.started
        plain = look.found.highest >= self._near_score
        if not (plain or interval) and search is not target.search:
            search = target.search
            look = self._look(frame, target, search)
            plain = look.found.highest >= self._near_score
        self._looked, found = look, look.found
        moved = max(abs(found.x), abs(found.y)) / self._template_size if plain else math.inf
        if interval and target.search.smaller:  # the largest of the small crops is enough
            moved = min(moved, target.search.smaller[-1].side / 2 / self._template_size - _MARGIN)
        centre_x = target.centre_x + found.x / scale
        centre_y = target.centre_y + found.y / scale
        rate = (found.penalty * found.score * self._parameters.lr) ** 2  # squared: the authors' code blends twice
        width = (1 - rate) * target.width + rate * found.width / scale
        height = (1 - rate) * target.height + rate * found.height / scale
        target = self._target = target._replace(
            centre_x=min(max(centre_x, 0.0), float(frame.width)),
            centre_y=min(max(centre_y, 0.0), float(frame.height)),
            width=max(target.least_width, min(width, float(frame.width))),
            height=max(target.least_height, min(height, float(frame.height))),
            moved=moved,
            since_whole=0 if search is target.search else target.since_whole + 1,
        )
        left, top = target.centre_x - target.width / 2, target.centre_y - target.height / 2
        box = Box(max(0.0, left), max(0.0, top), target.width, target.height)
        return Estimate(box, found.score, evidence=found.highest, network=(started, look.ended))

    def surroundings(self, frame: Frame) -> Array | None:
        target = self._known_target()
        search = target.search
        if "features" not in search.engine.outputs:
            return None
        crop = search.engine.input_buffers["crop"]
        self._cut(frame, target, search, crop)
        maps = []
        for _ in range(2):
            maps.append(np.array(search.engine.run({}, self._slot)["features"][0], np.float32))
            crop[...] = crop[:, ::-1].copy()
        return np.stack(maps)

    def sight(self) -> Sight | None:
        look = self._looked
        return None if look is None else look.search.sight(look)

    @property
    def target(self) -> Box:
        target = self._known_target()
        width, height = target.width, target.height
        return Box(target.centre_x - width / 2, target.centre_y - height / 2, width, height)

    @target.setter
    def target(self, box: Box) -> None:
        centre_x, centre_y = box.centre
        self._target = self._known_target()._replace(
            centre_x=centre_x, centre_y=centre_y, width=box.width, height=box.height, moved=math.inf
        )

    @property
    def place(self) -> object:
        return self._known_target()

    @place.setter
    def place(self, place: object) -> None:
        assert isinstance(place, _Target)
        self._target = place

    def go_on_as(self, other: Tracker) -> None:
        if not isinstance(other, LightTrackTracker):
            raise TypeError(f"{type(other).__name__} is another kind of tracker")
        target = other._known_target()
        self._target = target._replace(search=self._searches[other._searches.index(target.search)])

    def take_turn(self, number: int) -> None:
        target = self._known_target()
        turns = [math.inf, *(search.side / 2 / self._template_size - _MARGIN for search in target.search.smaller)]
        self._target = target._replace(moved=turns[number % len(turns)], since_whole=0)

    def close(self) -> None:
        self._template_engine.close()
        for engine in self._search_engines:
            engine.close()
        if self._pairs is not None:
            self._pairs.close()

    def _next_search(self, target: _Target) -> _Search:
        interval = self._parameters.whole_interval
        if interval and target.since_whole + 1 >= interval:
            return target.search
        return target.search.reaching((target.moved + _MARGIN) * self._template_size)

    def _scale(self, target: _Target) -> float:
        """Crop pixels per frame pixel."""
        return self._template_size / context_side(target.width, target.height)

    def _cut(self, frame: Frame, target: _Target, search: _Search, out: Array) -> None:
        """The crop about where the target was."""
        context = context_side(target.width, target.height)
        side = max(1, round_half_away(context + (search.side - self._template_size) / self._scale(target)))
        x0, y0 = _corner(target.centre_x, side), _corner(target.centre_y, side)
        self._cropper.crop(frame, x0, y0, side, target.fill, out)

    def _run(self, frame: Frame, target: _Target, search: _Search) -> _Run:
        self._cut(frame, target, search, search.engine.input_buffers["crop"])
        started = time.perf_counter()
        outputs = {name: np.asarray(tensor) for name, tensor in search.engine.run({}, self._slot).items()}
        return _Run(frame, target, search, outputs, (started, time.perf_counter()))

    def _look(self, frame: Frame, target: _Target, search: _Search) -> _Look:
        """Search one crop about where the target was."""
        run, self._ahead = self._ahead, None
        if run is None or run.frame is not frame or run.target is not target or run.search is not search:
            run = self._run(frame, target, search)
        scale = self._scale(target)
        logits, distances, features = run.outputs["logits"], run.outputs["distances"], run.outputs.get("features")
        found = search.decode(logits, distances, target.width * scale, target.height * scale, self._parameters)
        now = time.perf_counter()
        return _Look(search, target, scale, logits, distances, features, found, *(run.network or (now, now)))

    def _known_target(self) -> _Target:
        if self._target is None:
            raise LightTrackError("the tracker has no target: call init with a box first")
        return self._target

    def _warm_up(self) -> None:
        """Do the engines' one-time work now, not in the first frames."""
        for _ in range(WARM_UP_RUNS):
            template = self._template_engine.run({})
            if self._pairs is not None:  # which read it on the host
                self._template = {name: np.array(tensor) for name, tensor in template.items()}
        for engine in self._search_engines:
            engine.hold(template)
            warm_up(engine)


def _pairs_of(model: Model, backend: Backend, threads: int, spin: bool) -> Pairs | None:
    """Engines for two targets at once, of the sides at which they pay; None if they do at no side."""
    if not isinstance(backend, str):
        return None
    graph = model.search_graph
    sides = pays_in_pairs(graph, backend, threads, model.usual_search_sides)
    if not sides:
        return None
    return Pairs(lambda side: load_pair_engine(graph, backend, threads, {"side": side}, spin), sides)


class _Target(NamedTuple):
    """The target's state, in pixels of the frame."""

    centre_x: float
    centre_y: float
    width: float
    height: float
    least_width: float
    least_height: float
    fill: Array  # (3,) uint8 BGR
    search: _Search  # chosen at the start by the target's size
    moved: float  # in the last frame along x or y, of the template's side; inf: it may be anywhere
    since_whole: int  # frames since the whole crop was searched


class _Found(NamedTuple):
    """The best cell's box, in pixels of the search crop; positions are relative to its centre."""

    x: float
    y: float
    width: float
    height: float
    score: float
    highest: float  # the highest score of all cells
    penalty: float
    cell: int


class _Run(NamedTuple):
    """One search crop and what the network gave for it; the arrays are the engine's until its next run."""

    frame: Frame
    target: _Target  # round which the crop was cut
    search: _Search
    outputs: dict[str, Array]
    network: tuple[float, float] | None  # see `Estimate`; None: the run counts as the other target's


class _Look(NamedTuple):
    """One search crop and what the network said of it; the arrays are the engine's until its next run."""

    search: _Search
    target: _Target  # round which the crop was cut
    scale: float  # crop pixels per frame pixel
    logits: Array
    distances: Array
    features: Array | None
    found: _Found
    started: float  # the network, time.perf_counter()
    ended: float


class _Search:
    """One size of search crop: its engine, and what decoding needs for this size.

    Args:
        engine: an engine with this size of crop.
        stride: crop pixels per cell.
        whole: the larger search of which this one covers the middle, so that it uses the middle of its window; None
            if this is the whole search.
        shift: how much lower its logits are than those of the whole search.
    """

    def __init__(self, engine: Engine, stride: int, whole: _Search | None = None, shift: float = 0.0) -> None:
        self.engine = engine
        self.side = engine.inputs["crop"].shape[0]
        self.smaller: list[_Search] = []  # to try first, the smallest first
        self._stride = stride
        self._shift = shift
        self._cells = engine.outputs["logits"].shape[-1]
        middle = slice(0, None)
        if whole is not None:
            margin = (whole._cells - self._cells) // 2
            middle = slice(margin, margin + self._cells)
        self._window = hann_window(whole._cells if whole is not None else self._cells)[middle, middle].ravel()

    def reaching(self, offset: float) -> _Search:
        """The smallest that reaches so far from its middle, pixels of the crop; else this."""
        return next((search for search in self.smaller if offset <= search.side / 2), self)

    def decode(
        self, logits: Array, distances: Array, width: float, height: float, parameters: LightTrackHyperParameters
    ) -> _Found:
        """Rank all cells, decode the best.

        Args:
            logits: (1, 1, n, n).
            distances: (1, 4, n, n): left, top, right, bottom, pixels of the crop.
            width, height: the target's size so far, pixels of the crop.

        Raises:
            EngineError: the network's outputs are not finite.
        """
        scores = 1 / (1 + np.exp(-logits.ravel().astype(np.float64) - self._shift))
        left, top, right, bottom = distances.reshape(4, -1).astype(np.float64)
        # A cell may give 0: a tiny value makes the penalty infinite without a division by zero.
        widths, heights = np.maximum(left + right, 1e-6), np.maximum(top + bottom, 1e-6)
        margin = (widths + heights) / 2
        size_change = _change(np.sqrt((widths + margin) * (heights + margin)) / context_side(width, height))
        shape_change = _change((width / height) / (widths / heights))
        penalties = np.exp((1 - size_change * shape_change) * parameters.penalty_k)
        influence = parameters.window_influence
        ranks = penalties * scores * (1 - influence) + self._window * influence
        best = int(np.argmax(ranks))  # the first of equals; nan counts as the largest
        if not math.isfinite(ranks[best]):
            raise EngineError("the network gave scores or distances that are not finite: the engine is broken")
        row, column = divmod(best, self._cells)
        centre = self._cells // 2
        return _Found(
            x=(column - centre) * self._stride + float(right[best] - left[best]) / 2,
            y=(row - centre) * self._stride + float(bottom[best] - top[best]) / 2,
            width=float(left[best] + right[best]),
            height=float(top[best] + bottom[best]),
            score=float(scores[best]),
            highest=float(scores.max()),
            penalty=float(penalties[best]),
            cell=best,
        )

    def sight(self, look: _Look) -> Sight:
        """The cell that was taken and the peaks of the score map beside it, as boxes in the frame."""
        logits = look.logits.reshape(self._cells, self._cells).astype(np.float32, copy=False)
        flat = logits.ravel()
        peaks = np.flatnonzero((logits >= cv2.dilate(logits, _NEIGHBOURS)).ravel())
        cells = [look.found.cell, *peaks[np.argsort(-flat[peaks])][: 2 * _MOST_CANDIDATES].tolist()]
        middle = self._cells // 2
        corners: list[tuple[int, int]] = []  # of the features about each candidate
        boxes: list[tuple[float, float, float, float]] = []  # centre and size, pixels of the crop from its centre
        scores: list[float] = []
        # Few numbers, so plain floats are several times faster than arrays.
        for cell, distances in zip(cells, look.distances.reshape(4, -1).T[cells].tolist(), strict=True):
            row, column = divmod(cell, self._cells)
            left, top, right, bottom = distances
            x = (column - middle) * self._stride + (right - left) / 2
            y = (row - middle) * self._stride + (bottom - top) / 2
            if all(abs(x - u) > wide / 2 or abs(y - v) > high / 2 for u, v, wide, high in boxes):
                boxes.append((x, y, left + right, top + bottom))
                scores.append(float(flat[cell]) + self._shift)
                corners.append((self._corner(y), self._corner(x)))
                if len(boxes) == _MOST_CANDIDATES:
                    break
        patches = None
        if look.features is not None:
            features = look.features[0]
            side = 2 * _LOOK
            patches = np.empty((len(boxes), side, side, len(features)), np.float32)
            for patch, (row, column) in zip(patches, corners, strict=True):
                patch[...] = features[:, row : row + side, column : column + side].transpose(1, 2, 0)
        x0, y0, scale = look.target.centre_x, look.target.centre_y, look.scale
        mean, deviation = cv2.meanStdDev(logits)
        return Sight(
            np.array(
                [(x0 + (x - w / 2) / scale, y0 + (y - h / 2) / scale, w / scale, h / scale) for x, y, w, h in boxes]
            ),
            np.array(scores),
            patches,
            float(mean[0, 0]) + self._shift,
            float(deviation[0, 0]),
        )

    def _corner(self, offset: float) -> int:
        """First row or column of the features about a place, pixels of the crop from its centre."""
        return min(max(round(offset / self._stride) + self._cells // 2 - _LOOK, 0), self._cells - 2 * _LOOK)


def _least(side: float) -> float:
    """How small a side may become: the authors' limit; for a target that is smaller from the start, half of it."""
    return _SMALLEST if side >= _SMALLEST else max(side / 2, _LEAST)


def _corner(centre: float, side: int) -> int:
    return round(centre - (side + 1) / 2)


def _change(ratio: Array) -> Array:
    return np.maximum(ratio, 1 / ratio)

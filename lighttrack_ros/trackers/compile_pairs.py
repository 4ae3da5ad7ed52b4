"""Compile a LightTrack for two targets at once, and keep it where it is faster on this machine's GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box, context_side
from lighttrack_ros.image import Frame
from lighttrack_ros.models import Model
from lighttrack_ros.runtime import WARM_UP_RUNS, Engine, load_engine
from lighttrack_ros.runtime.engine import Array
from lighttrack_ros.runtime.pairs import load_pair_engine
from lighttrack_ros.runtime.plan_cache import PlanCache
from lighttrack_ros.runtime.tensorrt import TensorRTEngine
from lighttrack_ros.runtime.watch import watch
from lighttrack_ros.trackers.crop import SquareCropper
from lighttrack_ros.trackers.parity import Clip

_PAYS = 0.9  # of the time of two runs: what two crops in one run may take at most
_LARGEST_DIFFERENCE = 0.1  # rounding is far under it, crops that are mixed up are far over it
_TIMED_RUNS = 100

Outputs = dict[str, Array]


@dataclass(frozen=True)
class PairPlan:
    """What two crops in one run of the search network are worth on this GPU.

    Attributes:
        side: of the crops.
        together, apart: median milliseconds of one run for both, of two runs; uploads and downloads included.
        difference: the largest root mean square difference of an output to that of a run for one crop, in units of
            its standard deviation.
    """

    side: int
    together: float
    apart: float
    difference: float

    def problem(self) -> str:
        """Why the plan is not kept, for the user; empty if it is."""
        if not self.difference <= _LARGEST_DIFFERENCE:
            return f"the results differ by more than {_LARGEST_DIFFERENCE:.0%}"
        if not self.together <= _PAYS * self.apart:
            return f"one run takes more than {_PAYS:.0%} of the time of two"
        return ""

    def summary(self) -> str:
        return (
            f"two crops of {self.side} px: {self.together:.3f} ms in one run, {self.apart:.3f} ms in two, "
            f"results differ by {self.difference:.2%}"
        )


def compile_pairs(model: Model, backend: str, clip: Clip) -> Iterator[PairPlan]:
    """Compile the search network for two crops at once, at each side at which most frames are searched.

    A plan that is plainly faster here than two runs, and gives the same, is kept: with it two targets share a run from
    then on. Others are deleted.

    Args:
        backend: one of TensorRT's.
        clip: two frames, which give the crops.

    Raises:
        LightTrackError: the model is no LightTrack; or, when it is its turn, a graph does not compile, or the cache
            cannot be written.
    """
    if model.tracker != "lighttrack":
        raise LightTrackError(f"{model.name} is a {model.tracker}: only a lighttrack searches for two targets at once")
    return _compile_pairs(model, backend, clip)


def _compile_pairs(model: Model, backend: str, clip: Clip) -> Iterator[PairPlan]:
    seen = [frame_and_box for frame_and_box, _ in zip(clip, range(2), strict=True)]
    size = model.template_size
    with contextlib.closing(load_engine(model.template_graph, backend, dimensions={"side": size})) as engine:
        templates = [_run(engine, {"crop": _crop(frame, box, 1.0, size)}) for frame, box in seen]
    for side in model.usual_search_sides:
        crops = [_crop(frame, box, side / size, side) for frame, box in seen]
        ways = [{"crop": crop, **template} for crop, template in zip(crops, templates, strict=True)]
        both = {
            "crop": np.stack(crops),
            **{name: np.concatenate([own[name] for own in templates]) for name in templates[0]},
        }
        with watch() as watched:
            engine = load_pair_engine(model.search_graph, backend, 0, {"side": side}, False)
            key = watched.plans[-1]
        together, (result,) = _measure(engine, [both])
        engine = load_engine(model.search_graph, backend, dimensions={"side": side})
        apart, results = _measure(engine, ways)
        plan = PairPlan(side, together, 2 * apart, _difference(result, results))
        cache = PlanCache()
        if plan.problem():
            cache.remove(cache.path(key))
        else:
            with contextlib.suppress(OSError):
                cache.check(key, plan.summary())
            if not cache.is_checked(key):
                raise LightTrackError(f"{cache.folder}: the plan for two crops is not kept, the folder is not writable")
        yield plan


def _crop(frame: Frame, box: Box, factor: float, size: int) -> Array:
    """A square about the box, so many times its context: (size, size, 3) uint8 BGR."""
    crop = np.empty((size, size, 3), np.uint8)
    side = max(1, round(factor * context_side(box.width, box.height)))
    x, y = (round(centre - side / 2) for centre in box.centre)
    SquareCropper().crop(frame, x, y, side, frame.mean_colour().astype(np.uint8), crop)
    return crop


def _run(engine: Engine, inputs: Mapping[str, Array]) -> Outputs:
    """A run on what is held and put into the engine's own buffers, as a tracker does it."""
    engine.hold({name: tensor for name, tensor in inputs.items() if name != "crop"})
    engine.input_buffers["crop"][...] = inputs["crop"]
    return {name: np.array(tensor) for name, tensor in engine.run({}).items()}


def _measure(engine: Engine, ways: Sequence[Mapping[str, Array]]) -> tuple[float, list[Outputs]]:
    """Median milliseconds of a run, and what each of the inputs gives; the engine is closed."""
    try:
        for _ in range(WARM_UP_RUNS):
            results = [_run(engine, inputs) for inputs in ways]
        return float(np.median(_milliseconds(engine))), results
    finally:
        engine.close()


def _milliseconds(engine: Engine) -> Array:
    assert isinstance(engine, TensorRTEngine)
    return engine.milliseconds(_TIMED_RUNS)[1]


def _difference(both: Outputs, each: Sequence[Outputs]) -> float:
    differences = []
    for name, array in both.items():
        expected = np.concatenate([outputs[name] for outputs in each])
        differences.append(np.sqrt(np.mean((array - expected) ** 2)) / max(float(expected.std()), 1e-12))
    return float(np.max(differences))  # nan counts as the largest

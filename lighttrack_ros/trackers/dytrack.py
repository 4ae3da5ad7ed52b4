"""DyTrack's tracker: each frame runs the stages of the network one by one, until the box is good enough.

There is one engine per stage. After each stage the host reads one number, the quality, and decides whether to stop.
The paper says only that the decision is learned per exit; the rest is this project's design: docs/dytrack.md.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Iterator, Mapping

import numpy as np

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame
from lighttrack_ros.models import DyTrackHyperParameters, Model
from lighttrack_ros.runtime import WARM_UP_RUNS, load_engine
from lighttrack_ros.runtime.engine import Tensor
from lighttrack_ros.runtime.load import Backend
from lighttrack_ros.trackers.base import Estimate, Tracker, check_box
from lighttrack_ros.trackers.crop import SquareCropper
from lighttrack_ros.trackers.search_region import crop_region, place_in_frame, within


class DyTrackTracker(Tracker):
    """DyTrack (TNNLS 2025): one template, never updated; between one and all stages of the network per frame.

    Args:
        model: one with `tracker: dytrack`.
        backend, threads, spin: see `runtime.load_engine`.
    """

    def __init__(self, model: Model, backend: Backend = "auto", threads: int = 0, spin: bool = False) -> None:
        self._parameters = model.parameters_of(DyTrackHyperParameters)
        self._cropper = SquareCropper()
        self._template = load_engine(model.template_graph, backend, threads, spin=spin)
        self.backend = self._template.backend
        self._stages = [load_engine(graph, backend, threads, spin=spin) for graph in model.search_graphs]
        self._slots = itertools.count()  # of all trackers on these engines
        self._slot = next(self._slots)
        self.policy = ExitPolicy(self._parameters)
        self._box: Box | None = None
        self._warm_up()

    def another(self) -> DyTrackTracker:
        tracker = copy.copy(self)
        tracker._slot = next(self._slots)
        tracker.policy = ExitPolicy(self._parameters)
        tracker._box = None
        return tracker

    def init(self, frame: Frame, box: Box) -> None:
        check_box(frame, box)
        box = within(frame, box)
        factor = self._parameters.template_factor
        crop_region(self._cropper, frame, box, factor, self._template.input_buffers["crop"])
        self._hold_template()
        self.policy = ExitPolicy(self._parameters)
        self._box = box

    def update(self, frame: Frame) -> Estimate:
        side = self._crop(frame)
        started = time.perf_counter()
        for index, result in enumerate(self._run_stages()):
            quality, outputs = result
            if self.policy.stops(index, quality):
                break
        prediction = np.asarray(outputs["box"])[0].tolist()
        ended = time.perf_counter()
        self._box = place_in_frame(prediction, self.target, side, frame)
        self.policy.stopped(index, quality)
        return Estimate(self._box, quality, index, network=(started, ended))

    def answers(self, frame: Frame) -> list[Estimate]:
        """Every exit's estimate of a frame, to study the exits; the target is not moved."""
        side = self._crop(frame)
        estimates = []
        for index, (quality, outputs) in enumerate(self._run_stages()):
            prediction = np.asarray(outputs["box"])[0].tolist()
            estimates.append(Estimate(place_in_frame(prediction, self.target, side, frame), quality, exit_index=index))
        return estimates

    @property
    def target(self) -> Box:
        if self._box is None:
            raise LightTrackError("the tracker has no target: call init with a box first")
        return self._box

    @target.setter
    def target(self, box: Box) -> None:
        self._box = box

    def close(self) -> None:
        for engine in (self._template, *self._stages):
            engine.close()

    def _crop(self, frame: Frame) -> int:
        """Fill the first stage's input; returns the side of the search region in pixels."""
        crop = self._stages[0].input_buffers["crop"]
        return crop_region(self._cropper, frame, self.target, self._parameters.search_factor, crop)

    def _run_stages(self) -> Iterator[tuple[float, Mapping[str, Tensor]]]:
        """Each exit's quality and outputs; a stage runs only when the caller asks for it."""
        passed: dict[str, Tensor] = {}
        for stage in self._stages:
            outputs = stage.run(passed, self._slot)
            quality = float(np.asarray(outputs["next_quality"])[0])
            if not math.isfinite(quality):
                raise EngineError("the network gave a quality that is not finite: the engine is broken")
            yield quality, outputs
            passed = _to_next_stage(outputs)

    def _hold_template(self) -> None:
        outputs = self._template.run({})
        for stage in self._stages:
            stage.hold({name: tensor for name, tensor in outputs.items() if name in stage.inputs}, self._slot)

    def _warm_up(self) -> None:
        """Do the engines' one-time work now, not in the first frames."""
        for _ in range(WARM_UP_RUNS):
            self._hold_template()
            passed: dict[str, Tensor] = {}
            for stage in self._stages:
                outputs = stage.run(passed)
                np.asarray(outputs["next_quality"]), np.asarray(outputs["box"])
                passed = _to_next_stage(outputs)


class ExitPolicy:
    """Decides at which exit each frame stops: thresholds, and exceptions from them.

    A frame stops at the first exit whose quality reaches the threshold of the mode in use; `max_exit` always
    stops. From the last frame's exit on the threshold is `hysteresis` lower, before it `hysteresis` higher, so that
    similar frames do not change exits. In these cases the thresholds are ignored and a frame runs up to `max_exit`:

    - after `audit_interval` stops in a row at the first exit, because an early exit may be confident and wrong;
    - after a frame with a quality under `doubt`, and once more after the first frame with a better one.
    """

    def __init__(self, parameters: DyTrackHyperParameters) -> None:
        self._parameters = parameters
        self._thresholds = parameters.modes[parameters.mode]
        self._last_exit: int | None = None
        self._first_exits = 0  # in a row
        self._doubts = 0  # frames that still have to run to the end

    def stops(self, index: int, quality: float) -> bool:
        """Whether the current frame stops at exit `index`."""
        parameters = self._parameters
        if index >= parameters.max_exit or index >= len(self._thresholds):
            return True
        if self._doubts > 0 or self._first_exits >= parameters.audit_interval:
            return False
        shift = 0.0
        if self._last_exit is not None:
            shift = -parameters.hysteresis if self._last_exit <= index else parameters.hysteresis
        return quality >= self._thresholds[index] + shift

    def stopped(self, index: int, quality: float) -> None:
        """Note that the current frame stopped at exit `index`."""
        in_full = self._doubts > 0 or self._first_exits >= self._parameters.audit_interval
        self._first_exits = self._first_exits + 1 if index == 0 and not in_full else 0
        self._doubts = 2 if quality < self._parameters.doubt else max(0, self._doubts - 1)
        if not in_full:
            self._last_exit = index


def _to_next_stage(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("next_"): tensor for name, tensor in outputs.items() if name.startswith("next_")}

"""MixFormerV2's tracker as published, except that the templates' share of the network is kept between frames.

Every predicted box is taken, whatever its score. The frame with the best score of one interval gives the online
template of the next. Its keys and values are computed between frames, block by block (`idle_work`); until the last
block is done, the network uses the old templates.
"""

from __future__ import annotations

import copy
import itertools
import math
import time

import numpy as np

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame
from lighttrack_ros.models import MixFormerV2HyperParameters, Model
from lighttrack_ros.runtime import WARM_UP_RUNS, load_engine
from lighttrack_ros.runtime.engine import Tensor
from lighttrack_ros.runtime.load import Backend
from lighttrack_ros.trackers.base import Estimate, Tracker, check_box
from lighttrack_ros.trackers.crop import SquareCropper
from lighttrack_ros.trackers.search_region import crop_region, place_in_frame, within


class MixFormerV2Tracker(Tracker):
    """MixFormerV2 (NeurIPS 2023): the initial template and an online template; one network run per frame.

    Args:
        model: one with `tracker: mixformerv2`.
        backend, threads, spin: see `runtime.load_engine`.
    """

    def __init__(self, model: Model, backend: Backend = "auto", threads: int = 0, spin: bool = False) -> None:
        self._parameters = model.parameters_of(MixFormerV2HyperParameters)
        self._cropper = SquareCropper()
        self._search = load_engine(model.search_graph, backend, threads, spin=spin)
        self.backend = self._search.backend
        self._blocks = [load_engine(graph, backend, threads, spin=spin) for graph in model.template_graphs]
        self._renewal = _Renewal()
        self._least_seconds = [math.inf] * len(self._blocks)
        self._side = model.template_size
        self._slots = itertools.count()  # of all trackers on these engines
        self._know_nothing()
        self._warm_up()

    def another(self) -> MixFormerV2Tracker:
        tracker = copy.copy(self)
        tracker._know_nothing()
        return tracker

    def _know_nothing(self) -> None:
        """What is one target's own."""
        self._slot = next(self._slots)
        # Crops, (side, side, 3) uint8 BGR: initial template, online template, candidate for the next online template.
        self._template, self._online, self._candidate = np.zeros((3, self._side, self._side, 3), np.uint8)
        self._best_score = -1.0  # the candidate's
        self._frames = 0  # since init
        self._box: Box | None = None
        self._is_guess = False  # whether the box was set from outside, to search for a lost target
        self._is_stale = False  # whether the keys and values are still to be computed of the templates

    def init(self, frame: Frame, box: Box) -> None:
        check_box(frame, box)
        box = within(frame, box)
        crop_region(self._cropper, frame, box, self._parameters.template_factor, self._template)
        self._box, self._is_guess = box, False
        self._frames = 0
        self._start_interval()
        np.copyto(self._online, self._template)
        self._renew()

    def reset(self) -> None:
        self._box, self._is_stale = None, False
        self._renewal.drop(self)

    def update(self, frame: Frame) -> Estimate:
        target = self.target
        parameters = self._parameters
        crop = self._search.input_buffers["crop"]
        side = crop_region(self._cropper, frame, target, parameters.search_factor, crop)
        started = time.perf_counter()
        outputs = self._search.run({}, self._slot)
        score = float(np.asarray(outputs["score"])[0])
        if not math.isfinite(score):
            raise EngineError("the network gave a score that is not finite: the engine is broken")
        prediction = np.asarray(outputs["box"])[0].tolist()
        ended = time.perf_counter()
        box = self._box = place_in_frame(prediction, target, side, frame)

        # While the session searches for a lost target, its frames do not become templates.
        if score > max(parameters.update_score, self._best_score) and not self._is_guess:
            self._best_score = score
            crop_region(self._cropper, frame, box, parameters.template_factor, self._candidate)
        self._frames += 1
        if self._frames % parameters.update_interval == 0:
            if not np.array_equal(self._online, self._candidate):
                np.copyto(self._online, self._candidate)
                self._is_stale = True
                self._renewal.drop(self)
            self._start_interval()
        self._is_guess = False
        return Estimate(box, score, network=(started, ended))

    @property
    def target(self) -> Box:
        if self._box is None:
            raise LightTrackError("the tracker has no target: call init with a box first")
        return self._box

    @target.setter
    def target(self, box: Box) -> None:
        self._box, self._is_guess = box, True

    def idle_work(self, seconds: float = math.inf) -> bool:
        """Compute one block for the new templates, if there are any; until all blocks are done, the old ones serve."""
        work = self._renewal
        if work.of is None and self._is_stale:
            work.begin(self)
        if work.of is not self or self._least_seconds[work.next_block] > seconds:
            return False
        index = work.next_block
        started = time.perf_counter()
        first = {"template": self._template, "online_template": self._online}
        outputs = self._blocks[index].run({"tokens": work.tokens} if index else first)
        work.keys_values[f"keys_{index}"] = outputs["keys"]
        work.keys_values[f"values_{index}"] = outputs["values"]
        work.tokens = outputs.get("next_tokens")
        work.next_block += 1
        if work.next_block == len(self._blocks):
            self._search.hold(work.keys_values, self._slot)
            self._is_stale = False
            work.drop(self)
        self._least_seconds[index] = min(self._least_seconds[index], time.perf_counter() - started)
        return True

    def close(self) -> None:
        for engine in (self._search, *self._blocks):
            engine.close()

    def _start_interval(self) -> None:
        """Reset the candidate to the initial template, which is used if no frame of the interval scores well."""
        np.copyto(self._candidate, self._template)
        self._best_score = -1.0

    def _renew(self) -> None:
        """At once; what was begun for another target is begun again later."""
        self._is_stale = True
        self._renewal.begin(self)
        while self.idle_work():
            pass

    def _warm_up(self) -> None:
        """Do the engines' one-time work now, not in the first frames, and not in the measured time of a block."""
        for _ in range(WARM_UP_RUNS):
            self._renew()
            outputs = self._search.run({})
            np.asarray(outputs["box"]), np.asarray(outputs["score"])


class _Renewal:
    """Keys and values of new templates on their way through the blocks: one target's at a time, as the blocks' outputs
    are overwritten by their next run.

    Attributes:
        of: whose they are; None while none are computed.
        next_block: the next to compute.
        tokens: output of the block before.
        keys_values: of the finished blocks.
    """

    def __init__(self) -> None:
        self.of: MixFormerV2Tracker | None = None
        self.next_block = 0
        self.tokens: Tensor = None
        self.keys_values: dict[str, Tensor] = {}

    def begin(self, of: MixFormerV2Tracker) -> None:
        self.of, self.next_block, self.tokens = of, 0, None
        self.keys_values.clear()

    def drop(self, of: MixFormerV2Tracker) -> None:
        """Leave the blocks to others, if they are at work for `of`."""
        if self.of is of:
            self.of = None

"""The tracking algorithms, one file each, and `create_tracker`, which makes any of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.models import Model
from lighttrack_ros.runtime.build import drop_locals
from lighttrack_ros.runtime.load import Backend, tensorrt_is_here
from lighttrack_ros.runtime.plan_cache import PlanCache, PlanKey
from lighttrack_ros.runtime.watch import watch
from lighttrack_ros.trackers.base import Estimate, Tracker
from lighttrack_ros.trackers.threads import find_threads

__all__ = ["Estimate", "Tracker", "create_tracker"]

_COMPARED_FRAMES = 20  # of the generated scene, after a compilation

_logger = logging.getLogger(__name__)


def create_tracker(model: Model, backend: Backend = "auto", threads: int = 0, spin: bool = False) -> Tracker:
    """Make the tracker of a model and load its engines.

    Newly compiled plans are compared once with ONNX Runtime in fp32; plans whose results differ too much are deleted.

    Args:
        model: from `models.load_model`.
        backend: see `runtime.load_engine`.
        threads: CPU threads inside one run of a network; 0: the number that `find_threads` measures as best.
        spin: see `runtime.load_engine`.

    Raises:
        LightTrackError: the backend is unknown or not installed, a graph cannot be loaded, or its results differ too
            much from ONNX Runtime's ("auto" then uses ONNX Runtime instead, and logs why).
    """
    with watch() as watched:
        before = len(watched.plans)
        if not threads:
            threads = _threads(model, backend, spin)
        tracker = _first_choice(model, backend, threads, spin)
        unchecked = [key for key in watched.plans[before:] if not PlanCache().is_checked(key)]
        if not unchecked:
            return tracker
        try:
            with watched.doing(f"comparing {model.name} with ONNX Runtime"):
                problem = _compare(model, tracker, unchecked, threads)
        except BaseException:
            tracker.close()
            raise
    if not problem:
        return tracker
    tracker.close()
    for key in unchecked:
        PlanCache().remove(PlanCache().path(key))
    plan = unchecked[0]
    problem = (
        f"{model.name} in {plan.precision}, compiled by {plan.tensorrt} for {plan.gpu}, "
        f"does not agree with ONNX Runtime: {problem}"
    )
    if backend != "auto":
        raise LightTrackError(f"{problem}; use backend onnxruntime, or tensorrt-fp32 if this was another")
    _logger.warning("running on ONNX Runtime instead: %s", problem)
    return _create(model, "onnxruntime", threads, spin)


def _threads(model: Model, backend: Backend, spin: bool) -> int:
    """The best number of threads if the CPU runs the networks; 0 if it does not."""
    if not isinstance(backend, str) or backend.startswith("tensorrt") or (backend == "auto" and tensorrt_is_here()):
        return 0
    chosen = "onnxruntime" if backend == "auto" else backend
    return find_threads(model, chosen, lambda count: _create(model, chosen, count, spin))


def _first_choice(model: Model, backend: Backend, threads: int, spin: bool) -> Tracker:
    """As `_create`; with "auto", if a network loads but does not run, the whole tracker uses ONNX Runtime."""
    try:
        return _create(model, backend, threads, spin)
    except BaseException as error:
        drop_locals(error)  # free the engines of the half-made tracker now, not when the error is forgotten
        if backend != "auto" or not isinstance(error, LightTrackError):
            raise
        _logger.warning("running on ONNX Runtime instead: %s", error)
    return _create(model, "onnxruntime", threads, spin)


def _create(model: Model, backend: Backend, threads: int, spin: bool = False) -> Tracker:
    try:
        return _tracker_of(model, backend, threads, spin)
    except KeyError as error:  # from the warm-up, which asks for every tensor by name
        raise LightTrackError(
            f"{model.folder}: no {error} among the inputs and outputs of one of its graphs; are they those of a "
            f"{model.tracker}, in the order of its model.yaml? (import the checkpoint again)"
        ) from error


def _tracker_of(model: Model, backend: Backend, threads: int, spin: bool) -> Tracker:
    if model.tracker == "mixformerv2":
        from lighttrack_ros.trackers.mixformerv2 import MixFormerV2Tracker

        return MixFormerV2Tracker(model, backend, threads, spin)

    if model.tracker == "dytrack":
        from lighttrack_ros.trackers.dytrack import DyTrackTracker

        return DyTrackTracker(model, backend, threads, spin)

    from lighttrack_ros.trackers.lighttrack import LightTrackTracker

    return LightTrackTracker(model, backend, threads, spin)


def _compare(model: Model, tracker: Tracker, plans: Sequence[PlanKey], threads: int) -> str:
    """Why newly compiled plans are refused, for the user; empty, and noted in the cache, if they are good."""
    from lighttrack_ros.media.clips import scene_clips
    from lighttrack_ros.trackers.parity import compare

    reference = _create(model, "onnxruntime", threads)
    try:
        near, far = (compare(tracker, reference, [clip]) for clip in scene_clips(_COMPARED_FRAMES))
    except LightTrackError as error:
        return str(error)
    finally:
        reference.close()
    summary = f"{near.summary()}; from afar, {far.summary()}"
    _logger.info("%s against ONNX Runtime in the generated scene: %s", model.name, summary)
    problem = near.problem() or far.problem()
    if not problem:
        for key in plans:
            with contextlib.suppress(OSError):  # a cache that cannot be written
                PlanCache().check(key, summary)
    return problem

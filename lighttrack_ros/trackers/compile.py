"""Compile a model for this machine's GPU ahead of time, and compare it with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lighttrack_ros.models import Model
from lighttrack_ros.runtime.plan_cache import PlanCache
from lighttrack_ros.runtime.watch import watch
from lighttrack_ros.trackers import Tracker, create_tracker
from lighttrack_ros.trackers.parity import Clip, Parity, compare


def compile_model(
    model: Model, backend: str, clips: Iterable[Clip], on_compiled: Callable[[Tracker], object] | None = None
) -> Parity:
    """Compile everything that the model's tracker loads, and compare it with ONNX Runtime on some clips.

    Args:
        backend: one of TensorRT's.
        clips: consecutive frames, see `trackers.parity.compare`.
        on_compiled: called before the comparison.

    Raises:
        LightTrackError: a graph does not compile. A graph that compiles but gives other results is no error: the
            returned `problem()` says so, and its plans are deleted.
    """
    with watch() as watched:
        # Making the tracker compiles everything that it loads.
        tracker = create_tracker(model, backend)
    try:
        if on_compiled is not None:
            on_compiled(tracker)
        parity = compare_with_onnxruntime(model, tracker, clips)
    finally:
        tracker.close()
    if parity.problem():
        for key in watched.plans:
            PlanCache().remove(PlanCache().path(key))
    return parity


def compare_with_onnxruntime(model: Model, tracker: Tracker, clips: Iterable[Clip]) -> Parity:
    """Compare a tracker with the same model's tracker on ONNX Runtime in fp32.

    Raises:
        LightTrackError: ONNX Runtime cannot load the model, or a network fails.
    """
    reference = create_tracker(model, "onnxruntime")
    try:
        return compare(tracker, reference, clips)
    finally:
        reference.close()

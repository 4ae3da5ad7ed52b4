"""A model compiled for this machine's GPU before it is needed, and compared with ONNX Runtime."""

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
    """Compile all that the model's tracker loads, and see what it makes of some clips.

    Args:
        backend: one of TensorRT's.
        clips: consecutive frames, see `trackers.parity.compare`.
        on_compiled: called before the comparison.

    Raises:
        LightTrackError: a graph does not compile. What compiled to something else than the graph's is told by the
            answer's `problem()`; its plans are deleted.
    """
    with watch() as watched:
        # All that the tracker loads, through the door through which it loads it.
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
    """How far a tracker is from the same model's on ONNX Runtime in fp32.

    Raises:
        LightTrackError: ONNX Runtime cannot load the model, or a network fails.
    """
    reference = create_tracker(model, "onnxruntime")
    try:
        return compare(tracker, reference, clips)
    finally:
        reference.close()

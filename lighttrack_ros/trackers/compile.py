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
        reference = create_tracker(model, "onnxruntime")
        try:
            parity = compare(tracker, reference, clips)
        finally:
            reference.close()
    finally:
        tracker.close()
    if parity.problem():
        for key in watched.plans:
            PlanCache().remove(PlanCache().path(key))
    return parity

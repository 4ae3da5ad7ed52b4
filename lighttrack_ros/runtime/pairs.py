"""Two crops in one run: where that is faster, and an engine for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lighttrack_ros.runtime.engine import Engine
from lighttrack_ros.runtime.host import threads_of
from lighttrack_ros.runtime.load import TENSORRT_PRECISIONS


def pays_in_pairs(graph: Path, backend: str, threads: int, sides: Sequence[int]) -> list[int]:
    """Sides of crops of which two in one run take plainly less time than two runs.

    On a CPU one crop is too small to keep several threads busy: measured, docs/performance.md. On a GPU it is measured
    on the machine itself: `lighttrack compile --pairs` keeps a plan for two crops where it is faster.

    Args:
        graph: a LightTrack's search graph.
        backend: one of `load.BACKENDS` but "auto".
        threads: see `load_engine`.
        sides: those that are asked about.

    Raises:
        LightTrackError: the backend is TensorRT, and it or the GPU is gone.
    """
    if backend in TENSORRT_PRECISIONS:
        # Only where it is needed: it imports ONNX Runtime, which a node on OpenVINO does without.
        from lighttrack_ros.runtime.conversion import CROPS
        from lighttrack_ros.runtime.plans import has_checked_plan

        precision = TENSORRT_PRECISIONS[backend]
        return [side for side in sides if has_checked_plan(graph, {"side": side, CROPS: 2}, precision)]
    return list(sides) if backend in ("onnxruntime", "openvino") and threads_of(threads) > 1 else []


def load_pair_engine(graph: Path, backend: str, threads: int, dimensions: Mapping[str, int], spin: bool) -> Engine:
    """As `load_engine`, for two crops: see `conversion.paired`.

    Args:
        backend: "onnxruntime", "openvino" or one of TensorRT's.

    Raises:
        LightTrackError: as `paired`, or the backend cannot load the graph.
    """
    from lighttrack_ros.runtime.conversion import CROPS, paired

    if backend in TENSORRT_PRECISIONS:
        from lighttrack_ros.runtime.tensorrt import TensorRTEngine

        return TensorRTEngine(graph, {**dimensions, CROPS: 2}, TENSORRT_PRECISIONS[backend])
    model = paired(graph)
    if backend == "openvino":
        from lighttrack_ros.runtime.openvino import OpenVinoEngine

        return OpenVinoEngine(graph, dimensions, threads_of(threads), model)
    from lighttrack_ros.runtime.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(graph, dimensions, threads_of(threads), spin, model=model)

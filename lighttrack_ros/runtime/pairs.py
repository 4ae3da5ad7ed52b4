"""Two crops in one run: an engine whose graph is the search graph with a second place in every input and output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime.engine import Engine
from lighttrack_ros.runtime.host import threads_of


def pays_in_pairs(backend: str, threads: int) -> bool:
    """Whether two crops in one run take plainly less time than two runs: measured, docs/performance.md.

    One crop is too small to keep several threads busy. TensorRT was never measured.

    Args:
        threads: see `load_engine`.
    """
    return backend in ("onnxruntime", "openvino") and threads_of(threads) > 1


def load_pair_engine(graph: Path, backend: str, threads: int, dimensions: Mapping[str, int], spin: bool) -> Engine:
    """As `load_engine`, for two crops: (2, side, side, 3); all other tensors have a first dimension of 2.

    Args:
        backend: one that `pays_in_pairs`.

    Raises:
        LightTrackError: as `paired`, or the backend cannot load the graph.
    """
    model = paired(graph)
    if backend == "openvino":
        from lighttrack_ros.runtime.openvino import OpenVinoEngine

        return OpenVinoEngine(graph, dimensions, threads_of(threads), model)
    from lighttrack_ros.runtime.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(graph, dimensions, threads_of(threads), spin, model=model)


def paired(graph: Path) -> bytes:
    """A search graph for two crops, as serialised ONNX; free dimensions stay free.

    Raises:
        LightTrackError: the package onnx is missing, or the graph is not made as `export.lighttrack` makes it: its
            `crop` (side, side, 3) is transposed, then gets a first dimension of 1.
    """
    try:
        import onnx
    except ImportError as error:
        raise LightTrackError(f"{graph}: two crops in one run need the package onnx (pip install onnx)") from error
    model = onnx.load(graph)
    for value in (*model.graph.input, *model.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.name == "crop":
            sizes.insert(0, onnx.TensorShapeProto.Dimension())
        sizes[0].dim_value = 2
    del model.graph.value_info[:]  # sizes of the graph for one crop
    nodes = {source: node for node in model.graph.node for source in node.input}
    transpose = nodes.get("crop")
    unsqueeze = nodes.get(transpose.output[0]) if transpose is not None else None
    if transpose is None or unsqueeze is None or (transpose.op_type, unsqueeze.op_type) != ("Transpose", "Unsqueeze"):
        raise LightTrackError(f"{graph}: its crop is not transposed and unsqueezed first, as the exporter makes it")
    del transpose.attribute[:]
    transpose.attribute.append(onnx.helper.make_attribute("perm", [0, 3, 1, 2]))
    transpose.output[0] = unsqueeze.output[0]
    model.graph.node.remove(unsqueeze)
    return bytes(model.SerializeToString())

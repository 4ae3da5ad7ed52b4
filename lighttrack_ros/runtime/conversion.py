"""An ONNX graph as TensorRT wants it: every size fixed, bytes cast before all else, the precision in the graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from lighttrack_ros.errors import LightTrackError

if TYPE_CHECKING:
    import onnx

# Sums over many squares overflow fp16; TensorRT's own advice is to keep them in fp32.
_KEPT_IN_FP32 = ["LayerNormalization", "ReduceMean", "ReduceSum", "Pow"]


def convert(graph: Path, dimensions: Mapping[str, int], precision: str) -> bytes:
    """The graph as serialised ONNX for a strongly typed TensorRT network.

    Inputs and outputs keep their dtypes in every precision, so that engines of different precisions fit together.

    Args:
        graph: path of the .onnx file, in fp32.
        dimensions: sizes of its free dimensions by name.
        precision: "fp32" or "fp16".

    Raises:
        LightTrackError: the package onnx is missing, the graph cannot be read, or a dimension stays free.
    """
    try:
        import onnx
    except ImportError as error:
        raise LightTrackError(f"{graph}: compiling for TensorRT needs the package onnx (pip install onnx)") from error
    model = _folded(graph, dimensions)
    for value in model.graph.input:
        free = [size.dim_param for size in value.type.tensor_type.shape.dim if not size.HasField("dim_value")]
        if free:
            raise LightTrackError(f"{graph}: {value.name} has free dimensions {free}; say how large they are")
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            _cast_first(model.graph, value.name)
    if precision == "fp16":
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        blocked = [*DEFAULT_OP_BLOCK_LIST, *_KEPT_IN_FP32]
        model = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
        _drop_repeated(model.graph)
        OnnxModel(model).topological_sort()  # the conversion appends the casts of the inputs
    return bytes(model.SerializeToString())


def _folded(graph: Path, dimensions: Mapping[str, int]) -> onnx.ModelProto:
    """With the sizes fixed, all that is computed from them is constant: TensorRT then meets no shape arithmetic."""
    import onnx

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # standard operators only
    for name, size in dimensions.items():
        options.add_free_dimension_override_by_name(name, size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                str(graph),
                options,
                providers=["CPUExecutionProvider"],
                # Would hide from TensorRT the attention that it knows how to fuse.
                disabled_optimizers=["MatMulAddFusion"],
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise LightTrackError(f"{graph}: ONNX Runtime cannot load it ({error})") from error
        return onnx.load(path)


def _cast_first(graph: onnx.GraphProto, name: str) -> None:
    """TensorRT takes bytes only straight into a cast; later casts of what was bytes become idle."""
    import onnx

    cast = f"{name}_float"
    for node in graph.node:
        for index, source in enumerate(node.input):
            if source == name:
                node.input[index] = cast
    graph.node.insert(0, onnx.helper.make_node("Cast", [name], [cast], name=cast, to=onnx.TensorProto.FLOAT))
    types = {value.name: value.type.tensor_type for value in graph.value_info}
    follow = {cast}
    for node in graph.node:  # in the order of their running
        if node.op_type in ("Transpose", "Unsqueeze", "Squeeze", "Reshape") and node.input[0] in follow:
            follow.update(node.output)
            for output in node.output:
                if output in types:
                    types[output].elem_type = onnx.TensorProto.FLOAT


def _drop_repeated(graph: onnx.GraphProto) -> None:
    """The conversion casts a weight once for each layer that wants it in fp32; once is enough, and legal."""
    made: set[str] = set()
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.output[0] not in made:
            graph.node.append(node)
            made.update(node.output)

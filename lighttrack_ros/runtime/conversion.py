"""An ONNX graph as a backend wants it: every size fixed, the precision in the graph; for TensorRT bytes cast first."""

from __future__ import annotations

import contextlib
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime.ranges import Ranges, load_ranges

if TYPE_CHECKING:
    import onnx

# Sums over many squares overflow fp16; TensorRT's own advice is to keep them in fp32.
_KEPT_IN_FP32 = ["LayerNormalization", "ReduceMean", "ReduceSum", "Pow"]


def convert(
    graph: Path,
    dimensions: Mapping[str, int],
    precision: str,
    ranges: Ranges | None = None,
    strongly_typed: bool = True,
) -> bytes:
    """The graph as serialised ONNX for TensorRT.

    Inputs and outputs keep their dtypes in every precision, so that engines of different precisions fit together.

    Args:
        graph: path of the .onnx file, in fp32.
        dimensions: sizes of its free dimensions by name.
        precision: "fp32", "fp16", or "int8" with fp16 for all that is not quantized (the whole graph, where the model
            has no ranges for it).
        ranges: of the graph's tensors, for int8; None: those that the model folder has.
        strongly_typed: whether TensorRT takes the types from the graph. Where it does not (8.6) it wants an int8
            graph's other layers in fp32 and makes them fp16 by itself.

    Raises:
        LightTrackError: the package onnx is missing, the graph cannot be read, a dimension stays free, or the
            graph's ranges, which int8 needs, are missing or another graph's.
    """
    _check_onnx(graph)
    import onnx

    if precision == "int8":
        ranges = ranges or load_ranges(graph)
        precision = "int8" if ranges else "fp16"
    model = folded(graph, dimensions)
    for value in model.graph.input:
        free = [size.dim_param for size in value.type.tensor_type.shape.dim if not size.HasField("dim_value")]
        if free:
            raise LightTrackError(f"{graph}: {value.name} has free dimensions {free}; say how large they are")
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            _cast_first(model.graph, value.name)
    if precision == "int8" and ranges:
        from lighttrack_ros.runtime.quantization import quantize_for_tensorrt

        quantize_for_tensorrt(model, ranges)
        # The first opset whose quantized values may come from and go to fp16.
        model = onnx.version_converter.convert_version(model, 19) if strongly_typed else model
    if precision == "fp16" or (precision == "int8" and strongly_typed):
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        blocked = [*DEFAULT_OP_BLOCK_LIST, *_KEPT_IN_FP32]
        model = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
        _drop_repeated(model.graph)
        OnnxModel(model).topological_sort()  # the conversion appends the casts of the inputs
    return bytes(model.SerializeToString())


def convert_for_onnxruntime(graph: Path, dimensions: Mapping[str, int], ranges: Ranges | None = None) -> bytes:
    """The graph as serialised ONNX with int8 where ONNX Runtime's CPU kernels gain from it, else fp32.

    Args:
        graph, dimensions, ranges: as for `convert`.

    Raises:
        LightTrackError: as `convert`.
    """
    _check_onnx(graph)
    from lighttrack_ros.runtime.quantization import quantize_for_onnxruntime

    ranges = ranges or load_ranges(graph)
    model = folded(graph, dimensions)
    if ranges:
        quantize_for_onnxruntime(model, ranges, 127 if _adds_up_in_32_bits() else 63)
    return bytes(model.SerializeToString())


def _check_onnx(graph: Path) -> None:
    """Raises LightTrackError where the package onnx, which a robot may lack, is needed and missing."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise LightTrackError(f"{graph}: converting it needs the package onnx (pip install onnx)") from error


def folded(graph: Path, dimensions: Mapping[str, int]) -> onnx.ModelProto:
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


def _adds_up_in_32_bits() -> bool:
    """Whether products of bytes are added up without overflow: all but x86 processors without VNNI do."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    with contextlib.suppress(OSError):
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return False


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

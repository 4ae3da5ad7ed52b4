"""Convert an ONNX graph for a backend: sizes fixed, precision set in the graph; for TensorRT, bytes cast first."""

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

CROPS = "crops"  # the name under which the sizes of a paired graph say how many crops it takes

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

    Inputs and outputs keep their dtypes in every precision, so that engines of different precisions can be connected.

    Args:
        graph: path of the .onnx file, in fp32.
        dimensions: sizes of its free dimensions by name; with `CROPS: 2` besides, the graph is `paired` first.
        precision: "fp32", "fp16" or "int8". With int8, layers that are not quantized are fp16, and so is the whole
            graph if the model has no ranges for it.
        ranges: of the graph's tensors, for int8; None: those of the model folder.
        strongly_typed: whether TensorRT takes the types from the graph. TensorRT 8.6 does not: it needs the other
            layers of an int8 graph in fp32, and makes them fp16 by itself.

    Raises:
        LightTrackError: the package onnx is missing, the graph cannot be read, a dimension stays free, or int8's
            ranges are missing or were measured on another graph.
    """
    _check_onnx(graph)
    import onnx

    if precision == "int8":
        ranges = ranges or load_ranges(graph)
        precision = "int8" if ranges else "fp16"
    model = folded(graph, dimensions, paired(graph) if CROPS in dimensions else None)
    for value in model.graph.input:
        free = [size.dim_param for size in value.type.tensor_type.shape.dim if not size.HasField("dim_value")]
        if free:
            raise LightTrackError(f"{graph}: {value.name} has free dimensions {free}; say how large they are")
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            _cast_first(model.graph, value.name)
    if precision == "int8" and ranges:
        from lighttrack_ros.runtime.quantization import quantize_for_tensorrt

        quantize_for_tensorrt(model, ranges)
        # Opset 19 is the first that quantizes fp16 values.
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
    """The graph as serialised ONNX, in int8 where ONNX Runtime's CPU kernels are faster with it, else fp32.

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
    """Raise LightTrackError if the package onnx is missing: a robot needs it only to convert."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise LightTrackError(f"{graph}: converting it needs the package onnx (pip install onnx)") from error


def paired(graph: Path) -> bytes:
    """A search graph for two crops, as serialised ONNX; free dimensions stay free.

    Its crop is (2, side, side, 3), all other tensors get a first dimension of 2.

    Raises:
        LightTrackError: the package onnx is missing, or the graph is not made as `export.lighttrack` makes it: its
            `crop` (side, side, 3) is transposed, then gets a first dimension of 1.
    """
    _check_onnx(graph)
    import onnx

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


def folded(graph: Path, dimensions: Mapping[str, int], model: bytes | None = None) -> onnx.ModelProto:
    """The graph with fixed sizes, and everything computed from sizes as constants: no shape arithmetic is left.

    Args:
        model: serialised ONNX made from the graph; if given, it is folded instead.
    """
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
                model or str(graph),
                options,
                providers=["CPUExecutionProvider"],
                # It would hide attention from TensorRT, which can fuse it.
                disabled_optimizers=["MatMulAddFusion"],
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise LightTrackError(f"{graph}: ONNX Runtime cannot load it ({error})") from error
        return onnx.load(path)


def _adds_up_in_32_bits() -> bool:
    """Whether the processor sums products of bytes in 32 bits, without overflow: x86 without VNNI does not."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    with contextlib.suppress(OSError):
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return False


def _cast_first(graph: onnx.GraphProto, name: str) -> None:
    """Cast a uint8 input right away, because TensorRT accepts no other operation on bytes; later casts do nothing."""
    import onnx

    cast = f"{name}_float"
    for node in graph.node:
        for index, source in enumerate(node.input):
            if source == name:
                node.input[index] = cast
    graph.node.insert(0, onnx.helper.make_node("Cast", [name], [cast], name=cast, to=onnx.TensorProto.FLOAT))
    types = {value.name: value.type.tensor_type for value in graph.value_info}
    follow = {cast}
    for node in graph.node:  # in execution order
        if node.op_type in ("Transpose", "Unsqueeze", "Squeeze", "Reshape") and node.input[0] in follow:
            follow.update(node.output)
            for output in node.output:
                if output in types:
                    types[output].elem_type = onnx.TensorProto.FLOAT


def _drop_repeated(graph: onnx.GraphProto) -> None:
    """Keep one cast per weight: the conversion adds one per layer that needs fp32, all of the same (illegal) name."""
    made: set[str] = set()
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.output[0] not in made:
            graph.node.append(node)
            made.update(node.output)

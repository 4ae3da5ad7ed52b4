"""Insert quantize and dequantize nodes into an ONNX graph, in the form that TensorRT or ONNX Runtime needs.

Both forms use the same measured ranges. TensorRT takes only symmetric signed values; ONNX Runtime's CPU kernels
are fast only with unsigned activations. In both, weights are symmetric and signed, with one scale per channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.runtime.ranges import Ranges

FloatArray = npt.NDArray[np.float32]

# ONNX Runtime's int8 convolutions are no faster than fp32 on larger maps and with larger depthwise kernels.
_CELLS = 32 * 32
_TAPS = 5 * 5
_CHANNELS = 8  # fewer: the network's output, e.g. distances in pixels, for which 256 steps are too coarse
_SMALLEST_SCALE = np.float32(2.0**-20)  # fp16 still has four bits there


def layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes worth quantizing: convolutions (except on single pixels: squeeze-excites) and products by constants."""
    constants = {constant.name: constant for constant in model.graph.initializer}
    shapes = _shapes(model)

    def worth_it(node: onnx.NodeProto) -> bool:
        if node.op_type not in ("Conv", "MatMul") or node.input[1] not in constants:
            return False
        return node.op_type == "MatMul" or int(np.prod(shapes[node.output[0]][2:])) > 1

    return [node for node in model.graph.node if worth_it(node)]


def quantize_for_tensorrt(model: onnx.ModelProto, ranges: Ranges) -> None:
    """Quantize inputs and weights of every layer, in place; outputs stay in floating point until the next layer.

    Raises:
        LightTrackError: the range of a tensor was not measured.
    """
    rewriter = _Rewriter(model.graph, ranges, signed=True)
    for layer in layers(model):
        if layer.name not in ranges.kept:
            rewriter.quantize_input(layer)
            rewriter.quantize_weights(layer)
    rewriter.finish()


def quantize_for_onnxruntime(model: onnx.ModelProto, ranges: Ranges, weight_limit: int) -> None:
    """Quantize, in place, the convolutions that ONNX Runtime runs faster in int8, and what lies between them.

    Args:
        weight_limit: largest quantized weight: 127, or 63 if the processor sums in 16 bits.

    Raises:
        LightTrackError: the range of a tensor was not measured, or the network is a transformer.
    """
    graph = model.graph
    shapes = _shapes(model)
    constants = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    quantized = []
    for layer in layers(model):
        if layer.op_type == "MatMul":
            raise LightTrackError("on the CPU, int8 makes transformers no faster: use backend onnxruntime")
        weight, cells = constants[layer.input[1]], int(np.prod(shapes[layer.output[0]][2:]))
        slow = cells > _CELLS or (weight[1] == 1 and int(np.prod(weight[2:])) > _TAPS)
        if not slow and weight[0] >= _CHANNELS and layer.name not in ranges.kept:
            quantized.append(layer)
    _fuse_swish(model)
    rewriter = _Rewriter(graph, ranges, signed=False, weight_limit=weight_limit)
    for layer in quantized:
        rewriter.quantize_input(layer)
        rewriter.quantize_weights(layer)
        rewriter.quantize_bias(layer)
    for layer in quantized:
        rewriter.quantize_output(layer)
    rewriter.finish()


class _Rewriter:
    """Adds nodes to a graph; `finish` puts them into execution order."""

    def __init__(self, graph: onnx.GraphProto, ranges: Ranges, signed: bool, weight_limit: int = 127) -> None:
        self._graph, self._ranges, self._signed, self._weight_limit = graph, ranges, signed, weight_limit
        self._constants = {constant.name: constant for constant in graph.initializer}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._outputs = {output.name for output in graph.output}
        self._scales: dict[str, FloatArray] = {}  # of quantized activations
        self._after: dict[str, list[onnx.NodeProto]] = {}  # new nodes, by the tensor that they need; "" for constants

    def quantize_input(self, layer: onnx.NodeProto) -> None:
        layer.input[0] = self._quantized(layer.input[0])

    def quantize_weights(self, layer: onnx.NodeProto) -> None:
        name = f"{layer.name}/weights"
        weights = numpy_helper.to_array(self._constants[layer.input[1]])
        axis = 0 if layer.op_type == "Conv" else weights.ndim - 1
        others = tuple(index for index in range(weights.ndim) if index != axis)
        scales = _scales(np.abs(weights).max(axis=others), self._weight_limit)
        zeros = np.zeros(len(scales), np.int8)
        quantization = [self._constant(f"{name}/scales", scales), self._constant(f"{name}/zeros", zeros)]
        if self._signed:
            # TensorRT quantizes the weights itself; all its versions need both nodes.
            source = layer.input[1]
            self._add("", "QuantizeLinear", [source, *quantization], f"{name}/quantized", axis=axis)
        else:
            shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
            limit = self._weight_limit
            integers = np.clip(np.rint(weights / scales.reshape(shape)), -limit, limit).astype(np.int8)
            self._constant(f"{name}/quantized", integers)
        self._add("", "DequantizeLinear", [f"{name}/quantized", *quantization], name, axis=axis)
        layer.input[1] = name

    def quantize_bias(self, layer: onnx.NodeProto) -> None:
        """To 32 bits, with the scale of the sums; call it after quantize_input and quantize_weights."""
        if len(layer.input) < 3:
            return
        name = f"{layer.name}/bias"
        weights = numpy_helper.to_array(self._constants[f"{layer.name}/weights/scales"])
        scales = (self._scales[layer.input[0]] * weights).astype(np.float32)
        bias = numpy_helper.to_array(self._constants[layer.input[2]])
        integers = np.clip(np.rint(bias / scales.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int32)
        inputs = [
            self._constant(f"{name}/quantized", integers),
            self._constant(f"{name}/scales", scales),
            self._constant(f"{name}/zeros", np.zeros(len(scales), np.int32)),
        ]
        self._add("", "DequantizeLinear", inputs, name, axis=0)
        layer.input[2] = name

    def quantize_output(self, layer: onnx.NodeProto) -> None:
        """The layer's output, or that of the ReLU or sum that is its only user, which then runs in int8 as well."""
        tensor = layer.output[0]
        users = self._users.get(tensor, [])
        if len(users) == 1 and users[0].op_type == "Relu":
            tensor, users = users[0].output[0], self._users.get(users[0].output[0], [])
        self._quantize_for_all(tensor)
        for user in users:
            if user.op_type == "Add" and not set(user.input) & set(self._constants):
                self._quantize_for_all(user.output[0])

    def finish(self) -> None:
        nodes = list(self._graph.node)
        del self._graph.node[:]
        available = ["", *self._constants, *(value.name for value in self._graph.input)]
        for name in available:
            self._graph.node.extend(self._after.pop(name, []))
        for node in nodes:
            self._graph.node.append(node)
            for name in node.output:
                self._graph.node.extend(self._after.pop(name, []))
        used = {name for node in self._graph.node for name in node.input}
        kept = [constant for constant in self._graph.initializer if constant.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _quantize_for_all(self, tensor: str) -> None:
        if tensor in self._outputs or tensor not in self._ranges.ranges:
            return
        users = self._users.get(tensor, [])
        dequantized = self._quantized(tensor)
        for user in users:
            for index, name in enumerate(user.input):
                if name == tensor:
                    user.input[index] = dequantized

    def _quantized(self, tensor: str) -> str:
        """The name of the tensor after quantization and dequantization; the nodes are made once."""
        name = f"{tensor}/dequantized"
        if name in self._scales:
            return name
        if tensor not in self._ranges.ranges:
            raise LightTrackError(f"no range was measured for the tensor {tensor}: calibrate again")
        low, high = self._ranges.ranges[tensor]
        low, high = min(low, 0.0), max(high, 0.0)
        zero: npt.NDArray[Any]
        if self._signed:
            scale, zero = _scales(np.float32(max(-low, high)), 127), np.array(0, np.int8)
        else:
            scale = _scales(np.float32(high - low), 255)
            zero = np.array(np.clip(round(-low / float(scale)), 0, 255), np.uint8)
        quantization = [self._constant(f"{tensor}/scale", scale), self._constant(f"{tensor}/zero", zero)]
        self._add(tensor, "QuantizeLinear", [tensor, *quantization], f"{tensor}/quantized")
        self._add(tensor, "DequantizeLinear", [f"{tensor}/quantized", *quantization], name)
        self._scales[name] = scale
        return name

    def _add(self, after: str, operator: str, inputs: Iterable[str], output: str, **attributes: Any) -> None:
        node = helper.make_node(operator, list(inputs), [output], name=f"{output}/{operator}", **attributes)
        self._after.setdefault(after, []).append(node)

    def _constant(self, name: str, array: npt.NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(array, name)
            self._graph.initializer.append(self._constants[name])
        return name


def _scales(largest: Any, limit: int) -> FloatArray:
    """The step size that puts the largest value at step `limit`; exact in fp16, because the graph may be fp16."""
    scales = np.maximum(np.asarray(largest, np.float32) / np.float32(limit), _SMALLEST_SCALE)
    halves = scales.astype(np.float16)
    # Round up, so that the largest value is not clipped.
    halves = np.where(halves < scales, np.nextafter(halves, np.float16(np.inf)), halves)
    return np.asarray(halves, np.float32)


def _fuse_swish(model: onnx.ModelProto) -> None:
    """Replace x * sigmoid(x) by one operator: after a dequantization ONNX Runtime does not fuse it itself."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in list(graph.node):
        if node.op_type != "Mul":
            continue
        for x, gate in (tuple(node.input), tuple(reversed(node.input))):
            maker = makers.get(gate)
            if maker is not None and maker.op_type == "Sigmoid" and maker.input[0] == x:
                fused = helper.make_node(
                    "QuickGelu", [x], list(node.output), name=node.name, domain="com.microsoft", alpha=1.0
                )
                node.CopyFrom(fused)
                break
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in list(graph.node):
        if node.op_type == "Sigmoid" and node.output[0] not in used:
            graph.node.remove(node)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim) for value in values}

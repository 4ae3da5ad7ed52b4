"""LightTrack as it is usually ported: the measure for what this project's own way of running it saves.

Pixels become a normalised float tensor in numpy, a whole padded copy of the frame is made where the crop leaves it, one
fp32 network searches the whole crop in every frame on ONNX Runtime, and every run allocates its outputs.
Boxes are the authors', so accuracy can be compared as well.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.image import Frame
from lighttrack_ros.models import LightTrackHyperParameters, Model
from lighttrack_ros.runtime.engine import Array, Tensor, TensorSpec
from lighttrack_ros.trackers.crop import SquareCropper, UInt8Array
from lighttrack_ros.trackers.lighttrack import LightTrackTracker


def plain_lighttrack(model: Model, threads: int) -> LightTrackTracker:
    """A tracker of a LightTrack model that runs it the plain way.

    Raises:
        LightTrackError: a model of another tracker, or the package onnx is missing.
    """
    parameters = dataclasses.replace(
        model.parameters_of(LightTrackHyperParameters), near_size=0, middle_size=0, whole_interval=0
    )
    tracker = LightTrackTracker(
        dataclasses.replace(model, hyper_parameters=parameters),
        lambda graph, dimensions: _PlainEngine(graph, dimensions, threads),
    )
    tracker._cropper = _PlainCropper()
    return tracker


class _PlainCropper(SquareCropper):
    def crop(self, frame: Frame, x0: int, y0: int, side: int, fill: UInt8Array, out: UInt8Array) -> None:
        image: Array = frame.bgr()
        pad = max(0, -x0, -y0, x0 + side - frame.width, y0 + side - frame.height)
        if pad:
            image = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=fill.tolist())
        patch = image[y0 + pad : y0 + pad + side, x0 + pad : x0 + pad + side]
        out[:] = cv2.resize(patch, (out.shape[1], out.shape[0]), interpolation=cv2.INTER_LINEAR)


class _PlainEngine:
    """A session on the graph behind its first nodes, which would take bytes; it is given floats."""

    backend = "plain"

    def __init__(self, graph: Path, dimensions: Mapping[str, int], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        for name, size in dimensions.items():
            options.add_free_dimension_override_by_name(name, size)
        network, self._mean, first = _behind_the_bytes(graph)
        self._session = ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        side = dimensions["side"]
        others = [node for node in self._session.get_inputs() if node.name != first]
        self._first = first
        self.inputs: Mapping[str, TensorSpec] = {"crop": TensorSpec((side, side, 3), np.dtype(np.uint8))} | {
            node.name: TensorSpec(tuple(node.shape), np.dtype(np.float32)) for node in others
        }
        self.outputs: Mapping[str, TensorSpec] = {
            node.name: TensorSpec(tuple(node.shape), np.dtype(np.float32)) for node in self._session.get_outputs()
        }
        self.input_buffers: Mapping[str, Array] = {
            name: np.zeros(spec.shape, spec.dtype) for name, spec in self.inputs.items()
        }

    def run(self, inputs: Mapping[str, Tensor], slot: int = 0) -> Mapping[str, Tensor]:
        self.hold(inputs, slot)
        tensors = dict(self.input_buffers)
        image = tensors.pop("crop").astype(np.float32).transpose(2, 0, 1)[None]
        tensors[self._first] = np.ascontiguousarray(image - self._mean)
        return dict(zip(self.outputs, self._session.run(None, tensors), strict=True))

    def hold(self, inputs: Mapping[str, Tensor], slot: int = 0) -> None:
        if slot:
            raise LightTrackError("@plain follows one target")
        for name, tensor in inputs.items():
            np.copyto(self.input_buffers[name], tensor)

    def close(self) -> None:
        self._session = None


def _behind_the_bytes(graph: Path) -> tuple[bytes, Array, str]:
    """The network from where its image is float, the mean that is then already off, and the name of that input."""
    try:
        import onnx
        from onnx import numpy_helper
        from onnx.utils import extract_model
    except ImportError as error:
        raise LightTrackError("@plain needs the package onnx (pip install onnx)") from error
    model = onnx.load(graph)
    subtraction = next(node for node in model.graph.node if node.op_type == "Sub")
    first = subtraction.output[0]
    means = [numpy_helper.to_array(item) for item in model.graph.initializer if item.name == subtraction.input[1]]
    others = [value.name for value in model.graph.input if value.name != "crop"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        outputs = [value.name for value in model.graph.output if value.name != "features"]
        extract_model(str(graph), str(path), [first, *others], outputs)
        return path.read_bytes(), means[0], first

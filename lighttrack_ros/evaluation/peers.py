"""Other projects' trackers on ONNX Runtime, from the ONNX files that their authors published: NanoTrack and VitTrack.

Accuracy and time beside ours on the same engine. They are driven as their authors do, and cropped as we crop, which is
faster than a padded copy of the frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box, context_side, hann_window
from lighttrack_ros.image import Frame
from lighttrack_ros.trackers.base import Estimate, check_box
from lighttrack_ros.trackers.crop import SquareCropper
from lighttrack_ros.trackers.search_region import crop_region, place_in_frame, within

_Array = NDArray[Any]


class _Tuning(NamedTuple):
    """NanoTrack's decoding, as its authors tuned it."""

    penalty_k: float
    window_influence: float
    lr: float


# Name -> what tells its ONNX files apart, in order.
KINDS = {
    "nanotrack": ("backbone", "head"),
    "vittrack": ("vit",),
    "dasiamrpn": ("model", "kernel_cls1", "kernel_r1"),  # in OpenCV alone
}

# By the cells of a side of the score map: version 2 has 16, version 3 has 15.
_TUNINGS = {16: _Tuning(0.150, 0.490, 0.385), 15: _Tuning(0.138, 0.455, 0.348)}
_TEMPLATE, _SEARCH, _STRIDE = 127, 255, 16  # pixels
_SMALLEST = 10.0  # pixels; the least that a target's sides measure

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


class NanoTrack:
    """NanoTrack (SiamTrackers), second or third version; which, its head's score map tells.

    Args:
        backbone, head: its two ONNX files.
        threads: CPU threads a step.

    Raises:
        LightTrackError: a file is missing or not that network, or the package onnx is missing.
    """

    def __init__(self, backbone: Path, head: Path, threads: int) -> None:
        # The published backbones are written for the search crop's size alone.
        self._template_network = _session(_with_input_size(backbone, _TEMPLATE), backbone, threads)
        self._search_network = _session(_with_input_size(backbone, _SEARCH), backbone, threads)
        self._head = _session(_read(head), head, threads)
        cells = self._head.get_outputs()[0].shape[-1]
        if len(self._head.get_inputs()) != 2 or cells not in _TUNINGS:
            raise LightTrackError(f"{head}: not NanoTrack's head, version 2 or 3 (score map of {cells} cells)")
        self._tuning, self._cells = _TUNINGS[cells], cells
        self._window = hann_window(cells).ravel()
        self._cropper = SquareCropper()

    def init(self, frame: Frame, box: Box) -> None:
        """Raises: LightTrackError: the box is no good."""
        check_box(frame, box)
        self._fill = frame.mean_colour().astype(np.uint8)
        self._centre, self._size = box.centre, (float(box.width), float(box.height))
        self._template = self._features(self._template_network, frame, context_side(*self._size), _TEMPLATE)

    def update(self, frame: Frame) -> Estimate:
        side = context_side(*self._size)
        scale = _TEMPLATE / side  # crop pixels per frame pixel
        search = self._features(self._search_network, frame, side * _SEARCH / _TEMPLATE, _SEARCH)
        inputs = (node.name for node in self._head.get_inputs())
        logits, distances = self._head.run(None, dict(zip(inputs, (self._template, search), strict=True)))
        away, near = logits.reshape(2, -1)
        scores = 1 / (1 + np.exp(away - near))
        left, top, right, bottom = distances.reshape(4, -1)
        widths, heights = left + right, top + bottom
        width, height = self._size[0] * scale, self._size[1] * scale
        margins = (widths + heights) / 2
        sizes = np.sqrt((widths + margins) * (heights + margins)) / context_side(width, height)
        shapes = (width / height) / (widths / heights)
        change = np.maximum(sizes, 1 / sizes) * np.maximum(shapes, 1 / shapes)
        penalties = np.exp((1 - change) * self._tuning.penalty_k)
        influence = self._tuning.window_influence
        best = int(np.argmax(penalties * scores * (1 - influence) + self._window * influence))
        row, column = divmod(best, self._cells)
        x = (column - self._cells // 2) * _STRIDE + (right[best] - left[best]) / 2
        y = (row - self._cells // 2) * _STRIDE + (bottom[best] - top[best]) / 2
        rate = float(penalties[best] * scores[best] * self._tuning.lr)
        width = (1 - rate) * self._size[0] + rate * float(widths[best]) / scale
        height = (1 - rate) * self._size[1] + rate * float(heights[best]) / scale
        self._centre = (
            min(max(self._centre[0] + float(x) / scale, 0.0), float(frame.width)),
            min(max(self._centre[1] + float(y) / scale, 0.0), float(frame.height)),
        )
        self._size = (
            max(_SMALLEST, min(width, float(frame.width))),
            max(_SMALLEST, min(height, float(frame.height))),
        )
        (centre_x, centre_y), (width, height) = self._centre, self._size
        return Estimate(Box(centre_x - width / 2, centre_y - height / 2, width, height), float(scores[best]))

    def idle_work(self) -> bool:
        return False

    def close(self) -> None:
        del self._template_network, self._search_network, self._head

    def _features(self, network: ort.InferenceSession, frame: Frame, side: float, size: int) -> _Array:
        """(1, channels, n, n) float32 of the square round the target; the network takes B, G, R from 0 to 255."""
        crop = np.empty((size, size, 3), np.uint8)
        x0, y0 = (round(centre - (side + 1) / 2) for centre in self._centre)
        self._cropper.crop(frame, x0, y0, max(1, round(side)), self._fill, crop)
        image = np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32)
        features: _Array = network.run(None, {network.get_inputs()[0].name: image})[0]
        return features


class VitTrack:
    """VitTrack (OpenCV zoo, 2023-09), with float boxes clipped as OSTrack clips them, which is more accurate than the
    whole pixels of OpenCV's TrackerVit.

    Args:
        network: its ONNX file.
        threads: CPU threads a step.

    Raises:
        LightTrackError: the file is missing or not that network.
    """

    def __init__(self, network: Path, threads: int) -> None:
        self._network = _session(_read(network), network, threads)
        shapes = {node.name: node.shape for node in self._network.get_inputs()}
        if set(shapes) != {"template", "search"} or len(self._network.get_outputs()) != 3:
            raise LightTrackError(f"{network}: not VitTrack (its inputs are {', '.join(shapes)})")
        self._template_size, self._search_size = shapes["template"][-1], shapes["search"][-1]
        self._cropper = SquareCropper()

    def init(self, frame: Frame, box: Box) -> None:
        """Raises: LightTrackError: the box is no good."""
        check_box(frame, box)
        self._box = within(frame, Box(*map(float, box)))
        self._template, _ = self._crop(frame, 2.0, self._template_size)

    def update(self, frame: Frame) -> Estimate:
        search, side = self._crop(frame, 4.0, self._search_size)
        scores, sizes, offsets = self._network.run(None, {"template": self._template, "search": search})
        scores = scores[0, 0]
        n = scores.shape[-1]
        best = int(np.argmax(scores * hann_window(n)))
        row, column = divmod(best, n)
        x, y = (column + offsets[0, 0, row, column]) / n, (row + offsets[0, 1, row, column]) / n
        width, height = sizes[0, :, row, column]
        self._box = place_in_frame([float(v) for v in (x, y, width, height)], self._box, side, frame)
        return Estimate(self._box, float(scores[row, column]))

    def idle_work(self) -> bool:
        return False

    def close(self) -> None:
        del self._network

    def _crop(self, frame: Frame, factor: float, size: int) -> tuple[_Array, int]:
        """(1, 3, size, size) float32, R, G, B, normalised, and the square's side in pixels of the frame."""
        crop = np.empty((size, size, 3), np.uint8)
        side = crop_region(self._cropper, frame, self._box, factor, crop)
        image: _Array = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB).astype(np.float32)
        image = (image - 255 * _MEAN) * (1 / (255 * _STD))
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None]), side


def find_peer(folder: Path) -> tuple[str, list[Path]]:
    """Which of KINDS a folder holds the ONNX files of, and these files in order.

    Raises:
        LightTrackError: no such folder, or other files.
    """
    files = sorted(folder.glob("*.onnx"))
    for name, parts in KINDS.items():
        found = [[file for file in files if part in file.name] for part in parts]
        if len(files) == len(parts) and all(len(matches) == 1 for matches in found):
            return name, [matches[0] for matches in found]
    wanted = "; ".join(f"{name}: {', '.join(f'*{part}*.onnx' for part in parts)}" for name, parts in KINDS.items())
    raise LightTrackError(
        f"{folder}: holds {', '.join(file.name for file in files) or 'no ONNX files'}, expected those of a tracker "
        f"({wanted})"
    )


def load_peer(folder: Path, threads: int) -> NanoTrack | VitTrack:
    """The tracker whose ONNX files a folder holds, on ONNX Runtime.

    Raises:
        LightTrackError: no such folder, other files, files that are not those networks, or a tracker for OpenCV alone.
    """
    name, files = find_peer(folder)
    if name == "nanotrack":
        backbone, head = files
        return NanoTrack(backbone, head, threads)
    if name == "vittrack":
        return VitTrack(files[0], threads)
    raise LightTrackError(f"{folder}: {name} runs in OpenCV alone here (try {folder}@opencv)")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LightTrackError(f"{path}: cannot be read ({error.strerror})") from None


def _session(network: bytes, path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes share no base
        raise LightTrackError(f"{path}: ONNX Runtime cannot load it ({str(error).splitlines()[0]})") from None


def _with_input_size(path: Path, size: int) -> bytes:
    """A network of convolutions, written for another size of its one image."""
    try:
        import onnx
    except ImportError as error:
        raise LightTrackError("NanoTrack on ONNX Runtime needs the package onnx (pip install onnx)") from error
    try:
        model = onnx.load_from_string(_read(path))
    except Exception as error:  # protobuf's
        raise LightTrackError(f"{path}: not an ONNX file ({error})") from None
    for value in (*model.graph.input, *model.graph.output):
        for axis in (2, 3):
            dimension = value.type.tensor_type.shape.dim[axis]
            if value.name == model.graph.input[0].name:
                dimension.dim_value = size
            else:
                dimension.dim_param = "cells"
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())

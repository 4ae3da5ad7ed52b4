"""`lighttrack selftest`: does the chosen backend see what ONNX Runtime sees on this machine, and how fast is it."""

from __future__ import annotations

import contextlib
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lighttrack_ros import __version__
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.clips import scene_clip, sequence_clips
from lighttrack_ros.models import Model
from lighttrack_ros.runtime import load_engine, warm_up
from lighttrack_ros.runtime.build import drop_locals, import_tensorrt
from lighttrack_ros.runtime.cuda import Cuda, open_cuda
from lighttrack_ros.runtime.tensorrt import TensorRTEngine
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.compile import compare_with_onnxruntime
from lighttrack_ros.trackers.crop import SquareCropper


def describe_gpu() -> dict[str, Any]:
    trt, cuda = import_tensorrt(), open_cuda()
    device, binding = cuda.device, cuda.binding
    cuda.close()
    return {
        "lighttrack_ros": __version__,
        trt.__name__: trt.__version__,
        "gpu": device.name,
        "compute_capability": "{}.{}".format(*device.compute_capability),
        "integrated": device.integrated,
        "cuda_driver": device.driver,
        "binding": binding,
        "processor": platform.machine(),
        "python": platform.python_version(),
    }


def time_preprocessing(runs: int) -> dict[str, Any]:
    """What getting a crop to the network takes, and what resizing it on the GPU instead could save.

    A camera's frame arrives in ordinary host memory. We resize its rectangle on the CPU, into page-locked memory,
    which is uploaded (but not where the GPU shares the host's memory). Resizing on the GPU would leave the copy and
    the upload of the rectangle; cropping there, those of the whole frame. What a kernel takes comes on top.
    """
    cuda = open_cuda()
    try:
        with cuda.current():
            try:
                times = _time_preprocessing(cuda, runs)
            except BaseException as error:
                drop_locals(error)  # PyCUDA destroys a stream with the last reference, in the context that is current
                raise
    finally:
        cuda.close()
    return {name: _spread(milliseconds) for name, milliseconds in times.items()}


def _time_preprocessing(cuda: Cuda, runs: int) -> dict[str, npt.NDArray[np.float64]]:
    image = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    frame, cropper, fill = from_bgr(image), SquareCropper(), np.zeros(3, np.uint8)
    x, y, side, crop_side = 400, 200, 300, 256  # of a usual target, for a usual network
    with contextlib.ExitStack() as resources:
        stream = cuda.create_stream()
        resources.callback(cuda.destroy_stream, stream)
        host = cuda.allocate_host(image.nbytes)
        resources.callback(cuda.free_host, host)
        device = cuda.allocate(image.nbytes)
        resources.callback(cuda.free, device)

        def page_locked(height: int, width: int) -> npt.NDArray[np.uint8]:
            return host.array[: height * width * 3].reshape(height, width, 3)

        def upload(array: npt.NDArray[np.uint8]) -> None:
            if not cuda.device.integrated:
                cuda.upload(device, array, stream)
                cuda.synchronize(stream)

        def crop() -> None:
            array = page_locked(crop_side, crop_side)
            cropper.crop(frame, x, y, side, fill, array)
            upload(array)

        def rectangle() -> None:
            array = page_locked(side, side)
            np.copyto(array, frame.region(x, y, x + side, y + side))
            upload(array)

        def whole_frame() -> None:
            array = page_locked(frame.height, frame.width)
            np.copyto(array, frame.bgr())
            upload(array)

        times: dict[str, npt.NDArray[np.float64]] = {}
        try:
            for way in (crop, rectangle, whole_frame):
                way()
                times[way.__name__] = milliseconds = np.empty(runs)
                for index in range(runs):
                    started = time.perf_counter()
                    way()
                    milliseconds[index] = (time.perf_counter() - started) * 1e3
        finally:
            stream = None  # a traceback keeps functions with all that they refer to
    return times


def compare_backend(model: Model, backend: str, sequences: Path | None, frames: int) -> dict[str, Any]:
    """How far the backend's boxes and confidences are from ONNX Runtime's, and how long its updates take.

    Args:
        sequences: a folder of them; None: the generated scene.
        frames: how many are compared.

    Raises:
        LightTrackError: the backend cannot load the model, or a network fails.
    """
    clips = sequence_clips(sequences, frames) if sequences else [scene_clip(frames)]
    started = time.perf_counter()
    tested = create_tracker(model, backend)
    loaded = time.perf_counter() - started
    try:
        parity = compare_with_onnxruntime(model, tested, clips)
    finally:
        tested.close()
    return {
        "load_seconds": round(loaded, 2),
        "compared_frames": len(parity.pixels),
        "box_difference_pixels": _spread(parity.pixels),
        "score_difference": _spread(parity.scores, 5),
        "overlap": {
            "median": round(float(np.median(parity.overlaps)), 4),
            "least": round(float(parity.overlaps.min()), 4),
        },
        "problem": parity.problem(),
        "update_ms": _spread(parity.milliseconds),
    }


def time_networks(model: Model, backend: str, runs: int) -> dict[str, Any]:
    """Times of each graph alone, uploads and downloads included: by CUDA's events, and on the host's clock."""
    times = {}
    template = [(graph, model.template_size) for graph in model.template_graphs]
    for graph, side in template + [(graph, model.search_sizes[0]) for graph in model.search_graphs]:
        # As its tracker loads it: any other sizes would compile a second plan.
        dimensions = {"side": side} if model.tracker == "lighttrack" else {}
        engine = load_engine(graph, backend, dimensions=dimensions)
        try:
            assert isinstance(engine, TensorRTEngine)
            warm_up(engine)
            gpu, host = engine.milliseconds(runs)
            times[graph.name] = {"gpu_ms": _spread(gpu), "host_ms": _spread(host)}
        finally:
            engine.close()
    return times


def _spread(values: npt.NDArray[np.float64], digits: int = 3) -> dict[str, float]:
    names = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: round(float(np.percentile(values, percent)), digits) for name, percent in names.items()}

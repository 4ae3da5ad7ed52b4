"""OpenCV's trackers beside ours: which of them this OpenCV has, and one face for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import Frame
from lighttrack_ros.trackers.base import Estimate, check_box

# Name -> how it is made, without files; where OpenCV has it.
CLASSICAL = {"csrt": "TrackerCSRT_create", "kcf": "TrackerKCF_create", "mil": "TrackerMIL_create"}
CONTRIB = "opencv-contrib-python-headless"

# Name -> OpenCV's class, and the fields of its parameters that are paths of networks, in the order of `peers.KINDS`.
NETWORKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "nanotrack": ("TrackerNano", ("backbone", "neckhead")),
    "vittrack": ("TrackerVit", ("net",)),
    "dasiamrpn": ("TrackerDaSiamRPN", ("model", "kernel_cls1", "kernel_r1")),
}


class OpenCvTracker:
    """One of OpenCV's trackers, with `init`, `update` as ours have them.

    Args:
        name: for messages.
        make: gives a fresh cv2 tracker; OpenCV's own start once and are then thrown away.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._name = name
        self._make = make

    def init(self, frame: Frame, box: Box) -> None:
        """Start on a box, rounded to whole pixels inside the frame: OpenCV takes no others.

        Raises:
            LightTrackError: the box is no good, or OpenCV does not start on it.
        """
        check_box(frame, box)
        left, top = max(0, round(box.x)), max(0, round(box.y))
        right = min(frame.width, max(left + 1, round(box.x + box.width)))
        bottom = min(frame.height, max(top + 1, round(box.y + box.height)))
        self._box = box
        self._tracker = self._make()
        try:
            self._tracker.init(frame.bgr(), (left, top, right - left, bottom - top))
        except cv2.error as error:
            raise LightTrackError(f"{self._name} does not start on {tuple(box)}: {_words(error)}") from None

    def update(self, frame: Frame) -> Estimate:
        """The box where it is found, else the last one: also where OpenCV gives up with an error of its own."""
        try:
            found, box = self._tracker.update(frame.bgr())
        except cv2.error:
            found, box = False, self._box
        if found:
            self._box = Box(*map(float, box))
        return Estimate(self._box, 1.0 if found else 0.0)

    def idle_work(self) -> bool:
        return False

    def close(self) -> None:
        self._tracker = None


def classical_tracker(name: str) -> OpenCvTracker | None:
    """The tracker of that name in CLASSICAL; None where this OpenCV has it not."""
    make = getattr(cv2, CLASSICAL[name], None)
    return None if make is None else OpenCvTracker(name, make)


def network_tracker(name: str, files: Sequence[Path]) -> OpenCvTracker:
    """The tracker of that name in NETWORKS, on ONNX files.

    Raises:
        LightTrackError: this OpenCV has it not, or a file cannot be loaded as this tracker's.
    """
    kind, fields = NETWORKS[name]
    if not hasattr(cv2, kind):
        raise LightTrackError(f"{name}: OpenCV {cv2.__version__} has no {kind} (version 4.8 and newer have)")
    parameters = getattr(cv2, f"{kind}_Params")()
    for field, path in zip(fields, files, strict=True):
        setattr(parameters, field, str(path))

    def make() -> Any:
        return getattr(cv2, f"{kind}_create")(parameters)

    try:
        make()
    except cv2.error as error:
        names = ", ".join(map(str, files))
        raise LightTrackError(f"{names}: OpenCV cannot load {name} from it: {_words(error)}") from None
    return OpenCvTracker(name, make)


def _words(error: cv2.error) -> str:
    """OpenCV's message without its version, file and line."""
    return str(getattr(error, "err", "") or error).strip().splitlines()[0]

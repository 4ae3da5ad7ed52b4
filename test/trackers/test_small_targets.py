"""Targets of 4 to 10 pixels: their boxes do not grow to the authors' least size."""

import cv2
import numpy as np
import pytest

from lighttrack_ros.geometry import Box, intersection_over_union
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.models import load_model
from lighttrack_ros.trackers import create_tracker


@pytest.mark.parametrize("size", [5.0, 8.0])
def test_a_target_of_a_few_pixels_is_followed(model, size):
    frames = [frame for frame, _ in zip(Scene(20, 640, 480), range(20), strict=False)]
    factor = size / np.sqrt(frames[0].box.area)
    small = [cv2.resize(frame.image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for frame in frames]
    boxes = [Box(*(factor * value for value in frame.box)) for frame in frames]
    tracker = create_tracker(load_model(model), "onnxruntime", 1)
    try:
        tracker.init(from_bgr(small[0]), boxes[0])
        found = [tracker.update(from_bgr(image)).box for image in small[1:]]
    finally:
        tracker.close()
    overlaps = [intersection_over_union(box, truth) for box, truth in zip(found, boxes[1:], strict=True)]
    assert np.mean(overlaps) > 0.4
    assert max(box.width for box in found) < 2 * boxes[0].width

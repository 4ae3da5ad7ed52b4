"""The committed default model: its size, its licence, and tracking of the demo's target."""

from pathlib import Path

import numpy as np

from lighttrack_ros.geometry import intersection_over_union
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.models import load_model
from lighttrack_ros.trackers import create_tracker

FOLDER = Path(__file__).resolve().parents[2] / "engines/lighttrack_nano"


def test_the_default_model_is_under_four_megabytes_with_its_licence() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4_000_000
    assert "Copyright (c) 2021 Multimedia Research" in (FOLDER / "LICENSE").read_text()
    assert load_model(FOLDER).provenance.licence.startswith("MIT")


def test_the_default_model_keeps_the_target_of_the_generated_scene() -> None:
    tracker = create_tracker(load_model(FOLDER))
    overlaps = []
    for index, shot in enumerate(Scene()):
        frame = from_bgr(shot.image)
        if index == 0:
            tracker.init(frame, shot.box)
        else:
            box = tracker.update(frame).box
            if shot.truth is not None:
                overlaps.append(intersection_over_union(box, shot.truth))
    tracker.close()
    assert np.mean(overlaps) >= 0.6
    assert np.mean(overlaps[-30:]) >= 0.5

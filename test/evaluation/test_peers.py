"""NanoTrack and VitTrack on ONNX Runtime: as accurate as their authors' way of driving them."""

import numpy as np
import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.evaluate import evaluate_sequence
from lighttrack_ros.evaluation.metrics import overlaps
from lighttrack_ros.evaluation.opencv_trackers import network_tracker
from lighttrack_ros.evaluation.peers import NanoTrack, VitTrack, find_peer, load_peer
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.sequences import load_sequence

pytest.importorskip("onnx", reason="needs onnx to give the authors' graphs static shapes")


def peer(shared, name):
    folder = shared / "peers" / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder} (the authors' ONNX files)")
    return folder


@pytest.mark.parametrize(
    ("name", "kind", "auc"),
    [("nanotrackv2", NanoTrack, 0.86), ("nanotrackv3", NanoTrack, 0.86), ("vittrack", VitTrack, 0.85)],
)
def test_a_peer_follows_a_boat(shared, name, kind, auc):
    tracker = load_peer(peer(shared, name), 1)
    assert isinstance(tracker, kind)
    result = evaluate_sequence(tracker, load_sequence(shared / "sequences/boat1"))
    tracker.close()
    assert result.accuracy.auc >= auc
    assert (result.confidences[1:] > 0).all()
    assert (result.confidences <= 1).all()


def test_nanotrack_finds_what_it_finds_in_opencv(shared):
    folder = peer(shared, "nanotrackv2")
    sequence = load_sequence(shared / "sequences/wakeboard7")
    ours, theirs = (
        evaluate_sequence(tracker, sequence) for tracker in (load_peer(folder, 1), network_tracker(*find_peer(folder)))
    )
    assert overlaps(ours.boxes, theirs.boxes).mean() > 0.75, "OpenCV's boxes are whole pixels"


def test_a_start_outside_the_picture_is_refused(shared):
    tracker = load_peer(peer(shared, "vittrack"), 1)
    with pytest.raises(LightTrackError, match="box"):
        tracker.init(from_bgr(np.zeros((60, 80, 3), np.uint8)), Box(200, 200, 10, 10))


def test_nanotracks_head_must_be_of_a_version_it_knows(shared, tmp_path):
    folder = peer(shared, "nanotrackv2")
    (tmp_path / "backbone.onnx").write_bytes((folder / "nanotrack_backbone_sim.onnx").read_bytes())
    (tmp_path / "head.onnx").write_bytes((folder / "nanotrack_backbone_sim.onnx").read_bytes())
    with pytest.raises(LightTrackError, match="not NanoTrack's head, version 2 or 3"):
        load_peer(tmp_path, 1)

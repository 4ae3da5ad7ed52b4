"""Two targets in one run of the network: the same boxes as one after the other; what a failure comes to."""

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from lighttrack_ros.errors import EngineError, LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.models import load_model
from lighttrack_ros.runtime.conversion import paired
from lighttrack_ros.session import Session, State
from lighttrack_ros.trackers import create_tracker

NANO = Path(__file__).resolve().parents[2] / "engines/lighttrack_nano"
STILL = Box(100.0, 90.0, 50.0, 40.0)  # a piece of the ground
FRAMES = 40
# OpenVINO calculates in bfloat16 where it can, and may round otherwise for two crops than for one: pixels, and more.
CLOSE = {"onnxruntime": {"rtol": 1e-3, "atol": 1e-2}, "openvino": {"rtol": 0.05, "atol": 3.0}}


@pytest.fixture(scope="module")
def clip():
    frames = list(islice(Scene(seed=1, width=640, height=480, fps=30.0), FRAMES))
    return [from_bgr(frame.image) for frame in frames], frames[0].box


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request):
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    return request.param


@pytest.fixture
def both(backend, clip):
    """Trackers of two targets, which can share a run."""
    first = create_tracker(load_model(NANO), backend, threads=2)
    second = first.another()
    first._pairs.wait()
    start(first, second, clip)
    yield first, second
    first.close()


def start(first, second, clip):
    frames, box = clip
    first.init(frames[0], box)
    second.init(frames[0], STILL)


def follow(first, second, frames, look_ahead):
    """Box, score, and sight of each on every frame; and on how many they shared a run."""
    seen, shared = [], 0
    for frame in frames:
        shared += look_ahead and first.look_ahead(frame, second)
        for tracker in (first, second):
            estimate, sight = tracker.update(frame), tracker.sight()
            seen.append([*estimate.box, estimate.confidence, *sight.logits[:1], *sight.patches[0].ravel()])
    return np.array(seen), shared


def test_two_at_once_find_what_each_finds_alone(both, clip, backend):
    frames, _ = clip
    alone, _ = follow(*both, frames[1:], look_ahead=False)
    start(*both, clip)
    together, shared = follow(*both, frames[1:], look_ahead=True)
    assert shared > 10  # not where one of them needs another size of crop
    np.testing.assert_allclose(together, alone, **CLOSE[backend])
    assert np.abs(np.diff(alone[::2, 0])).max() > 1  # it moved


def test_what_was_seen_ahead_counts_for_that_frame_and_place_only(both, clip):
    frames, _ = clip
    first, second = both
    expected, _ = follow(first, second, frames[2:3], look_ahead=False)
    start(first, second, clip)
    assert first.look_ahead(frames[1], second)
    got, _ = follow(first, second, frames[2:3], look_ahead=False)
    np.testing.assert_array_equal(got, expected)  # no pair: the very same
    found = []
    for ahead in (False, True):
        start(first, second, clip)
        assert not ahead or first.look_ahead(frames[2], second)
        first.update(frames[2])
        second.place = second.place._replace(centre_x=425.0)  # of the same size of crop, elsewhere
        found.append(second.update(frames[2]).box)
    assert found[0] == found[1]


def test_where_a_pair_does_not_run_each_is_searched_alone_from_then_on(both, clip, caplog):
    frames, _ = clip
    first, second = both
    expected, _ = follow(first, second, frames[1:4], look_ahead=False)
    start(first, second, clip)

    def fail(inputs, slot=0):
        raise EngineError("it broke")

    for engine in first._pairs._engines.values():
        engine.run = fail
    got, shared = follow(first, second, frames[1:4], look_ahead=True)
    assert shared == 0
    np.testing.assert_array_equal(got, expected)
    assert [record.getMessage() for record in caplog.records] == [
        "targets are searched one after the other from now on: it broke"
    ]


def test_one_target_or_one_thread_makes_nothing(clip):
    frames, box = clip
    single = create_tracker(load_model(NANO), "onnxruntime", threads=2)
    single.init(frames[0], box)
    single.update(frames[1])
    assert single._pairs._thread is None
    single.close()
    slow = create_tracker(load_model(NANO), "onnxruntime", threads=1)
    other = slow.another()
    start(slow, other, clip)
    assert not slow.look_ahead(frames[1], other)
    slow.close()


def test_without_the_package_that_rewrites_graphs_it_is_said_and_tracking_goes_on(clip, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    first = create_tracker(load_model(NANO), "onnxruntime", threads=2)
    second = first.another()
    first._pairs.wait()
    start(first, second, clip)
    assert not first.look_ahead(clip[0][1], second)
    first.update(clip[0][1])
    assert "needs the package onnx (pip install onnx)" in caplog.text
    first.close()


def test_a_graph_of_another_make_is_refused_by_name(tmp_path):
    model = onnx.load(NANO / "search.onnx")
    for before, after in pairwise(list(model.graph.node)):
        if after.op_type == "Unsqueeze":
            after.op_type, before.op_type = "Squeeze", "Identity"
            break
    onnx.save(model, tmp_path / "search.onnx")
    with pytest.raises(LightTrackError, match=r"search\.onnx: its crop is not transposed and unsqueezed first"):
        paired(tmp_path / "search.onnx")


@pytest.mark.parametrize("backend", ["onnxruntime"])
def test_sessions_say_the_same_through_a_loss(both, clip):
    """A lost target has a second look in the same step, between the shared run and the other's use of it."""
    frames, box = clip
    grey = from_bgr(np.full((480, 640, 3), 90, np.uint8))
    film = [*frames[1:10], *[grey] * 8, *frames[10:]]
    first = Session.of(both[0], load_model(NANO))
    second = first.another()
    first._tracker._pairs.wait()
    said = []
    for ahead in (False, True):
        first.start(frames[0], box)
        second.start(frames[0], STILL)
        shared, reports = 0, []
        for frame in film:
            shared += ahead and first.look_ahead(frame, second)
            reports += [first.step(frame), second.step(frame)]
        said.append(reports)
    alone, together = said
    assert shared > 10
    assert State.LOST in {report.state for report in alone}
    assert [report.state for report in together] == [report.state for report in alone]
    np.testing.assert_allclose([r.box for r in together], [r.box for r in alone], **CLOSE["onnxruntime"])
    np.testing.assert_allclose([r.confidence for r in together], [r.confidence for r in alone], atol=1e-3)
    assert not first.look_ahead(frames[0], first.another())  # which has no target

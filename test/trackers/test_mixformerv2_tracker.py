"""MixFormerV2's tracker compared with the authors' runs of a scripted network; its work between frames."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import Graphs, LightTrackHyperParameters, MixFormerV2HyperParameters, Model, Provenance
from lighttrack_ros.networks.transformer import MEAN, STD
from lighttrack_ros.trackers import mixformerv2
from lighttrack_ros.trackers.mixformerv2 import MixFormerV2Tracker
from lighttrack_ros.trackers.search_region import clip

BLOCKS = 3


@pytest.fixture
def trace(shared):
    return np.load(shared / "golden/mixformerv2/tracker_trace.npz")


def make_model(interval=10, template_size=112, search_size=224, search_factor=4.5, **changes):
    fields = {
        "folder": Path("mixformer"),
        "name": "mixformer",
        "tracker": "mixformerv2",
        "architecture": "scripted",
        "template_size": int(template_size),
        "search_sizes": (int(search_size),),
        "stride": 16,
        "provenance": Provenance("test", "none", "0"),
        "graphs": Graphs(template=tuple(f"template_{block}.onnx" for block in range(BLOCKS))),
        "hyper_parameters": MixFormerV2HyperParameters(search_factor=search_factor, update_interval=int(interval)),
    }
    return Model(**fields | changes)


@pytest.fixture
def script(monkeypatch):
    """Engines that answer from lists: `boxes`, `scores`; `searched` keeps each run's crop and online template.

    Their keys are the online template itself, carried through all blocks, so that what the search engine
    holds says which templates it would have seen.
    """
    script = SimpleNamespace(boxes=[], scores=[], searched=[])

    class ScriptedEngine:
        backend = "scripted"

        def __init__(self, graph, *_, **__):
            self.block = int(graph.stem.split("_")[1]) if graph.stem.startswith("template") else None
            side = script.model.search_sizes[0]
            self.input_buffers = {"crop": np.zeros((side, side, 3), np.uint8)}
            self.kept = {}  # by slot

        def run(self, inputs, slot=0):
            if self.block is not None:
                tokens = inputs["tokens"] if self.block else inputs["online_template"]
                outputs = {"keys": tokens.copy(), "values": tokens.copy()}
                return outputs if self.block == BLOCKS - 1 else outputs | {"next_tokens": tokens.copy()}
            step = len(script.searched)
            script.searched.append((self.input_buffers["crop"].copy(), self.kept[slot]))
            box = script.boxes[step] if step < len(script.boxes) else (0.5, 0.5, 0.2, 0.2)
            score = script.scores[step] if step < len(script.scores) else 0.1
            return {"box": np.array([box], np.float32), "score": np.array([score], np.float32)}

        def hold(self, inputs, slot=0):
            assert set(inputs) == {f"{kind}_{block}" for kind in ("keys", "values") for block in range(BLOCKS)}
            templates = list(inputs.values())
            assert all(np.array_equal(template, templates[0]) for template in templates)
            self.kept[slot] = templates[0].copy()

        def close(self):
            pass

    monkeypatch.setattr(mixformerv2, "load_engine", ScriptedEngine)

    def start(model, boxes=(), scores=()):
        script.model = model
        tracker = MixFormerV2Tracker(model)
        script.boxes, script.scores, script.searched = list(boxes), list(scores), []
        return tracker

    script.start = start
    return script


def work_until_done(tracker):
    while tracker.idle_work():
        pass


@pytest.mark.parametrize("run", ["s10", "b25"])
def test_every_state_and_update_equals_the_authors_run(script, trace, run):
    frame = from_bgr(np.ascontiguousarray(trace["frame"][..., ::-1]))
    interval, search_size, template_size, factor = trace[f"meta_{run}"]
    scores = 1 / (1 + np.exp(-trace[f"{run}_net_logits"].astype(np.float64)))
    model = make_model(interval, template_size, search_size, factor)
    tracker = script.start(model, trace[f"{run}_net_boxes"], scores)
    tracker.init(frame, Box(*trace["init_box_xywh"]))
    first = tracker._template.copy()
    for step, expected in enumerate(trace[f"{run}_state_xywh"]):
        estimate = tracker.update(frame)
        np.testing.assert_allclose(estimate.box, expected, rtol=0, atol=1e-3, err_msg=f"step {step}")
        assert estimate.confidence == pytest.approx(scores[step], abs=1e-6)
        _, online = script.searched[step]
        assert np.array_equal(online, first) == trace[f"{run}_online_equals_first_before_step"][step], step
        assert tracker._best_score == pytest.approx(trace[f"{run}_max_score_after"][step], abs=1e-6), step
        work_until_done(tracker)
        mean = ((tracker._search.kept[0][..., ::-1] / 255 - MEAN) / STD).mean()
        assert mean == pytest.approx(trace[f"{run}_online_mean_after"][step], abs=2e-3), step


def test_targets_that_share_the_engines_renew_their_templates_one_after_the_other(script, trace):
    frame = from_bgr(np.ascontiguousarray(trace["frame"][..., ::-1]))
    model = make_model(1)  # every frame gives a new template
    first = script.start(model, scores=[0.9] * 9)
    second = first.another()
    first.init(frame, Box(100.0, 100.0, 60.0, 50.0))
    assert first.idle_work() is False
    first.update(frame)
    assert first.idle_work()  # the first of its blocks
    second.init(frame, Box(300.0, 200.0, 60.0, 50.0))  # takes the blocks, as nothing can be searched before
    np.testing.assert_array_equal(first._search.kept[second._slot], second._online)
    assert not np.array_equal(first._search.kept[first._slot], first._online)
    second.update(frame)
    assert second.idle_work()
    assert not first.idle_work()  # the other's are under way
    second.reset()  # and dropped
    work_until_done(first)
    np.testing.assert_array_equal(first._search.kept[first._slot], first._online)
    assert not second.idle_work()


def test_crops_equal_the_authors(script, trace):
    frame = from_bgr(np.ascontiguousarray(trace["frame"][..., ::-1]))
    for index, box in enumerate(trace["crop_boxes"]):
        tracker = script.start(make_model(search_factor=4.5))
        tracker.init(frame, Box(*box))
        tracker.update(frame)
        crop = script.searched[0][0][..., ::-1]
        small = cv2.resize(crop, (56, 56), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - trace["crops_56"][index]).max() <= 1, index
        if index == 2:
            assert np.abs(crop.astype(int) - trace["crop_full_box2"]).max() <= 1


def test_clipping_equals_the_authors(trace):
    height, width = trace["frame"].shape[:2]
    for (x, y, w, h), expected in zip(trace["clip_in"], trace["clip_out"], strict=True):
        left, clipped_width = clip(x, x + w, width)
        top, clipped_height = clip(y, y + h, height)
        np.testing.assert_allclose((left, top, clipped_width, clipped_height), expected, rtol=0, atol=1e-9)


@pytest.fixture
def frames():
    """Frames that all differ, so that every crop identifies its frame."""
    rng = np.random.default_rng(1)
    return [from_bgr(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)) for _ in range(40)]


def test_new_templates_are_computed_in_idle_time_and_used_when_all_blocks_are_done(script, frames):
    tracker = script.start(make_model(interval=4), scores=[0.9] * 40)
    tracker.init(frames[0], Box(60, 40, 30, 30))
    first = tracker._search.kept[0]
    for frame in frames[1:4]:
        tracker.update(frame)
        assert not tracker.idle_work()
    tracker.update(frames[4])
    for frame in frames[5 : 5 + BLOCKS]:
        # Frames that come meanwhile are answered at once, with the templates of before.
        tracker.update(frame)
        assert np.array_equal(script.searched[-1][1], first)
        assert tracker.idle_work()
    tracker.update(frames[9])
    assert not np.array_equal(script.searched[-1][1], first)


def test_without_idle_time_the_latest_template_replaces_the_waiting_one(script, frames):
    tracker = script.start(make_model(interval=2), scores=[0.6, 0.9] * 20)
    tracker.init(frames[0], Box(60, 40, 30, 30))
    first = tracker._search.kept[0]
    for frame in frames[1:3]:
        tracker.update(frame)
    assert tracker.idle_work()  # one block of templates that are soon out of date
    for frame in frames[3:10]:
        tracker.update(frame)
    assert all(np.array_equal(online, first) for _, online in script.searched)
    wanted = tracker._online.copy()
    work_until_done(tracker)
    assert np.array_equal(tracker._search.kept[0], wanted)


def test_a_block_that_takes_longer_than_the_time_left_is_not_started(script, frames):
    tracker = script.start(make_model(interval=1), scores=[0.9] * 5)
    tracker.init(frames[0], Box(60, 40, 30, 30))
    tracker.update(frames[1])
    assert not tracker.idle_work(seconds=0.0)
    assert tracker.idle_work(seconds=60.0)


def test_an_interval_without_a_good_score_goes_back_to_the_first_template(script, frames):
    tracker = script.start(make_model(interval=3), scores=[0.9, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1])
    tracker.init(frames[0], Box(60, 40, 30, 30))
    first, seen = tracker._template.copy(), []
    for frame in frames[1:10]:
        tracker.update(frame)
        seen.append(np.array_equal(script.searched[-1][1], first))
        work_until_done(tracker)
    assert seen == [True] * 3 + [False] * 3 + [True] * 3


def test_frames_of_a_search_for_a_lost_target_do_not_become_templates(script, frames):
    tracker = script.start(make_model(interval=3), scores=[0.9] * 9)
    tracker.init(frames[0], Box(60, 40, 30, 30))
    for frame in frames[1:4]:
        tracker.target = Box(20, 20, 30, 30)
        tracker.update(frame)
    assert not tracker.idle_work()
    for frame in frames[4:7]:
        tracker.update(frame)
    assert tracker.idle_work()


def test_a_second_init_forgets_the_first(script, frames):
    tracker = script.start(make_model(interval=2), scores=[0.9] * 40)
    tracker.init(frames[0], Box(60, 40, 30, 30))
    for frame in frames[1:4]:
        tracker.update(frame)
    tracker.init(frames[9], Box(20, 20, 25, 35))
    tracker.update(frames[10])
    crop, online = script.searched[-1]
    fresh = script.start(make_model(interval=2), scores=[0.9] * 40)
    fresh.init(frames[9], Box(20, 20, 25, 35))
    fresh.update(frames[10])
    assert np.array_equal(crop, script.searched[-1][0])
    assert np.array_equal(online, script.searched[-1][1])
    assert tracker._best_score == fresh._best_score


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5), (2000, 11)])
def test_the_frame_size_may_change(script, frames, size):
    tracker = script.start(make_model(interval=1), boxes=[(1, 1, 3, 3), (-2, -2, -1, -1)] * 3, scores=[0.9] * 6)
    tracker.init(frames[0], Box(150, 110, 30, 30))
    other = from_bgr(np.full((*size, 3), 90, np.uint8))
    for frame in (other, other, frames[1], other):
        box = tracker.update(frame).box
        work_until_done(tracker)
        assert 0 <= box.x < frame.width
        assert 0 <= box.y < frame.height
        assert 0 < box.width <= frame.width
        assert 0 < box.height <= frame.height


@pytest.mark.parametrize(
    ("box", "complaint"),
    [
        (Box(float("nan"), 0, 10, 10), "not finite"),
        (Box(10, 10, 0, 10), "empty"),
        (Box(500, 10, 10, 10), "outside the frame"),
    ],
)
def test_a_bad_box_is_refused_and_the_old_target_kept(script, frames, box, complaint):
    tracker = script.start(make_model())
    with pytest.raises(LightTrackError, match="no target"):
        tracker.update(frames[0])
    tracker.init(frames[0], Box(60, 40, 30, 30))
    with pytest.raises(LightTrackError, match=complaint):
        tracker.init(frames[0], box)
    assert tracker.update(frames[1]).box.width > 0


def test_a_huge_box_does_not_need_a_huge_crop(script, frames):
    tracker = script.start(make_model())
    tracker.init(frames[0], Box(-1e8, -1e8, 2e8, 2e8))
    tracker.update(frames[1])


def test_an_output_that_is_not_finite_is_an_error(script, frames):
    tracker = script.start(make_model(), boxes=[(0.5, float("nan"), 0.2, 0.2)])
    tracker.init(frames[0], Box(60, 40, 30, 30))
    with pytest.raises(LightTrackError, match="not finite"):
        tracker.update(frames[1])


def test_another_trackers_model_is_refused():
    model = make_model(tracker="lighttrack", hyper_parameters=LightTrackHyperParameters())
    with pytest.raises(LightTrackError, match="for the tracker 'lighttrack', not for 'mixformerv2'"):
        MixFormerV2Tracker(model)

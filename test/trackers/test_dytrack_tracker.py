"""DyTrack run stage by stage, compared with the whole network; the exit policy."""

import dataclasses

import numpy as np
import pytest
import torch

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import DyTrackHyperParameters, load_model, save_model
from lighttrack_ros.networks.dytrack import Architecture, DyTrack
from lighttrack_ros.networks.transformer import MEAN, STD
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.dytrack import ExitPolicy
from lighttrack_ros.trackers.mixformerv2 import MixFormerV2Tracker
from lighttrack_ros.trackers.search_region import place_in_frame

TINY = Architecture(channels=128, exit_channels=24, exits=(1, 2, 4, 5), template_size=64, search_size=128)
FULL = len(TINY.exits) - 1
START = Box(140, 100, 40, 30)


@pytest.fixture(scope="module")
def network():
    """Random weights are enough: these tests check which stages run, not accuracy."""
    torch.manual_seed(0)
    network = DyTrack(TINY).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    place = tmp_path_factory.mktemp("dytrack")
    torch.save({"net": network.state_dict()}, place / "dytrack.pth")
    assert main(["import", str(place / "dytrack.pth"), "--name", "tiny", "--output", str(place / "engines")]) == 0
    return load_model(place / "engines/tiny")


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    return [from_bgr(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)) for _ in range(6)]


def tracker_with(model, **changes):
    return create_tracker(
        dataclasses.replace(model, hyper_parameters=dataclasses.replace(model.hyper_parameters, **changes)), threads=1
    )


def as_input(crop):
    image = ((crop[..., ::-1] / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    return torch.from_numpy(image)


@torch.inference_mode()
@pytest.mark.parametrize("deepest", range(FULL + 1))
def test_stages_equal_the_network_run_whole_at_every_exit(network, model, frames, deepest):
    tracker = tracker_with(model, max_exit=deepest, modes={"balanced": (1.0,) * FULL})
    tracker.init(frames[0], START)
    template = as_input(tracker._template.input_buffers["crop"])
    box = START
    for frame in frames[1:]:
        estimate = tracker.update(frame)
        search = as_input(tracker._stages[0].input_buffers["crop"])
        expected = network(template, search)[deepest]
        side = int(np.ceil(np.sqrt(box.area) * model.hyper_parameters.search_factor))
        assert estimate.exit_index == deepest
        assert estimate.confidence == pytest.approx(expected.quality.item(), abs=1e-5)
        expected_box = place_in_frame(expected.box[0].tolist(), box, side, frame)
        np.testing.assert_allclose(estimate.box, expected_box, rtol=0, atol=1e-5 * side)
        box = estimate.box
    tracker.close()
    tracker.close()


def test_stages_after_the_exit_do_not_run(model, frames, monkeypatch):
    tracker = tracker_with(model, modes={"balanced": (0.0,) * FULL}, doubt=0.0)
    tracker.init(frames[0], START)
    for stage in tracker._stages[1:]:
        monkeypatch.setattr(stage, "run", lambda inputs: pytest.fail("ran"))
    assert [tracker.update(frame).exit_index for frame in frames[1:]] == [0] * 5


def test_a_new_target_forgets_the_old(model, frames):
    tracker, fresh = tracker_with(model), tracker_with(model)
    tracker.init(frames[0], START)
    tracker.update(frames[1])
    for each in (tracker, fresh):
        each.init(frames[2], Box(20, 30, 50, 40))
    assert [tracker.update(frame) for frame in frames[3:]] == [fresh.update(frame) for frame in frames[3:]]


def test_a_refused_box_keeps_the_old_target(model, frames):
    tracker = tracker_with(model)
    with pytest.raises(LightTrackError, match="no target"):
        tracker.update(frames[0])
    tracker.init(frames[0], START)
    for box in (Box(0, 0, 0, 5), Box(float("inf"), 0, 5, 5), Box(1000, 0, 5, 5)):
        with pytest.raises(LightTrackError, match="init box"):
            tracker.init(frames[0], box)
    assert tracker.update(frames[1]).exit_index >= 0


def parameters(**changes):
    defaults = {"max_exit": 2, "modes": {"balanced": (0.7, 0.6)}, "hysteresis": 0.0, "audit_interval": 5, "doubt": 0.3}
    return DyTrackHyperParameters(**defaults | changes)


def exits_of(policy, qualities_of_frames):
    """Exit of each frame, given the quality that every exit would report."""
    exits = []
    for qualities in qualities_of_frames:
        index = next(index for index, quality in enumerate(qualities) if policy.stops(index, quality))
        policy.stopped(index, qualities[index])
        exits.append(index)
    return exits


@pytest.mark.parametrize(
    ("changes", "frames", "exits"),
    [
        pytest.param({}, [(0.7, 0.9, 0.9), (0.69, 0.6, 0.9), (0.6, 0.5, 0.4)], [0, 1, 2], id="thresholds"),
        pytest.param({"modes": {"balanced": (0.0, 0.0)}, "doubt": 0.0}, [(0.0, 0.0, 0.0)] * 3, [0, 0, 0], id="zero"),
        pytest.param({"max_exit": 1}, [(0.5, 0.5, 0.9)] * 2, [1, 1], id="max_exit"),
        pytest.param({"max_exit": 0}, [(0.5, 0.5, 0.9)] * 2, [0, 0], id="max_exit_0"),
        pytest.param({}, [(0.9, 0.9, 0.9)] * 12, [0] * 5 + [2] + [0] * 5 + [2], id="audit"),
        pytest.param({"max_exit": 1}, [(0.9, 0.9, 0.9)] * 7, [0] * 5 + [1, 0], id="audit_within_max_exit"),
        # One doubtful frame: the next runs to the end, and as it is good again, so does one more.
        pytest.param({}, [(0.2, 0.2, 0.2)] + [(0.9, 0.9, 0.9)] * 3, [2, 2, 2, 0], id="doubt"),
        pytest.param({}, [(0.2, 0.2, 0.2)] * 3 + [(0.9,) * 3] * 3, [2, 2, 2, 2, 2, 0], id="lasting_doubt"),
        pytest.param(
            {"hysteresis": 0.02}, [(0.71, 0, 0), (0.69, 0.9, 0.9), (0.67, 0.9, 0.9), (0.71, 0.9, 0.9), (0.73, 0, 0)],
            [0, 0, 1, 1, 0], id="hysteresis",
        ),
    ],
)  # fmt: skip
def test_where_a_frame_stops(changes, frames, exits):
    assert exits_of(ExitPolicy(parameters(**changes)), frames) == exits


def test_the_mode_chooses_the_thresholds():
    modes = {"fast": (0.5, 0.5), "balanced": (0.7, 0.6), "accurate": (0.95, 0.95)}
    exits = [exits_of(ExitPolicy(parameters(modes=modes, mode=mode)), [(0.6, 0.65, 0.9)]) for mode in modes]
    assert exits == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mode": "furious"}, "mode is 'furious', expected one of fast, balanced, accurate"),
        ({"max_exit": 4}, "max_exit is 4, expected 0 to 3"),
        ({"max_exit": -1}, "max_exit is -1"),
        ({"modes": {"balanced": (0.5, 0.5)}}, "expected 3 thresholds"),
        ({"modes": {"balanced": (0.5, 0.5, 1.5)}}, "modes: balanced: entry 3 is 1.5, expected 0 to 1"),
        ({"audit_interval": 0}, "audit_interval is 0, expected 1 to 10000"),
    ],
)
def test_the_error_names_a_wrong_setting(model, tmp_path, changes, complaint):
    for graph in model.template_graphs + model.search_graphs:
        (tmp_path / graph.name).symlink_to(graph)
    wrong = dataclasses.replace(model.hyper_parameters, **changes)
    save_model(dataclasses.replace(model, folder=tmp_path, hyper_parameters=wrong))
    with pytest.raises(LightTrackError, match=complaint):
        load_model(tmp_path)


def test_model_yaml_describes_the_graphs(model):
    assert (model.tracker, model.architecture) == ("dytrack", "sizes_64_128_channels_128_24_exits_1_2_4_5")
    assert (model.hyper_parameters.max_exit, len(model.search_graphs)) == (FULL, FULL + 1)
    with pytest.raises(LightTrackError, match="for the tracker 'dytrack', not for 'mixformerv2'"):
        MixFormerV2Tracker(model)

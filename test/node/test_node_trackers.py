"""The node with every tracker: a tiny clip image by image, and the generated scene from a camera process."""

import dataclasses
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from node_harness import NodeProcess, box_of, stamp_of

from lighttrack_ros.commands import main
from lighttrack_ros.geometry import Box, intersection_over_union
from lighttrack_ros.image import from_bgr
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.sequences import save_scene
from lighttrack_ros.models import load_model, save_model
from lighttrack_ros.networks import dytrack, mixformerv2
from lighttrack_ros.rig.processes import camera_command, read_stamps
from lighttrack_ros.session import Session, State
from lighttrack_ros.trackers import create_tracker

# Small networks with weights made by a seed: they follow nothing, but every box must be the one they say.
NETWORKS = {
    "mixformerv2": lambda: mixformerv2.MixFormerV2(
        mixformerv2.Architecture(depth=2, mlp_channels=128, template_size=32, search_size=64, channels=128)
    ),
    "dytrack": lambda: dytrack.DyTrack(
        dytrack.Architecture(channels=128, exit_channels=32, exits=(1, 2), template_size=32, search_size=64)
    ),
}
FRAMES, RATE, SIZE = 24, 10, (320, 240)
INTERVAL = 4  # frames from one online template of MixFormerV2 to the next


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Model folders by the tracker's name."""
    place = tmp_path_factory.mktemp("engines")
    for name, network in NETWORKS.items():
        torch.manual_seed(0)
        torch.save(network().state_dict(), place / f"{name}.pth")
        assert main(["import", str(place / f"{name}.pth"), "--name", name, "--output", str(place)]) == 0
    return {name: place / name for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_node_says_what_the_tracker_says(start, clip, models, name):
    model = load_model(models[name])
    tracker = create_tracker(model)
    session = Session.of(tracker, model)

    node = start(model=models[name], reliability="reliable")
    node.wait_until_connected()
    node.start_on(clip)
    session.start(from_bgr(clip.images[0]), clip.boxes[0])
    exits = []
    for image in clip.images[1:20]:
        target = node.track(image, clip.fresh_stamp())
        expected = session.step(from_bgr(image))
        np.testing.assert_allclose(box_of(target), expected.box, atol=1e-6)
        assert target.state == expected.state
        assert target.confidence == pytest.approx(expected.confidence, abs=1e-6)
        assert target.exit_index == expected.exit_index
        assert (target.exit_index >= 0) == (name == "dytrack")
        assert target.model == name
        exits.append(target.exit_index)
    tracker.close()
    assert histogram(node) == Counter(index for index in exits if index >= 0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """The beginning of the generated scene, as a sequence with its truth."""
    return save_scene(islice(Scene(width=SIZE[0], height=SIZE[1], fps=RATE), FRAMES), tmp_path_factory.mktemp("scene"))


@dataclasses.dataclass
class Film:
    """What came of a camera process that showed the scene to a node."""

    sent: int
    targets: dict  # messages by the frame's index
    exits: Counter  # in the diagnostics


@pytest.fixture
def film(start, scene, tmp_path):
    def film(model):
        node = start(model=model, reliability="reliable")
        node.wait_until_connected()
        node.track(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), 2)  # nothing from before it is under way any more
        before = len(node.targets)
        log, topic = tmp_path / "stamps.csv", f"/{node.name.split('/')[0]}/image"
        camera = NodeProcess(camera_command(str(scene.frames.paths[0].parent), topic, RATE, log))
        sent = node.wait_for(lambda: read_stamps(log), "the camera's first image")
        node.point_at(scene.init_box, min(sent), "scene")
        assert camera.wait() == 0, camera.output
        index_of = read_stamps(log)
        node.wait_for(lambda: stamp_of(node.targets[-1]) == max(index_of), "the last frame's target")
        messages = [message for message in node.targets[before:] if message.target_id]  # from the start on
        stamps = [stamp_of(message) for message in messages]
        assert stamps == sorted(set(stamps))
        targets = {index_of[stamp]: message for stamp, message in zip(stamps, messages, strict=True)}
        # Every frame is answered, counted as dropped, or was replaced by its successor before the node took it.
        assert len(index_of) == FRAMES
        assert FRAMES // 2 <= len(targets) <= FRAMES - sum(message.frames_dropped for message in messages)
        for message in messages:
            assert message.target_id == "scene"
            assert message.model == load_model(model).name
            assert message.header.frame_id == "camera"
            assert State(message.state) != State.IDLE
            assert message.processing_time > 0
            x, y, width, height = box_of(message)
            assert min(x, y, width, height) >= 0
            assert x + width <= SIZE[0] + 1e-9
            assert y + height <= SIZE[1] + 1e-9
        return Film(len(index_of), targets, histogram(node))

    return film


def histogram(node):
    """Frames by the exit after which they stopped, as the diagnostics say."""
    counts = {key: int(value) for key, value in node.counts().items() if key.startswith("stopped_at_exit_")}
    return Counter({int(key.rsplit("_", 1)[1]): count for key, count in counts.items() if count})


def library(model, scene, indices, idle=False):
    """Reports on those frames by a session of this process."""
    model = load_model(model)
    tracker = create_tracker(model, threads=1)
    session, reports = Session.of(tracker, model), {}
    frames = dict(enumerate(scene.frames))
    for index in indices:
        frame = from_bgr(frames[index])
        reports[index] = session.step(frame) if reports else session.start(frame, scene.init_box)
        while idle and tracker.idle_work():
            pass
    tracker.close()
    return reports


def assert_equal(message, report):
    np.testing.assert_allclose(box_of(message), report.box, atol=1e-6)
    assert message.state == report.state
    assert message.confidence == pytest.approx(report.confidence, abs=1e-6)
    assert message.exit_index == report.exit_index


def test_lighttrack_follows_the_scene_from_camera_to_box(film, model, scene):
    seen = film(model)
    reports = library(model, scene, seen.targets)
    for index, message in seen.targets.items():
        assert_equal(message, reports[index])
    truth = [Box(*values) for values in scene.truth]
    overlaps = [intersection_over_union(box_of(message), truth[index]) for index, message in seen.targets.items()]
    assert np.mean(overlaps) > 0.6
    assert not seen.exits


def test_dytrack_says_of_every_frame_where_it_stopped(film, models, scene):
    # A threshold in the middle of what these weights say at the first exit, so that frames stop at both.
    model = load_model(models["dytrack"])
    always = dataclasses.replace(model.hyper_parameters, modes={"balanced": (0.0,)}, hysteresis=0.0, doubt=0.0)
    save_model(dataclasses.replace(model, hyper_parameters=always))
    qualities = first_qualities(model.folder, scene)
    threshold = dataclasses.replace(always, modes={"balanced": (float(np.median(qualities)),)})
    save_model(dataclasses.replace(model, hyper_parameters=threshold))

    seen = film(models["dytrack"])
    reports = library(models["dytrack"], scene, seen.targets)
    for index, message in seen.targets.items():
        assert_equal(message, reports[index])
    exits = Counter(message.exit_index for message in seen.targets.values())
    assert exits.pop(-1) == 1, "on the frame of the box no network searches"
    assert seen.exits == exits
    assert set(exits) == {0, 1}


def first_qualities(model, scene):
    model = load_model(model)
    tracker = create_tracker(model, threads=1)
    qualities = []
    for image in scene.frames:
        frame = from_bgr(image)
        qualities.append(tracker.update(frame).confidence if qualities else tracker.init(frame, scene.init_box) or 0.0)
    tracker.close()
    return qualities[1:]


def test_mixformerv2_renews_its_template_between_frames(film, models, scene):
    model = load_model(models["mixformerv2"])
    parameters = dataclasses.replace(model.hyper_parameters, update_interval=INTERVAL, update_score=0.0)
    save_model(dataclasses.replace(model, hyper_parameters=parameters))
    seen = film(models["mixformerv2"])
    kept, renewed = (library(models["mixformerv2"], scene, seen.targets, idle) for idle in (False, True))
    answered = list(seen.targets)
    for index in answered[: INTERVAL + 1]:  # the start, and the frames of the first interval
        assert_equal(seen.targets[index], kept[index])
    # Later ones are not those of a template that stays.
    assert any(box_of(seen.targets[index]) != kept[index].box for index in answered[INTERVAL + 1 :])
    assert any(renewed[index].box != kept[index].box for index in answered[INTERVAL + 1 :]), "a test that tells nothing"

"""The node with trackers other than the default: the whole pipeline, equal to the library's own."""

import numpy as np
import pytest
import torch
from node_harness import box_of

from lighttrack_ros.cli import main
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import load_model
from lighttrack_ros.networks import dytrack, mixformerv2
from lighttrack_ros.session import Session
from lighttrack_ros.trackers import create_tracker

# Small networks with random weights: they follow nothing, but every box must be the one they say.
NETWORKS = {
    "mixformerv2": lambda: mixformerv2.MixFormerV2(
        mixformerv2.Architecture(depth=2, mlp_channels=128, template_size=32, search_size=64, channels=128)
    ),
    "dytrack": lambda: dytrack.DyTrack(
        dytrack.Architecture(channels=128, exit_channels=32, exits=(1, 2), template_size=32, search_size=64)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_node_says_what_the_tracker_says(start, clip, tmp_path, name):
    torch.manual_seed(0)
    torch.save(NETWORKS[name]().state_dict(), tmp_path / "checkpoint.pth")
    assert main(["import", str(tmp_path / "checkpoint.pth"), "--name", name, "--output", str(tmp_path)]) == 0
    model = load_model(tmp_path / name)
    tracker = create_tracker(model)
    session = Session(tracker, model.session)

    node = start(model=tmp_path / name, reliability="reliable")
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
    counts = node.counts()
    for index in range(-1, 3):
        assert int(counts.get(f"stopped_at_exit_{index}", 0)) == (exits.count(index) if index >= 0 else 0)

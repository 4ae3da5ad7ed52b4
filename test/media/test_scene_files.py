"""`lighttrack scene`: what lies on disk is the scene."""

import numpy as np
import pytest

from lighttrack_ros import commands
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.sequences import load_sequence
from lighttrack_ros.media.truth import read_boxes


def test_a_bag_of_the_scene_holds_its_pixels_its_times_and_its_truth(tmp_path):
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="needs the extra [bags]")
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    folder = tmp_path / "made" / "bag"
    assert commands.main(["scene", str(folder), "--bag", "--size", "160x120", "--rate", "10", "--first", "3"]) == 0
    scene = Scene(width=160, height=120, fps=10)
    frames = [scene[index] for index in range(3)]
    with rosbag2.Reader(folder) as reader:
        messages = [(c.topic, time, store.deserialize_cdr(data, c.msgtype)) for c, time, data in reader.messages()]
    # The box is told with every image of the first second, each time as it is on that image: whoever hears it late
    # starts right.
    assert [topic for topic, _, _ in messages] == 3 * ["/init_roi", "/camera/image_raw"]
    assert np.diff([time for _, time, _ in messages]).tolist() == [5_000_000, 95_000_000] * 2 + [5_000_000]
    for (_, _, roi), frame in zip(messages[::2], frames, strict=True):
        assert (roi.x_offset, roi.y_offset, roi.width, roi.height) == tuple(map(round, frame.box))
    for (_, time, image), frame in zip(messages[1::2], frames, strict=True):
        assert (image.header.stamp.sec * 10**9 + image.header.stamp.nanosec, image.header.frame_id) == (time, "camera")
        assert (image.encoding, image.step) == ("bgr8", 480)
        assert np.array_equal(image.data.reshape(120, 160, 3), frame.image)
    np.testing.assert_allclose(read_boxes(folder / "groundtruth.txt"), [frame.box for frame in frames], atol=0.005)
    assert np.loadtxt(folder / "visible.txt") == pytest.approx([frame.visible for frame in frames], abs=1e-3)


def test_a_sequence_of_the_scene_can_be_loaded(tmp_path):
    assert commands.main(["scene", str(tmp_path), "--size", "160x120", "--rate", "10", "--first", "3"]) == 0
    sequence = load_sequence(tmp_path)
    assert sequence.truth.shape == (3, 4)
    assert sequence.frames.count == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bag"], "is there already"),
        (["--rate", "0"], "--rate is 0"),
        (["--first", "-1"], "--first is -1"),
        (["--seed", "-1"], "seed is -1"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, capsys, arguments, message):
    assert commands.main(["scene", str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

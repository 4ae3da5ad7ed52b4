"""Bags: opened by what is in them, read as far as they go, and what is missing is told."""

import shutil

import cv2
import numpy as np
import pytest

rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="needs the extra [bags]")
pytest.importorskip("mcap", reason="needs the extra [bags]")

from lighttrack_ros.errors import LightTrackError  # noqa: E402
from lighttrack_ros.media.bag import ImageBag, is_bag, stamp_of, write_bag  # noqa: E402

BEGIN, PERIOD = 1_700_000_000 * 10**9, 33_333_333


@pytest.fixture
def mcap_bag(tmp_path):
    """Forty noisy pictures, in chunks."""
    rng = np.random.default_rng(0)
    images = ((BEGIN + index * PERIOD, rng.integers(0, 255, (160, 160, 3), np.uint8)) for index in range(40))
    write_bag(tmp_path / "bag", images, "/camera/image_raw", "cam")
    return tmp_path / "bag"


def read(path):
    bag = ImageBag(path)
    try:
        messages = list(bag)
        return messages, bag
    finally:
        bag.close()


@pytest.mark.parametrize("name", ["06_sqlite_wal/bag", "06_sqlite_wal/bag_all_in_wal", "06_sqlite_wal/bag/tmp.db3"])
def test_what_lies_in_the_log_of_a_killed_recorders_database_is_read(shared, name):
    messages, bag = read(shared / "cases" / name)
    assert len(messages) == 40
    assert bag.shortfall is None
    assert [stamp_of(data) for _, data in messages] == [BEGIN + index * PERIOD for index in range(40)]


@pytest.mark.parametrize(
    ("name", "topic", "begin"),
    [
        ("run.bag", "/camera/image_raw", 1_500_000_000 * 10**9),
        ("bag_0.db3.zstd", "/cam", BEGIN),
        ("noprofile.mcap", "/camera/image_raw", 0),
    ],
)
def test_ros_1_zstd_and_files_without_a_profile_are_bags_whatever_they_are_called(shared, tmp_path, name, topic, begin):
    shutil.copy(shared / "cases/13_ros1" / name, tmp_path / "download ?#%")
    assert is_bag(tmp_path / "download ?#%")
    messages, bag = read(tmp_path / "download ?#%")
    assert (len(messages), bag.topic, bag.count, bag.shortfall) == (10, topic, 10, None)
    assert stamp_of(messages[0][1]) == begin


def test_a_ros_1_image_becomes_one_of_ros_2(shared):
    messages = pytest.importorskip("lighttrack_ros.node.messages", reason="needs ROS 2")
    (_, data), *_ = read(shared / "cases/13_ros1/run.bag")[0]
    message = messages.read_header(data)
    assert message.frame_id == "cam"
    assert messages.read_image(message).width == 32


def test_a_folder_without_metadata_is_read_in_the_order_of_its_files(mcap_bag, tmp_path):
    (mcap_bag / "metadata.yaml").unlink()
    later = ((BEGIN + (40 + index) * PERIOD, np.zeros((64, 64, 3), np.uint8)) for index in range(3))
    write_bag(tmp_path / "more", later, "/camera/image_raw", "cam")
    (mcap_bag / "bag.mcap").rename(mcap_bag / "bag_2.mcap")
    (tmp_path / "more/more.mcap").rename(mcap_bag / "bag_10.mcap")
    (mcap_bag / "._bag_1.mcap").write_bytes(b"of macOS")
    messages, bag = read(mcap_bag)
    assert (len(messages), bag.count, bag.shortfall) == (43, 43, None)
    assert np.all(np.diff([time for time, _ in messages]) > 0)


@pytest.mark.parametrize("metadata", [True, False])
def test_a_cut_mcap_is_read_up_to_the_cut(mcap_bag, metadata):
    path = mcap_bag / "bag.mcap"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    if not metadata:
        (mcap_bag / "metadata.yaml").unlink()
    messages, bag = read(mcap_bag)
    assert 10 < len(messages) < 40
    assert "bag.mcap can be read up to byte" in bag.shortfall
    assert "cut there" in bag.shortfall
    assert (f"{len(messages)} of the 40 images" in bag.shortfall) == metadata


def test_fewer_messages_than_the_metadata_promise(mcap_bag):
    metadata = mcap_bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 40", "message_count: 55"))
    messages, bag = read(mcap_bag)
    assert len(messages) == 40
    assert bag.shortfall == "40 of the 55 images on /camera/image_raw could be read"


def test_a_bag_is_written_whole_or_not_at_all(tmp_path):
    def images():
        yield BEGIN, np.zeros((64, 64, 3), np.uint8)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_bag(tmp_path / "bag", images(), "/image", "cam")
    assert not list(tmp_path.iterdir())


def test_what_is_no_bag(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32), np.uint8))
    (tmp_path / "a.mcap").write_bytes(b"not an mcap")
    (tmp_path / "folder").mkdir()
    assert not any(is_bag(tmp_path / name) for name in ("a.png", "a.mcap", "folder", "absent"))
    with pytest.raises(LightTrackError, match=r"a\.mcap: is no file of a bag"):
        ImageBag(tmp_path / "a.mcap")

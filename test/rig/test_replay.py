"""`lighttrack replay` in its own process, received here over DDS: the very bytes, in order, with the right stamps."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="needs the extra [bags]")

from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from lighttrack_ros import commands  # noqa: E402
from lighttrack_ros.errors import LightTrackError  # noqa: E402
from lighttrack_ros.media.bag import ImageBag, restamped, stamp_of  # noqa: E402
from lighttrack_ros.node.transport import transport_environment  # noqa: E402

NAMESPACE = f"/replay_test_{os.getpid()}"
STORE = get_typestore(Stores.ROS2_HUMBLE)
RECORDED = 1_600_000_000  # seconds; long ago


def picture(index, size=(64, 48)):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[:, :, 0] = 10 * index
    image[index, :, 2] = 200
    return image


def image_message(index):
    types = STORE.types
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=RECORDED, nanosec=index), frame_id="recorded"
    )
    data = picture(index)
    return types["sensor_msgs/msg/Image"](
        header=header, height=48, width=64, encoding="bgr8", is_bigendian=0, step=192, data=data.reshape(-1)
    )


def compressed_message(index):
    types = STORE.types
    header = types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=RECORDED, nanosec=index), frame_id="recorded"
    )
    data = cv2.imencode(".png", picture(index))[1]
    return types["sensor_msgs/msg/CompressedImage"](header=header, format="png", data=data.reshape(-1))


def write_bag(path, storage, topics, count=6, period=0.05):
    with rosbag2.Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, (kind, make) in topics.items():
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for index in range(count):
                data = STORE.serialize_cdr(make(index), kind)
                writer.write(connection, round((RECORDED + index * period) * 1e9), data)
    return path


@pytest.fixture(params=[rosbag2.StoragePlugin.SQLITE3, rosbag2.StoragePlugin.MCAP], ids=["sqlite3", "mcap"])
def bag(request, tmp_path):
    """Six raw images on one topic, as many compressed ones on another, and something else."""
    return write_bag(
        tmp_path / "bag",
        request.param,
        {
            NAMESPACE + "/camera/image_raw": ("sensor_msgs/msg/Image", image_message),
            NAMESPACE + "/camera/compressed": ("sensor_msgs/msg/CompressedImage", compressed_message),
            NAMESPACE + "/words": ("std_msgs/msg/String", lambda _: STORE.types["std_msgs/msg/String"](data="hello")),
        },
    )


class Receiver:
    """A subscriber in this process."""

    def __init__(self, executor, node):
        self.executor, self.node = executor, node
        self.messages, self.arrivals = [], []

    def subscribe(self, topic, kind=Image):
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(kind, topic, self.on_message, qos)

    def on_message(self, message):
        self.messages.append(message)
        self.arrivals.append(time.time_ns())

    def spin_until(self, condition, limit=20):
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, f"{len(self.messages)} messages in {limit} s"
            self.executor.spin_once(timeout_sec=0.05)


@pytest.fixture(scope="module")
def participant():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in transport_environment().items():
            patch.setenv(name, value)
        context = Context()
        rclpy.init(context=context)
        yield context
        rclpy.shutdown(context=context)


@pytest.fixture
def receiver(participant):
    node = rclpy.create_node("receiver", context=participant)
    executor = SingleThreadedExecutor(context=participant)
    executor.add_node(node)
    yield Receiver(executor, node)
    executor.shutdown()
    node.destroy_node()


@pytest.fixture
def replay():
    """Start `lighttrack replay` in its own process."""
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "lighttrack_ros", "replay", *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def finished(process):
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return out, err


def test_a_bags_images_arrive_as_recorded_with_new_stamps(bag, receiver, replay, tmp_path):
    topic = NAMESPACE + "/camera/image_raw"
    receiver.subscribe(topic)
    before = time.time_ns()
    process = replay(bag, "--topic", topic, "--log", tmp_path / "stamps.csv")
    receiver.spin_until(lambda: len(receiver.messages) == 6)
    out, err = finished(process)
    assert "6 frames published" in out
    assert "words" in err  # what is not played is said
    stamps = []
    for index, message in enumerate(receiver.messages):
        assert np.array_equal(np.frombuffer(message.data, np.uint8).reshape(48, 64, 3), picture(index))
        assert (message.encoding, message.step, message.header.frame_id) == ("bgr8", 192, "recorded")
        stamps.append(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)
    assert all(before < stamp < arrival for stamp, arrival in zip(stamps, receiver.arrivals, strict=True))
    assert np.diff(stamps).min() > 0.02e9  # recorded 50 ms apart
    logged = [line.split(",") for line in (tmp_path / "stamps.csv").read_text().split()]
    assert logged == [[str(index), str(stamp)] for index, stamp in enumerate(stamps)]


def test_recorded_stamps_and_another_name_on_request(bag, receiver, replay):
    receiver.subscribe(NAMESPACE + "/elsewhere")
    process = replay(
        bag, "--topic", NAMESPACE + "/camera/image_raw", "--publish-as", NAMESPACE + "/elsewhere",
        "--keep-stamps", "--rate", "100", "--preload",
    )  # fmt: skip
    receiver.spin_until(lambda: len(receiver.messages) == 6)
    finished(process)
    stamps = [(message.header.stamp.sec, message.header.stamp.nanosec) for message in receiver.messages]
    assert stamps == [(RECORDED, index) for index in range(6)]


def test_compressed_images_stay_compressed(bag, receiver, replay):
    topic = NAMESPACE + "/camera/compressed"
    receiver.subscribe(topic, CompressedImage)
    process = replay(bag, "--topic", topic.removeprefix("/"), "--speed", "4")
    receiver.spin_until(lambda: len(receiver.messages) == 6)
    finished(process)
    for index, message in enumerate(receiver.messages):
        assert message.format == "png"
        assert np.array_equal(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR), picture(index))


def test_a_folder_is_a_camera_and_loops_until_ctrl_c(tmp_path, receiver, replay):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture(index, (320, 240)))
    topic = NAMESPACE + "/image"
    process = replay(tmp_path, "--topic", topic, "--rate", "50", "--loop", "--frame-id", "drone")
    assert process.poll() is None  # waits for somebody to listen
    receiver.subscribe(topic)
    receiver.spin_until(lambda: len(receiver.messages) >= 7)
    segments = shared_memory_of(process.pid)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # some launchers send two
    _, err = finished(process)
    assert "Traceback" not in err
    assert segments
    assert not [path for path in segments if left_behind(path)]
    shown = [np.frombuffer(message.data, np.uint8).reshape(240, 320, 3) for message in receiver.messages]
    first = int(shown[0][0, 0, 0]) // 10
    for number, image in enumerate(shown):
        assert np.array_equal(image, picture((first + number) % 3, (320, 240)))
    assert {message.header.frame_id for message in receiver.messages} == {"drone"}


def test_forwards_and_backwards_nothing_jumps_and_the_pace_is_even(tmp_path, receiver, replay):
    for index in range(9):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture(index))
    topic, log = NAMESPACE + "/ping_pong", tmp_path / "stamps.csv"
    process = replay(tmp_path, "--topic", topic, "--rate", "40", "--first", "4", "--ping-pong", "--log", log)
    receiver.subscribe(topic)
    receiver.spin_until(lambda: len(receiver.messages) >= 20)
    process.send_signal(signal.SIGINT)
    finished(process)
    expected = [0, 1, 2, 3, 2, 1] * 4
    for message, index in zip(receiver.messages, expected, strict=False):
        assert np.array_equal(np.frombuffer(message.data, np.uint8).reshape(48, 64, 3), picture(index))
    stamps = [int(line.split(",")[1]) for line in log.read_text().split()]
    assert np.median(np.diff(stamps)[5::6]) > 0.01e9  # the end of a round is followed by the next at the same pace


def test_two_cameras_have_two_node_names_and_say_their_whole_topics(tmp_path, receiver, replay):
    """Nodes of one name cannot be told apart in ROS's tools."""
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture(index, (320, 240)))
    topics = [f"{NAMESPACE[1:]}/{side}" for side in ("left", "right")]  # as a person types them
    processes = [replay(tmp_path, "--topic", topic, "--rate", "20", "--loop") for topic in topics]
    names = set()

    def both():
        names.update(name for name in receiver.node.get_node_names() if name.startswith("replay_"))
        return len(names) == 2

    receiver.spin_until(both)
    for topic in topics:
        receiver.subscribe(f"/{topic}")
    receiver.spin_until(lambda: len(receiver.messages) >= 4)
    for topic, process in zip(topics, processes, strict=True):
        process.send_signal(signal.SIGINT)
        _, err = finished(process)
        assert f"waiting for a subscriber on /{topic}" in err
    assert names == {f"replay_{process.pid}" for process in processes}


def shared_memory_of(pid):
    """Fast DDS's segments that a process has mapped, its own and its partners'."""
    with open(f"/proc/{pid}/maps") as maps:
        return {path for path in re.findall(r"/dev/shm/fast(?:dds|rtps)_\S+", maps.read()) if "port" not in path}


def left_behind(path):
    """Whether a segment is there though the process that made it is gone: nobody holds its lock."""
    if not os.path.exists(path):
        return False
    with open(path + "_el") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/absent"], "no such file or folder"),
        (["{bag}"], "has 2 image topics: .*choose one with --topic"),
        (["{bag}", "--topic", "/nothing"], "no images on /nothing"),
        (["{bag}/metadata.yaml"], "cannot be opened as a video"),
        (["{}", "--keep-stamps"], "--keep-stamps is for bags"),
        (["scene", "--size", "7x7"], "--size is '7x7'"),
        (["scene", "--rate", "fast"], "--rate is 'fast'"),
        (["scene", "--rate", "-3"], "--rate is '-3'"),
        (["scene", "--speed", "0"], "--speed is 0"),
        (["scene", "--log", "{bag}"], "cannot be written"),
        (["scene", "--first", "0"], "--first is 0"),
        (["scene", "--topic", "no topic", "--no-wait"], "topic 'no topic': .*must not contain"),
    ],
)
def test_wrong_arguments_end_before_anything_is_published(bag, tmp_path, capsys, arguments, message):
    assert commands.main(["replay", *(argument.format(tmp_path, bag=bag) for argument in arguments)]) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("damage", ["metadata", "storage"])
def test_a_damaged_bag_is_named(bag, damage):
    if damage == "metadata":
        (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 9}")
    else:
        path = next(path for path in bag.iterdir() if path.suffix in (".db3", ".mcap"))
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(LightTrackError, match=str(bag)):
        list(ImageBag(bag, NAMESPACE + "/camera/image_raw"))


@pytest.mark.parametrize("encapsulation", [b"\x00\x01\x00\x00", b"\x00\x00\x00\x00"], ids=["little", "big"])
def test_a_stamp_is_replaced_in_either_byte_order(encapsulation):
    message = encapsulation + bytes(range(40))
    changed = restamped(message, 1_700_000_001, 987_654_321)
    assert stamp_of(changed) == 1_700_000_001_987_654_321
    assert changed[:4] == message[:4]
    assert changed[12:] == message[12:]
    with pytest.raises(LightTrackError, match="7 bytes"):
        restamped(message[:7], 0, 0)

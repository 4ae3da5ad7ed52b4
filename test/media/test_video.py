"""Video files: frames' own times, damaged stretches, any name, and what is written."""

import os
import shutil

import av
import cv2
import numpy as np
import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.frames import open_source
from lighttrack_ros.media.sequences import find_sequences
from lighttrack_ros.media.video import ANNOTATED, VideoFile, VideoWriter, is_annotated

TIMES = [0.0, 0.04, 0.1, 0.5, 0.54, 0.6, 1.0, 1.2, 1.9, 2.0]


def picture(value, size=(64, 48)):
    return np.full((size[1], size[0], 3), value, np.uint8)


def write(path, times=TIMES, size=(64, 48), comment=""):
    with VideoWriter(path, *size, 25, comment) as writer:
        for index, time in enumerate(times):
            writer.write(picture(20 * index, size), time)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_frames_keep_their_own_times(tmp_path, suffix):
    video = VideoFile(write(tmp_path / f"a{suffix}"))
    times, means = zip(*((time, frame.mean()) for time, frame in video.timed()), strict=True)
    np.testing.assert_allclose(times, TIMES, atol=0.001)
    np.testing.assert_allclose(means, np.arange(10) * 20, atol=3)
    assert video.fps == pytest.approx(9 / 2, abs=0.01)
    assert video.count in (10, None)
    assert video.shortfall is None


def test_mp4_is_h264_that_browsers_play(tmp_path):
    path = write(tmp_path / "a.mp4", size=(65, 49))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (64, 48)  # the codec knows no odd sizes
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is loaded


def test_the_cases_from_the_field(shared):
    cases = shared / "cases"
    webm = VideoFile(cases / "01_webm_1000fps/screen.webm")  # no rate in its header
    times = [time for time, _ in webm.timed()]
    assert (len(times), times[-1]) == (60, pytest.approx(1.953))
    assert webm.fps == pytest.approx(30, rel=0.02)
    for name in ("phone_mkv", "phone_mp4", "ts", "mkv_cfr"):  # announced and true counts differ
        (sequence,) = find_sequences(cases / "02_vfr_count" / name)
        assert len(sequence.truth) == sum(1 for _ in sequence.frames) == 60


def test_behind_a_damaged_stretch_reading_goes_on_and_what_is_missing_is_said(shared):
    damaged = VideoFile(shared / "cases/23_truncated/mid.mp4")
    times = [time for time, _ in damaged.timed()]
    assert len(times) == 46
    assert np.diff(times).min() >= 0
    assert times[-1] == pytest.approx(59 / 30)
    assert damaged.shortfall == "46 of the 60 frames that the file announces could be decoded"
    cut = VideoFile(shared / "cases/23_truncated/cut.mp4")
    read = sum(1 for _ in cut)
    assert 27 <= read <= 30  # as FFmpeg's version goes on or not
    assert cut.shortfall == f"{read} of the 60 frames that the file announces could be decoded"
    whole = VideoFile(shared / "cases/base_clip.mp4")
    assert sum(1 for _ in whole) == 60
    assert whole.shortfall is None


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"a:b.mp4", b"-dash.mp4", b"with space.mp4", b"http:__x%20.mp4"])
def test_names_are_bytes(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(name)
    with VideoWriter(tmp_path / path, 64, 48, 25) as writer:
        writer.write(picture(100))
    (frame,) = open_source(path)
    assert frame.mean() == pytest.approx(100, abs=3)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_phones_video_is_turned_as_players_turn_it(tmp_path, quarters):
    """Against OpenCV, which turns it too."""
    upright = write(tmp_path / "a.mp4", [0.0])
    frame = picture(0)
    frame[:24, :32] = 255
    with VideoWriter(upright, 64, 48, 25) as writer:
        writer.write(frame)
    matrices = {0: (1, 0, 0, 1), 1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}
    content = bytearray(upright.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: the matrix
    for place, value in zip((0, 4, 12, 16), matrices[quarters], strict=True):
        content[at + place : at + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    (tmp_path / "b.mp4").write_bytes(content)
    (read,) = VideoFile(tmp_path / "b.mp4")
    ok, expected = cv2.VideoCapture(str(tmp_path / "b.mp4")).read()
    assert ok
    np.testing.assert_array_equal(read, expected)


def test_what_is_no_video_is_said_plainly(tmp_path, capfd):
    (tmp_path / "boxes.txt").write_text("1,2,3,4\n" * 20)
    (tmp_path / "empty.mp4").touch()
    for name in ("boxes.txt", "empty.mp4"):
        with pytest.raises(LightTrackError, match=f"{name}: cannot be opened as a video"):
            VideoFile(tmp_path / name)
    assert capfd.readouterr().err == ""


def test_a_failed_run_leaves_no_video_and_the_old_one_stays(tmp_path):
    path = write(tmp_path / "a.mp4")
    before = path.read_bytes()

    def fail():
        with VideoWriter(path, 64, 48, 25) as writer:
            writer.write(picture(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".mov"])
def test_results_are_known_and_are_no_sequence_of_their_folder(tmp_path, suffix):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture(50 * index))
    (tmp_path / "groundtruth.txt").write_text("1,1,5,5\n" * 3)
    write(tmp_path / f"annotated{suffix}", comment=ANNOTATED)
    assert is_annotated(tmp_path / f"annotated{suffix}")
    (sequence,) = find_sequences(tmp_path)
    assert [frame.mean() for frame in sequence.frames] == [0, 50, 100]
    write(tmp_path / f"other{suffix}")
    with pytest.raises(LightTrackError, match=r"images and 1 video\(s\) \(other.*which are the frames"):
        find_sequences(tmp_path)


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), picture(77))
    assert [(time, frame.mean()) for time, frame in open_source(str(tmp_path / "one.png")).timed()] == [(0.0, 77.0)]


def test_a_bag_is_named_as_one(shared, tmp_path):
    shutil.copy(shared / "cases/13_ros1/run.bag", tmp_path / "video.mp4")
    with pytest.raises(LightTrackError, match=r"a bag, .* lighttrack replay"):
        open_source(str(tmp_path / "video.mp4"))

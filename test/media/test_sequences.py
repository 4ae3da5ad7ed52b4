"""Sequences on disk: what is read, and what is said about those that are damaged."""

import cv2
import numpy as np
import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box
from lighttrack_ros.media.frames import open_source
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.sequences import find_sequences, load_sequence, save_scene, sequence_of
from lighttrack_ros.media.video import VideoWriter
from lighttrack_ros.outputs import check_writable


def picture(value, size=(64, 48)):
    return np.full((size[1], size[0], 3), value, np.uint8)


def write_frames(folder, count, first=1):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{first + index}.png"), picture(10 * index))


@pytest.fixture
def sequence(tmp_path):
    """Twelve frames whose names sort wrongly as text, the third without a target."""
    folder = tmp_path / "clip"
    write_frames(folder / "img", 12)
    lines = ["10,10,20,20"] * 12
    lines[2] = "nan,nan,nan,nan"
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_frames_come_lazily_and_in_the_order_of_their_numbers(sequence):
    loaded = load_sequence(sequence)
    assert loaded.name == "clip"
    assert loaded.frames.count == 12
    assert [frame[0, 0, 0] for frame in loaded.frames] == [10 * index for index in range(12)]
    assert loaded.init_box == Box(10, 10, 20, 20)
    assert np.isnan(loaded.truth[2]).all()
    assert loaded.visible.tolist() == [1, 1, 0] + [1] * 9


@pytest.mark.parametrize("separator", [",", "\t", " ", ", ", ";"])
def test_boxes_are_read_however_they_are_separated(sequence, separator):
    lines = (sequence / "groundtruth.txt").read_text().replace(",", separator)
    (sequence / "groundtruth.txt").write_text(lines)
    assert load_sequence(sequence).init_box == Box(10, 10, 20, 20)


def test_every_layout_in_use_is_understood(tmp_path):
    write_frames(tmp_path / "beside", 2)
    (tmp_path / "beside" / "boxes.txt").write_text("1,1,5,5\n2,2,5,5\n")
    write_frames(tmp_path / "otb" / "img", 2)
    (tmp_path / "otb" / "groundtruth_rect.txt").write_text("1\t1\t5\t5\n2\t2\t5\t5\n")
    (tmp_path / "video").mkdir()
    with VideoWriter(tmp_path / "video" / "clip.avi", 64, 48, 25) as writer:
        for value in (0, 100, 200):
            writer.write(picture(value))
    (tmp_path / "video" / "init_box.txt").write_text("1,2,30,20\n")
    (tmp_path / "no_sequence").mkdir()
    found = {one.name: one for one in find_sequences(tmp_path)}
    assert list(found) == ["beside", "otb", "video"]
    assert found["video"].truth is None
    assert found["video"].init_box == Box(1, 2, 30, 20)
    assert [round(float(frame.mean()), -1) for frame in found["video"].frames] == [0, 100, 200]
    assert found["beside"].truth.tolist() == found["otb"].truth.tolist()
    assert [one.name for one in find_sequences(tmp_path, only=["otb", "video"], skip=["video"])] == ["otb"]
    assert [one.name for one in find_sequences(tmp_path / "otb")] == ["otb"]


def test_the_shared_sequences_are_all_read(shared):
    found = {one.name: one for one in find_sequences(shared / "sequences")}
    assert len(found) == 12
    assert found["bag"].truth is None
    assert np.isnan(found["person9"].truth).all(axis=1).sum() == 12
    assert found["woman"].frames.count == 597


def break_line(text):
    def damage(folder):
        (folder / "groundtruth.txt").write_text(text)

    return damage


def remove_boxes(folder):
    (folder / "groundtruth.txt").unlink()
    (folder / "notes.txt").write_text("")


def damage_frame(folder):
    (folder / "img" / "5.png").write_bytes(b"not a picture")


def remove_frames(folder):
    for path in (folder / "img").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_line("10,10,20\n" * 12), r"groundtruth.txt: line 1 is '10,10,20'"),
        (break_line("10,10,20,20\n" * 11 + "1,nan,2,3\n"), r"line 12 is"),
        (break_line("10,10,20,20\n" * 11 + "a,b,c,d\n"), r"line 12 is 'a,b,c,d'"),
        (break_line("10,10,20,20\n" * 7), r"7 lines for 12 frames"),
        (break_line(""), r"empty"),
        (break_line("nan,nan,nan,nan\n" * 12), r"line 1 is nan,nan,nan,nan, expected a box"),
        (break_line("10,10,0,20\n" * 12), r"line 1 is nan,nan,nan,nan, expected a box"),
        (remove_boxes, r"no groundtruth.txt"),
        (remove_frames, r"no images"),
        (damage_frame, r"5.png: cannot be decoded"),
    ],
)
def test_a_damaged_sequence_is_named_with_its_fault(sequence, damage, message):
    damage(sequence)
    with pytest.raises(LightTrackError, match=message):
        list(load_sequence(sequence).frames)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: find_sequences(folder / "absent"), "no such folder"),
        (lambda folder: find_sequences(folder.parent, only=["clap"]), "no sequence named clap .*clip"),
        (lambda folder: find_sequences(folder.parent, skip=["clip"]), "every sequence was left out"),
        (lambda folder: find_sequences(folder / "img"), "no sequence in it"),
        (lambda folder: open_source(str(folder / "absent.mp4")), "no such file"),
        (lambda folder: open_source(str(folder / "groundtruth.txt")), "cannot be opened as a video"),
        (lambda folder: open_source("973"), "camera 973: cannot be opened"),
        (lambda folder: check_writable(folder), "cannot be written"),
        (lambda folder: check_writable(folder / "a.mp3", (".mp4", ".avi")), r"must end in one of .mp4, .avi"),
        (lambda folder: check_writable(folder / "groundtruth.txt" / "a.mp4"), "cannot be written"),
    ],
)
def test_what_cannot_be_found_or_written_is_said_plainly(sequence, capfd, call, message):
    with pytest.raises(LightTrackError, match=message):
        call(sequence)
    assert capfd.readouterr().err == ""  # the error is all that a user should see


def test_asking_whether_a_file_can_be_written_leaves_no_trace(tmp_path):
    (tmp_path / "kept.json").write_text("before")
    check_writable(tmp_path / "new" / "file.json")
    check_writable(tmp_path / "kept.json")
    assert not (tmp_path / "new" / "file.json").exists()
    assert (tmp_path / "kept.json").read_text() == "before"


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".webm"])
def test_videos_are_written_and_read_again(tmp_path, capfd, suffix):
    path = tmp_path / f"clip{suffix}"
    with VideoWriter(path, 64, 48, 25) as writer:
        for value in (30, 120, 220):
            writer.write(picture(value))
        writer.write(picture(60, (128, 96)))  # of another size: scaled
    video = open_source(str(path))
    means = [float(frame.mean()) for frame in video]
    assert np.allclose(means, [30, 120, 220, 60], atol=12)
    assert video.fps == pytest.approx(25, abs=0.1)
    assert capfd.readouterr().err == ""


def test_a_saved_scene_is_a_sequence_with_its_truth(tmp_path):
    class Short(Scene):
        def __len__(self):
            return 4

    scene = Short(3, 320, 240, 0.4)  # a frame every 2.5 seconds; the bridge hides the target around 7 s
    save_scene(list(scene)[:1], tmp_path)
    (tmp_path / "img" / "0099.jpg").write_bytes(b"of an earlier, longer scene")
    saved = save_scene(scene, tmp_path)
    frames = [scene[index] for index in range(4)]
    assert saved.frames.count == 4
    assert np.allclose(saved.visible, [frame.visible for frame in frames], atol=0.001)
    for line, image, frame in zip(saved.truth, saved.frames, frames, strict=True):
        assert np.abs(image.astype(int) - frame.image).mean() < 4
        assert np.isnan(line).all() if frame.truth is None else np.allclose(line, frame.box, atol=0.006)
    assert sequence_of(str(tmp_path)).init_box == saved.init_box


def test_boxes_beside_a_video_belong_to_that_video_alone(tmp_path):
    for name in ("one.avi", "two.avi"):
        with VideoWriter(tmp_path / name, 64, 48, 25) as writer:
            writer.write(picture(0))
    assert sequence_of(str(tmp_path / "one.avi")) is None
    (tmp_path / "two.avi").unlink()
    (tmp_path / "init_box.txt").write_text("1,2,3,4")
    assert sequence_of(str(tmp_path / "one.avi")).init_box == Box(1, 2, 3, 4)

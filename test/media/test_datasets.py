"""Folders and data sets as people have them: what is a frame, in which order, and every way to write a truth."""

import shutil

import cv2
import numpy as np
import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.media.folder import ImageFolder
from lighttrack_ros.media.sequences import find_sequences, load_sequence, sequence_of
from lighttrack_ros.media.truth import read_boxes


def frames(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((48, 64, 3), 5 * index % 256, np.uint8))


@pytest.mark.parametrize(
    "names",
    [
        ["1.jpg", "2.jpg", "10.jpg", "100.jpg"],
        ["0.5.png", "1.0.png", "1.25.png", "10.0.png"],
        ["1403636579.763555584.png", "1403636579.8.png", "1403636580.000000001.png"],
        ["frame_0009.JPG", "frame_0010.jpg"],
        ["IMG_20240105_235959_1.png", "IMG_20240106_000000_0.png"],
    ],
)
def test_frames_come_in_the_order_of_the_numbers_in_their_names(tmp_path, names):
    frames(tmp_path, names)
    assert [path.name for path in ImageFolder(tmp_path).paths] == names


def test_hidden_files_and_what_is_not_numbered_are_no_frames(tmp_path):
    frames(tmp_path, ["0001.png", "0002.png", "cover.png"])
    (tmp_path / "._0001.png").write_bytes(b"of macOS")
    (tmp_path / "Thumbs.db").write_bytes(b"of Windows")
    (tmp_path / "0003.png").mkdir()
    assert [path.name for path in ImageFolder(tmp_path).paths] == ["0001.png", "0002.png"]


def test_two_series_in_one_folder_are_named_and_not_mixed(tmp_path):
    frames(tmp_path, ["left_1.png", "left_2.png", "right_1.png"])
    with pytest.raises(LightTrackError, match=r"left_# \(2\), right_# \(1\)"):
        ImageFolder(tmp_path)
    frames(tmp_path / "twice", ["1.png", "1.jpg"])
    with pytest.raises(LightTrackError, match=r"1\.jpg, 1\.png are one frame twice"):
        ImageFolder(tmp_path / "twice")


BOX = [10.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize(
    "line",
    [
        "10,20,30,40",
        "10\t20\t30\t40",
        "10.0 20.0 30.0 40.0",
        " 10, 20, 30, 40, ",
        "10;20;30;40;",
        "10,20,40,20,40,60,10,60",  # a polygon of VOT's
        "25,20,40,40,25,60,10,40",  # one that is turned
        "m8,18,34,44," + ",".join(["70", "30"] + ["4", "30"] * 39 + ["72"]),  # a mask of VOT's
    ],
)
def test_a_box_is_read_however_it_is_written(tmp_path, line):
    for content in (line.encode(), b"\xef\xbb\xbf" + line.encode() + b"\r\n\r\n", line.encode("utf-16")):
        (tmp_path / "boxes.txt").write_bytes(content)
        assert read_boxes(tmp_path / "boxes.txt").tolist() == [BOX]
    (tmp_path / "boxes.txt").write_text(f"x,y,w,h\n{line}\n")
    assert read_boxes(tmp_path / "boxes.txt").tolist() == [BOX]


@pytest.mark.parametrize(
    "line", ["nan,nan,nan,nan", "NaN NaN NaN NaN", "nan", "0,0,0,0", "0", "-1,-1,-1,-1", "", "None,None,None,None",
             "12,12,0,20", "10,20,10,20,10,20,10,20", "m0,0,4,4,16"],
)  # fmt: skip
def test_no_target_is_understood_however_it_is_written(tmp_path, line):
    (tmp_path / "boxes.txt").write_text(f"10,20,30,40\n{line}\n10,20,30,40\n")
    boxes = read_boxes(tmp_path / "boxes.txt")
    assert boxes[[0, 2]].tolist() == [BOX, BOX]
    assert np.isnan(boxes[1]).all()


@pytest.mark.parametrize(
    "line", ["1", "1,2", "1,2,3", "1,2,3,4,5", "1,2,3,4,5,6", "inf,0,1,1", "a,b", "1,nan,2,3", "mx"]
)
def test_what_is_no_box_is_named(tmp_path, line):
    (tmp_path / "boxes.txt").write_text(f"10,20,30,40\n{line}\n10,20,30,40\n")
    with pytest.raises(LightTrackError, match=r"boxes\.txt: line 2 is"):
        read_boxes(tmp_path / "boxes.txt")


def test_absent_targets_give_the_same_truth_in_every_spelling(shared):
    truths = [
        load_sequence(shared / "cases/09_absent" / name).truth for name in ("as_nan", "as_zero", "as_vot0", "lasot")
    ]
    for truth in truths[1:]:
        np.testing.assert_array_equal(truth, truths[0])
    assert np.isnan(truths[0]).all(axis=1).sum() == 8


def test_a_bad_sequence_is_named_and_the_others_are_used(shared, caplog):
    found = find_sequences(shared / "cases/08_otb")
    assert [sequence.name for sequence in found] == ["Jogging-1", "Jogging-2", "Woman"]
    assert "David/groundtruth_rect.txt: 6 lines for 8 frames" in caplog.text
    with pytest.raises(LightTrackError, match="6 lines for 8 frames"):
        find_sequences(shared / "cases/08_otb", only=["David"])
    with pytest.raises(LightTrackError, match=r"2 targets \(groundtruth_rect\.1\.txt, groundtruth_rect\.2\.txt\)"):
        sequence_of(str(shared / "cases/08_otb/Jogging"))


def test_a_truth_of_some_of_the_frames_as_otb_has_it(tmp_path):
    frames(tmp_path / "David/img", [f"{number:04d}.jpg" for number in range(295, 775)])
    (tmp_path / "David/groundtruth_rect.txt").write_text("1,2,3,4\n" * 471)
    sequence = load_sequence(tmp_path / "David")
    assert sequence.frames.paths[0].name == "0300.jpg"
    assert sequence.frames.count == 471


def test_frames_without_boxes_and_folders_within_folders(tmp_path, caplog):
    for name in ("airplane/airplane-1", "airplane/airplane-2", "bear/bear-1"):
        frames(tmp_path / name / "img", ["00000001.jpg", "00000002.jpg"])
        (tmp_path / name / "groundtruth.txt").write_text("1,2,3,4\n" * 2)
    (tmp_path / "bear/bear-1/groundtruth.txt").unlink()
    assert [sequence.name for sequence in find_sequences(tmp_path)] == ["airplane-1", "airplane-2"]
    assert "bear-1: no groundtruth.txt" in caplog.text


def test_got_10k(tmp_path, shared):
    test = load_sequence(shared / "cases/27_got10k_test/GOT-10k_Test_000001")
    assert test.truth is None  # the first box alone: a test set
    assert test.frames.count == 8
    frames(tmp_path / "val", ["00000001.jpg", "00000002.jpg", "00000003.jpg"])
    (tmp_path / "val/groundtruth.txt").write_text("1.0,2.0,3.0,4.0\n" * 3)
    (tmp_path / "val/absence.label").write_text("0\n0\n1\n")
    (tmp_path / "val/cover.label").write_text("8\n4\n0\n")
    sequence = load_sequence(tmp_path / "val")
    assert np.isnan(sequence.truth).all(axis=1).tolist() == [False, False, True]
    assert sequence.visible.tolist() == [1, 0.5, 0]


def test_vot(shared):
    (sequence,) = find_sequences(shared / "cases/29_vot")
    assert (sequence.name, sequence.frames.count, len(sequence.truth)) == ("car", 4, 4)


def test_trackingnet(tmp_path, caplog):
    frames(tmp_path / "frames/abc", ["0.jpg", "1.jpg", "2.jpg"])
    (tmp_path / "anno").mkdir()
    (tmp_path / "anno/abc.txt").write_text("1,2,3,4\n" * 3)
    (tmp_path / "anno/gone.txt").write_text("1,2,3,4\n" * 3)
    for folder in (tmp_path, tmp_path / "frames"):
        (sequence,) = find_sequences(folder)
        assert (sequence.name, len(sequence.truth)) == ("abc", 3)
        assert "gone.txt: no folder of frames" in caplog.text


def test_uav123_with_several_sequences_in_one_folder(tmp_path):
    frames(tmp_path / "data_seq/UAV123/car1", [f"{number:06d}.jpg" for number in range(1, 7)])
    (tmp_path / "anno/UAV123").mkdir(parents=True)
    (tmp_path / "anno/UAV123/car1_1.txt").write_text("1,2,3,4\nNaN,NaN,NaN,NaN\n")
    (tmp_path / "anno/UAV123/car1_2.txt").write_text("5,2,3,4\n" * 4)
    (tmp_path / "configSeqs.m").write_text(
        r"seqUAV123={struct('name','car1_1','path','D:\data_seq\UAV123\car1\','startFrame',1,'endFrame',2,'nz',6),..."
        "\n"
        r"struct('name','car1_2','path','D:\data_seq\UAV123\car1\','startFrame',3,'endFrame',6,'nz',6)};"
    )
    one, two = find_sequences(tmp_path)
    assert [path.name for path in one.frames.paths] == ["000001.jpg", "000002.jpg"]
    assert two.frames.paths[0].name == "000003.jpg"
    assert np.isnan(one.truth[1]).all()


def test_exif_orientation_is_not_applied(shared, tmp_path):
    """The truth is in the stored pixels, and the node sees those."""
    scene = sorted((shared / "cases/20_annotated/seq").glob("*.jpg"))[0].read_bytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    app1 = b"\xff\xe1" + (8 + len(tiff)).to_bytes(2, "big") + b"Exif\0\0" + tiff
    (tmp_path / "1.jpg").write_bytes(scene[:2] + app1 + scene[2:])
    (tmp_path / "2.jpg").write_bytes(scene)
    turned, plain = ImageFolder(tmp_path)
    np.testing.assert_array_equal(turned, plain)


def test_the_training_clips_are_sequences(shared):
    clips = shared / "training/clips"
    if not clips.is_dir():
        pytest.skip("needs shared/training/clips")
    name = sorted(path.name for path in clips.iterdir() if path.is_dir())[0]
    sequence = load_sequence(clips / name)
    assert len(sequence.truth) == sum(1 for _ in sequence.frames)


def test_the_macos_archive(shared, tmp_path):
    shutil.copytree(shared / "cases/04_appledouble/seq", tmp_path / "seq")
    for index in range(1, 7):
        (tmp_path / f"seq/img/._{index:04d}.jpg").write_bytes(b"Mac OS X")
    assert load_sequence(tmp_path / "seq").frames.count == 6

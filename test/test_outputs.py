"""Files that are written: never over an input, whole or not at all."""

import json
import math
import os

import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.outputs import check_outputs, replacing, write_json, write_text


@pytest.fixture
def data(tmp_path):
    """A folder with an input in a sub-folder."""
    (tmp_path / "seq" / "img").mkdir(parents=True)
    (tmp_path / "seq" / "img" / "1.jpg").write_bytes(b"a frame")
    return tmp_path


def link(data):
    (data / "link.jpg").symlink_to(data / "seq" / "img" / "1.jpg")
    return data / "link.jpg"


def hard_link(data):
    os.link(data / "seq" / "img" / "1.jpg", data / "hard.jpg")
    return data / "hard.jpg"


def through_linked_folder(data):
    (data / "other").symlink_to(data / "seq")
    return data / "other" / "img" / "1.jpg"


@pytest.mark.parametrize(
    "name", [lambda data: data / "seq" / ".." / "seq" / "img" / "1.jpg", link, hard_link, through_linked_folder]
)
def test_an_input_under_any_name_is_no_output(data, name):
    for given in (data / "seq" / "img" / "1.jpg", data / "seq"):
        path = name(data) if given.is_file() else data / "seq" / "img" / "1.jpg"
        with pytest.raises(LightTrackError, match="is an input"):
            check_outputs([path], [given])
    assert (data / "seq" / "img" / "1.jpg").read_bytes() == b"a frame"


@pytest.mark.parametrize("other", ["out.json", "./x/../out.json", "OUT.json"])
def test_two_outputs_are_two_files(data, monkeypatch, other):
    monkeypatch.chdir(data)
    (data / "x").mkdir()
    with pytest.raises(LightTrackError, match="written twice"):
        check_outputs([data / "out.json", None, data / other])
    check_outputs([data / "out.json", data / "out.csv"], [data / "seq"])
    assert sorted(path.name for path in data.iterdir()) == ["seq", "x"]


def test_a_crash_leaves_the_old_file_whole_and_nothing_beside_it(data):
    path = data / "out.txt"
    write_text(path, "old")

    def fail():
        with replacing(path) as beside:
            beside.write_text("half of the n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert sorted(file.name for file in data.iterdir()) == ["out.txt", "seq"]
    path.chmod(0o640)
    (data / "link").symlink_to(path)
    write_text(data / "link", "new")
    assert (data / "link").is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_and_not_replaced(data):
    os.mkfifo(data / "pipe")
    reader = os.open(data / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    check_outputs([data / "pipe"])
    write_text(data / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_json_has_no_nan(data):
    write_json(data / "a.json", {"p50": math.nan, "rows": [math.inf, 1.5]})
    assert json.loads((data / "a.json").read_text()) == {"p50": None, "rows": [None, 1.5]}

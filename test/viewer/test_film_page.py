"""The page on a film, without ROS, in a real browser."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import pytest
from page_harness import PHONE, Operator, Viewer, chromium

from lighttrack_ros.geometry import Box, intersection_over_union
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.media.sequences import save_scene
from lighttrack_ros.media.video import VideoFile, is_annotated

pytest.importorskip("tornado", reason="needs tornado (pip install 'lighttrack_ros[viewer]')")

SIZE = (320, 240)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """The first two seconds of the generated one, as a folder of images."""
    folder = tmp_path_factory.mktemp("scene") / "scene"
    sequence = save_scene(itertools.islice(Scene(20, *SIZE), 60), folder)
    return SimpleNamespace(folder=str(folder), box=sequence.init_box, truth=sequence.truth)


def test_a_click_proposes_a_box_which_handles_and_keys_adjust(browser, scene):
    viewer = Viewer(scene.folder)
    operator = Operator(browser, viewer.url)
    operator.wait_for_a_picture()
    truth = scene.box
    operator.page.mouse.click(*operator.at(*truth.centre, SIZE))
    proposed = operator.wait(operator.selected, "a proposal")
    assert intersection_over_union(proposed, truth) > 0.4
    assert not operator.shown()["targets"]  # it is only proposed
    # A handle, then keys.
    corner = operator.at(proposed.x + proposed.width, proposed.y + proposed.height, SIZE)
    operator.page.mouse.move(*corner)
    operator.page.mouse.down()
    operator.page.mouse.move(*operator.at(proposed.x + proposed.width + 20, proposed.y + proposed.height + 10, SIZE))
    operator.page.mouse.up()
    larger = operator.selected()
    assert larger.width == pytest.approx(proposed.width + 20, abs=2)
    assert larger.height == pytest.approx(proposed.height + 10, abs=2)
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
        operator.page.keyboard.press(key)
    moved = operator.selected()
    assert moved == pytest.approx(Box(larger.x + 2, larger.y - 1, larger.width - 1, larger.height + 1), abs=1)
    operator.page.keyboard.press("Escape")
    assert operator.selected() is None
    operator.page.keyboard.press("b")  # without any mouse
    assert operator.selected().centre == pytest.approx((160, 120), abs=2)
    operator.page.keyboard.press("Enter")
    operator.wait_for_state("tracking", "uncertain", "lost")
    operator.close()
    assert viewer.end() == 0


def test_a_film_is_tracked_and_saved_with_its_boxes(browser, scene, tmp_path):
    video = tmp_path / "annotated.mp4"
    viewer = Viewer(scene.folder, "--out", str(video))
    operator = Operator(browser, viewer.url)
    first = operator.wait_for_a_picture()
    assert first["stamp"] == 1
    assert operator.text("#play") == "Play"  # it stands still
    operator.drag(scene.box, SIZE)
    operator.wait(lambda: "the end" in operator.text("#hint"), "the end of the film")
    assert "is followed" in operator.text("#events")
    operator.page.keyboard.press("p")  # once more, and nothing is followed
    operator.wait(lambda: operator.text("#play") == "Pause", "the film to play")
    operator.close()
    assert viewer.end() == 0, viewer.output
    assert is_annotated(video)
    assert str(video) in viewer.output
    assert VideoFile(video).count_frames() > 0


def test_track_select_follows_from_the_frame_that_was_chosen(browser, scene, tmp_path):
    boxes = tmp_path / "boxes.json"
    viewer = Viewer(scene.folder, "--select", "--json", str(boxes), command="track")
    operator = Operator(browser, viewer.url, **PHONE)
    operator.wait_for_a_picture()
    # A phone: the picture above, all else below, nothing sticks out.
    stage, panel = (operator.page.locator(name).bounding_box() for name in ("#stage", "aside"))
    assert stage["width"] == 390
    assert panel["y"] >= stage["y"] + stage["height"] - 1
    assert operator.page.evaluate("document.documentElement.scrollWidth") <= 390
    operator.page.get_by_role("button", name="Play").tap()
    operator.wait(lambda: operator.shown()["stamp"] > 3, "a later frame")
    operator.page.locator("#play").tap()  # if the end has not come first
    operator.wait(lambda: operator.text("#play") == "Play", "the film to stand still")
    index = operator.shown()["stamp"] - 1
    operator.page.touchscreen.tap(*operator.at(*Box(*scene.truth[index]).centre, SIZE))
    operator.wait(operator.selected, "a proposal")
    index = operator.shown()["stamp"] - 1
    operator.page.get_by_role("button", name="Track").tap()
    assert viewer.wait() == 0, viewer.output
    operator.close()
    frames = json.loads(boxes.read_text())["frames"]
    assert [frame["index"] for frame in frames] == list(range(index, len(scene.truth)))
    assert frames[0]["state"] == "tracking"
    overlaps = [intersection_over_union(Box(*frame["box"]), Box(*scene.truth[frame["index"]])) for frame in frames]
    assert sum(overlaps) / len(overlaps) > 0.4


def test_a_page_from_elsewhere_needs_the_token(browser, scene, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    viewer = Viewer(scene.folder, "--address", "0.0.0.0")
    token = (tmp_path / "lighttrack_ros" / "viewer_token").read_text().strip()
    assert viewer.url.endswith(f"#{token}")
    operator = Operator(browser, f"http://127.0.0.1:{viewer.port}/#wrong")
    operator.wait(lambda: operator.page.locator("#gate").is_visible(), "the question for the token")
    assert operator.shown()["number"] == 0
    operator.page.fill("#token", viewer.url)  # the whole address will do
    operator.page.keyboard.press("Enter")
    operator.wait_for_a_picture()
    assert operator.page.locator("#gate").is_hidden()
    operator.close()
    assert viewer.end() == 0
    assert viewer.output.count("turned away") == 1
    assert "wrong" not in viewer.output.replace("a wrong one", "")

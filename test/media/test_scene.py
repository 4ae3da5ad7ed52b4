"""The generated scene: repeatable, its truth exact, its hard moments there."""

import cv2
import numpy as np
import pytest

from lighttrack_ros.media.scene import DEFAULT_SEED, DURATION, HIDDEN, Scene


@pytest.fixture(scope="module")
def scene():
    return Scene()


@pytest.fixture(scope="module")
def repainted():
    """The default scene with the target in another paint: all else, its shadow too, stays."""
    scene = Scene()
    scene._target._colours[:] = (255.0, 0.0, 255.0)
    return scene


@pytest.fixture(scope="module")
def truths(scene):
    """(index, box, visible, look-alike) of every third frame of the default scene."""
    frames = {index: scene[index] for index in range(0, len(scene), 3)}
    return {index: (frame.box, frame.visible, frame.look_alike) for index, frame in frames.items()}


def test_frames_are_the_same_in_any_order_and_in_another_scene_of_the_seed(scene):
    first = scene[40]
    scene[200]
    again, other = scene[40], Scene(DEFAULT_SEED)[40]
    for frame in (again, other):
        assert np.array_equal(frame.image, first.image)
        assert (frame.box, frame.visible, frame.look_alike) == (first.box, first.visible, first.look_alike)
    assert first.image.shape == (480, 640, 3)
    assert first.image.dtype == np.uint8


def test_another_seed_is_another_scene():
    assert not np.array_equal(Scene(1)[0].image, Scene(2)[0].image)
    assert Scene(1)[0].box != Scene(2)[0].box


@pytest.mark.parametrize(("width", "height", "fps"), [(320, 240, 10.0), (1280, 720, 60.0)])
def test_other_sizes_and_rates_show_the_same_flight(width, height, fps):
    small, large = Scene(3, 640, 360, 30.0), Scene(3, width, height, fps)
    assert len(large) == round(DURATION * fps)
    a, b = small[90].box, large[round(3 * fps)].box
    scale = width / 640
    # The picture's middle sees the same; the box keeps its distance from it, in units of the focal length.
    assert np.allclose(
        [(b.centre[0] - width / 2) / scale, (b.centre[1] - height / 2) / scale, b.width / scale, b.height / scale],
        [a.centre[0] - 320, a.centre[1] - 180, a.width, a.height],
        atol=0.05,
    )
    assert large[0].image.shape == (height, width, 3)


def test_the_story_holds_every_difficulty(truths):
    boxes = np.array([box for box, _, _ in truths.values()])
    visible = np.array([share for _, share, _ in truths.values()])
    area = np.sqrt(boxes[:, 2] * boxes[:, 3])
    ratio = boxes[:, 2] / boxes[:, 3]
    assert visible[0] == 1.0
    assert area.max() / area.min() > 1.4  # grows and shrinks
    assert ratio.max() / ratio.min() > 1.5  # turns
    assert (visible < HIDDEN).any()  # hidden altogether under the bridge
    assert ((visible > 0.3) & (visible < 0.9)).any()  # and in part by a tree
    assert visible[-1] > 0.9  # seen again at the end
    gaps = [
        np.hypot(box.centre[0] - other.centre[0], box.centre[1] - other.centre[1]) / size
        for (box, _, other), size in zip(truths.values(), area, strict=True)
        if other is not None
    ]
    assert min(gaps) < 1.0  # the look-alike passes within its own size


def test_the_box_holds_the_targets_pixels_exactly(scene, repainted):
    """Draw the scene with and without the target's paint: what changes lies in the box, up to its edges."""
    index = next(index for index in range(100, 200) if scene[index].visible == 1.0)
    with_target = scene[index]
    difference = np.abs(repainted[index].image.astype(int) - with_target.image.astype(int)).max(axis=2) > 40
    columns, rows = np.flatnonzero(difference.any(axis=0)), np.flatnonzero(difference.any(axis=1))
    box = with_target.box
    assert columns[0] == pytest.approx(box.x, abs=1.5)
    assert columns[-1] + 1 == pytest.approx(box.x + box.width, abs=1.5)
    assert rows[0] == pytest.approx(box.y, abs=1.5)
    assert rows[-1] + 1 == pytest.approx(box.y + box.height, abs=1.5)


def test_the_visible_share_counts_what_shows(scene, repainted):
    """Under the bridge's edge: count the target's own pixels with another paint, compare with the share told."""
    shows = {}
    for index in (200, 220):
        changed = np.abs(repainted[index].image.astype(int) - scene[index].image.astype(int)).max(axis=2) > 40
        box = scene[index].box
        shows[index] = changed.sum() / box.area
    assert scene[200].visible == pytest.approx(1.0, abs=0.02)
    assert scene[220].visible == pytest.approx(shows[220] / shows[200], abs=0.12)


@pytest.mark.parametrize("seed", [0, 5, 12])
def test_every_scene_keeps_its_target_in_the_picture(seed):
    scene = Scene(seed, 320, 240)
    for index in range(0, len(scene), 15):
        box = scene[index].box
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= 320
        assert box.y + box.height <= 240
        assert min(box.width, box.height) > 8


def test_frames_outside_the_scene_are_refused(scene):
    with pytest.raises(IndexError, match="300"):
        scene[300]
    with pytest.raises(IndexError):
        scene[-1]


def test_the_picture_has_something_to_hold_on_to(scene):
    """Textured: neither flat nor noise alone (a blurred copy still has contrast)."""
    grey = cv2.cvtColor(scene[0].image, cv2.COLOR_BGR2GRAY)
    assert cv2.GaussianBlur(grey, (0, 0), 3).std() > 15

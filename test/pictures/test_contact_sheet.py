"""The contact sheet: which frames it shows, and that its charts carry the run."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra [plots]")

from matplotlib.colors import to_hex

from lighttrack_ros.evaluation.observed_run import Observation, ObservedRun
from lighttrack_ros.geometry import Box
from lighttrack_ros.pictures.contact_sheet import draw_contact_sheet, telling_moments
from lighttrack_ros.session import State

GREEN, AMBER, RED = "#48de60", "#ffbe28", "#f54848"


def observation(index, state=State.TRACKING, latency=0.01):
    return Observation(index, Box(10, 10, 20, 20), state, 0.9, latency, 0.005)


@pytest.mark.parametrize("lost", [range(200, 206), range(250, 251), range(0)])
def test_the_contact_sheet_shows_the_target_lost_if_it_was(lost):
    visible = np.ones(300)
    visible[180:230] = 0.2  # hidden worst elsewhere
    visible[185] = 0.0
    truth = np.tile([10.0, 10, 20, 20], (300, 1))
    doubts = set(range(20, 290, 9))  # many other changes
    states = {
        index: State.LOST if index in lost else State.UNCERTAIN if index in doubts else State.TRACKING
        for index in range(300)
    }
    observations = {index: observation(index, state) for index, state in states.items()}
    chosen = telling_moments(ObservedRun("", "", 30, 300, observations, truth, visible), 8)
    assert len(chosen) == 8
    assert {0, 299} <= set(chosen)
    assert any(states[index] == State.LOST for index in chosen) == bool(lost)


def a_run(states, truth=True):
    """One frame of each state, 10 a second; frame 3 is not answered, the target is hidden while it is lost."""
    hidden = np.array([state == State.LOST for state in states])
    boxes = np.where(hidden[:, None], np.nan, [10.0, 10, 20, 20])
    observations = {i: observation(i, state, latency=0.01 * (i + 1)) for i, state in enumerate(states) if i != 3}
    return ObservedRun(
        "a run of $5 and $6", "below", 10.0, len(states), observations, boxes if truth else None,
        1.0 - hidden if truth else None,
    )  # fmt: skip


def frames(count):
    return [np.full((48, 64, 3), (i, 0, 200), np.uint8) for i in range(count)]


def charts_of(figure):
    return {axes.get_title(loc="left").partition(",")[0]: axes for axes in figure.axes if not axes.images}


def test_the_charts_carry_what_was_observed():
    states = [*[State.TRACKING] * 5, State.UNCERTAIN, *[State.LOST] * 3, State.TRACKING]
    run = a_run(states)
    figure = draw_contact_sheet(frames(10), run)
    charts = charts_of(figure)
    seen = sorted(run.observations)
    times = [index / 10 for index in seen]
    lines = {line.get_label(): line for line in charts["latency"].lines}
    np.testing.assert_allclose(lines["image's stamp to box received"].get_xdata(), times)
    np.testing.assert_allclose(lines["image's stamp to box received"].get_ydata(), [10 * (i + 1) for i in seen])
    np.testing.assert_allclose(lines["the node's own processing"].get_ydata(), 5)
    (overlap,) = (line for line in charts["overlap with the truth"].lines if line.get_label() == "overlap")
    np.testing.assert_allclose(overlap.get_ydata(), [np.nan if states[i] == State.LOST else 1 for i in seen])
    (confidence,) = charts["confidence"].collections
    np.testing.assert_allclose([end[0] for _, end in confidence.get_segments()], times[1:])
    colours = {State.TRACKING: GREEN, State.UNCERTAIN: AMBER, State.LOST: RED}
    assert [to_hex(colour) for colour in confidence.get_colors()] == [colours[states[i]] for i in seen[1:]]
    tinted = {to_hex(patch.get_facecolor()): patch.get_window_extent() for patch in charts["confidence"].patches}
    ends = charts["confidence"].transData.transform([(0.5, 0), (0.6, 0), (0.9, 0)])[:, 0]
    assert (tinted[AMBER].x0, tinted[AMBER].x1) == pytest.approx((ends[0], ends[1]))
    assert (tinted[RED].x0, tinted[RED].x1) == pytest.approx((ends[1], ends[2]))


def test_every_tile_is_its_frame_with_its_caption():
    run = a_run([State.TRACKING] * 30)
    figure = draw_contact_sheet(frames(30), run)
    tiles = [axes for axes in figure.axes if axes.images]
    chosen = telling_moments(run, 8)
    assert [axes.get_title(loc="left") for axes in tiles] == [f"{index / 10:.2f} s" for index in chosen]
    assert {axes.get_title(loc="right") for axes in tiles} == {"tracking 0.90   overlap 1.00"}
    for axes, index in zip(tiles, chosen, strict=True):
        assert axes.images[0].get_array()[-1, -1].tolist() == [200, 0, index], "RGB"


def test_without_truth_there_is_no_overlap():
    figure = draw_contact_sheet(frames(2), a_run([State.TRACKING] * 2, truth=False))
    assert set(charts_of(figure)) >= {"confidence", "latency"}
    assert "overlap with the truth" not in charts_of(figure)
    assert not any("overlap" in axes.get_title(loc="right") for axes in figure.axes)

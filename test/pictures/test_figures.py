"""Figures carry the numbers they were given, under axes that say what they are; files are what their names say."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra [plots]")

from matplotlib import rc_context, rcParams
from matplotlib.text import Text

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.evaluation.latency import PARTS, Run, Sample, added, conclude
from lighttrack_ros.pictures.figure import save
from lighttrack_ros.pictures.latency import draw_latency
from lighttrack_ros.pictures.overload import draw_overload
from lighttrack_ros.pictures.pareto import Point, draw_pareto, pareto_front
from lighttrack_ros.pictures.plot_file import check_plot
from lighttrack_ros.pictures.reliability import draw_reliability


def a_run(latencies_ms, period_ms=33):
    """Every frame answered; memory grows by 1 MB a sample."""
    sent = 1_700_000_000 * 10**9 + np.arange(len(latencies_ms)) * period_ms * 10**6
    arrivals = sent + np.round(np.asarray(latencies_ms) * 1e6).astype(np.int64)
    parts = np.tile([2e-3, 5e-4, 3e-4, 4e-3, 2e-4], (len(sent), 1))
    samples = [Sample(10 + t, {"node": 3 + 0.25 * t}, {"node": (300 + t) * 10**6}) for t in range(5)]
    return Run(sent, sent, arrivals, 0, parts, samples)


def some_runs(low, count=3, frames=100):
    rng = np.random.default_rng(round(low))
    return [a_run(low + rng.exponential(1, frames)) for _ in range(count)]


def axes_of(figure, title):
    (axes,) = (axes for axes in figure.axes if title in axes.get_title(loc="left"))
    return axes


def words_of(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def a_pareto():
    return draw_pareto([Point("a", "ours", 5, 0.6, 7), Point("b", "theirs", 9, 0.7)], "title", "", "ms", "AUC", " ms")


def test_every_frame_of_every_latency_run_is_drawn():
    node, echo = some_runs(8), some_runs(2)
    node[1].arrivals[7] += 10**9  # one far off
    figures = {
        "node": conclude([run.figures() for run in node]),
        "echo": conclude([run.figures() for run in echo]),
        "added_ms": added(node, echo),
    }
    figure = draw_latency("the title", "the subtitle", figures, node, echo)
    axes = axes_of(figure, "latency of every frame")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("seconds, runs side by side", "ms")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["node", "echo: the transport alone"]
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 100]
    for line, run in zip(drawn, [run for pair in zip(node, echo, strict=True) for run in pair], strict=True):
        np.testing.assert_allclose(line.get_ydata(), run.latencies * 1e3)
    assert drawn[2].get_xdata()[0] == pytest.approx(99 * 0.033), "the second run begins where the first ends"
    assert "1 beyond, up to 10" in axes.get_title(loc="left")
    parts = axes_of(figure, "where the time goes")
    widths = [bar.get_width() for bar in parts.patches]
    means = [figures["node"]["parts_ms"][name]["mean"] for name in PARTS]
    assert widths == pytest.approx(
        [*means, figures["node"]["latency_ms"]["mean"], figures["echo"]["latency_ms"]["mean"]]
    )
    assert [bar.get_x() for bar in parts.patches[:6]] == pytest.approx([0, *np.cumsum(means)[:-1]])
    words = words_of(figure)
    for name in PARTS:
        assert f"{figures['node']['parts_ms'][name]['p99']:.2f}" in words
    assert {"the title", "the subtitle", f"{figures['node']['latency_ms']['p50']:.1f} ms"} <= set(words)


def test_the_distribution_reaches_every_frame():
    node, echo = some_runs(8), some_runs(2)
    figures = {who: conclude([run.figures() for run in of]) for who, of in (("node", node), ("echo", echo))}
    figure = draw_latency("", "", figures | {"added_ms": added(node, echo)}, node, echo)
    histogram = axes_of(figure, "share of the frames at each latency")
    assert sum(bar.get_height() for bar in histogram.patches) == pytest.approx(2)
    (lower,) = (axes for axes in figure.axes if axes.get_xlabel() == "ms")
    for line, runs in zip(lower.lines, (node, echo), strict=False):
        latencies = np.concatenate([run.latencies for run in runs]) * 1e3
        np.testing.assert_allclose(line.get_xdata()[1:], np.sort(latencies))
        assert line.get_ydata()[[0, 150, -1]].tolist() == [0, 0.5, 1]


def test_overload_shows_a_row_a_camera():
    runs = [a_run(np.repeat([5.0, 6, 7, 8, 9], 40)), a_run(np.repeat([50.0, 60, 70, 80, 90], 40))]
    figure = draw_overload("", "", [2, 5], 200.0, runs)
    assert len(figure.axes) == 4
    latency, memory = axes_of(figure, "camera at 5 times"), figure.axes[3]
    assert (latency.get_xlabel(), latency.get_ylabel()) == ("seconds", "latency, ms")
    assert memory.get_ylabel() == "resident memory, MB"
    assert latency.lines[0].get_ydata() == pytest.approx(np.repeat([50.0, 60, 70, 80, 90], 2))
    np.testing.assert_allclose(memory.lines[0].get_data(), [range(5), range(300, 305)])


def test_the_pareto_front_is_what_nobody_beats():
    points = [Point("e", "", 5, 0.9), Point("b", "", 2, 0.5), Point("a", "", 1, 0.5), Point("c", "", 3, 0.4)]
    points += [Point("d", "", 4, 0.7), Point("f", "", 5, 0.8)]
    assert "".join(point.name for point in pareto_front(points)) == "ade"
    assert pareto_front([]) == []


def test_accuracy_against_cost():
    figure = draw_pareto(
        [Point("nano", "ours", 10.0, 0.7, 14.0), Point("big", "ours", 20.0, 0.8, 30.0),
         Point("$x_1$", "theirs", 15, 0.6), Point("gave up", "theirs", np.nan, 0.6, np.nan),
         Point("", "theirs", 90.0, 0.5)],
        "the title", "", "milliseconds", "success AUC", " ms",
    )  # fmt: skip
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("milliseconds", "success AUC", "log")
    lines = {line.get_label(): np.array(line.get_data()).T.tolist() for line in axes.lines}
    assert lines["ours"] == [[10, 0.7], [20, 0.8]]
    assert lines["theirs"] == [[15, 0.6], [90, 0.5]]
    assert lines["Pareto front"][:2] == [[10, 0.7], [20, 0.8]]
    assert [path.get_segments()[0][:, 0].tolist() for path in axes.collections] == [[10, 14], [20, 30]]
    names = [text.get_text() for text in axes.texts]
    assert names == ["nano  0.700, 10.0 ms", "big  0.800, 20.0 ms", r"\$x_1\$  0.600, 15.0 ms"]


def test_names_cover_neither_points_nor_each_other():
    rng = np.random.default_rng(3)
    points = [Point(f"tracker {i}", "ours", c, a) for i, (c, a) in enumerate(rng.uniform((9, 0.5), (30, 0.7), (12, 2)))]
    figure = draw_pareto(points, "", "", "", "")
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 12
    for index, box in enumerate(boxes):
        assert axes.bbox.x0 < box.x0 < box.x1 < axes.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert not any(box.contains(*axes.transData.transform((point.cost, point.accuracy))) for point in points)


def test_nothing_to_compare_is_an_empty_plot():
    (axes,) = draw_pareto([Point("gave up", "theirs", np.nan, 0.6)], "", "", "ms", "AUC").axes
    assert (axes.get_xlabel(), len(axes.lines)) == ("ms", 0)


def test_reliability_is_drawn_where_there_are_frames():
    figure = draw_reliability([10, 0, 30, 60], [0.1, 0, 0.6, 0.9], [0.2, 0, 0.5, 0.95], "", "")
    upper, lower = figure.axes
    assert (upper.get_ylabel(), lower.get_xlabel()) == ("share of the frames that were right", "confidence")
    (line,) = (line for line in upper.lines if line.get_label() == "share that was right")
    np.testing.assert_allclose(line.get_data(), [[0.1, 0.6, 0.9], [0.2, 0.5, 0.95]])
    assert [bar.get_height() for bar in lower.patches] == pytest.approx([0.1, 0, 0.3, 0.6])
    assert [bar.get_x() for bar in lower.patches] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert "0.070" in upper.get_title(loc="left")  # 0.1 * 0.1 + 0.3 * 0.1 + 0.6 * 0.05
    assert "0.000" in draw_reliability([0, 0], [0, 0], [0, 0], "", "").axes[0].get_title(loc="left")


@pytest.mark.parametrize(
    ("suffix", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_the_same_figure_gives_the_same_file(tmp_path, suffix, begin):
    first, second = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
    save(a_pareto(), first)
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(a_pareto) for _ in range(4)]
    save(others[-1].result(), second)
    assert first.read_bytes().startswith(begin)
    assert first.read_bytes() == second.read_bytes()
    if begin == b"\x89PNG":
        assert cv2.imread(str(first)).shape == (740, 1132, 3)


def test_the_users_settings_change_nothing_and_are_kept(tmp_path):
    save(a_pareto(), tmp_path / "1.png")
    with rc_context({"font.size": 30, "axes.facecolor": "red"}):
        save(a_pareto(), tmp_path / "2.png")
        assert (rcParams["font.size"], rcParams["axes.facecolor"]) == (30, "red")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_no_window_system_is_touched(tmp_path):
    work = (
        "import pathlib, sys\n"
        "from lighttrack_ros.pictures.figure import save\n"
        "from lighttrack_ros.pictures.pareto import Point, draw_pareto\n"
        f"save(draw_pareto([Point('a', 'b', 1, 0.5)], '', '', '', ''), pathlib.Path({str(tmp_path / 'a.pdf')!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'tkinter' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", work], check=True)


@pytest.mark.parametrize("name", ["plot.bmp", "plot.txt", "plot.jpg", "plot", ".png"])
def test_other_kinds_of_file_are_refused(tmp_path, name):
    with pytest.raises(LightTrackError, match=r"must end in one of \.png, \.svg, \.pdf"):
        check_plot(tmp_path / name)


@pytest.mark.parametrize("name", ["plot.png", "plot.SVG", "new/plot.pdf"])
def test_asking_for_a_plot_leaves_no_file(tmp_path, name):
    check_plot(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_missing_matplotlib_is_said_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("lighttrack_ros.pictures.plot_file.find_spec", lambda name: None)
    with pytest.raises(LightTrackError, match=r"plot.png: drawing it needs matplotlib: pip install 'matplotlib>=3.5'"):
        check_plot(tmp_path / "plot.png")

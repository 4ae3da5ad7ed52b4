"""Latency figures against hand-made runs."""

import subprocess
import sys

import numpy as np
import pytest

from lighttrack_ros.evaluation.latency import PARTS, Run, Sample, added, conclude, cut, over_time
from lighttrack_ros.rig.usage import busy_seconds, usage_of

MS = 1_000_000  # nanoseconds
BEGIN = 1_700_000_000 * 10**9


def a_run(latencies_ms, network_ms=4.0, answered=None, period_ms=100, skipped=0):
    """Frames every 100 ms, a box for each of those `answered` (default: all); memory grows by 1 MB a sample."""
    latencies = np.asarray(latencies_ms, float)
    sent = BEGIN + np.arange(len(latencies)) * period_ms * MS
    chosen = np.arange(len(latencies)) if answered is None else np.asarray(answered)
    stamps = sent[chosen]
    parts = np.tile([2e-3, 5e-4, 3e-4, network_ms / 1e3, 2e-4], (len(chosen), 1))
    samples = [Sample(10 + t, {"node": 3 + 0.25 * t, "others": 1.0 * t}, {"node": (300 + t) * 10**6}) for t in range(5)]
    return Run(sent, stamps, stamps + np.round(latencies[chosen] * MS).astype(np.int64), skipped, parts, samples)


def test_the_figures_of_a_run():
    latencies = [8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 37.0]
    figures = a_run(latencies, answered=[0, 1, 2, 3, 4, 5, 6, 7, 9], skipped=1).figures()
    seen = [8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 37.0]
    assert figures["latency_ms"] == pytest.approx(
        {
            "mean": np.mean(seen), "min": 8, "p50": 12, "p95": np.percentile(seen, 95),
            "p99": np.percentile(seen, 99), "max": 37, "std": np.std(seen),
        }
    )  # fmt: skip
    assert figures["frames"] == {"sent": 10, "received": 9, "missed": 1, "skipped": 1}
    # Boxes come 101 ms apart, but for the last, which is 222 ms behind the one before.
    assert figures["jitter_ms"] == pytest.approx({"mean": 121 / 7, "max": 121, "std": np.std([0] * 6 + [121])})
    assert figures["rate_hz"]["camera"] == pytest.approx(10)
    assert figures["rate_hz"]["boxes"] == pytest.approx(8 / 0.929)
    assert figures["cpu_percent"] == {"node": 25.0, "others": 100.0}
    assert figures["memory_mb"] == {"node": 304.0}


def test_the_parts_of_every_image_add_up_to_its_latency():
    run = a_run([8.0, 9.0, 30.0])
    np.testing.assert_allclose(run.all_parts.sum(axis=1), run.latencies)
    np.testing.assert_allclose(run.all_parts[:, PARTS.index("publish")], [1e-3, 2e-3, 23e-3])
    assert run.figures()["parts_ms"]["network"]["p50"] == pytest.approx(4)
    assert run.figures()["ready_ms"]["max"] == pytest.approx(7)  # however late the observer hears of it
    assert run.step == pytest.approx(4.5e-3)


def test_an_echo_has_no_parts():
    run = a_run([2.0, 2.5, 3.0])
    run.parts[:] = np.nan
    assert "parts_ms" not in run.figures()


@pytest.mark.parametrize(("missed", "keeps_up"), [(0, True), (4, True), (5, False), (50, False)])
def test_a_node_keeps_up_while_less_than_a_twentieth_is_missed(missed, keeps_up):
    assert a_run([5.0] * 100, answered=range(missed, 100)).keeps_up is keeps_up


def test_only_frames_of_the_window_count():
    sent = [BEGIN + index * 10 * MS for index in range(10)]
    boxes = {stamp: (stamp + 5 * MS, 2) for stamp in sent if stamp != sent[4]} | {BEGIN + 1: (BEGIN + 2, 9)}
    run = cut(sent, boxes, {sent[3]: [1, 2, 3, 4, 5]}, [], sent[2], sent[7])
    assert run.sent.tolist() == sent[2:8]
    assert run.stamps.tolist() == [sent[index] for index in (2, 3, 5, 6, 7)]
    assert (run.missed, run.skipped) == (1, 10)
    assert run.latencies.tolist() == [0.005] * 5
    assert run.parts[1].tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(run.parts[[0, 2, 3, 4]]).all()
    nothing = cut(sent, {}, {}, [], sent[2], sent[7])
    assert (nothing.parts.shape, nothing.missed) == ((0, 5), 6)


def test_best_and_worst_of_the_runs_are_dropped_each_figure_by_itself():
    runs = [{"a": {"mean": mean, "max": high}, "b": low} for mean, high, low in zip(
        (1.0, 2.0, 3.0, 100.0), (7.0, 50.0, 8.0, 6.0), (4.0, 4.0, 0.0, 4.0), strict=True)]  # fmt: skip
    assert conclude(runs) == {"a": {"mean": 2.5, "max": 8.0}, "b": 4.0}
    assert conclude(runs[:2]) == {"a": {"mean": 1.5, "max": 50.0}, "b": 4.0}


def test_what_the_node_adds_is_taken_from_runs_side_by_side():
    node = [a_run([8.0] * 5), a_run([18.0] * 5, network_ms=9), a_run([100.0] * 5)]
    echo = [a_run([2.0] * 5), a_run([3.0] * 5), a_run([4.0] * 5)]
    assert added(node, echo) == pytest.approx({"all": 15, "network": 4, "rest": 6})


def test_growth_shows():
    times = over_time(a_run(np.repeat([5.0, 6.0, 7.0, 8.0, 9.0], 10)))
    assert times["latency_p50_ms"] == pytest.approx([5, 6, 7, 8, 9])
    assert times["node_memory_mb"] == pytest.approx([300, 301, 302, 303, 304])


def test_usage_is_that_of_the_process_and_the_others_are_seen_too():
    busy = busy_seconds()
    work = (
        "import mmap, time; block = bytearray(b'1') * (100 << 20)\n"
        "shared = mmap.mmap(-1, 20 << 20)\nshared.write(bytes(20 << 20))\n"
        "while time.process_time() < 0.5: pass\nprint(1); input()"
    )
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        usage = usage_of(process.pid)
        process.communicate(b"\n")
    assert 100 << 20 < usage.resident_bytes < 200 << 20
    assert 20 << 20 <= usage.shared_bytes < 30 << 20
    assert 0.45 < usage.cpu_seconds < 5
    assert busy_seconds() - busy > 0.4
    with pytest.raises(OSError, match="No such"):
        usage_of(2**22 + 1)

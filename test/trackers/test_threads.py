"""How many threads a tracker gets where nobody says: found once, kept, never more than half of the cores."""

from __future__ import annotations

import json

import onnxruntime as ort
import pytest

from lighttrack_ros.models import DEFAULT_MODEL, load_model
from lighttrack_ros.trackers import create_tracker, threads


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """set_up(cores, milliseconds by threads) -> the counts of threads that are tried from now on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def set_up(cores, milliseconds):
        tried = []

        class Made:
            def __init__(self, count):
                tried.append(count)
                self.count = count

            def close(self):
                pass

        monkeypatch.setattr(threads, "usable_cores", lambda: cores)
        monkeypatch.setattr(threads, "_step_seconds", lambda tracker: milliseconds[tracker.count] / 1e3)
        return tried, Made

    return set_up


@pytest.mark.parametrize(
    ("cores", "milliseconds", "expected", "expected_tried"),
    [
        (1, {}, 1, []),
        (2, {}, 1, []),  # half of the cores is one: nothing to measure
        (4, {1: 10, 2: 6}, 2, [1, 2]),
        (4, {1: 10, 2: 9.5}, 1, [1, 2]),
        (16, {1: 10, 2: 6, 4: 4, 8: 3.9}, 4, [1, 2, 4, 8]),
        (16, {1: 10, 2: 9.9}, 1, [1, 2]),  # more would not help either
        (128, {1: 10, 2: 6, 4: 4, 8: 3}, 8, [1, 2, 4, 8]),
    ],
)
def test_the_fewest_that_are_nearly_as_fast(machine, cores, milliseconds, expected, expected_tried):
    tried, make = machine(cores, milliseconds)
    model = load_model(DEFAULT_MODEL)
    assert threads.find_threads(model, "onnxruntime", make) == expected
    assert tried == expected_tried
    assert threads.find_threads(model, "onnxruntime", make) == expected
    assert tried == expected_tried, "measured once"


def test_another_machine_backend_or_broken_file_is_measured_anew(machine, tmp_path):
    model = load_model(DEFAULT_MODEL)
    tried, make = machine(4, {1: 10, 2: 6})
    threads.find_threads(model, "onnxruntime", make)
    threads.find_threads(model, "openvino", make)
    assert tried == [1, 2, 1, 2]
    (one, two) = (tmp_path / "lighttrack_ros/threads").glob("*.json")
    assert {json.loads(file.read_text())["backend"] for file in (one, two)} == {"onnxruntime", "openvino"}
    for file in (one, two):
        file.write_text("{}")
    assert threads.find_threads(model, "onnxruntime", make) == 2
    assert tried == [1, 2] * 3
    tried, make = machine(8, {1: 10, 2: 6, 4: 3})
    assert threads.find_threads(model, "onnxruntime", make) == 4


def test_a_tracker_gets_what_was_found_and_spins_between_operators_only(machine, monkeypatch):
    machine(4, {})
    made = []

    class Options(ort.SessionOptions):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr(ort, "SessionOptions", Options)
    times = iter([0.010, 0.005])
    monkeypatch.setattr(threads, "_step_seconds", lambda _: next(times))
    # ONNX Runtime has a limit of time since 1.26: before, not to spin at all comes nearest.
    cases = (("1.26.0", False, "1", "50"), ("1.25.9", False, "0", None), ("1.26.0", True, "1", None))
    for version, spin, allowed, microseconds in cases:
        made.clear()
        monkeypatch.setattr(ort, "__version__", version)
        create_tracker(load_model(DEFAULT_MODEL), "onnxruntime", spin=spin).close()
        assert made[-1].intra_op_num_threads == 2
        assert made[-1].get_session_config_entry("session.intra_op.allow_spinning") == allowed
        if microseconds is not None:
            assert made[-1].get_session_config_entry("session.intra_op.spin_duration_us") == microseconds
        else:
            with pytest.raises(RuntimeError, match="does not have"):
                made[-1].get_session_config_entry("session.intra_op.spin_duration_us")

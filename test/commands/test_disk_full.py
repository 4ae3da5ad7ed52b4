"""A disk that is full: one line says so, nothing half-written is left, and what was there stays."""

import resource
import shutil
import subprocess
import sys

import pytest

BOX = "163.64,88.99,31.40,26.44"


def run(limit, *arguments, **options):
    """A command whose files can have so many bytes."""

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "lighttrack_ros", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=full, **options)


def failed_in_one_line(done):
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("lighttrack ")


@pytest.mark.parametrize(
    ("limit", "outputs"),
    [(3_000, ["o.mp4"]), (3_000, ["o.avi"]), (200, ["o.json"])],
    ids=["mp4", "avi", "json"],
)
def test_the_earlier_result_stays(shared, tmp_path, limit, outputs):
    (tmp_path / outputs[0]).write_text("of the day before")
    option = "--json" if outputs[0].endswith("json") else "--out"
    clip = shared / "cases/base_clip.mp4"
    done = run(limit, "track", clip, "--box", BOX, "--frames", "20", option, tmp_path / outputs[0])
    failed_in_one_line(done)
    assert outputs[0] in done.stderr
    assert (tmp_path / outputs[0]).read_text() == "of the day before"
    assert [path.name for path in tmp_path.iterdir()] == outputs


@pytest.mark.parametrize("options", [[], ["--bag"]], ids=["folder", "bag"])
def test_a_scene(tmp_path, options):
    if options:
        pytest.importorskip("rosbags", reason="needs the extra [bags]")
    done = run(30_000, "scene", tmp_path / "scene", "--first", "5", *options)
    failed_in_one_line(done)
    assert not list(tmp_path.glob(".*"))


def test_an_import_leaves_no_half_a_model(shared, tmp_path):
    pytest.importorskip("torch", reason="needs torch to import a checkpoint")
    weights = shared / "models/LightTrackM.safetensors"
    done = run(1_000_000, "import", weights, "--name", "mobile", "--output", tmp_path / "engines")
    failed_in_one_line(done)
    assert list((tmp_path / "engines").iterdir()) == []


def test_the_measured_threads_cannot_be_kept(tmp_path, model, monkeypatch):
    """A cache that is full costs only the time to measure again."""
    from lighttrack_ros.models import load_model
    from lighttrack_ros.trackers import threads

    class Made:
        def close(self):
            pass

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads, "_step_seconds", lambda _: 0.01)
    monkeypatch.setattr(shutil.os, "replace", full)
    assert threads.find_threads(load_model(str(model)), "onnxruntime", lambda _: Made()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

"""Fixtures that more than one test file needs."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from node_harness import Clip, Tracker, World


def pytest_configure() -> None:
    with contextlib.suppress(ImportError):
        from hypothesis import HealthCheck, settings

        # The same examples in every run, and none that fails for its time.
        slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
        settings.register_profile("ours", deadline=None, derandomize=True, database=None, suppress_health_check=slow)
        settings.load_profile("ours")
    # A shell starts background jobs with SIGINT ignored, which children inherit; tests and their processes are sent it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of sequences, golden outputs and weights beside the checkout; tests that need it skip without."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs {folder} (sequences, golden outputs, published weights)")
    return folder


@pytest.fixture(scope="session")
def mobile(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder of LightTrack-Mobile, imported from the published weights."""
    importer = pytest.importorskip("lighttrack_ros.export.importer", reason="needs torch to import a checkpoint")
    place = tmp_path_factory.mktemp("engines")
    weights = shared / "models/LightTrackM.safetensors"
    return importer.import_checkpoint(weights, "lighttrack_mobile", None, place, "../shared", "MIT")


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest) -> Path:
    """A model folder: the project's default one, else LightTrack-Mobile from the published weights."""
    from lighttrack_ros.errors import LightTrackError
    from lighttrack_ros.models import DEFAULT_MODEL, find_model

    try:
        return find_model(DEFAULT_MODEL).resolve()
    except LightTrackError:
        mobile: Path = request.getfixturevalue("mobile")
        return mobile


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A ROS domain of this test run's own."""
    from node_harness import World

    world = World()
    yield world
    world.close()


@pytest.fixture(scope="session")
def clip() -> Clip:
    """A short clip that is easy to follow."""
    from node_harness import Clip

    return Clip()


@pytest.fixture
def start(world: World, model: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Tracker]]:
    """Starts a node of this test's own: start(parameter=value, ...); `camera` is what the camera offers."""
    from node_harness import NodeProcess, Tracker, node_command

    trackers: list[Tracker] = []

    def start(camera: str = "reliable", **parameters: object) -> Tracker:
        namespace = f"test{abs(hash(request.node.name)) % 10**8}_{len(trackers)}"
        # One thread, as two that spin for each other are slow where others work too.
        parameters = {"model": model, "threads": 1, "diagnostics_period": 0.1, **parameters}
        process = NodeProcess(node_command(namespace, **parameters))
        trackers.append(Tracker(world, namespace, process, parameters.get("image_transport", "raw"), camera))
        trackers[-1].matches_camera = parameters.get("reliability", "auto") == "auto"
        return trackers[-1]

    yield start
    for tracker in trackers:
        tracker.close()


# What a machine with an apt ROS may lack: the files that need one of these are skipped there, not failed.
_EXTRAS = {
    "torch",
    "onnx",
    "lightning",
    "lightning_fabric",
    "safetensors",
    "openvino",
    "rosbags",
    "matplotlib",
    "hypothesis",
}


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    missing = re.search(r"No module named '(\w+)", str(report.longrepr)) if report.failed else None
    if missing and missing[1] in _EXTRAS:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: needs {missing[1]}")

"""Fixtures that more than one test file needs."""

from pathlib import Path

import pytest


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
    importer = pytest.importorskip("lighttrack_ros.networks.importer", reason="needs torch to import a checkpoint")
    place = tmp_path_factory.mktemp("engines")
    weights = shared / "models/LightTrackM.safetensors"
    return importer.import_checkpoint(weights, "lighttrack_mobile", None, place, "../shared", "MIT")

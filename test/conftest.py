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

"""Which of several installations a file is taken from."""

import sys
from pathlib import Path

import pytest

from lighttrack_ros import user_folders


@pytest.mark.parametrize("modules", ["lib/python3.11/site-packages", "local/lib/python3.10/dist-packages"])
def test_code_of_a_workspace_takes_its_own_files_before_those_of_an_older_installation(tmp_path, monkeypatch, modules):
    code = tmp_path / "workspace" / modules / "lighttrack_ros/user_folders.py"
    monkeypatch.setattr(user_folders, "__file__", str(code))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}/ros:{tmp_path}/workspace:")
    for prefix in ("venv", "ros", "workspace"):
        (tmp_path / prefix / "share/lighttrack_ros/config").mkdir(parents=True)
    found = [folder for folder in user_folders.package_folders("config") if folder.is_dir()]
    assert [folder.relative_to(tmp_path).parts[0] for folder in found] == ["workspace", "venv", "ros"]


def test_a_checkout_takes_its_own():
    checkout = Path(user_folders.__file__).resolve().parents[1]
    assert user_folders.package_folders("config")[0] == checkout / "config"

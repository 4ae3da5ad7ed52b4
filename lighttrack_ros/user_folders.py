"""Where a user's own files are kept; also for one without a home directory, as in many containers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def data_folder() -> Path:
    """For what must stay."""
    return _folder("XDG_DATA_HOME", ".local/share")


def cache_folder() -> Path:
    """For what can be made anew."""
    return _folder("XDG_CACHE_HOME", ".cache")


def ros_log_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What to add to the environment of a ROS process: without a home it does not start unless told where to log."""
    if any(environment.get(name) for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR")):
        return {}
    return {"ROS_LOG_DIR": str(cache_folder() / "log")}


def _folder(variable: str, below_home: str) -> Path:
    if given := os.environ.get(variable):
        return Path(given) / "lighttrack_ros"
    try:
        return Path.home() / below_home / "lighttrack_ros"
    except RuntimeError:  # HOME is unset, and the user's number is in no list
        return Path(tempfile.gettempdir()) / f"lighttrack_ros-{os.getuid()}"

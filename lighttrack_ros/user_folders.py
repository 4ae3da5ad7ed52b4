"""Where files are: a user's own, also for one without a home directory as in many containers; and this package's."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


def data_folder() -> Path:
    """For what must stay."""
    return _folder("XDG_DATA_HOME", ".local/share")


def cache_folder() -> Path:
    """For what can be made anew."""
    return _folder("XDG_CACHE_HOME", ".cache")


def package_folders(name: str) -> list[Path]:
    """Where a folder of this package may be, such as `config`: the one that belongs to this code comes first.

    That is beside it in a checkout, or under the prefix that it was installed into, e.g. a workspace over an older
    installation. Then come the prefixes of Python and of ROS.
    """
    package = Path(__file__).resolve().parent
    # Of PREFIX/lib/python3.x/site-packages/lighttrack_ros and PREFIX/local/lib/python3.x/dist-packages/lighttrack_ros.
    own = package.parents[3:5]
    others = [sys.prefix, *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    prefixes = [*own, *(Path(prefix) for prefix in others if prefix)]
    installed = [prefix / "share/lighttrack_ros" / name for prefix in prefixes]
    return list(dict.fromkeys([package.parent / name, *installed]))


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

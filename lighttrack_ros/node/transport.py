"""What makes raw images arrive: room in Fast DDS's shared memory, and a malloc that keeps big buffers.

Figures are in docs/node.md. With another RMW than Fast DDS the settings do nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lighttrack_ros.user_folders import package_folders, ros_log_environment

# glibc gives buffers over its threshold back to the kernel at once, and takes page faults for every image.
_MALLOC = {"MMAP_THRESHOLD": (-3, 32 << 20), "TRIM_THRESHOLD": (-1, 256 << 20), "TOP_PAD": (-2, 16 << 20)}

# Somebody who set one of these has chosen already.
_CHOICES = (
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
    "ROS_DISCOVERY_SERVER",
)


_SHARED_MEMORY = 128 << 20  # bytes: the camera's segment, the tracker's, and small ones of others

CAMERA_PROFILE, TRACKER_PROFILE = "fastdds_shm.xml", "fastdds_tracker.xml"


def transport_environment(environment: Mapping[str, str] = os.environ, profile: str = CAMERA_PROFILE) -> dict[str, str]:
    """Variables to add to the environment of a process that sends or receives images, in any language.

    Args:
        environment: what the process would have otherwise; a Fast DDS set-up in it is left alone, unless it is
            the camera's profile, which a shell or a launch file has for all that it starts.
        profile: a file of config/; a process that only receives needs less shared memory of its own.
    """
    added = {f"MALLOC_{name}_": str(value) for name, (_, value) in _MALLOC.items()} | ros_log_environment(environment)
    path = fastdds_profile(profile)
    chosen = {Path(environment[name]).resolve() for name in _CHOICES if environment.get(name)}
    if path is not None and chosen <= {fastdds_profile(CAMERA_PROFILE)}:
        added.update({name: str(path) for name in _profile_variables(environment)})
    return added


def fastdds_profile(name: str) -> Path | None:
    """A profile shipped with this package, wherever it was installed."""
    candidates = [folder / name for folder in package_folders("config")]
    return next((path.resolve() for path in candidates if path.is_file()), None)


def little_shared_memory(folder: str = "/dev/shm") -> str:
    """A warning where the segments of camera and tracker do not fit into shared memory; empty where they do.

    Fast DDS then takes UDP without a word, and most raw images are lost.
    """
    with contextlib.suppress(OSError):
        status = os.statvfs(folder)
        size = status.f_frsize * status.f_blocks
        if size < _SHARED_MEMORY:
            return (
                f"{folder} holds {size / 1e6:.0f} MB, too little for raw images through shared memory: start the "
                "container with --shm-size=512m (Docker gives 64 MB) or with --ipc=host; see docs/node.md"
            )
    return ""


def tune_malloc() -> None:
    """Keep image buffers in this process's heap; call before rclpy.init. Only glibc can, elsewhere nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOC.values():
            mallopt(option, value)


def _profile_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Fast DDS 3 (Kilted) warns of the old name, Fast DDS 2 (Humble, Jazzy) knows no other."""
    prefixes = [Path(prefix) for prefix in (sys.prefix, *environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep))]
    if any((prefix / "share" / "fastdds").is_dir() for prefix in prefixes):
        return ("FASTDDS_DEFAULT_PROFILES_FILE",)
    return ("FASTRTPS_DEFAULT_PROFILES_FILE",)

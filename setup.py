"""Build the ROS 2 package with CMake and put what it installs into a wheel.

`pip install --no-build-isolation .` in an environment that holds ROS 2 (the `ros-*` wheels or a
sourced apt installation) gives the same files as `cmake --install`, and pip can remove them again.
colcon ignores this file: the build type in package.xml is ament_cmake.
"""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
NAME = "lighttrack_ros"
VERSION = ET.parse(HERE / "package.xml").getroot().findtext("version")


def ros_prefixes():
    """Prefixes to look for ROS packages in: the sourced ones, then this Python's."""
    found = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    for entry in [sys.prefix, *sys.path]:
        path = Path(entry or ".").resolve()
        for prefix in (path, *path.parents):
            if (prefix / "share" / "rosidl_default_generators").is_dir():
                found.append(str(prefix))
                break
    prefixes = list(dict.fromkeys(prefix for prefix in found if prefix))
    if not any((Path(prefix) / "share" / "rosidl_default_generators").is_dir() for prefix in prefixes):
        raise SystemExit(
            "lighttrack_ros: no ROS 2 found, its message generators are needed to build. Either source one "
            "(`. /opt/ros/<distro>/setup.sh`) and run pip with --no-build-isolation, or let pip install the "
            "ROS wheels (x86_64 only), or run `make` in a checkout, which does that for you."
        )
    return prefixes


class CMakeBuild(build_py):
    """Run the CMake build, split its install tree into modules and data files."""

    def run(self):
        build = HERE / self.get_finalized_command("build").build_temp / "cmake"
        stage = build / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        env = dict(os.environ)
        env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = os.pathsep.join(ros_prefixes())
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        for command in (
            [
                "cmake", "-S", str(HERE), "-B", str(build), *generator,
                "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF",
                f"-DPython3_EXECUTABLE={sys.executable}", f"-DCMAKE_INSTALL_PREFIX={stage}",
            ],
            ["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)],
            ["cmake", "--install", str(build)],
        ):  # fmt: skip
            subprocess.run(command, check=True, env=env)
        modules = next(stage.glob(f"**/*-packages/{NAME}"))
        target = Path(self.build_lib) / NAME
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(modules, target, ignore=shutil.ignore_patterns("__pycache__"))
        data = {}
        for path in stage.rglob("*"):
            inside = path.relative_to(stage)
            if path.is_file() and modules.parent not in path.parents and inside.parts[0] in ("include", "lib", "share"):
                data.setdefault(str(inside.parent), []).append(str(path))
        self.distribution.data_files = sorted(data.items())


class BinaryDistribution(Distribution):
    """A wheel for one Python and one platform: the messages hold C extensions."""

    def has_ext_modules(self):
        return True


setup(
    version=VERSION,
    packages=[NAME],
    cmdclass={"build_py": CMakeBuild},
    distclass=BinaryDistribution,
    zip_safe=False,
)

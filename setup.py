"""Install the Python package, and where a ROS 2 is at hand the node with its messages.

With ROS 2's message generators (a sourced apt installation or the `ros-*` wheels, with --no-build-isolation; or the
wheels that pip brings for the build on x86_64 Linux) the ROS 2 package is built with CMake: the wheel has the same
files as `cmake --install`, and pip can remove them again. Without them all but the messages is installed: `lighttrack
track`, `evaluate` and the rest work, and the node says what is missing.
colcon ignores this file: the build type in package.xml is ament_cmake.
"""

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ET
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
NAME = "lighttrack_ros"
GENERATORS = "share/rosidl_default_generators"
VERSION = ET.parse(HERE / "package.xml").getroot().findtext("version")


def ros_prefixes():
    """Prefixes that hold ROS's message generators: the sourced ones, then this Python's; empty without any."""
    found = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    for entry in [sys.prefix, *sys.path]:
        path = Path(entry or ".").resolve()
        for prefix in (path, *path.parents):
            if (prefix / GENERATORS).is_dir():
                found.append(str(prefix))
                break
    prefixes = list(dict.fromkeys(prefix for prefix in found if prefix))
    return prefixes if any((Path(prefix) / GENERATORS).is_dir() for prefix in prefixes) else []


@functools.cache
def builds_messages():
    """Whether they are built. Where somebody has a ROS to use them with, what is missing for that is an error."""
    missing = [name for name in ("cmake", "make", "c++") if not shutil.which(name)]
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing.append("Python.h (python3-dev)")
    if not ros_prefixes():
        missing.append("ROS 2's message generators (rosidl_default_generators)")
    if not missing:
        return True
    words = f"lighttrack_ros: its messages cannot be built, missing are {', '.join(missing)}"
    if os.environ.get("AMENT_PREFIX_PATH") or (Path(sys.prefix) / GENERATORS).is_dir():
        raise SystemExit(words + "; with a sourced ROS 2 pip needs --no-build-isolation")
    print(words + ": installing all but the node")
    return False


class Build(build_py):
    """The modules, and beside them what a ROS 2 package has under share/."""

    def run(self):
        target = Path(self.build_lib) / NAME
        shutil.rmtree(target, ignore_errors=True)
        if builds_messages():
            self.run_cmake(target)
            return
        shutil.copytree(HERE / NAME, target, ignore=shutil.ignore_patterns("__pycache__"))
        data = {}
        for name in ("launch", "config", "engines"):
            for path in (HERE / name).rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    folder = Path("share") / NAME / path.parent.relative_to(HERE)
                    data.setdefault(str(folder), []).append(str(path))
        self.distribution.data_files = sorted(data.items())

    def run_cmake(self, target):
        """Build the ROS 2 package, split its install tree into modules and data files."""
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
        shutil.copytree(modules, target, ignore=shutil.ignore_patterns("__pycache__"))
        data = {}
        for path in stage.rglob("*"):
            inside = path.relative_to(stage)
            if path.is_file() and modules.parent not in path.parents and inside.parts[0] in ("include", "lib", "share"):
                data.setdefault(str(inside.parent), []).append(str(path))
        self.distribution.data_files = sorted(data.items())


class BinaryDistribution(Distribution):
    """With messages a wheel for one Python and one platform: they hold C extensions."""

    def has_ext_modules(self):
        return builds_messages()


setup(
    version=VERSION,
    packages=[NAME],
    cmdclass={"build_py": Build},
    distclass=BinaryDistribution,
    zip_safe=False,
)

#!/bin/sh
# Is everything here that pip cannot bring? Says in one go what is missing and the line that installs it.
# Usage: check_system.sh PYTHON
python=${1:-python3}
missing=""

want() { # want APT_PACKAGE TEST...
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    echo "lighttrack_ros: '$python' is $("$python" --version 2>&1 || echo absent); Python 3.10 to 3.13 is needed." >&2
    echo "  sudo apt install python3    or    make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
fi
if [ "$(uname -m)" != x86_64 ]; then
    echo "lighttrack_ros: ROS 2 has no PyPI wheels for $(uname -m), so \`make\` cannot set it up here." >&2
    echo "  Build the package with colcon on an apt ROS 2 or in a ROS container: see README.md, \"On a robot\"." >&2
    exit 1
fi
want python3-venv "$python" -c 'import ensurepip, venv'
want python3-dev "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
want g++ c++ --version
want cmake cmake --version
want make make --version
if [ -n "$missing" ]; then
    echo "lighttrack_ros: missing on this machine:$missing" >&2
    echo "  sudo apt install$missing" >&2
    exit 1
fi

"""The node's process on a GPU that is not there (gpu_double.py), whose compilations last for ever."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gpu_double

from lighttrack_ros.node.__main__ import main

gpu_double.BUILD_STEPS = 10**9
gpu = gpu_double.Gpu()
gpu.on_build_step = lambda step: time.sleep(0.05)
with gpu_double.installed(gpu):  # fails at its end if anything is left
    status = main()
print("nothing is left on the GPU")
sys.exit(status)

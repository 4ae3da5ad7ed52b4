"""Compiled networks: one `Engine` protocol, one file a backend."""

from lighttrack_ros.runtime.engine import WARM_UP_RUNS, Engine, TensorSpec, warm_up
from lighttrack_ros.runtime.load import BACKENDS, Backend, load_engine

__all__ = ["BACKENDS", "WARM_UP_RUNS", "Backend", "Engine", "TensorSpec", "load_engine", "warm_up"]

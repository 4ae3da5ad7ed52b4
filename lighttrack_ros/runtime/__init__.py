"""Compiled networks: one `Engine` protocol, one file a backend."""

from lighttrack_ros.runtime.engine import BACKENDS, WARM_UP_RUNS, Engine, TensorSpec, load_engine

__all__ = ["BACKENDS", "WARM_UP_RUNS", "Engine", "TensorSpec", "load_engine"]

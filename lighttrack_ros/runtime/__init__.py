"""Compiled networks: one `Engine` protocol, one file a backend."""

from lighttrack_ros.runtime.engine import BACKENDS, Engine, TensorSpec, load_engine

__all__ = ["BACKENDS", "Engine", "TensorSpec", "load_engine"]

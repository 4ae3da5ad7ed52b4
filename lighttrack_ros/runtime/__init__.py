"""Compiled networks: one `Engine` protocol, one file a backend."""

from lighttrack_ros.runtime.engine import Engine, TensorSpec, load_engine

__all__ = ["Engine", "TensorSpec", "load_engine"]

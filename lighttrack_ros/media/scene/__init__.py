"""A generated drone's view with exact ground truth: the demo's scene, the benchmark's camera, training data."""

from lighttrack_ros.media.scene.scene import DEFAULT_SEED, DURATION, HIDDEN, Scene, SceneFrame

__all__ = ["DEFAULT_SEED", "DURATION", "HIDDEN", "Scene", "SceneFrame"]

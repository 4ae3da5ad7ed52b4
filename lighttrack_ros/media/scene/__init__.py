"""Generated drone video with exact ground truth, for the demo, the latency benchmark and training."""

from lighttrack_ros.media.scene.pursuit import Pursuit
from lighttrack_ros.media.scene.scene import DEFAULT_SEED, DURATION, HIDDEN, Scene, SceneFrame

__all__ = ["DEFAULT_SEED", "DURATION", "HIDDEN", "Pursuit", "Scene", "SceneFrame"]

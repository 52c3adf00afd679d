"""Physics: one scene, many worlds, on CPU threads (`mujoco.rollout`) or on a GPU (`mujoco_warp`)."""

from metarl.envs.physics.engine import Physics, SensorTime, make_physics
from metarl.envs.physics.scene import Scene, SceneBuilder

__all__ = ["Physics", "Scene", "SceneBuilder", "SensorTime", "make_physics"]

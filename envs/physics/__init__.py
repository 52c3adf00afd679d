"""Physics: one scene, many worlds, on CPU threads (`mjbatch`) or on a GPU (`mujoco_warp`)."""

from metarl.envs.physics.engine import Physics, SensorTime, make_physics
from metarl.envs.physics.env import PhysicsEnv, RawStep
from metarl.envs.physics.scene import Scene, SceneBuilder
from metarl.envs.physics.selection import Selection

__all__ = ["Physics", "PhysicsEnv", "RawStep", "Scene", "SceneBuilder", "Selection", "SensorTime", "make_physics"]

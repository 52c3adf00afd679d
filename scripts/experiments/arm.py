"""A robot family of one's own: an arm holds a load at a place that it is not told, of a mass that it is not told."""

import mujoco
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from metarl.envs.locomotion.family import LocomotionDistribution
from metarl.envs.locomotion.robot import Reading, Robot
from metarl.envs.physics.fields import scale_body
from metarl.tasks import Tasks

MJCF = """
<mujoco model="arm">
  <option timestep="0.01" integrator="implicitfast"/>
  <default><geom contype="0" conaffinity="0"/><position kp="80" ctrlrange="-1.5 1.5"/></default>
  <worldbody>
    <light pos="0 -2 3"/>
    <body name="upper"><joint name="shoulder" axis="0 -1 0"/><geom type="capsule" fromto="0 0 0 .5 0 0" size=".04"/>
      <body name="lower" pos=".5 0 0"><joint name="elbow" axis="0 -1 0"/>
        <geom type="capsule" fromto="0 0 0 .5 0 0" size=".03"/>
        <body name="load" pos=".5 0 0"><geom name="load" size=".06" mass="1"/></body></body></body>
  </worldbody>
  <actuator><position joint="shoulder"/><position joint="elbow"/></actuator>
  <sensor><framepos name="hand" objtype="geom" objname="load"/></sensor>
</mujoco>
"""


class Arm(Robot):
    """Observation `[4]`: angles (rad) of shoulder and elbow, and their velocities. Action `[2]`: the angles wanted."""

    mjcf = MJCF
    frames = 4  # simulated steps of 10 ms in one step of the environment
    noise = 0.05  # rad, of the angles at the start

    def position(self, reading: Reading) -> Tensor:
        """The hand's place in the vertical plane (m)."""
        return self.scene.read(reading.sensordata, "hand")[:, 0, ::2]


class ArmTasks(LocomotionDistribution):
    """reward = −|hand − target|. Task parameters: `target` (m), `mass` of the load (kg), `friction` (N·m·s)."""

    def __init__(self, horizon: int = 50):
        limits = {"target": (-1.0, 1.0, (2,)), "mass": (0.0, 10.0, ()), "friction": (0.0, 50.0, ())}
        space = {name: Box(*limit, np.float32) for name, limit in limits.items()}
        super().__init__("Arm-v0", Arm(), space, horizon)

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        angle, radius, mass, friction = torch.rand(4, num_tasks, generator=generator)
        way = torch.stack([(2 * angle - 1).cos(), (2 * angle - 1).sin()], dim=-1)
        return {"target": (0.5 + 0.45 * radius)[:, None] * way, "mass": 0.2 + 2 * mass, "friction": 2 + 10 * friction}

    @staticmethod
    def progress(velocity: Tensor, position: Tensor, task: Tasks) -> Tensor:
        return -(position - task.parameters["target"]).norm(dim=-1)

    @staticmethod
    def model_fields(model: mujoco.MjModel, tasks: Tasks) -> dict[str, Tensor]:
        load = scale_body(model, "load", tasks.parameters["mass"] / model.body("load").mass.item())
        return load | {"dof_damping": tasks.parameters["friction"].double()[:, None].repeat(1, model.nv)}

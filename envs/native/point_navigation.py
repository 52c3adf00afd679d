"""A point that walks to a goal it is not shown: dense (Finn et al. 2017, MAML, section 5.3) and sparse rewards."""

import math

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from metarl.envs.native.base import NativeDistribution, State
from metarl.errors import UsageError
from metarl.parsing import is_number
from metarl.randomness import EnvStreams
from metarl.tasks import Tasks, check_count

PICTURE_SIZE = 256
STEP_SIZE = 0.1


class PointNavigation(NativeDistribution):
    """A point in the plane, rewarded for being near its goal.

    It starts at the origin. Observation: its position `[2]`. Action: a step `[2]`, each component clipped to ±0.1.
    Reward: minus the squared distance to the goal after the step. The episode terminates within 0.01 of the goal and is
    truncated after `horizon` steps. Task parameter: `goal` `[2]`, uniform in [-0.5, 0.5]².

    >>> metarl.make("PointNavigation-v0").task(goal=[0.3, 0.1])
    """

    goal_radius = 0.01
    extent = 0.75  # half the width of the drawn square

    def __init__(self, horizon: int = 100):
        check_count("horizon", horizon)
        self.id = "PointNavigation-v0"
        self.horizon = horizon
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-STEP_SIZE, STEP_SIZE, (2,), np.float32)
        self.task_space = {"goal": Box(-0.5, 0.5, (2,), np.float32)}

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        return {"goal": torch.rand(num_tasks, 2, generator=generator) - 0.5}

    def initial_state(self, streams: EnvStreams, task: Tasks) -> State:
        return {"position": torch.zeros(len(task), 2, device=streams.state.device)}

    def transition(
        self, state: State, action: Float[Tensor, "B 2"], streams: EnvStreams, task: Tasks
    ) -> tuple[State, Float[Tensor, "B"], Bool[Tensor, "B"]]:
        position = state["position"] + action.float().clamp(-STEP_SIZE, STEP_SIZE)
        state = {"position": position}
        distance = self._distance(state, task)
        return state, self.reward(distance), self.terminated(distance)

    def reward(self, distance: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        return -distance.square()

    def terminated(self, distance: Float[Tensor, "B"]) -> Bool[Tensor, "B"]:
        return distance <= self.goal_radius

    def observe(self, state: State) -> Float[Tensor, "B 2"]:
        return state["position"]

    def _distance(self, state: State, task: Tasks) -> Float[Tensor, "B"]:
        return torch.linalg.vector_norm(state["position"] - task.parameters["goal"], dim=-1)

    def draw(self, state: State, task: Tasks, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """The point (blue), its start (grey) and its goal (red) in the plane, `[256, 256, 3]`."""
        ticks = np.linspace(-self.extent, self.extent, PICTURE_SIZE)
        plane = np.stack(np.meshgrid(ticks, -ticks), axis=-1)
        picture = np.full((PICTURE_SIZE, PICTURE_SIZE, 3), 255, np.uint8)
        dot = 0.03 * self.extent
        goal = task.parameters["goal"][index].cpu().numpy()
        position = state["position"][index].cpu().numpy()
        discs = [
            (goal, self.goal_radius, (250, 215, 215)),
            (np.zeros(2), 0.6 * dot, (150, 150, 150)),
            (goal, dot, (200, 40, 40)),
            (position, dot, (30, 80, 200)),
        ]
        for centre, radius, colour in discs:
            picture[np.linalg.norm(plane - centre, axis=-1) <= radius] = colour
        return picture


class SparsePointNavigation(PointNavigation):
    """A point that is rewarded only close to its goal (Rakelly et al. 2019, PEARL, section 6.3).

    Start, observation and action are those of `PointNavigation`. The goal lies on the upper half of the unit circle.
    Reward: 1 minus the distance inside `goal_radius`, 0 outside; nothing terminates the episode. `info["success"]`:
    inside. `info["dense_reward"]`: minus the distance. Task parameter: `goal` `[2]`. Deviation: goals elsewhere inside
    the half disc are accepted as tasks, too.

    >>> metarl.make("SparsePointNavigation-v0", goal_radius=0.3)
    """

    extent = 1.4
    has_success = True
    has_dense_reward = True

    def __init__(self, horizon: int = 20, goal_radius: float = 0.2):
        super().__init__(horizon)
        if not is_number(goal_radius) or not 0 < goal_radius <= 1:
            raise UsageError(f"goal_radius must be a number above 0 and at most 1, got {goal_radius!r}")
        self.id = "SparsePointNavigation-v0"
        self.goal_radius = goal_radius
        self.task_space = {"goal": Box(np.array([-1, 0], np.float32), np.array([1, 1], np.float32))}

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        angle = math.pi * torch.rand(num_tasks, generator=generator)
        goal = torch.stack([angle.cos(), angle.sin()], dim=-1)
        return {"goal": goal.clamp(-1, 1)}

    def reward(self, distance: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        return torch.where(distance <= self.goal_radius, 1 - distance, 0.0)

    def terminated(self, distance: Float[Tensor, "B"]) -> Bool[Tensor, "B"]:
        return torch.zeros_like(distance, dtype=torch.bool)

    def success(self, state: State, task: Tasks) -> Bool[Tensor, "B"]:
        return self._distance(state, task) <= self.goal_radius

    def dense_reward(self, state: State, task: Tasks) -> Float[Tensor, "B"]:
        return -self._distance(state, task)

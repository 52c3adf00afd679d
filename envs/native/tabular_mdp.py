"""Random tabular Markov decision processes (Duan et al. 2016, RL², section 3.2, after Osband et al. 2013)."""

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.native.base import NativeDistribution, State
from metarl.errors import UsageError
from metarl.randomness import EnvStreams
from metarl.tasks import Tasks, check_count


class TabularMDP(NativeDistribution):
    """Markov decision processes with finitely many states and Gaussian rewards.

    An episode starts in state 0 and lasts `horizon` steps. Action: one of `actions`. Reward: normal with unit variance
    around the mean of (state, action). Observation: the state, one-hot `[states]`. Task parameters: `transitions`
    `[states, actions, states]`, each row from a flat Dirichlet distribution, and `reward_means` `[states, actions]`
    from N(1, 1).

    >>> metarl.make("TabularMDP-v0", states=10, actions=5)
    """

    def __init__(self, states: int = 10, actions: int = 5, horizon: int = 10):
        for name, count in (("states", states), ("actions", actions), ("horizon", horizon)):
            check_count(name, count)
        self.id = "TabularMDP-v0"
        self.states = states
        self.actions = actions
        self.horizon = horizon
        self.observation_space = Box(0.0, 1.0, (states,), np.float32)
        self.action_space = Discrete(actions)
        self.task_space = {
            "transitions": Box(0.0, 1.0, (states, actions, states), np.float32),
            "reward_means": Box(-np.inf, np.inf, (states, actions), np.float32),
        }

    def validate(self, tasks: Tasks) -> None:
        super().validate(tasks)
        totals = tasks.parameters["transitions"].sum(-1)
        if bool(((totals - 1).abs() > 1e-4).any()):
            raise UsageError("task parameter 'transitions': each row [state, action] must sum to 1")

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        # A flat Dirichlet is a vector of exponential variables over their sum.
        shape = (num_tasks, self.states, self.actions, self.states)
        waits = torch.empty(shape).exponential_(generator=generator)
        means = 1 + torch.randn(shape[:3], generator=generator)
        return {"transitions": waits / waits.sum(-1, keepdim=True), "reward_means": means}

    def initial_state(self, streams: EnvStreams, task: Tasks) -> State:
        return {"state": torch.zeros(len(task), dtype=torch.int64, device=streams.state.device)}

    def transition(
        self, state: State, action: Int[Tensor, "B"], streams: EnvStreams, task: Tasks
    ) -> tuple[State, Float[Tensor, "B"], Bool[Tensor, "B"]]:
        environment = torch.arange(len(action), device=action.device)
        current, action = state["state"], action.long()
        cumulative = task.parameters["transitions"][environment, current, action].cumsum(-1)
        # Rounding can leave the last entry below 1: clamp so that the draw never falls off the end.
        following = (streams.uniform(1) >= cumulative).sum(-1).clamp(max=self.states - 1)
        reward = task.parameters["reward_means"][environment, current, action] + streams.normal()
        return {"state": following}, reward, torch.zeros_like(reward, dtype=torch.bool)

    def observe(self, state: State) -> Float[Tensor, "B D"]:
        return torch.nn.functional.one_hot(state["state"], self.states).float()

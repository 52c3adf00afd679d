"""A real learner in few lines, for tests: evolution strategies (Salimans et al. 2017) on a linear policy, with Adam."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.agent import Agent, AgentConfig
from metarl.randomness import make_generator
from metarl.rollout import Policy, PolicyStep, collect, standardize


@dataclass(frozen=True)
class HillClimberConfig(AgentConfig):
    """Options of the hill climber."""

    num_tasks: int = 4
    envs_per_task: int = 8
    lr: float = 0.05
    """Adam's step size."""
    noise: float = 0.1
    layers: tuple[int, ...] = ()
    pause: float = 0.0
    """Seconds to wait in each iteration, so that a test can stop one."""


class LinearPolicy(Policy):
    """One weight matrix per environment of a task: `[N, A, D + 1]`."""

    def __init__(self, weights: Tensor):
        self.weights = weights

    def act(self, observations: Tensor) -> PolicyStep:
        padded = torch.cat([observations, torch.ones_like(observations[..., :1])], dim=-1)
        return PolicyStep(torch.einsum("nad,mnd->mna", self.weights, padded))


class HillClimber(Agent):
    config_class = HillClimberConfig

    def __init__(self, config, spec, *, device="cpu", seed=0, ranks=None):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        shape = (spec.action_space.shape[0], spec.observation_space.shape[0] + 1)
        self.weights = (0.01 * torch.randn(shape, generator=make_generator("init", seed))).requires_grad_()
        self.optimizer = torch.optim.Adam([self.weights], lr=config.lr)

    def improve(self, env, *, seed):
        time.sleep(self.config.pause)
        half = torch.randn(env.envs_per_task // 2, *self.weights.shape, generator=make_generator("noise", seed))
        noise = torch.cat([half, -half])
        policy = LinearPolicy(self.weights.detach() + self.config.noise * noise)
        returns = collect(env, policy, self.spec.horizon, seed=seed).episode_returns()
        self.weights.grad = -(standardize(returns.mean(0))[:, None, None] * noise).mean(0)
        self.optimizer.step()
        steps = self.spec.horizon * env.num_envs
        return {"env_steps": steps, "return_mean": float(returns.mean()), "undefined": float("nan")}

    def adapt(self, env, episodes, *, seed=0, policy=None):
        return LinearPolicy(self.weights.detach().expand(env.envs_per_task, -1, -1).clone())

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        moments = {
            name: value.clone() for name, value in self.optimizer.state.get(self.weights, {}).items() if name != "step"
        }
        steps = float(self.optimizer.state.get(self.weights, {}).get("step", 0.0))
        return {"weights": self.weights.detach().clone(), **moments}, {"step": steps}

    def load_state(self, tensors, values):
        with torch.no_grad():
            self.weights.copy_(tensors["weights"])
        moments = {name: tensors[name].clone() for name in ("exp_avg", "exp_avg_sq") if name in tensors}
        if moments:
            self.optimizer.state[self.weights] = {"step": torch.tensor(values["step"]), **moments}

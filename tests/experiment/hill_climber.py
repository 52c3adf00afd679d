"""A real learner in few lines, for tests: evolution strategies (Salimans et al. 2017) on a linear policy, with Adam."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metarl.agent import Agent, AgentConfig
from metarl.randomness import make_generator
from metarl.replay import ReplayBuffer
from metarl.rollout import Policy, PolicyStep, collect, standardize


@dataclass(frozen=True)
class SearchConfig:
    """Nested options, whose defaults depend on the environments."""

    decay: float = 1.0
    """Factor on the step size."""
    horizon: int = 0
    """Only noted."""


@dataclass(frozen=True)
class HillClimberConfig(AgentConfig):
    """Options of the hill climber."""

    num_tasks: int = 4
    envs_per_task: int = 8
    lr: float = 0.05
    """Adam's step size."""
    noise: float = 0.1
    layers: tuple[int, ...] = ()
    search: SearchConfig = field(default_factory=SearchConfig)


class LinearPolicy(Policy):
    """One weight matrix per environment of a task: `[N, A, D + 1]`."""

    def __init__(self, weights: Tensor):
        self.weights = weights

    def act(self, observations: Tensor) -> PolicyStep:
        padded = torch.cat([observations, torch.ones_like(observations[..., :1])], dim=-1)
        return PolicyStep(torch.einsum("nad,mnd->mna", self.weights, padded))


class HillClimber(Agent):
    config_class = HillClimberConfig

    @classmethod
    def default_config(cls, spec):
        return HillClimberConfig(search=SearchConfig(horizon=spec.horizon))

    def __init__(self, config, spec, *, device="cpu", seed=0, ranks=None):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        shape = (spec.action_space.shape[0], spec.observation_space.shape[0] + 1)
        self.weights = (0.01 * torch.randn(shape, generator=make_generator("init", seed))).requires_grad_()
        self.optimizer = torch.optim.Adam([self.weights], lr=config.lr * config.search.decay)

    def improve(self, env, *, seed):
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


class Hoarder(HillClimber):
    """Also follows, a little, what it drew in earlier iterations: it keeps its noise in a ring and samples from it."""

    def __init__(self, config, spec, *, device="cpu", seed=0, ranks=None):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        self.buffer = ReplayBuffer(capacity=20)

    def improve(self, env, *, seed):
        noise = torch.randn(8, *self.weights.shape, generator=make_generator("hoard", seed))
        self.buffer.append({"noise": noise, "late": torch.arange(8) >= 4})
        past = self.buffer.sample(6, make_generator("recall", seed))
        with torch.no_grad():
            self.weights += 1e-3 * past["noise"][past["late"]].sum(0)
        return super().improve(env, seed=seed) | {"rows": self.buffer.count}

    def buffers(self):
        return {"noise": self.buffer}

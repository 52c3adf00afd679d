"""Reptile (Nichol, Achiam, Schulman 2018, algorithm 2) for reinforcement learning: towards the adapted parameters.

    φ ← φ + ε mean_i(φ'_i − φ)

φ'_i are the parameters after k policy-gradient steps on task i, starting from φ, each on new episodes. There is no
second derivative, and for k = 1 no meta-learning either: φ then follows the mean gradient of all tasks, as a multi-task
policy does. For k ≥ 2 the mean change also raises the inner product between the gradients of different batches of a
task (section 5.1), which makes one gradient step go further.

Policy-gradient steps, advantages and baseline are those of MAML. Defaults: k = 3 and inner steps of 0.1, ours; the
paper has no experiment on reinforcement learning. Its section 3 suggests Adam in place of ε, with φ − φ'_i as the
gradient: that is `outer` by default, because policy-gradient steps leave φ'_i close to φ.

Deviation: inner steps are plain gradient steps, as in MAML, not Adam. The tasks of an iteration are averaged, as in the
paper's parallel version. The last of the k steps is taken on episodes after k − 1 steps, whose return is `return_mean`:
all episodes that are collected are learned from.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from metarl.adaptation import adapt, stack
from metarl.agent import EnvSpec
from metarl.agents.policy_gradient import ADAPTED, PolicyGradientAgent, PolicyGradientConfig
from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.parallel import Ranks
from metarl.randomness import derive_seed
from metarl.ranges import check_range
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class ReptileConfig(PolicyGradientConfig):
    """Options of Reptile.

    >>> from metarl.agents.reptile import ReptileConfig
    >>> ReptileConfig(outer="sgd", outer_lr=1.0).inner_steps
    3
    """

    inner_steps: int = 3
    """Gradient steps of adaptation in training (k)."""
    later_inner_lr: float = 0.1
    """Step size of all later gradient steps."""
    outer: Literal["adam", "sgd"] = "adam"
    """How the parameters move towards the mean of the adapted ones: adam scales each parameter's change to `outer_lr`,
    sgd moves by that share of the way."""
    outer_lr: float = 0.01
    """Step size of the outer update (ε)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("outer_lr", self.outer_lr, above=0)
        if self.outer == "sgd" and self.outer_lr > 1:
            raise UsageError(f"outer_lr must not lie above 1 for outer sgd, got {self.outer_lr}")

    def check_beginning(self, spec: EnvSpec, *, steps: int | None = None) -> None:
        super().check_beginning(spec, steps=steps)
        if self.inner_steps == 1:
            raise UsageError(
                "reptile with inner_steps of 1 follows the mean gradient of all tasks and does not learn to adapt: "
                "take 2 or more, or train maml"
            )


class Reptile(PolicyGradientAgent):
    """Moves its initial parameters towards the mean of those after `inner_steps` gradient steps on each task.

    >>> from metarl.agents.reptile import Reptile, ReptileConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> agent = Reptile(ReptileConfig(num_tasks=4, inner_steps=2), metarl.EnvSpec.of(family), seed=0)
    >>> env = family.make_env(num_tasks=4, envs_per_task=20)
    >>> env.set_tasks(family.sample(4, seed=0))
    >>> agent.improve(env, seed=1)["env_steps"]
    800
    """

    config_class = ReptileConfig
    config: ReptileConfig
    stream = "reptile"
    shares_tasks = True

    def __init__(
        self,
        config: ReptileConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        make_optimizer = torch.optim.Adam if config.outer == "adam" else torch.optim.SGD
        self.optimizer = make_optimizer(self.parameters.values(), lr=config.outer_lr)

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        generator = self.ranks.generator(self.stream, "improve", seed, device=self.device)
        parameters, stages = stack(self._initial(), env.num_tasks), []
        for step in range(self.config.inner_steps):
            batch, stage = self._collect(env, parameters, generator, derive_seed(seed, step))
            stages.append(stage)
            with torch.no_grad():
                parameters = adapt(parameters, [self._gradient(self.network, batch)], [self._step_size(step)])
            check_finite(ADAPTED, parameters)
        adapted = self.ranks.means([parameters[name].mean(0) for name in self.parameters])
        for value, mean in zip(self.parameters.values(), adapted, strict=True):
            value.grad = value.detach() - mean
        norm = torch.cat([value.grad.flatten() for value in self.parameters.values() if value.grad is not None]).norm()
        self.optimizer.step()
        for stage in stages:  # after the update, which must improve the policy that acted
            self.network.scale.update(stage.observations, self.ranks)
        return self._metrics(stages) | {"mean_change": float(norm)}

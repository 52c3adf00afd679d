"""Proximal policy optimization (Schulman et al. 2017) of an actor-critic over columns of experience."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from metarl.agent import POLICY_ALARMS, Agent, AgentConfig, EnvSpec
from metarl.faults import check_finite
from metarl.nn.heads import Head, Phi
from metarl.nn.module_state import load_module_tensors, module_tensors
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.parallel import Ranks
from metarl.ranges import check_range
from metarl.spaces import entries, map_tensors
from metarl.tasks import check_count

Inputs = Tensor | dict[str, Tensor]
"""What a network reads at each step `[T, b, ...]`: a tensor of numbers, or a dictionary that it makes them from."""
Network = Callable[[Inputs, Tensor | None], tuple[Phi, Float[Tensor, "T b"]]]
"""Inputs `[T, b, ...]`, mask of the steps with blank memory `[T, b]` (None: only the first) → φ, normalised values."""
ANNEALED = 0.1
"""Share of the step size and of the entropy's weight that is left when they have been annealed."""
STEPS_PER_ITERATION = 20_000
BYTES_PER_ITERATION = 2**28
"""Memory for the observations of an iteration of default size: 20,000 steps of large pictures would take gigabytes."""


@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """Options of agents that PPO trains.

    >>> from metarl.agents.ppo import PPOConfig
    >>> PPOConfig(clip=0.1).gae_lambda
    0.95
    """

    discount: float = 0.99
    """Discount of rewards (γ)."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation."""
    lr: float = 1e-3
    """Adam's step size."""
    epochs: int = 5
    """Passes over the experience of an iteration."""
    minibatches: int = 4
    """Minibatches per pass. Each holds all steps of some of the environments."""
    clip: float = 0.2
    """Clip range of the likelihood ratio (ε)."""
    entropy_bonus: float = 0.005
    """Weight of the policy's entropy in the loss."""
    value_weight: float = 0.5
    """Weight of the value error in the loss."""
    max_gradient_norm: float = 0.5
    """Norm to which longer gradients are scaled down."""
    anneal_iterations: int | None = None
    """Iterations over which lr and entropy_bonus fall, linearly, to a tenth; they stay as they are if None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "minibatches"):
            check_count(name, getattr(self, name))
        if self.anneal_iterations is not None:
            check_count("anneal_iterations", self.anneal_iterations)
        for name in ("discount", "gae_lambda"):
            check_range(name, getattr(self, name), least=0, most=1)
        for name in ("entropy_bonus", "value_weight"):  # negative ones would turn the loss round
            check_range(name, getattr(self, name), least=0)
        check_range("lr", self.lr, above=0)
        for name in ("clip", "max_gradient_norm"):
            check_range(name, getattr(self, name), above=0, most=math.inf)


@dataclass(frozen=True)
class Columns:
    """`B` columns of `T` steps to learn from.

    >>> from metarl.agents.ppo import Columns
    >>> zeros = torch.zeros(10, 4)
    >>> columns = Columns(torch.zeros(10, 4, 3), None, torch.zeros(10, 4, 2), zeros, zeros, zeros, zeros == 0)
    >>> columns.part(torch.tensor([0, 2])).inputs.shape
    torch.Size([10, 2, 3])
    """

    inputs: Inputs
    """`[T, B, ...]`"""
    starts: Bool[Tensor, "T B"] | None
    """The steps with blank memory; None if only the first step is one."""
    actions: Shaped[Tensor, "T B ..."]
    log_probs: Float[Tensor, "T B"]
    """Log-probabilities of the actions under the policy that took them."""
    advantages: Float[Tensor, "T B"]
    targets: Float[Tensor, "T B"]
    """Targets of the normalised value."""
    valid: Bool[Tensor, "T B"]
    """The steps to learn from."""

    def part(self, columns: Tensor) -> "Columns":
        """The chosen columns."""
        present = {f.name: getattr(self, f.name) for f in fields(Columns) if getattr(self, f.name) is not None}
        chosen = {n: map_tensors(lambda values: values.index_select(1, columns), value) for n, value in present.items()}
        return replace(self, **chosen)

    def nothing(self) -> "Columns":
        """A column without valid steps, for a rank that has none in a minibatch."""
        first = self.part(torch.zeros(1, dtype=torch.int64, device=self.valid.device))
        return replace(first, valid=torch.zeros_like(first.valid))


class PPO:
    """Minimises the clipped surrogate, the value error and the negative entropy with Adam.

        L = −E[min(ρ A, clip(ρ, 1 ± ε) A)] + c_v ½ E[(V − V̂)²] − c_e E[H]     (Schulman et al. 2017, equations 7 and 9)

    `after_step` is called after every optimizer step, so that a network can restore its constraints. Deviation: the
    value is not clipped.

    >>> from metarl.agents.ppo import PPO, PPOConfig
    >>> ppo = PPO(PPOConfig(lr=3e-4), torch.nn.Linear(3, 2), ranks=metarl.Ranks())
    >>> ppo.optimizer.param_groups[0]["lr"]
    0.0003
    """

    def __init__(
        self,
        config: PPOConfig,
        module: nn.Module,
        *,
        ranks: Ranks,
        after_step: Callable[[], None] = lambda: None,
    ):
        self.config = config
        self.ranks = ranks
        self.parameters = list(module.parameters())
        self.after_step = after_step
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.lr, eps=1e-5)

    def update(
        self,
        network: Network,
        head: Head,
        columns: Columns,
        generator: torch.Generator,
        *,
        num_envs: int | None = None,
    ) -> dict[str, float]:
        """Runs all epochs; returns `policy_loss`, `value_loss`, `entropy`, `kl`, `clipped`, means over minibatches.

        A column is an environment; with `num_envs`, it is a step, and those of one time are neighbours. Minibatches are
        drawn from the columns of all ranks, each of which computes the part of its own.

        Raises `NumericalFault` if a loss or gradient is not finite. No step is taken with it.
        """
        count = columns.valid.shape[1]
        left = self._annealed()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * left
        history = []
        for _ in range(self.config.epochs):
            every = count * self.ranks.world_size
            order = torch.randperm(every, generator=generator, device=columns.valid.device)
            for part in order.chunk(self.config.minibatches):
                own = columns.part(self.ranks.own(part, num_envs or count))
                history.append(self._minibatch(network, head, own if own.valid.numel() else columns.nothing(), left))
        means = torch.stack(history).mean(0).tolist()
        check_finite("a loss or gradient of PPO", torch.tensor(means))  # on a GPU, the only time that waits
        return dict(zip(("policy_loss", "value_loss", "entropy", "kl", "clipped"), means, strict=True))

    def _minibatch(self, network: Network, head: Head, part: Columns, left: float) -> Float[Tensor, "5"]:
        """A step on `part`, with the share of the entropy bonus that is `left`; returns its metrics."""
        config, valid = self.config, part.valid
        share = valid / self.ranks.mean(valid.sum().float()).clamp(min=1)

        def mean(values: Float[Tensor, "T b"]) -> Float[Tensor, ""]:
            return (values * share).sum()

        phi, values = network(part.inputs, part.starts)
        log_ratio = head.log_prob(phi, part.actions) - part.log_probs
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        policy_loss = -mean(torch.minimum(ratio * part.advantages, clipped * part.advantages))
        value_loss = 0.5 * mean((values - part.targets).square())
        entropy = mean(head.entropy(phi).expand_as(ratio))
        loss = policy_loss + config.value_weight * value_loss - config.entropy_bonus * left * entropy
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            kl = mean(ratio - 1 - log_ratio)  # Schulman's low-variance estimator
            outside = mean(((ratio - 1).abs() > config.clip).float())
            losses = torch.stack([loss, policy_loss, value_loss, entropy, kl, outside])
        (losses,) = self.ranks.average_gradients(self.parameters, losses)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.max_gradient_norm)
        sound = (losses[0] + norm).isfinite()
        if sound.device.type != "cpu" or bool(sound):
            self._step(sound)
        return losses[1:].masked_fill(~sound, torch.nan)

    def _annealed(self) -> float:
        """What is left of the step size and of the entropy's weight, by the optimizer's own count of its steps."""
        config, moments = self.config, next(iter(self.optimizer.state.values()), None)
        if config.anneal_iterations is None or moments is None:
            return 1.0
        steps = config.anneal_iterations * config.epochs * config.minibatches
        return 1.0 - (1.0 - ANNEALED) * min(float(moments["step"]) / steps, 1.0)

    def _step(self, sound: Bool[Tensor, ""]) -> None:
        """Takes a step; where nothing may wait to see whether the gradient is `sound`, one that is not counts as 0."""
        if sound.device.type != "cpu":
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(~sound, 0.0)
        self.optimizer.step()
        self.after_step()


class PPOAgent(Agent):
    """An agent whose `network` is all that `ppo` trains: it is saved and restored with the optimizer.

    >>> from metarl.agents.rl2 import RL2, RL2Config
    >>> agent = RL2(RL2Config(), metarl.EnvSpec.of(metarl.make("Bandit-v0")))
    >>> isinstance(agent, metarl.agents.ppo.PPOAgent)
    True
    """

    alarms = POLICY_ALARMS
    network: nn.Module
    ppo: PPO

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return module_tensors("network", self.network) | optimizer_tensors(self.ppo.optimizer), {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        load_module_tensors("network", self.network, tensors)
        load_optimizer_tensors(self.ppo.optimizer, tensors)


def default_num_tasks(spec: EnvSpec, steps_per_task: int) -> int:
    """The number of tasks that makes an iteration about 20,000 steps long, at least 16 and at most 1,000.

    If the observations of these tasks took more than 256 MiB, it is the number whose observations do not, at least 4.
    """
    tasks = min(max(STEPS_PER_ITERATION // steps_per_task, 16), 1000)
    size = sum(math.prod(s.shape) * s.dtype.itemsize for s in entries(spec.observation_space).values())
    return max(min(tasks, BYTES_PER_ITERATION // max(1, steps_per_task * size)), 4)

"""What is trained, on what, for how long: `TrainConfig`, checked before anything is created."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarl.agent import Agent, AgentConfig, EnvSpec
from metarl.devices import resolve_device
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.experiment.options import build
from metarl.registry import agent_class, make
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv

DEFAULT_ITERATIONS = 500


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `resolve` checks it and fills in what was left open."""

    agent: str
    """Id of the agent."""
    env: str
    """Id of the task distribution."""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task distribution."""
    agent_options: Mapping[str, Any] | AgentConfig = field(default_factory=dict)
    """Options of the agent, by name or as its config dataclass."""
    iterations: int | None = None
    """Iterations to train for; 500 where neither this nor `steps` is given."""
    steps: int | None = None
    """Environment steps to train for. With both, the bound that is reached first ends the run."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:N."""
    backend: str = "auto"
    """What steps the environments."""
    seed: int = 0
    """All randomness of the run comes from it."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""
    output: Path | None = None
    """The run folder; runs/AGENT-ENV-seedSEED where not given."""

    def resolve(self) -> "TrainConfig":
        """The same run with every option spelled out; raises `UsageError` for what cannot be trained."""
        distribution = self.make_distribution()
        for name in ("iterations", "steps"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_count("checkpoint_every", self.checkpoint_every)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise UsageError(f"seed must be a whole number of at least 0, got {self.seed!r}")
        device = resolve_device(self.device)
        options = self._agent_options(distribution)
        check_count("num_tasks", options.num_tasks)
        check_count("envs_per_task", options.envs_per_task)
        unbounded = self.iterations is None and self.steps is None
        return dataclasses.replace(
            self,
            agent_options=options,
            env_options=dict(self.env_options),
            iterations=DEFAULT_ITERATIONS if unbounded else self.iterations,
            device=str(device),
            backend=distribution.resolve_backend(self.backend, device),
        )

    def make_distribution(self) -> TaskDistribution:
        return make(self.env, **self.env_options)

    def make_agent(self, distribution: TaskDistribution) -> Agent:
        """The agent as it is before any training."""
        options, spec = self._agent_options(distribution), EnvSpec.of(distribution)
        return agent_class(self.agent)(options, spec, device=resolve_device(self.device), seed=self.seed)

    def make_env(self, distribution: TaskDistribution) -> TaskVectorEnv:
        """The environments of the training run."""
        options = self._agent_options(distribution)
        return distribution.make_env(
            options.num_tasks, options.envs_per_task, backend=self.backend, device=self.device, seed=self.seed
        )

    def reached(self, iteration: int, env_steps: int) -> float:
        """The share of the run that is done: 1 or more where a bound is reached."""
        shares = [0.0 if self.iterations is None else iteration / self.iterations]
        shares.append(0.0 if self.steps is None else env_steps / self.steps)
        return max(shares)

    def _agent_options(self, distribution: TaskDistribution) -> AgentConfig:
        cls, options = agent_class(self.agent), self.agent_options
        if not isinstance(options, AgentConfig):
            default = cls.default_config(EnvSpec.of(distribution))
            return build(cls.config_class, options, f"agent {self.agent!r}", default)
        if not isinstance(options, cls.config_class):
            wanted, got = cls.config_class.__name__, type(options).__name__
            raise UsageError(f"agent {self.agent!r} takes a {wanted}, got a {got}")
        return options

"""Runs that train an agent on a task distribution: configuration, experiment and training."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from metarl.agent import Agent, AgentConfig, EnvSpec
from metarl.devices import resolve_device
from metarl.distribution import TaskDistribution
from metarl.errors import EnvironmentFault, UsageError
from metarl.experiment.checkpoints import Checkpoint
from metarl.experiment.engine import Training
from metarl.experiment.experiment import Experiment, Run, Trained
from metarl.experiment.metrics import Row
from metarl.experiment.options import build, check_seed, plain, read_config
from metarl.experiment.plots import plot_training
from metarl.parallel import Ranks
from metarl.randomness import derive_seed
from metarl.registry import agent_class, make
from metarl.replay import ReplayBuffer
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv

DEFAULT_ITERATIONS = 500
FAULT_SHARE, FEWEST_FAULTS = 0.01, 10
_PLOT = Path("plots") / "training.png"


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training run of an agent. `resolve` checks it and fills in the defaults.

    >>> config = metarl.TrainConfig(agent="maml", env="PointNavigation-v0", agent_options={"inner_lr": 0.2})
    >>> config.resolve().config.iterations
    500
    """

    agent: str
    """Id of the agent, or MODULE:NAME."""
    env: str
    """Id of the task distribution, or MODULE:NAME."""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task distribution."""
    agent_options: Mapping[str, Any] | AgentConfig = field(default_factory=dict)
    """Options of the agent, by name or as its config dataclass."""
    iterations: int | None = None
    """Iterations to train for; 500 if neither this nor `steps` is given."""
    steps: int | None = None
    """Environment steps to train for. If both are given, the first bound to be reached ends the run."""
    device: str = "cpu"
    """Device to compute on: cpu, cuda or cuda:N."""
    backend: str = "auto"
    """Backend that steps the environments."""
    seed: int = 0
    """Seed of all randomness of the run."""
    checkpoint_every: int = 10
    """Iterations between checkpoints."""
    max_faults: int | None = None
    """Faults tolerated in one iteration; 1 % of its steps, and at least 10, if not given."""
    output: Path | None = None
    """The run folder; runs/AGENT-ENV-seedSEED if not given."""

    def resolve(self, distribution: TaskDistribution | None = None) -> "AgentExperiment":
        """Makes the experiment; raises `UsageError` for a configuration that cannot be trained.

        `distribution` is what `env` and `env_options` make, if it exists already.
        """
        return AgentExperiment(self, make(self.env, **self.env_options) if distribution is None else distribution)


class AgentExperiment(Experiment):
    """A `TrainConfig` with its distribution, agent class, agent options and device, each resolved once.

    >>> experiment = metarl.TrainConfig(agent="maml", env="PointNavigation-v0").resolve()
    >>> experiment.make_env().num_tasks
    20
    """

    kind = "agent"
    packages = ("metarl-kit", "torch", "numpy", "gymnasium", "mujoco", "mujoco-warp", "metaworld")
    config: TrainConfig

    def __init__(self, config: TrainConfig, distribution: TaskDistribution):
        for name in ("iterations", "steps"):
            if getattr(config, name) is not None:
                check_count(name, getattr(config, name))
        check_count("checkpoint_every", config.checkpoint_every)
        check_seed(config.seed)
        self.distribution = distribution
        self.device = resolve_device(config.device)
        self.spec = EnvSpec.of(distribution)
        self.agent_class = agent_class(config.agent)
        self.options = self._options(config)
        check_count("num_tasks", self.options.num_tasks)
        check_count("envs_per_task", self.options.envs_per_task)
        unbounded = config.iterations is None and config.steps is None
        self.config = dataclasses.replace(
            config,
            agent_options=self.options,
            env_options=dict(config.env_options),
            iterations=DEFAULT_ITERATIONS if unbounded else config.iterations,
            device=str(self.device),
            backend=distribution.resolve_backend(config.backend, self.device),
        )

    @property
    def title(self) -> str:
        return f"{self.config.agent} on {self.config.env}"

    @property
    def folder_name(self) -> str:
        return f"{self.config.agent}-{self.config.env}-seed{self.config.seed}"

    def entries(self) -> dict[str, Any]:
        return plain(self.config)

    @classmethod
    def from_entries(
        cls, path: Path, entries: Mapping[str, Any], device: torch.device | str | None
    ) -> "AgentExperiment":
        config = read_config(TrainConfig, path, entries)
        return (config if device is None else dataclasses.replace(config, device=str(device))).resolve()

    def make(self) -> Agent:
        return self.agent_class(self.options, self.spec, device=self.device, seed=self.config.seed, ranks=Ranks())

    def make_env(self) -> TaskVectorEnv:
        """Makes the environments of the training."""
        return self.distribution.make_env(
            self.options.num_tasks,
            self.options.envs_per_task,
            backend=self.config.backend,
            device=self.device,
            seed=self.config.seed,
        )

    def share(self, iteration: int, env_steps: int) -> float:
        config = self.config
        shares = [0.0 if config.iterations is None else iteration / config.iterations]
        shares.append(0.0 if config.steps is None else env_steps / config.steps)
        return max(shares)

    def is_concluded(self, path: Path) -> bool:
        return (path / _PLOT).exists()

    @contextlib.contextmanager
    def training(self, trained: Trained) -> Iterator["AgentTraining"]:
        with contextlib.closing(self.make_env()) as env:
            yield AgentTraining(self, cast(Agent, trained), env)

    def run(self, path: Path, trained: Trained, checkpoint: Checkpoint) -> "AgentRun":
        return AgentRun(path, self, cast(Agent, trained), checkpoint)

    def _options(self, config: TrainConfig) -> AgentConfig:
        cls, options = self.agent_class, config.agent_options
        if not isinstance(options, AgentConfig):
            return build(cls.config_class, options, f"agent {config.agent!r}", cls.default_config(self.spec))
        if not isinstance(options, cls.config_class):
            wanted, got = cls.config_class.__name__, type(options).__name__
            raise UsageError(f"agent {config.agent!r} takes a {wanted}, got a {got}")
        return options


class AgentTraining(Training):
    """An iteration draws tasks from the agent's source and lets the agent improve on them."""

    def __init__(self, experiment: AgentExperiment, agent: Agent, env: TaskVectorEnv):
        self.experiment, self.agent, self.env = experiment, agent, env
        self.title = experiment.title
        self.checkpoint_every = experiment.config.checkpoint_every
        seed = derive_seed("task source", experiment.config.seed)
        self.source = agent.task_source(experiment.distribution, seed=seed)

    def iterate(self, iteration: int) -> Mapping[str, int | float]:
        seeds = [derive_seed(part, self.experiment.config.seed, iteration) for part in ("train tasks", "improve")]
        self.env.set_tasks(self.source.draw(self.env.num_tasks, seed=seeds[0]))
        before = self.env.fault_count
        metrics = self.agent.improve(self.env, seed=seeds[1])
        faults = self.env.fault_count - before
        self._check_faults(faults, int(metrics["env_steps"]))
        return {**metrics, "faults": faults}

    def _check_faults(self, faults: int, env_steps: int) -> None:
        """Raises `EnvironmentFault` for more faults in an iteration than the run tolerates."""
        bound = self.experiment.config.max_faults
        if bound is None:
            bound = max(FEWEST_FAULTS, round(FAULT_SHARE * env_steps))
        if faults > bound:
            raise EnvironmentFault(
                f"{faults} faults in {env_steps} steps, of which --max-faults tolerates {bound}; "
                f"the first of the last rollout: {self.env.fault_report or 'unknown'}"
            )

    def share(self, iteration: int, env_steps: int) -> float:
        return self.experiment.share(iteration, env_steps)

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return self.agent.state()

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        return self.agent.buffers()

    def describe(self, row: Row) -> tuple[str, str]:
        bound = self.experiment.config.iterations
        text = (
            f"iteration {row['iteration']}{'' if bound is None else f'/{bound}'}  env steps {row['env_steps']:,}  "
            f"return {row['return_mean']:.2f}  {row['steps_per_second']:,.0f} steps/s"
        )
        shown = {"iteration", "env_steps", "wall_seconds", "steps_per_second", "return_mean"}
        return text, "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in shown)

    def conclude(self, path: Path, rows: list[Row], show: bool) -> None:
        plot_training(rows, self.title, path / _PLOT)


@dataclass(frozen=True)
class AgentRun(Run):
    """An open run folder of `metarl train`.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> run = metarl.load_run(metarl.train(config, progress=False))
    >>> metarl.evaluate(run.agent, run.distribution, num_tasks=5).episodes_used
    [0]
    """

    experiment: AgentExperiment
    trained: Agent

    @property
    def agent(self) -> Agent:
        """The agent in the state of the last checkpoint, without replay buffers, which only training needs."""
        return self.trained

    @property
    def distribution(self) -> TaskDistribution:
        """The task distribution that the agent was trained on."""
        return self.experiment.distribution

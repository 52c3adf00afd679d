"""Runs that train an agent on a task distribution: configuration and experiment."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from metarl.agent import Agent, AgentConfig, EnvSpec
from metarl.devices import resolve_device
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.experiment.agent_training import AgentTraining
from metarl.experiment.checkpoints import Checkpoint
from metarl.experiment.experiment import Experiment, Parts, Run, Trained, check_part_name, check_parts, require_part
from metarl.experiment.fingerprint import differences, family_traits, fingerprint
from metarl.experiment.loggers import check_loggers
from metarl.experiment.options import (
    LATER,
    build,
    check_max_faults,
    check_seed,
    is_plain,
    option_differences,
    plain,
    read_config,
)
from metarl.experiment.watch import check_max_divergent
from metarl.parallel import Ranks
from metarl.registry import Family, agent_class, make, name_of
from metarl.tasks import SPLITS, check_count
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training run of an agent. `resolve` checks it and fills in the defaults.

    >>> config = metarl.TrainConfig(agent="maml", env="PointNavigation-v0", agent_options={"inner_lr": 0.2})
    >>> config.resolve().config.iterations
    500
    """

    agent: str | type[Agent]
    """Id of the agent, MODULE:NAME, or its class."""
    env: Family
    """Id of the task distribution, MODULE:NAME, a class or function that makes it, or the distribution itself."""
    env_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task distribution."""
    agent_options: Mapping[str, Any] | AgentConfig = field(default_factory=dict)
    """Options of the agent, by name or as its config dataclass."""
    iterations: int | None = None
    """Iterations to train for. Without this and `steps`, 500, or 1 of an agent that learns nothing in them."""
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
    max_faults: int | None = field(default=None, metadata=LATER)
    """Faults tolerated in one iteration; 1 % of its steps, and at least 10, if not given."""
    max_divergent: int | None = field(default=None, metadata=LATER)
    """Iterations in a row that may diverge, by the agent's `alarms`; 3 if not given."""
    threads: int | None = field(default=None, metadata=LATER)
    """Threads that torch computes with; one, and more where they pay, if not given."""
    evaluate_every: int | None = field(default=None, metadata=LATER)
    """Iterations between evaluations on test tasks in the course of training; never if not given."""
    evaluate_tasks: int = field(default=20, metadata=LATER)
    """Test tasks of such an evaluation, the same each time."""
    logger: tuple[str, ...] = field(default=(), metadata=LATER)
    """Where metrics go besides metrics.jsonl and TensorBoard: trackio, wandb or MODULE:NAME."""
    output: Path | str | None = None
    """The run folder; runs/AGENT-ENV-seedSEED if not given."""

    def resolve(self) -> "AgentExperiment":
        """Makes the experiment; raises `UsageError` for a configuration that cannot be trained."""
        return AgentExperiment(self)


@dataclass(frozen=True)
class Recorded:
    """What a run folder says of the family that its agent was trained on."""

    env: str
    env_options: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    """Empty in run folders of earlier versions."""


class AgentExperiment(Experiment):
    """A `TrainConfig` with its distribution, agent class, agent options and device, each resolved once.

    In its `config`, agent and family are names. `unnamed` lists those that no name makes again, such as an instance:
    they have only the name of their class or their id, and whoever opens the run gives them again. `recorded` is what
    the folder of an existing run says of its family.

    >>> experiment = metarl.TrainConfig(agent="maml", env="PointNavigation-v0").resolve()
    >>> experiment.make_env().num_tasks
    20
    """

    kind = "agent"
    result = Path("plots") / "training.png"
    packages = ("metarl-kit", "torch", "numpy", "gymnasium", "mujoco", "mujoco-warp", "metaworld")
    config: TrainConfig

    def __init__(self, config: TrainConfig, recorded: Recorded | None = None):
        for name in ("iterations", "steps"):
            if getattr(config, name) is not None:
                check_count(name, getattr(config, name))
        for name in ("checkpoint_every", "evaluate_tasks"):
            check_count(name, getattr(config, name))
        if config.evaluate_every is not None:
            check_count("evaluate_every", config.evaluate_every)
        check_loggers(config.logger)
        check_max_faults(config.max_faults)
        check_max_divergent(config.max_divergent)
        if config.threads is not None:
            check_count("threads", config.threads)
        check_seed(config.seed)
        self.distribution = make(config.env, **config.env_options)
        self.device = resolve_device(config.device)
        self.spec = EnvSpec.of(self.distribution)
        self.agent_class = agent_class(config.agent)
        self.unnamed: list[str] = []
        config = self._with_names(config)
        self.options = self._options(config)
        check_count("num_tasks", self.options.num_tasks)
        check_count("envs_per_task", self.options.envs_per_task)
        unbounded = config.iterations is None and config.steps is None
        self.config = dataclasses.replace(
            config,
            agent_options=self.options,
            iterations=self.options.default_iterations if unbounded else config.iterations,
            device=str(self.device),
            backend=self.distribution.resolve_backend(config.backend, self.device),
        )
        if recorded is None:
            self.options.check_beginning(self.spec, steps=config.steps)
        self.recorded = recorded or Recorded(str(self.config.env), self.config.env_options, {})

    def _with_names(self, config: TrainConfig) -> TrainConfig:
        """`config` with names for the agent and the family, and with all options of the family."""
        agent, origin = config.agent, self.distribution.origin
        if not isinstance(agent, str):
            named = name_of("agent", agent)
            agent = agent.__name__ if named is None else named
            self.unnamed += ["agent"] * (named is None)
        if origin is None or not (is_plain(origin.options) or config.env_options):
            self.unnamed += ["env"]
            return dataclasses.replace(config, agent=agent, env=self.distribution.id)
        return dataclasses.replace(config, agent=agent, env=origin.name, env_options=dict(origin.options))

    @property
    def title(self) -> str:
        return f"{self.config.agent} on {self.config.env}"

    @property
    def folder_name(self) -> str:
        return f"{self.config.agent}-{self.config.env}-seed{self.config.seed}"

    def entries(self) -> dict[str, Any]:
        entries = plain(self.config) | {"fingerprint": fingerprint(self.distribution)}
        return entries | ({"unnamed": self.unnamed} if self.unnamed else {})

    def entries_of(self, trained: Trained) -> dict[str, Any]:
        return {"from_scratch": bool(cast(Agent, trained).from_scratch)}

    @classmethod
    def from_entries(
        cls,
        path: Path,
        entries: Mapping[str, Any],
        device: torch.device | str | None,
        parts: Parts,
    ) -> "AgentExperiment":
        check_parts(path, parts, ("env", "agent"))
        bases = {"env": ("environment", TaskDistribution), "agent": ("agent", Agent)}
        for name, (kind, base) in bases.items():
            require_part(path, entries, parts, name)
            check_part_name(path, entries, parts, name, kind, base)
        config, recorded = read_config(TrainConfig, path, entries), entries.get("fingerprint", {})
        given: dict[str, Any] = dict(parts) | ({} if device is None else {"device": str(device)})
        if isinstance(parts.get("env"), TaskDistribution):
            given["env_options"] = {}
        experiment = cls(dataclasses.replace(config, **given), Recorded(str(config.env), config.env_options, recorded))
        experiment.check_spaces(path)
        return experiment

    @classmethod
    def with_bounds(cls, path: Path, entries: Mapping[str, Any], bounds: Mapping[str, int]) -> dict[str, Any]:
        return {"iterations": bounds.get("iterations"), "steps": bounds.get("steps")}

    def check_spaces(self, path: Path) -> None:
        """Raises `UsageError` if the family has not the spaces that the run `path` was trained on."""
        then, now = self.recorded.fingerprint, family_traits(self.distribution)
        spaces = ("observation_space", "action_space")
        changes = differences({name: then[name] for name in spaces if name in then}, now)
        if changes:
            raise UsageError(f"{path} was trained on another family than {now['id']}: {', '.join(changes.values())}")

    def changes(self, splits: Sequence[str] = SPLITS) -> list[str]:
        now = fingerprint(self.distribution, splits) if splits else family_traits(self.distribution)
        same = self.config.env == self.recorded.env
        options = option_differences(self.recorded.env_options, self.config.env_options) if same else {}
        return list((options | differences(self.recorded.fingerprint, now)).values())

    def share_among(self, ranks: Ranks) -> None:
        """Gives each rank its share of the tasks and, on GPUs, the device with its number on its machine."""
        if ranks.world_size > 1:
            if not self.agent_class.shares_tasks:
                raise UsageError(
                    f"agent {self.config.agent!r} trains in one process, and torchrun has started {ranks.world_size}"
                )
            ranks.share("num_tasks", self.options.num_tasks)
            if self.device.type == "cuda":
                if self.device.index is not None:
                    raise UsageError(f"each rank has a device of its own: say --device cuda instead of {self.device}")
                self.device = resolve_device(f"cuda:{ranks.local_rank}")
                torch.cuda.set_device(self.device)  # for what names no number
        self.ranks = ranks

    def make(self) -> Agent:
        agent = self.agent_class(self.options, self.spec, device=self.device, seed=self.config.seed, ranks=self.ranks)
        agent.trained_on = self.distribution
        return agent

    def make_env(self) -> TaskVectorEnv:
        """Makes the environments of the training, of which each rank has its share."""
        env = self.distribution.make_env(
            self.ranks.share("num_tasks", self.options.num_tasks),
            self.options.envs_per_task,
            backend=self.config.backend,
            device=self.device,
            seed=self.config.seed,
        )
        env.ranks = self.ranks
        return env

    def share(self, iteration: int, env_steps: int) -> float:
        config = self.config
        shares = [0.0 if config.iterations is None else iteration / config.iterations]
        shares.append(0.0 if config.steps is None else env_steps / config.steps)
        return max(shares)

    @contextlib.contextmanager
    def training(self, trained: Trained) -> Iterator[AgentTraining]:
        with contextlib.closing(self.make_env()) as env:
            training = AgentTraining(self, cast(Agent, trained), env)
            yield training
            training.close()

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

    def other_family(self, env: Family | None, options: Mapping[str, Any]) -> TaskDistribution:
        """The family `env` with `options`; those of the run's own family, which None is too, are laid over the run's.

        Raises `UsageError` as `metarl.make` does, and for options of an instance that was made elsewhere.

        >>> options = {"goal_radius": 0.5, "horizon": 5}
        >>> config = metarl.TrainConfig("random", "SparsePointNavigation-v0", options, iterations=1)
        >>> run = metarl.load_run(metarl.train(config, progress=False))
        >>> run.differences(run.other_family(None, {"horizon": 20}))
        ['horizon 20 instead of 5']
        """
        own = env is None or env == self.config.env
        if own and not options:
            return self.distribution
        if own and "env" in self.experiment.unnamed:
            raise UsageError(f"{self.path} was trained on the instance {self.distribution.id}: it takes no options")
        usual = self.config.env_options if own else {}
        return make(self.config.env if env is None else env, **{**usual, **options})

    def differences(self, family: TaskDistribution) -> list[str]:
        """What `family` has instead of the family of the training, in words."""
        traits = differences(family_traits(self.distribution), family_traits(family))
        origin, config = family.origin, self.config
        if origin is None:
            return list(traits.values())
        if origin.name != config.env:
            return list({**traits, "id": f"{origin.name} instead of {config.env}"}.values())
        return list((option_differences(config.env_options, origin.options) | traits).values())

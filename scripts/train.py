"""`metarl train`: the available options depend on the agent, which is named first."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro

from metarl.agent import AgentConfig, EnvSpec
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.experiment import TrainConfig, train
from metarl.experiment.named_presets import find_preset
from metarl.parallel import launched_rank
from metarl.presets import Preset
from metarl.registry import agent_class, list_agents, make
from metarl.scripts.arguments import exit_code, key_values, parse, peek

Config = TypeVar("Config", bound=AgentConfig)


@dataclass(kw_only=True)
class Arguments(Generic[Config]):
    """Trains an agent until the first bound is reached. Prints the run folder."""

    env: Annotated[str, tyro.conf.arg(metavar="ID")]
    """Task distribution: an id that `metarl envs` lists, or MODULE:NAME."""
    env_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Options of the task distribution. Those of a preset stay unless their KEY is given."""
    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Take the options of this preset, which `metarl presets` lists, where no others are given."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Iterations to train for. Without this and --steps, 500, or 1 of an agent that learns nothing in them."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Environment steps to train for."""
    device: str = TrainConfig.device
    """Device to compute on: cpu, cuda or cuda:N."""
    backend: str = TrainConfig.backend
    """Backend that steps the environments; `metarl envs` lists them."""
    seed: int = TrainConfig.seed
    """Seed of all randomness of the run."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Threads that torch computes with; one, and more where they pay, if not given."""
    checkpoint_every: int = TrainConfig.checkpoint_every
    """Iterations between checkpoints."""
    max_hours: Annotated[float | None, tyro.conf.arg(metavar="H")] = None
    """Stop and save before this many hours are over; metarl resume goes on."""
    max_divergent: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Iterations in a row that may diverge, by losses or the policy's KL divergence; 3 if not given."""
    max_faults: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Faults tolerated in one iteration; at most 1 % of its steps, and at least 10, if not given."""
    evaluate_every: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Iterations between evaluations on test tasks, the same each time; they change nothing in the training."""
    evaluate_tasks: Annotated[int, tyro.conf.arg(metavar="M")] = TrainConfig.evaluate_tasks
    """Test tasks of such an evaluation."""
    logger: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Send metrics also to trackio or wandb, if they are installed, or to a logger of your own, MODULE:NAME."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run folder; runs/AGENT-ENV-seedSEED if not given."""
    agent_options: Annotated[Config, tyro.conf.arg(name="")]


@dataclass
class EnvArguments:
    """The part of `Arguments` that must be known before the rest can be parsed."""

    env: str | None = None
    env_options: tuple[str, ...] = ()
    preset: str | None = None
    iterations: str | None = None
    steps: str | None = None


def main(arguments: Sequence[str]) -> int:
    agent, options = _split_agent(arguments)
    config_class = AgentConfig if agent is None else agent_class(agent).config_class
    named = peek(EnvArguments, options)
    preset = _named_preset(agent, named)
    distribution = _named_distribution(named, preset)
    default = None if agent is None or distribution is None else _defaults(agent, distribution, named, preset)
    parsed = parse(Arguments[config_class], options, f"metarl train {agent or 'AGENT'}", default)  # type: ignore[valid-type]
    own = ("preset", "max_hours")
    entries = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(parsed) if f.name not in own}
    entries |= {"env": distribution, "env_options": {}}  # made with its options
    path = train(TrainConfig(agent=str(agent), **entries), max_hours=parsed.max_hours)
    if launched_rank() == 0:
        print(path)
    return exit_code(path)


def _named_preset(agent: str | None, named: EnvArguments) -> Preset | None:
    if agent is None or named.env is None or named.preset is None:
        return None
    return find_preset(agent, named.env, named.preset)


def _named_distribution(named: EnvArguments, preset: Preset | None) -> TaskDistribution | None:
    """The distribution that is named, made once because an agent's defaults depend on it; None without one."""
    if named.env is None:
        return None
    options = key_values(named.env_options, "--env-options")
    return make(named.env, **{**({} if preset is None else preset.env_options), **options})


def _defaults(agent: str, distribution: TaskDistribution, named: EnvArguments, preset: Preset | None) -> Arguments:
    """The defaults of all arguments except the environment, which is always given.

    A bound on the command line takes the place of both of a preset's: else the preset's other one might come first.
    """
    if preset is None:
        return Arguments(env=distribution.id, agent_options=agent_class(agent).default_config(EnvSpec.of(distribution)))
    bounded = named.iterations is not None or named.steps is not None
    return Arguments(
        env=distribution.id,
        env_options=tuple(f"{name}={json.dumps(value)}" for name, value in preset.env_options.items()),
        preset=preset.name,
        iterations=None if bounded else preset.iterations,
        steps=None if bounded else preset.steps,
        agent_options=preset.config,
    )


def _split_agent(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The agent and the other arguments. A known agent may stand anywhere, another one first; None with --help."""
    rest = list(arguments)
    named = [argument for argument in rest if argument in list_agents()]
    agent = rest[0] if rest and not rest[0].startswith("-") else next(iter(named), None)
    if agent is not None:
        rest.remove(agent)
    elif {"-h", "--help"} & set(rest):
        print(f"AGENT is one of {', '.join(list_agents())}, or MODULE:NAME.")
    else:
        raise UsageError(f"name the agent first, metarl train AGENT ...: there are {', '.join(list_agents())}")
    return agent, rest

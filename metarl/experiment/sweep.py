"""Sweeps: a YAML file that names agents, families, seeds and options, and the trials that it stands for.

    agents:
      maml: {inner_lr: [0.05, 0.1], num_tasks: 20}   # every value of a list is tried
      rl2: {hidden: 64}
    families:
      PointNavigation-v0: {horizon: 50}
    seeds: [0, 1]
    iterations: 100
    retries: 3
    evaluate: {tasks: 40, episodes: 20}

A list is an axis of the grid wherever it stands, so a value that is itself a list stands in one: `hidden: [[64, 64]]`.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from metarl.errors import UsageError
from metarl.experiment.agent_run import TrainConfig
from metarl.experiment.options import build, check_seed, option_differences, plain
from metarl.parsing import parse_json, parse_yaml
from metarl.tasks import check_count

MOST_TRIALS = 10_000
_COMMON = ("iterations", "steps", "device", "backend", "checkpoint_every", "max_faults", "threads")
"""The options of `TrainConfig` that a sweep file has for all trials together."""


@dataclass(frozen=True)
class SweepFile:
    """The entries of a sweep file.

    >>> from metarl.experiment.sweep import SweepFile
    >>> SweepFile(agents={"maml": {"inner_lr": [0.05, 0.1]}}, families=["PointNavigation-v0"]).retries
    2
    """

    agents: object
    """Agents with their options: a mapping from names, or a list of names and of mappings."""
    families: object
    """Task distributions with their options, in the same form."""
    seeds: object = (0,)
    """Seeds of all trials."""
    iterations: int | None = None
    steps: int | None = None
    device: str = "cpu"
    backend: str = "auto"
    checkpoint_every: int = 10
    max_faults: int | None = None
    threads: int | None = None
    retries: int = 2
    """How often a trial is started again that has died, from its last checkpoint."""
    evaluate: Mapping[str, int] = field(default_factory=dict)
    """`tasks` and `episodes` to evaluate each trained agent with; it is not evaluated if both are missing."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep; `name` is that of its folder.

    >>> from metarl.experiment.sweep import Trial
    >>> Trial("random-Bandit-v0-seed0", metarl.TrainConfig("random", "Bandit-v0")).config.seed
    0
    """

    name: str
    config: TrainConfig


@dataclass(frozen=True)
class Sweep:
    """The trials of a sweep file, each of which could be trained.

    >>> from pathlib import Path
    >>> from metarl.experiment.sweep import Sweep
    >>> text = "{agents: {maml: {inner_lr: [0.05, 0.1]}}, families: [PointNavigation-v0], seeds: [0, 1]}"
    >>> _ = Path("sweep.yaml").write_text(text)
    >>> sweep = Sweep.read(Path("sweep.yaml"))
    >>> len(sweep.trials), sweep.trials[0].name
    (4, 'maml-PointNavigation-v0-inner_lr=0.05-seed0')
    """

    trials: tuple[Trial, ...]
    retries: int
    evaluate: Mapping[str, int]

    @classmethod
    def read(cls, path: Path, *, elsewhere: bool = False) -> "Sweep":
        """Reads a sweep file and resolves every trial; raises `UsageError` for the first that could not be trained.

        If the trials run `elsewhere`, this machine need not have their device.
        """
        try:
            entries = parse_yaml(path.read_bytes(), f"sweep file {path}", by_hand=True)
        except OSError as error:
            raise UsageError(f"sweep file {path} cannot be read: {error.strerror}") from None
        if not isinstance(entries, Mapping):
            raise UsageError(f"sweep file {path} must map agents and families to their options")
        given = build(SweepFile, entries, f"sweep file {path}")
        try:
            _check(given)
            trials = tuple(itertools.islice(_trials(given), MOST_TRIALS + 1))
        except UsageError as error:
            raise UsageError(f"sweep file {path}: {error}") from None
        if len(trials) > MOST_TRIALS:
            raise UsageError(f"sweep file {path} has more than {MOST_TRIALS} trials: split it")
        names, resolved = set(), set()
        for trial in trials:
            if trial.name in names:
                raise UsageError(f"sweep file {path} has two trials {trial.name}: name each value once")
            names.add(trial.name)
            config = replace(trial.config, device="cpu", backend="auto") if elsewhere else trial.config
            try:
                kind = json.dumps(plain(replace(config, seed=0)))  # trials that differ in their seed are one kind
                if kind not in resolved:
                    config.resolve()
            except UsageError as error:
                raise UsageError(f"sweep file {path}, trial {trial.name}: {error}") from None
            resolved.add(kind)
        return cls(trials, given.retries, given.evaluate)

    def record(self) -> dict[str, Any]:
        """The configuration of each trial by its name, as JSON has it."""
        return {trial.name: plain(trial.config) for trial in self.trials}

    def check_continues(self, record: Path) -> None:
        """Raises `UsageError` if a trial in the `record` of an earlier start is missing by now or is another one.

        New trials may have been added.
        """
        try:
            before, now = parse_json(record.read_bytes(), str(record)), self.record()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{record} cannot be read: {error.strerror}") from None
        if not isinstance(before, Mapping):
            raise UsageError(f"{record} is damaged: it names no trials")
        way_out = "a sweep that goes on may only have more trials: choose another --output"
        for name, config in before.items():
            if name not in now:
                raise UsageError(f"{record.parent} has the trial {name}, the file has it no more; {way_out}")
            changes = option_differences(config, now[name])
            if changes:
                raise UsageError(f"trial {name} has changed: {', '.join(changes.values())}; {way_out}")


def _check(given: SweepFile) -> None:
    if isinstance(given.retries, bool) or given.retries < 0:
        raise UsageError(f"retries must be a whole number of at least 0, got {given.retries!r}")
    if not isinstance(given.seeds, (list, tuple)) or not given.seeds:
        raise UsageError(f"seeds must be a list of whole numbers, got {given.seeds!r}")
    for seed in given.seeds:
        check_seed(seed)
    for name, value in given.evaluate.items():
        if name not in ("tasks", "episodes"):
            raise UsageError(f"evaluate takes tasks and episodes, got {name!r}")
        check_count(f"evaluate: {name}", value)


def _trials(given: SweepFile) -> Iterator[Trial]:
    common = {name: getattr(given, name) for name in _COMMON}
    agents, families = _named("agents", given.agents), _named("families", given.families)
    seeds = cast(Sequence[int], given.seeds)
    for (agent, agent_options), (family, family_options) in itertools.product(agents, families):
        grid = itertools.product(_grid(agent_options), _grid(family_options), seeds)
        for (agent_axes, options), (family_axes, env_options), seed in grid:
            values = [f"{name}={_text(value)}" for name, value in _axes(agent_axes, family_axes).items()]
            name = "-".join([agent, family, *values, f"seed{seed}"])
            config = TrainConfig(agent, family, env_options, options, seed=seed, **common)
            yield Trial(re.sub(r"[^\w.=+-]+", "-", name), config)


def _axes(agent: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """The values of both by their names; a name of both is `env.NAME` for the family."""
    return {**agent, **{f"env.{name}" if name in agent else name: value for name, value in family.items()}}


def _named(what: str, entries: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Names and their options, from a mapping or a list of names and mappings."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for entry in entries if isinstance(entries, (list, tuple)) else [entries]:
        pairs = entry.items() if isinstance(entry, Mapping) else [(entry, None)]
        for name, options in pairs:
            options = {} if options is None else options
            if not isinstance(name, str) or not isinstance(options, Mapping):
                raise UsageError(f"{what} are names with options, such as {{maml: {{inner_lr: 0.1}}}}, got {entry!r}")
            found.append((name, options))
    if not found:
        raise UsageError(f"{what} is empty: name at least one")
    return found


def _grid(options: Mapping[str, Any], prefix: str = "") -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every combination of the values in lists: the values chosen, by their names, and all options."""
    choices: list[list[tuple[dict[str, Any], dict[str, Any]]]] = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            choices.append([(axes, {name: inner}) for axes, inner in _grid(value, f"{prefix}{name}.")])
        elif isinstance(value, list):
            if not value:
                raise UsageError(f"{prefix}{name} is an empty list, so there is no value to try: leave it out, or [[]]")
            choices.append([({f"{prefix}{name}": one}, {name: one}) for one in value])
        else:
            choices.append([({}, {name: value})])
    combinations = []
    for chosen in itertools.islice(itertools.product(*choices), MOST_TRIALS + 1):
        axes, own = ({key: v for part in chosen for key, v in part[side].items()} for side in (0, 1))
        combinations.append((axes, own))
    return combinations


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


assert set(_COMMON) <= {f.name for f in fields(SweepFile)} & {f.name for f in fields(TrainConfig)}

"""Finding presets, and the training that one stands for."""

from metarl.errors import UsageError
from metarl.experiment.agent_run import TrainConfig
from metarl.presets import Preset
from metarl.registry import presets_of


def find_preset(agent: str, env: str, name: str) -> Preset:
    """The preset `name` of an agent on a family, both by id.

    Raises `UsageError`, naming those there are, if the agent has no preset of that name for the family.
    """
    known = presets_of(agent)
    for preset in known:
        if (preset.env, preset.name) == (env, name):
            return preset
    there = [preset.name for preset in known if preset.env == env]
    elsewhere = [preset.env for preset in known if preset.name == name]
    if not known:
        hint = f"{agent} has no presets"
    elif there:
        hint = f"there it has {', '.join(there)}"
    elif elsewhere:
        hint = f"it has that one for {', '.join(elsewhere)}"
    else:
        hint = f"it has {', '.join(f'{preset.name} for {preset.env}' for preset in known)}"
    raise UsageError(f"{agent} has no preset {name!r} for {env}; {hint}")


def preset(agent: str, env: str, name: str) -> TrainConfig:
    """The training that the preset `name` of an agent on a family stands for, all three by id.

    `dataclasses.replace` changes what the preset does not decide: device, seed, output. Raises `UsageError` for a
    preset that does not exist.

    >>> config = metarl.preset("rl2", "ML1-reach-v3", "gpu")
    >>> config.env_options["horizon"]
    150
    """
    found = find_preset(agent, env, name)
    return TrainConfig(
        agent,
        found.env,
        env_options=dict(found.env_options),
        agent_options=found.config,
        iterations=found.iterations,
        steps=found.steps,
    )

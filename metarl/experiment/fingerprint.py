"""The fingerprint of a family of tasks in a run folder: a readable mapping by which a changed family is noticed.

It holds the id, structure and bounds of the spaces, the horizon, the task parameters, whether success is defined, and a
few tasks of each split, beside the family's own `traits`, such as the class of its environments and their wrappers.
Code itself is not seen: a class or function that keeps its name and does something else is the same here. No
environment is built. Sampled tasks are compared with a tolerance, because their last bits differ between machines.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from metarl.distribution import TaskDistribution
from metarl.experiment.files import sha256
from metarl.tasks import SPLITS

SAMPLED_TASKS = 4
"""Tasks of each split in a fingerprint."""
LISTED_BOUNDS = 8
"""A box with more entries, if their bounds differ, has a checksum of them instead of a list."""


def family_traits(family: TaskDistribution) -> dict[str, Any]:
    """The fingerprint without sampled tasks, which some families take seconds to draw."""
    traits = {
        "id": family.id,
        "observation_space": structure(family.observation_space),
        "observation_bounds": bounds(family.observation_space),
        "action_space": structure(family.action_space),
        "action_bounds": bounds(family.action_space),
        "horizon": int(family.horizon),
        "task_space": {
            name: f"{structure(space)} {bounds(space)}".strip() for name, space in family.task_space.items()
        },
        "success": bool(family.has_success),
    }
    return traits | {name: value for name, value in family.traits.items() if name not in traits}


def fingerprint(family: TaskDistribution, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """The whole fingerprint of `family`, or only with tasks of `splits`, as plain values for config.yaml."""
    return family_traits(family) | {"tasks": {split: _sampled_tasks(family, split) for split in splits}}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What the fingerprint `now` has instead of `then`: name → words. Parts that only one of the two has are left out.

    >>> from metarl.experiment.fingerprint import differences, fingerprint
    >>> differences(*(fingerprint(metarl.make("Bandit-v0", pulls=pulls)) for pulls in (10, 20)))
    {'horizon': 'horizon 20 instead of 10'}
    """
    found: dict[str, str] = {}
    for name in [name for name in then if name in now]:
        if name == "task_space":
            found |= _parameter_differences(then[name], now[name])
        elif name == "tasks":
            shared = [split for split in then[name] if split in now[name]]
            changed = [split for split in shared if not _close(then[name][split], now[name][split])]
            found |= {f"{split} tasks": f"other {split} tasks" for split in changed}
        elif then[name] != now[name]:
            found[name] = f"{name.replace('_', ' ')} {now[name]} instead of {then[name]}"
    return found


def structure(space: gym.Space) -> str:
    """Kind, type and shape of a space, without its bounds; equal for spaces that `metarl.spaces.same_spaces` equates.

    >>> from metarl.experiment.fingerprint import structure
    >>> structure(metarl.make("PointNavigation-v0").observation_space)
    'Box float32 [2]'
    """
    spaces = gym.spaces
    if isinstance(space, spaces.Dict):
        return "Dict {" + ", ".join(f"{name}: {structure(entry)}" for name, entry in space.spaces.items()) + "}"
    if isinstance(space, spaces.Tuple):
        return f"Tuple ({', '.join(map(structure, space.spaces))})"
    if isinstance(space, spaces.Discrete):
        return f"Discrete {space.n}" + (f" from {space.start}" if space.start else "")
    if isinstance(space, spaces.MultiDiscrete):
        start = f" from {space.start.tolist()}" if space.start.any() else ""
        return f"MultiDiscrete {space.nvec.tolist()}{start}"
    if isinstance(space, spaces.MultiBinary):
        return f"MultiBinary {list(space.shape)}"
    if isinstance(space, spaces.Box):
        return f"Box {space.dtype} {list(space.shape)}"
    return str(space)


def bounds(space: gym.Space) -> str:
    """The bounds of the boxes in a space; "" if it has none.

    >>> from metarl.experiment.fingerprint import bounds
    >>> bounds(metarl.make("PointNavigation-v0").action_space)
    '[-0.1, 0.1]'
    """
    if isinstance(space, gym.spaces.Dict):
        named = {name: bounds(entry) for name, entry in space.spaces.items()}
        return ", ".join(f"{name} {text}" for name, text in named.items() if text)
    if isinstance(space, gym.spaces.Tuple):
        return ", ".join(filter(None, map(bounds, space.spaces)))
    if not isinstance(space, gym.spaces.Box):
        return ""
    low, high = space.low.ravel(), space.high.ravel()
    if low.size and (low == low[0]).all() and (high == high[0]).all():
        low, high = low[:1], high[:1]
    pairs = [f"[{bottom:.6g}, {top:.6g}]" for bottom, top in zip(low, high, strict=True)]
    return " ".join(pairs) if len(pairs) <= LISTED_BOUNDS else f"sha256 {sha256(' '.join(pairs).encode())[:12]}"


def _sampled_tasks(family: TaskDistribution, split: str) -> dict[str, list[float]] | None:
    """One number for each sampled task and parameter: Σⱼ xⱼ / (j + 1), which is the value itself if it is a scalar.

    None if the family has no tasks of the split, which it may do without until they are asked for.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a family's own warnings are for whoever asks for its tasks
        try:
            tasks = family.sample(SAMPLED_TASKS, split=split, seed=0)
        except Exception:  # it shows again where the tasks are needed
            return None
    numbers = {}
    for name, value in tasks.parameters.items():
        rows = value.detach().cpu().double().numpy().reshape(len(tasks), -1)
        numbers[name] = [float(f"{number:.7g}") for number in (rows / np.arange(1, rows.shape[1] + 1)).sum(1)]
    return numbers


def _close(then: Any, now: Any) -> bool:
    """Whether two records of sampled tasks agree; a split without tasks is not compared."""
    if then is None or now is None:
        return True
    return then.keys() == now.keys() and all(
        np.allclose(now[name], then[name], rtol=1e-4, atol=1e-6, equal_nan=True) for name in then
    )


def _parameter_differences(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    names = [*then, *(name for name in now if name not in then)]
    return {
        f"task parameter {name}": f"task parameter {name!r} {now.get(name, 'missing')} instead of "
        f"{then.get(name, 'missing')}"
        for name in names
        if now.get(name) != then.get(name)
    }

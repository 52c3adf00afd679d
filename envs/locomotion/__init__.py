"""Locomotion: task families over the robots of Gymnasium's MuJoCo environments (version 5)."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

_PLACES = {
    "HalfCheetahDir-v0": ("families", "HalfCheetahDir"),
    "HalfCheetahVel-v0": ("families", "HalfCheetahVel"),
    "AntDir-v0": ("families", "ant_dir"),
    "AntVel-v0": ("families", "AntVel"),
    "AntGoal-v0": ("families", "AntGoal"),
    "HumanoidDir-v0": ("families", "HumanoidDir"),
    "Walker2dRandParams-v0": ("random_params", "Walker2dRandParams"),
    "HopperRandParams-v0": ("random_params", "HopperRandParams"),
}


def factories() -> dict[str, Callable[..., Any]]:
    """Id → factory. MuJoCo is imported when a family is made, not when it is listed."""
    return {id: partial(_make, *place) for id, place in _PLACES.items()}


def _make(module: str, name: str, **options: Any) -> Any:
    return getattr(importlib.import_module(f"metarl.envs.locomotion.{module}"), name)(**options)

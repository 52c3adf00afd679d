"""Every number that an agent's options take: NaN, infinity and what means nothing are refused by the option's name."""

import dataclasses
import math
import typing

import pytest

import metarl
from metarl.agents.maml import MAMLConfig
from metarl.agents.ppo import PPOConfig
from metarl.agents.sb3_config import SB3PPOConfig
from metarl.agents.trpo import TrustRegion
from metarl.ranges import check_range
from metarl.registry import agent_class, list_agents

UNBOUNDED = {"clip", "max_gradient_norm", "clip_range", "max_grad_norm"}
"""Options of which infinity means that there is no bound."""
ANY_SIGN = {"reward_mean"}
CONFIGS = sorted({agent_class(agent).config_class for agent in list_agents()} | {TrustRegion}, key=lambda c: c.__name__)


def options(kind: type):
    """(config class, option) of every option of this type, or of this type or None."""
    return [
        (config_class, name)
        for config_class in CONFIGS
        for name, hint in typing.get_type_hints(config_class).items()
        if kind in (hint, *typing.get_args(hint)) and not _is_tuple(hint) and not _is_checked_later(config_class, name)
    ]


def _is_checked_later(config_class, name):
    """The networks of agents that PPO trains know the range of `initial_std`."""
    return name == "initial_std" and issubclass(config_class, PPOConfig)


def _is_tuple(hint):
    return typing.get_origin(hint) is tuple


@pytest.mark.parametrize(("config_class", "name"), options(float), ids=lambda value: getattr(value, "__name__", value))
def test_numbers_that_mean_nothing_are_refused(config_class, name):
    wrong = [math.nan, -math.inf]
    wrong += [] if name in UNBOUNDED else [math.inf]
    wrong += [] if name in ANY_SIGN else [-0.5]
    for value in wrong:
        with pytest.raises(metarl.UsageError, match=name) as raised:
            config_class(**{name: value})
        assert "\n" not in str(raised.value)
    if name in UNBOUNDED:
        config_class(**{name: math.inf})


@pytest.mark.parametrize(("config_class", "name"), options(int), ids=lambda value: getattr(value, "__name__", value))
def test_counts_below_one_are_refused(config_class, name):
    for value in (0, -1) if name != "learning_starts" else (-1,):
        with pytest.raises(metarl.UsageError, match=name):
            config_class(**{name: value})


def test_layers_of_no_units_are_refused():
    for config_class in CONFIGS:
        for option in dataclasses.fields(config_class):
            if _is_tuple(typing.get_type_hints(config_class)[option.name]):
                with pytest.raises(metarl.UsageError, match=r"hidden.* must be a whole number of at least 1, got 0"):
                    config_class(**{option.name: (8, 0)})


@pytest.mark.parametrize(
    ("config_class", "given", "message"),
    [
        (PPOConfig, {"discount": 1.5}, r"discount must lie in \[0, 1\], got 1.5"),
        (PPOConfig, {"lr": math.inf}, "lr must be a finite number above 0, got inf"),
        (PPOConfig, {"lr": -1.0}, "lr must be above 0, got -1.0"),
        (PPOConfig, {"max_gradient_norm": math.nan}, "max_gradient_norm must be a number above 0, got nan"),
        (MAMLConfig, {"inner_lr": 0.0}, "inner_lr must be above 0, got 0.0"),
        (MAMLConfig, {"initial_std": 0.0}, "initial_std must be above 0, got 0.0"),
        (TrustRegion, {"backtrack_ratio": 1.0}, r"backtrack_ratio must lie in \(0, 1\), got 1.0"),
        (SB3PPOConfig, {"gamma": 1.01}, r"gamma must lie in \[0, 1\], got 1.01"),
    ],
)
def test_the_message_says_the_range(config_class, given, message):
    with pytest.raises(metarl.UsageError, match=f"^{message}$"):
        config_class(**given)


def test_ends_of_ranges_are_in_or_out_as_said():
    check_range("x", 0, least=0, most=1)
    check_range("x", 1, least=0, most=1)
    check_range("x", -5)
    for bounds in ({"above": 1}, {"below": 1}, {"least": 2}, {"most": 0}):
        with pytest.raises(metarl.UsageError, match=r"x must be (above 1|below 1|at least 2|at most 0), got 1"):
            check_range("x", 1, **bounds)
    with pytest.raises(metarl.UsageError, match="x must be a finite number, got nan"):
        check_range("x", math.nan)

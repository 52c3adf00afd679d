"""What cannot make a family of Gymnasium environments: instances, shared environments, other spaces, wrong options."""

import operator

import gymnasium as gym
import jaxtyping
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from plain import Doubled, Plain, Told

from metarl import UsageError
from metarl.envs.gymnasium_env import GymnasiumDistribution

WAYS = [{"vectorization": "sync"}, {"workers": 1}]
IDS = ["sync", "async"]


@pytest.fixture(autouse=True)
def untyped(monkeypatch):
    """As users call: only the tests check types."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def family(env, **options):
    defaults = {"parameters": {"number": (0.0, 9.0)}, "apply": lambda env, task: None, "horizon": 5}
    return GymnasiumDistribution("Wrong-v0", env, **defaults | options)


def line(action, *arguments, **options):
    """The one line in which it is refused."""
    with pytest.raises(UsageError) as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Sources --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [Plain, lambda: gym.make("CartPole-v1"), lambda: gym.vector.SyncVectorEnv([Plain])],
    ids=["environment", "wrapped", "vector"],
)
def test_an_instance_is_refused(make):
    found = line(family, make())
    assert found.startswith("Wrong-v0: pass a class or a function that makes an environment, not an environment (")


@pytest.mark.parametrize("env", [None, 5, ["CartPole-v1"]])
def test_what_makes_no_environment_is_refused(env):
    assert line(family, env).startswith("Wrong-v0: pass an id, an EnvSpec, or a class or function")


@pytest.mark.parametrize("options", WAYS, ids=IDS)
def test_an_environment_that_comes_twice_is_refused(options):
    def shared():
        if not hasattr(shared, "env"):
            shared.env = Plain()
        return Doubled(shared.env)

    distribution = family(shared, **options)
    assert line(distribution.make_env, 2) == (
        "Wrong-v0: its factory returned the same environment twice (Plain): make a new one in each call"
    )


@pytest.mark.parametrize("missing", ["observation_space", "action_space"])
@pytest.mark.parametrize(("value", "words"), [(None, "no space"), (5, "5, which is no gymnasium.Space,")])
def test_an_environment_without_a_space_is_named(missing, value, words):
    bare = type("Bare", (Plain,), {missing: value})
    assert line(family, bare) == f"Wrong-v0: Bare has {words} as its {missing}"


# Spaces ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", WAYS, ids=IDS)
@pytest.mark.parametrize(
    ("spaces", "words"),
    [
        (
            (Box(-9, 9, (2,)), Discrete(2)),
            "the observation space Box(-9.0, 9.0, (1,), float32), but .* (2,)",
        ),
        ((Box(0, 255, (8, 8, 3), np.uint8), Discrete(2)), "the observation space"),
        ((Box(-9, 9, (1,)), Discrete(3)), "the action space Discrete(2), but .* has Discrete(3)"),
        ((Box(-9, 9, (1,)), Discrete(2, start=1)), "the action space Discrete(2), but .* has Discrete(2, start=1)"),
        ((Box(-9, 9, (1,)), Box(-1, 1, (2,))), "the action space Discrete(2), but"),
    ],
)
def test_spaces_that_the_environments_have_not_are_refused(spaces, words, options):
    found = line(family(Plain, spaces=spaces, **options).make_env, 1)
    assert found.startswith("Wrong-v0: Plain has ")
    assert found.endswith(" (environment 0, task 0)")
    position = 0
    for part in words.split(".*"):
        position = found.index(part, position)


def test_bounds_matter_for_actions_alone():
    class Pushed(Plain):
        action_space = Box(-1, 1, (1,))

    wide = Box(-2, 2, (1,))
    assert "the action space" in line(family(Pushed, spaces=(Plain.observation_space, wide), **WAYS[0]).make_env, 1)
    family(Pushed, spaces=(wide, Pushed.action_space), **WAYS[0]).make_env(1).close()


def test_a_factory_that_changes_the_spaces_is_found():
    class Growing(Plain):
        count = 0

        def __init__(self):
            super().__init__()
            Growing.count += 1
            self.action_space = Discrete(1 + Growing.count)

    assert "the action space Discrete(3), but" in line(family(Growing, **WAYS[0]).make_env, 1)


@pytest.mark.parametrize("spaces", [5, (Discrete(2),), (Discrete(2), 3)])
def test_spaces_are_a_pair_of_spaces(spaces):
    assert "spaces must be a pair of gymnasium spaces" in line(family, Plain, spaces=spaces)


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reset_options": [1]}, "Wrong-v0: reset_options must be a dict from names to values, got [1]"),
        ({"reset_options": {1: 2}}, "reset_options must be a dict from names to values"),
        ({"env_kwargs": [1]}, "env_kwargs must be a dict"),
        ({"apply": None}, "apply must be a function of an environment and a task, got None"),
        ({"success_key": ["success"]}, "success_key must be the name of an entry of info"),
        ({"state": len}, "state must be a pair of functions"),
        ({"wrappers": None}, "wrappers must be a list of functions"),
        ({"wrappers": Doubled}, "wrappers must be a list of functions"),
        ({"wrappers": [gym.wrappers.TimeLimit]}, "pass lambda env: TimeLimit(env, …)"),
        (
            {"wrappers": [Doubled, lambda env: gym.wrappers.FilterObservation(env, ["place"])]},
            "Wrong-v0: the wrapper <lambda> raised ValueError: ",
        ),
    ],
)
def test_wrong_options_are_named(options, words):
    assert words in line(family, Plain, **options)


def test_options_of_a_reset_are_a_dictionary():
    distribution = family(Told, **WAYS[0])
    env = distribution.make_env(1)
    env.set_tasks(distribution.task(number=1))
    assert "options of a reset must be a dict" in line(env.reset, options=[1])
    env.reset(options={"a": 3})
    assert env.step(torch.zeros(1, dtype=torch.int64))[1].tolist() == [0.0]


# Tasks that reach nothing ---------------------------------------------------------------------------------------------


class Windy(gym.Wrapper):
    """A wrapper of a user's own, which reads its attribute."""

    strength = 0.0


def rewarded(env):
    return gym.wrappers.TransformReward(env, float)


def assigned(env, name, where=lambda env: env, **options):
    """An environment of a family whose `apply` sets the attribute `name` of one layer."""
    distribution = family(env, apply=lambda env, task: setattr(where(env), name, task["number"]), **options)
    made = distribution.make_env(2)
    try:
        made.set_tasks(distribution.sample(2, seed=0))
    finally:
        made.close()


@pytest.mark.parametrize("options", WAYS, ids=IDS)
def test_an_attribute_that_only_a_wrapper_of_gymnasium_has_is_refused(options):
    """All tasks would be the same one, and a training on them would look like any other."""
    assert line(assigned, "Pendulum-v1", "g", **options) == (
        "Wrong-v0: apply= sets 'g' on OrderEnforcing, a wrapper of Gymnasium around PendulumEnv, "
        "which keeps its own: set it on env.unwrapped"
    )
    assert "set it on the wrapper Windy" in line(
        assigned, "Pendulum-v1", "strength", wrappers=[Windy, rewarded], **options
    )


@pytest.mark.parametrize("options", WAYS, ids=IDS)
def test_a_misspelt_attribute_of_the_environment_is_refused(options):
    unwrapped = operator.attrgetter("unwrapped")
    assert line(assigned, "Pendulum-v1", "max_sped", unwrapped, **options) == (
        "Wrong-v0: apply= sets 'max_sped' on PendulumEnv, which has had no such attribute: did you mean 'max_speed'? "
        "If not, give it 'max_sped' when it is made"
    )


def test_attributes_that_are_read_are_not_refused():
    assigned("Pendulum-v1", "wind", lambda env: env.unwrapped)  # new, and like no other
    assigned("Pendulum-v1", "g", lambda env: env.unwrapped)
    assigned("Pendulum-v1", "strength", wrappers=[Windy])
    assigned("Pendulum-v1", "strength", lambda env: env.env, wrappers=[Windy, rewarded])
    assigned("Pendulum-v1", "func", wrappers=[rewarded])  # an attribute of the wrapper's own


def test_an_attribute_that_is_set_on_every_layer_is_not_refused():
    def everywhere(env, task):
        env.g = env.unwrapped.g = task["number"]

    distribution = family("Pendulum-v1", apply=everywhere)
    made = distribution.make_env(1)
    made.set_tasks(distribution.sample(1, seed=0))
    made.close()

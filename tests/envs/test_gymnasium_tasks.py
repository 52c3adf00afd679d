"""What an environment of Gymnasium gets for a task: names as strings, numbers as Python's, arrays of its own."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary
from scipy import stats

import metarl
from metarl import UsageError, check_distribution
from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.envs.native.base import NativeDistribution

GRAVITY = {"moon": 1.6, "earth": 9.8, "mars": 3.7}
PLANETS = {"train": ["moon", "earth"], "test": ["mars"]}


def set_planet(env, task):
    env.unwrapped.g = GRAVITY[task["planet"]]


def family(parameters=None, apply=set_planet, **options):
    options = {"vectorization": "sync", "horizon": 8} | options
    parameters = {"planet": PLANETS} if parameters is None else parameters
    return GymnasiumDistribution("Planets-v0", "Pendulum-v1", parameters=parameters, apply=apply, **options)


def check_gravity(planets):
    """The first step of Pendulum-v1 by hand: its angular velocity tells the gravity."""
    env = planets.make_env(2)
    env.set_tasks(planets.all_tasks("train"))
    _, sine, speed = env.reset(seed=0)[0].double().T
    found = env.step(torch.zeros(2, 1))[0][:, 2]
    env.close()
    gravity = torch.tensor([1.6, 9.8], dtype=torch.float64)
    torch.testing.assert_close(found, (speed + 3 * gravity / 2 * sine * 0.05).float(), rtol=0, atol=1e-5)


def test_an_environment_gets_the_name_of_its_task():
    check_gravity(family())


def test_so_does_one_in_a_worker_whose_apply_is_a_method_of_the_family():
    """The worker gets the family with it, its list of tasks included."""

    class Planets(GymnasiumDistribution):
        def __init__(self):
            super().__init__("P-v0", "Pendulum-v1", parameters={"planet": PLANETS}, apply=self.give, workers=1)

        def give(self, env, task):
            set_planet(env, task)

    check_gravity(Planets())


def test_every_kind_of_value_reaches_the_environment_as_it_was_written():
    seen = []
    parameters = {
        "planet": PLANETS,
        "mass": [0.5, 1.0],
        "level": Discrete(3),
        "on": [False, True],
        "lights": MultiBinary(2),
        "goal": [[1, 1], [1, 3]],
        "gravity": (5, 15),
        "wind": Box(0, 1, (2,), np.float32),
    }
    mixed = family(parameters, lambda env, task: seen.append(task))
    env = mixed.make_env(1)
    task = {"planet": "mars", "mass": 1, "level": 2, "on": True, "lights": [1, 0], "goal": [1, 3]}
    task |= {"gravity": 9.81, "wind": [0.25, 0.5]}
    env.set_tasks(mixed.task(**task))
    got = seen.pop()
    assert {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in got.items()} == task
    assert [type(got[name]) for name in ("planet", "mass", "level", "on")] == [str, float, int, bool]
    assert [got[name].dtype for name in ("lights", "goal", "wind")] == [np.int8, np.int64, np.float32]
    assert mixed.task_values(mixed.task(**task)) == [task]


def test_a_sampler_of_ones_own():
    def sample(rng, split):
        return {"g": rng.lognormal(2.0 if split == "train" else 3.0, 0.1)}

    own = family({"g": (0.0, np.inf)}, lambda env, task: setattr(env.unwrapped, "g", task["g"]), sample=sample)
    logs = own.sample(500, seed=0).parameters["g"].log()
    assert stats.kstest(logs.numpy(), stats.norm(2.0, 0.1).cdf).pvalue > 0.05
    check_distribution(own)


@pytest.mark.parametrize(
    "parameters",
    [
        {"planet": PLANETS},
        {"planet": {"train": ["moon", "earth", "mars"], "test": ["moon", "earth", "mars"]}},
        {"train": [{"planet": "moon"}, {"planet": "earth"}], "test": [{"planet": "mars"}]},
        {"planet": ["moon", "earth"], "mass": (0.5, 2.0)},
    ],
    ids=["three tasks", "the same in both splits", "whole tasks", "a name and a range"],
)
def test_the_contract_holds(parameters):
    check_distribution(family(parameters))


def test_a_constant_draw_is_still_a_fault_of_the_contract():
    with pytest.raises(metarl.contract.ContractError, match="different tasks in train and test, found the same"):
        check_distribution(family({"g": (9.81, 9.81)}, lambda env, task: setattr(env.unwrapped, "g", task["g"])))


def test_a_subclass_that_lists_its_tasks_is_sampled_from_its_list():
    class Listed(GymnasiumDistribution):
        def all_tasks(self, split):
            return metarl.Tasks({"g": torch.tensor([5.0, 6.0] if split == "train" else [14.0], dtype=torch.float64)})

    listed = Listed("L-v0", "Pendulum-v1", parameters={"g": (5.0, 15.0)}, apply=set_planet, vectorization="sync")
    assert sorted(listed.sample(4, seed=0).parameters["g"].tolist()) == [5.0, 5.0, 6.0, 6.0]
    assert listed.sample(2, split="test", seed=0).parameters["g"].tolist() == [14.0, 14.0]


def test_a_mistake_is_one_clear_line():
    with pytest.raises(UsageError, match=r"task parameter 'planet': want .* got 'moon'"):
        family({"planet": "moon"})
    with pytest.raises(UsageError, match="want one of 'moon', 'earth', 'mars', got 'pluto'"):
        family().task(planet="pluto")
    with pytest.raises(UsageError, match="task parameter 'planet': 3 is out of range"):
        family().make_env(1).set_tasks(metarl.Tasks({"planet": torch.tensor([3])}))


class Slope(NativeDistribution):
    """A point that slides to one of three sides."""

    id = "Slope-v0"
    horizon = 5
    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    task_space = metarl.TaskParameters({"drift": {"train": [-1.0, 1.0], "test": [0.5]}, "steep": Discrete(2)})

    def initial_state(self, streams, task):
        return {"place": streams.uniform(1)}

    def transition(self, state, action, streams, task):
        drift = task.parameters["drift"].float() * (1 + task.parameters["steep"])
        place = state["place"] + drift[:, None] + action.clamp(-1, 1)
        return {"place": place}, place[:, 0], torch.zeros(len(place), dtype=torch.bool)

    def observe(self, state):
        return state["place"]


def test_a_family_in_torch_takes_its_tasks_from_one_line():
    slope = Slope()
    check_distribution(slope)
    assert len(slope.all_tasks("train")) == 4
    assert slope.task_values(slope.all_tasks("test")) == [{"drift": 0.5, "steep": 0}, {"drift": 0.5, "steep": 1}]


def test_a_dictionary_space_of_gymnasium_is_a_dictionary_of_parameters():
    space = gym.spaces.Dict({"g": Box(1, 2, (), np.float64), "level": Discrete(2)})
    assert set(family(space, lambda env, task: None).task_space) == {"g", "level"}

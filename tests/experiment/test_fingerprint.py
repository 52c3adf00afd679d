"""The fingerprint of a family: the same everywhere, another one for another family."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from gymnasium import spaces
from own_families import Goals

import metarl
from metarl.experiment.fingerprint import bounds, differences, fingerprint, structure
from metarl.spaces import same_spaces

ELSEWHERE = """
import json, torch
torch.set_num_threads(2)
import metarl
from metarl.experiment.fingerprint import fingerprint
families = [metarl.make("TabularMDP-v0"), metarl.make("CartPoleParams-v0", vectorization="async", workers=3)]
print(json.dumps([fingerprint(family) for family in families]))
"""


def test_it_is_the_same_in_another_process():
    command, env = [sys.executable, "-c", ELSEWHERE], os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    here = [fingerprint(metarl.make(id)) for id in ("TabularMDP-v0", "CartPoleParams-v0")]
    assert json.loads(done.stdout) == here


def test_yaml_gives_it_back():
    mine = fingerprint(metarl.make("TabularMDP-v0"))
    assert yaml.safe_load(yaml.safe_dump(mine)) == mine


def test_it_says_what_the_family_is():
    mine = fingerprint(Goals())
    goals = Goals().sample(4, split="train", seed=0).parameters["goal"]
    assert mine.pop("tasks")["train"] == {"goal": pytest.approx((goals[:, 0] + goals[:, 1] / 2).tolist(), rel=1e-6)}
    assert mine == {
        "id": "Goals-v0",
        "observation_space": "Box float32 [2]",
        "observation_bounds": "[-inf, inf]",
        "action_space": "Box float32 [2]",
        "action_bounds": "[-0.1, 0.1]",
        "horizon": 10,
        "task_space": {"goal": "Box float32 [2] [-0.5, 0.5]"},
        "success": False,
    }


def test_a_family_that_changed_is_noticed_and_the_last_bits_are_not():
    then = fingerprint(Goals())
    assert differences(then, fingerprint(Goals())) == {}
    assert list(differences(then, fingerprint(Goals(horizon=9, goals_seed=1))).values()) == [
        "horizon 9 instead of 10",
        "other train tasks",
        "other test tasks",
    ]
    assert list(differences(then, fingerprint(Goals(goals_seed=1), splits=["test"]))) == ["test tasks"]
    rounded = json.loads(json.dumps(then))
    rounded["tasks"]["train"]["goal"] = [number * (1 + 1e-6) for number in rounded["tasks"]["train"]["goal"]]
    assert differences(then, rounded) == {}
    sparse = list(differences(then, fingerprint(metarl.make("SparsePointNavigation-v0", horizon=10))).values())
    assert sparse[0] == "id SparsePointNavigation-v0 instead of Goals-v0"
    assert "task parameter 'goal' Box float32 [2] [-1, 1] [0, 1] instead of Box float32 [2] [-0.5, 0.5]" in sparse
    assert "success True instead of False" in sparse
    bandit = differences(fingerprint(metarl.make("Bandit-v0")), then)
    assert "task parameter 'probabilities' missing instead of Box float32 [5] [0, 1]" in bandit.values()


def test_a_family_without_test_tasks_has_a_fingerprint():
    class Trained(Goals):
        def all_tasks(self, split):
            if split == "test":
                raise NotImplementedError
            return super().all_tasks(split)

    assert fingerprint(Trained())["tasks"]["test"] is None
    assert differences(fingerprint(Trained()), fingerprint(Goals())) == {}


def test_no_environment_is_built_for_it():
    class Unbuilt(Goals):
        def _make_env(self, *arguments):
            raise AssertionError

    fingerprint(Unbuilt())


SPACES = [
    spaces.Box(-1, 1, (2,)),
    spaces.Box(-1, 1, (3,)),
    spaces.Box(-1, 1, (2,), np.float64),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Discrete(3),
    spaces.Discrete(3, start=1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiDiscrete([2, 3], start=[0, 1]),
    spaces.MultiBinary(2),
    spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,)))),
    spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(-1, 1, (3,))),
    spaces.Dict(a=spaces.Box(-1, 1, (2,)), c=spaces.Box(-1, 1, (3,))),
]


def test_structures_are_equal_if_the_spaces_hold_the_same_values():
    for one in SPACES:
        for other in SPACES:
            assert (structure(one) == structure(other)) == same_spaces(one, other)
    assert structure(spaces.Box(-1, 1, (2,))) == structure(spaces.Box(-2, 1, (2,)))


def test_bounds_are_listed_if_they_are_few():
    assert bounds(spaces.Discrete(3)) == ""
    assert bounds(spaces.Box(0, 255, (84, 84, 3), np.uint8)) == "[0, 255]"
    assert bounds(spaces.Box(np.float32([-1, 0]), np.float32([1, np.inf]))) == "[-1, 1] [0, inf]"
    assert bounds(spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(0, 255, (4, 4, 3), np.uint8))) == (
        "a [-1, 1], b [0, 255]"
    )
    assert bounds(spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,))))) == "[-1, 1]"
    wide = [spaces.Box(-np.ones(20, np.float32), np.arange(20, dtype=np.float32) + shift) for shift in (0, 0, 1)]
    same, again, other = map(bounds, wide)
    assert same == again != other


@pytest.mark.parametrize("id", ["HalfCheetahDir-v0", "ML1-reach-v3", "PendulumParams-v0"])
def test_the_built_in_families_have_one(id: str, tmp_path: Path):
    mine = fingerprint(metarl.make(id))
    assert differences(mine, yaml.safe_load(yaml.safe_dump(fingerprint(metarl.make(id))))) == {}
    assert all(mine["tasks"].values())

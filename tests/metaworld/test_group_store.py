"""Engines of scenes that tasks have left: kept for a while, never without bound."""

import numpy as np
import pytest
import torch

import metarl
from metarl import Tasks
from metarl.envs.metaworld.family import random_space
from metarl.envs.metaworld.group import SceneGroup
from metarl.envs.metaworld.group_store import GroupKey, GroupStore

NAMES = [
    "reach-v3",
    "door-open-v3",
    "drawer-open-v3",
    "button-press-v3",
    "coffee-pull-v3",
    "bin-picking-v3",
    "soccer-v3",
]
"""Tasks of seven scenes."""


@pytest.fixture
def closed(monkeypatch):
    """The groups that have been closed."""
    found, close = [], SceneGroup.close

    def record(group):
        found.append(group)
        close(group)

    monkeypatch.setattr(SceneGroup, "close", record)
    return found


def family():
    return metarl.make("ML-custom", train=NAMES, test=["push-v3"], horizon=6)


def tasks_of(distribution, indices):
    """The middle of each task's space."""
    middles = [np.mean(random_space(distribution.names[index]), axis=0) for index in indices]
    return Tasks({"task_index": torch.tensor(indices), "rand_vec": torch.from_numpy(np.stack(middles))})


def steps_of(env, count=8):
    first, _ = env.reset()
    actions = 2 * torch.rand(count, env.num_envs, 4, generator=torch.Generator().manual_seed(0)) - 1
    return [first, *(part for action in actions for part in env.step(action)[:4])]


def test_shifting_tasks_keep_a_bounded_number_of_engines_and_the_same_numbers(closed):
    distribution = family()
    env = distribution.make_env(3, 2, backend="mujoco")
    generator = np.random.default_rng(0)
    engines, seen = set(), []
    for number in range(30):
        indices = generator.choice(len(NAMES), 3).tolist()
        env.set_tasks(tasks_of(distribution, indices))
        in_use = env.engines
        assert len(in_use) == len(set(indices))
        assert len(env._store) <= 2 * len(in_use)
        engines |= set(map(id, in_use))
        assert not {group.physics for group in closed} & set(in_use)
        if number % 10 == 9:
            seen.append((indices, steps_of(env)))
    assert len(closed) > 10, "more than the bound have been made"
    assert len(closed) == len(set(map(id, closed)))
    for indices, steps in seen:
        fresh = distribution.make_env(3, 2, backend="mujoco")
        fresh.set_tasks(tasks_of(distribution, indices))
        for found, expected in zip(steps, steps_of(fresh), strict=True):
            assert torch.equal(found, expected)
        fresh.close()
    left = len(env._store)
    before = len(closed)
    env.close()
    assert len(closed) == before + left


def test_the_least_recently_used_is_closed_first(closed):
    store = GroupStore("mujoco", torch.device("cpu"))
    one, two, three, four = (GroupKey("sawyer_reach_v3.xml", count, 1) for count in (1, 2, 3, 4))
    (first,) = store.take([one])
    (second,) = store.take([two])
    assert (len(store), closed) == (2, [])
    assert store.take([one]) == [first]
    store.take([three])  # `one` is the spare one now
    assert (len(store), closed) == (2, [second])
    assert store.take([one, four])[0] is first
    assert len(store) == 3  # two in use, one spare
    store.close()
    assert len(store) == 0
    assert len(closed) == 4

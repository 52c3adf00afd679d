"""Actions of every Gymnasium space: what the agent chooses from, and what reaches the environment."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple
from plain import Recorder

from metarl import UsageError
from metarl.envs.gymnasium_actions import ActionCodec
from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.spaces import check_action_space

LARGEST = np.finfo(np.float64).max
SPACES = {
    "vector": Box(-1, 1, (3,), np.float32),
    "number": Box(-1, 1, (), np.float32),
    "matrix": Box(-2, 3, (2, 2), np.float32),
    "float64": Box(np.array([-0.1, 0.0]), np.array([0.1, 0.3]), dtype=np.float64),
    "float16": Box(-1, 1, (2,), np.float16),
    "bytes": Box(0, 255, (2,), np.uint8),
    "int64": Box(-(2**63), 2**63 - 1, (2,), np.int64),
    "fixed axis": Box(np.float32([-1, 0]), np.float32([1, 0])),
    "unbounded": Box(-np.inf, np.inf, (2,), np.float32),
    "float64 max": Box(-LARGEST, LARGEST, (2,), np.float64),
    "discrete": Discrete(3),
    "discrete from -1": Discrete(3, start=-1),
    "multi-discrete": MultiDiscrete([3, 2]),
    "multi-discrete [2, 2]": MultiDiscrete([[3, 2], [4, 5]], start=[[0, 1], [-2, 0]]),
    "bits": MultiBinary(3),
    "bits [2, 2]": MultiBinary((2, 2)),
    "tuple": Tuple((Discrete(2), Box(-1, 1, (1,)))),
    "dict": Dict(move=Box(-1, 1, (2, 2), np.float64), gear=Discrete(4, start=1), lamps=MultiBinary(2)),
    "nested": Tuple((Dict(a=MultiDiscrete([2, 3]), b=Box(0, 9, (), np.int32)), Tuple((Discrete(5),)))),
    "only one": Dict(a=Dict(b=Discrete(3, start=2))),
}


def batch(space, seed, count=8):
    """Random actions as agents give them: flat numbers, far beyond the bounds of boxes."""
    rng = np.random.default_rng(seed)
    if isinstance(space, Tuple):
        return np.concatenate(
            [batch(part, seed + i, count).reshape(count, -1) for i, part in enumerate(space)], 1
        ).astype(np.float32)
    if isinstance(space, Box):
        return (100 * rng.standard_normal((count, *space.shape))).astype(np.float32)
    samples = []
    space.seed(seed)
    for _ in range(count):
        samples.append(space.sample())
    return np.asarray(samples, np.int64)


@pytest.mark.parametrize("name", SPACES)
def test_what_arrives_lies_in_the_environments_own_space(name):
    space = SPACES[name]
    codec = ActionCodec(space, "F")
    check_action_space(codec.space, "F")
    actions = batch(codec.space, 0)
    assert actions.shape[1:] == codec.shape
    assert actions.dtype == codec.dtype
    decoded = codec.decode(actions)
    assert len(decoded) == len(actions)
    for action in decoded:
        assert space.contains(action), action


@pytest.mark.parametrize("name", [name for name in SPACES if name not in ("int64", "float64 max")])
def test_a_sample_of_the_environments_space_makes_the_way_there_and_back(name):
    """What Gymnasium's sampling gives, written as flat numbers by hand, comes back as it was."""

    def numbers(action):
        parts = action.values() if isinstance(action, dict) else action if isinstance(action, tuple) else [action]
        nested = isinstance(action, dict | tuple)
        return np.concatenate([numbers(part) if nested else np.ravel(part).astype(np.float64) for part in parts])

    space = SPACES[name]
    codec = ActionCodec(space, "F")
    space.seed(1)
    for _ in range(5):
        sample = space.sample()
        flat = numbers(sample).reshape(1, *codec.shape).astype(codec.dtype)
        (decoded,) = codec.decode(flat)
        np.testing.assert_allclose(numbers(decoded), numbers(sample), rtol=1e-6)
        assert type(decoded) is type(sample)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("float64", Box(np.float32([-0.1, 0.0]), np.float32([0.1, 0.3]))),
        ("bytes", Box(0, 255, (2,), np.float32)),
        ("int64", Box(-np.inf, np.inf, (2,), np.float32)),
        ("float64 max", Box(-np.inf, np.inf, (2,), np.float32)),
        ("discrete from -1", Discrete(3, start=-1)),
        ("multi-discrete [2, 2]", MultiDiscrete([3, 2, 4, 5], start=[0, 1, -2, 0])),
        ("bits [2, 2]", MultiBinary(4)),
        ("dict", Tuple((Discrete(4, start=1), MultiBinary(2), Box(-1, 1, (4,), np.float32)))),
        ("nested", Tuple((MultiDiscrete([2, 3]), Box(0, 9, (1,), np.float32), Discrete(5)))),
        ("only one", Discrete(3, start=2)),
    ],
)
def test_the_spaces_that_agents_see(name, expected):
    found = ActionCodec(SPACES[name], "F").space
    if name == "dict":  # Gymnasium sorts the entries of a Dict, or keeps their order
        expected = Tuple([expected[{"gear": 0, "lamps": 1, "move": 2}[key]] for key in SPACES[name].spaces])
    assert found == expected


def test_boxes_are_rounded_and_clipped_to_bounds_that_float32_cannot_hold():
    codec = ActionCodec(Box(np.array([-0.1, 0.0]), np.array([0.1, 0.3]), dtype=np.float64), "F")
    (action,) = codec.decode(np.float32([[0.1, 0.3]]))  # float32(0.1) > 0.1
    assert action.tolist() == [0.1, 0.3]
    (action,) = ActionCodec(Box(0, 255, (3,), np.uint8), "F").decode(np.float32([[-4, 17.6, 300]]))
    assert (action.dtype, action.tolist()) == (np.uint8, [0, 18, 255])


def test_what_an_environment_keeps_of_an_action_does_not_change_later():
    codec, actions = ActionCodec(Box(-1, 1, (2,)), "F"), np.zeros((1, 2), np.float32)
    (kept,) = codec.decode(actions)
    actions[:] = 1
    assert kept.tolist() == [0, 0]


@pytest.mark.parametrize(
    "space", [Text(3), Sequence(Discrete(2)), Graph(Box(-1, 1), None), Dict(a=Text(3)), Dict()], ids=repr
)
def test_other_spaces_are_refused(space):
    with pytest.raises(UsageError, match=r"cannot be chosen here|is empty"):
        ActionCodec(space, "F")


@pytest.mark.parametrize(
    ("name", "vectorization"),
    [
        *((name, "sync") for name in ("float64", "bytes", "discrete from -1", "multi-discrete", "bits", "matrix")),
        ("dict", "async"),
    ],
)
def test_actions_reach_the_environments(name, vectorization):
    space = SPACES[name]
    distribution = GymnasiumDistribution(
        "Recorder-v0",
        Recorder,
        env_kwargs={"space": space},
        parameters={"none": (0.0, 1.0)},
        apply=lambda env, task: None,
        horizon=5,
        vectorization=vectorization,
        workers=2,
    )
    env = distribution.make_env(3)
    env.set_tasks(distribution.sample(3, seed=0))
    env.reset(seed=0)
    actions = batch(distribution.action_space, 4, 3)
    observations = env.step(torch.from_numpy(actions))[0]
    decoded = ActionCodec(space, "F").decode(actions)
    expected = np.stack([np.resize(gym.spaces.flatten(space, action), 6) for action in decoded])
    assert np.array_equal(observations.numpy(), expected.astype(np.float32))
    env.close()

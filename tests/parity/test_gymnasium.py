"""The classic-control families with Gymnasium's own parameters, beside `gymnasium.make` stepped by hand."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import metarl


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("id", "original", "task", "steps"),
    [
        ("CartPoleParams-v0", "CartPole-v1", {"gravity": 9.8, "mass": 0.1, "length": 0.5}, 120),
        ("PendulumParams-v0", "Pendulum-v1", {"gravity": 10.0, "mass": 1.0, "length": 1.0}, 420),
    ],
)
def test_the_original_parameters_give_the_original_environment(id, original, task, steps, vectorization):
    distribution = metarl.make(id, vectorization=vectorization, workers=2)
    ours = distribution.make_env(3)
    ours.set_tasks(distribution.task(**task).repeat_interleave(3))
    theirs = [gym.make(original) for _ in range(3)]
    observations = np.stack([env.reset(seed=8 + i)[0] for i, env in enumerate(theirs)])
    assert np.array_equal(ours.reset(seed=8)[0].numpy(), observations)
    space, rng, episodes = ours.single_action_space, np.random.default_rng(0), np.zeros(3, int)
    for _ in range(steps):
        discrete = isinstance(space, gym.spaces.Discrete)
        actions = rng.integers(0, 2, 3) if discrete else rng.uniform(-2, 2, (3, 1)).astype(np.float32)
        obs, reward, terminated, truncated, info = ours.step(torch.as_tensor(actions))
        for i, env in enumerate(theirs):
            final, expected, *ends, _ = env.step(actions[i])
            assert np.array_equal(info["final_obs"][i].numpy(), final)
            assert reward[i].item() == np.float32(expected)
            assert [bool(terminated[i]), bool(truncated[i])] == ends
            first = env.reset()[0] if any(ends) else final
            assert np.array_equal(obs[i].numpy(), first)
            episodes[i] += any(ends)
    ours.close()
    assert (episodes >= 2).all()

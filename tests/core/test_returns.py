"""Returns and advantages against closed forms, hand sums and Stable-Baselines3."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.buffers import RolloutBuffer

from metarl.rollout import discounted_returns, gae, standardize

DISCOUNT, LAMBDA = 0.97, 0.9


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_discounted_returns_are_a_hand_sum():
    rewards = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None]
    ended = torch.tensor([False, True, False, False])[:, None]
    expected = [1 + 0.5 * 2, 2, 3 + 0.5 * 4, 4]
    torch.testing.assert_close(discounted_returns(rewards, ended, 0.5)[:, 0], torch.tensor(expected))


def test_discounted_returns_are_the_double_sum(generator):
    rewards = torch.randn(30, 4, 3, generator=generator, dtype=torch.float64)
    ended = torch.rand(30, 4, 3, generator=generator) < 0.2
    expected = torch.zeros_like(rewards)
    for t in range(30):
        alive = torch.ones(4, 3, dtype=torch.float64)
        for k in range(t, 30):
            expected[t] += DISCOUNT ** (k - t) * alive * rewards[k]
            alive = alive * ~ended[k]
    torch.testing.assert_close(discounted_returns(rewards, ended, DISCOUNT), expected)


def test_gae_of_constant_rewards_is_a_geometric_sum():
    steps = 50
    ones, nothing = torch.ones(steps, 1, dtype=torch.float64), torch.zeros(steps, 1, dtype=torch.bool)
    value = 1 / (1 - DISCOUNT)  # of a reward of 1 for ever
    rate = DISCOUNT * LAMBDA
    lengths = torch.arange(steps, 0, -1, dtype=torch.float64)[:, None]

    advantages = gae(ones, 0 * ones, 0 * ones, nothing, nothing, discount=DISCOUNT, gae_lambda=LAMBDA)
    torch.testing.assert_close(advantages, (1 - rate**lengths) / (1 - rate))

    exact = gae(ones, value * ones, value * ones, nothing, nothing, discount=DISCOUNT, gae_lambda=LAMBDA)
    torch.testing.assert_close(exact, 0 * ones)


def test_gae_with_lambda_one_is_the_return_less_the_value(generator):
    rewards, values = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    ended = torch.rand(20, 3, generator=generator) < 0.2
    ended[-1] = True
    following = torch.cat([values[1:], torch.zeros(1, 3)])
    advantages = gae(rewards, values, following, ended, ended, discount=DISCOUNT, gae_lambda=1.0)
    torch.testing.assert_close(advantages, discounted_returns(rewards, ended, DISCOUNT) - values)


def test_gae_bootstraps_a_truncated_episode_and_not_a_terminated_one():
    one = torch.ones(1, 2)
    ended = torch.tensor([[True, True]])
    terminated = torch.tensor([[True, False]])
    advantages = gae(one, 3 * one, 5 * one, terminated, ended, discount=0.5, gae_lambda=LAMBDA)
    torch.testing.assert_close(advantages, torch.tensor([[1.0 - 3.0, 1.0 + 0.5 * 5.0 - 3.0]]))


def test_gae_is_that_of_stable_baselines3(generator):
    steps, envs = 40, 5
    rewards, values, final_values = torch.randn(3, steps, envs, generator=generator)
    last_values = torch.randn(envs, generator=generator)
    terminated = torch.rand(steps, envs, generator=generator) < 0.1
    truncated = (torch.rand(steps, envs, generator=generator) < 0.1) & ~terminated
    ended = terminated | truncated
    terminated[-1, 0] = ended[-1, 0] = True

    buffer = RolloutBuffer(steps, Box(-1, 1, (1,)), Box(-1, 1, (1,)), "cpu", LAMBDA, DISCOUNT, n_envs=envs)
    starts = torch.cat([torch.ones(1, envs, dtype=torch.bool), ended[:-1]])
    # Stable-Baselines3 folds the value of a truncated episode's last observation into its reward.
    folded = rewards + DISCOUNT * final_values * truncated
    nothing = np.zeros((envs, 1))
    for t in range(steps):
        buffer.add(nothing, nothing, folded[t].numpy(), starts[t].numpy(), values[t], torch.zeros(envs))
    buffer.compute_returns_and_advantage(last_values, ended[-1].numpy())

    following = torch.cat([values[1:], last_values[None]])
    next_values = torch.where(ended, final_values, following)
    ours = gae(rewards, values, next_values, terminated, ended, discount=DISCOUNT, gae_lambda=LAMBDA)
    torch.testing.assert_close(ours, torch.as_tensor(buffer.advantages), rtol=1e-4, atol=1e-5)


def test_standardize_is_numpys(generator):
    values = 3 + 2 * torch.randn(7, 4, 5, generator=generator, dtype=torch.float64)
    array = values.numpy()
    torch.testing.assert_close(standardize(values), torch.as_tensor((array - array.mean()) / array.std()))
    along = (array - array.mean((0, 2), keepdims=True)) / array.std((0, 2), keepdims=True)
    torch.testing.assert_close(standardize(values, dim=(0, 2)), torch.as_tensor(along))


def test_standardize_leaves_masked_entries_out(generator):
    values = torch.randn(50, generator=generator, dtype=torch.float64)
    mask = torch.rand(50, generator=generator) < 0.5
    result, chosen = standardize(values, mask), values[mask].numpy()
    torch.testing.assert_close(result[mask], torch.as_tensor((chosen - chosen.mean()) / chosen.std()))
    assert not result[~mask].any()


def test_standardize_of_equal_values_is_zero():
    assert not standardize(torch.full((4, 3), 2.0)).any()

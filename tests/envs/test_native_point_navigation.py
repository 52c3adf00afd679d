"""Point navigation against its equations, computed anew in NumPy; and its pictures."""

import numpy as np
import pytest
import torch

import metarl
from metarl import Tasks, UsageError, collect

RED, BLUE, GREY, PINK, WHITE = [200, 40, 40], [30, 80, 200], [150, 150, 150], [250, 215, 215], [255, 255, 255]


def recorded(env, actions):
    """What happens when `actions` `[T, B, 2]` are taken one after another."""
    queue = iter(actions)
    return collect(env, lambda observations: next(queue), len(actions), seed=0)


@pytest.fixture
def actions() -> torch.Tensor:
    return 0.12 * torch.randn(60, 4, 2, generator=torch.Generator().manual_seed(0))


def test_paths_and_rewards_are_the_equations(actions):
    family = metarl.make("PointNavigation-v0", horizon=25)
    env = family.make_env(2, 2)
    tasks = family.sample(2, seed=3)
    env.set_tasks(tasks)
    trajectories = recorded(env, actions)

    goals = np.repeat(tasks.parameters["goal"].numpy(), 2, axis=0)
    position, elapsed = np.zeros((4, 2)), np.zeros(4, int)
    for t, action in enumerate(actions.numpy()):
        np.testing.assert_allclose(trajectories.observations[t].flatten(0, 1), position, atol=1e-6)
        position = position + np.clip(action, -0.1, 0.1)
        elapsed += 1
        distance = np.hypot(*(position - goals).T)
        np.testing.assert_allclose(trajectories.rewards[t].flatten(), -(distance**2), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(trajectories.final_observations[t].flatten(0, 1), position, atol=1e-6)
        np.testing.assert_array_equal(trajectories.terminated[t].flatten(), distance <= 0.01)
        np.testing.assert_array_equal(trajectories.truncated[t].flatten(), elapsed >= 25)
        ended = (distance <= 0.01) | (elapsed >= 25)
        position[ended], elapsed[ended] = 0, 0
    assert trajectories.success is None


def test_an_episode_terminates_at_the_goal_and_the_next_begins():
    family = metarl.make("PointNavigation-v0")
    env = family.make_env(1)
    env.set_tasks(family.task(goal=[0.25, 0.0]))
    trajectories = recorded(env, torch.tensor([[[0.1, 0]], [[0.1, 0]], [[0.055, 0]], [[0.0, 0]]]))
    assert trajectories.terminated[:, 0, 0].tolist() == [False, False, True, False]
    assert not trajectories.truncated.any()
    torch.testing.assert_close(trajectories.rewards[2, 0, 0].item(), -(0.005**2), rtol=1e-3, atol=0)
    assert trajectories.observations[3, 0, 0].tolist() == [0, 0]
    torch.testing.assert_close(trajectories.final_observations[2, 0, 0], torch.tensor([0.255, 0.0]))


def test_goals_are_uniform_in_the_square():
    goals = metarl.make("PointNavigation-v0").sample(4000, split="test", seed=0).parameters["goal"]
    assert goals.abs().max() <= 0.5
    cells = ((goals + 0.5) * 4).long().clamp(max=3)
    counts = torch.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    assert ((counts - 250).square() / 250).sum() < 30.6  # 99 % quantile of chi-square with 15 degrees of freedom


@pytest.mark.parametrize("radius", [0.2, 0.5])
def test_sparse_rewards_are_paid_inside_the_region_only(radius, actions):
    family = metarl.make("SparsePointNavigation-v0", horizon=60, goal_radius=radius)
    env = family.make_env(4)
    goals = torch.tensor([[0.3, 0.2], [0.0, 0.45], [-0.4, 0.3], [0.0, 1.0]])
    env.set_tasks(Tasks({"goal": goals}))
    trajectories = recorded(env, 2 * actions)
    distance = np.linalg.norm(trajectories.final_observations[:, :, 0] - goals, axis=-1)
    inside = distance <= radius
    assert 0 < inside.sum() < inside.size / 2
    np.testing.assert_allclose(trajectories.rewards[:, :, 0], np.where(inside, 1 - distance, 0), atol=1e-6)
    np.testing.assert_array_equal(trajectories.success[:, :, 0], inside)
    np.testing.assert_allclose(trajectories.dense_rewards[:, :, 0], -distance, atol=1e-6)
    assert not trajectories.terminated.any()


def test_sparse_goals_lie_on_the_upper_half_circle():
    goals = metarl.make("SparsePointNavigation-v0").sample(2000, seed=0).parameters["goal"]
    torch.testing.assert_close(goals.norm(dim=-1), torch.ones(2000))
    assert goals[:, 1].min() >= 0
    angles = torch.atan2(goals[:, 1], goals[:, 0]) / np.pi
    assert (torch.histc(angles, 10, 0, 1) - 200).square().sum() / 200 < 21.7  # chi-square, 9 degrees of freedom


@pytest.mark.parametrize("radius", [0.0, -1.0, 1.5, float("nan")])
def test_a_wrong_radius_is_refused(radius):
    with pytest.raises(UsageError, match="goal_radius"):
        metarl.make("SparsePointNavigation-v0", goal_radius=radius)


@pytest.mark.parametrize(("id", "extent"), [("PointNavigation-v0", 0.75), ("SparsePointNavigation-v0", 1.4)])
def test_a_picture_shows_point_start_and_goal_where_they_are(id, extent):
    family = metarl.make(id)
    env = family.make_env(2, render_mode="rgb_array")
    env.set_tasks(Tasks({"goal": torch.tensor([[-0.4, 0.3], [0.3, 0.4]])}))
    env.reset()
    for _ in range(4):
        env.step(torch.tensor([[0.1, 0.05]] * 2))
    pictures = env.render()
    assert len(pictures) == 2

    def pixel(picture, x, y):
        scale = 255 / (2 * extent)
        return picture[round((extent - y) * scale), round((x + extent) * scale)].tolist()

    for picture, goal in zip(pictures, [(-0.4, 0.3), (0.3, 0.4)], strict=True):
        assert picture.shape == (256, 256, 3)
        assert picture.dtype == np.uint8
        assert pixel(picture, 0.4, 0.2) == BLUE
        assert pixel(picture, 0, 0) == GREY
        assert pixel(picture, *goal) == RED
        assert pixel(picture, -0.5, -0.5) == WHITE
        assert pixel(picture, goal[0] - 0.15, goal[1]) == (PINK if "Sparse" in id else WHITE)


def test_without_a_render_mode_there_is_no_picture():
    family = metarl.make("PointNavigation-v0")
    env = family.make_env(1)
    env.set_tasks(family.sample(1, seed=0))
    env.reset()
    with pytest.raises(UsageError, match="cannot be rendered"):
        env.render()

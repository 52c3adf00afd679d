"""`collect` and `Trajectories`: what is recorded, in which order the policy hears of it, how episodes are counted."""

import pytest
import torch
from gymnasium.spaces import Discrete

import metarl
from metarl import PolicyStep, Trajectories, UsageError, collect
from metarl.rollout import FunctionPolicy

NATIVE = ["Bandit-v0", "PointNavigation-v0", "SparsePointNavigation-v0", "TabularMDP-v0"]


def a_policy_for(family):
    """A fixed function of the observation alone."""
    generator = torch.Generator().manual_seed(0)
    size = family.observation_space.shape[0]
    if isinstance(family.action_space, Discrete):
        weights = torch.rand(size, family.action_space.n, generator=generator)
        return lambda observations: (observations @ weights).argmax(-1)
    weights = torch.randn(size, *family.action_space.shape, generator=generator)
    return lambda observations: 0.07 * torch.cos(observations @ weights + torch.tensor([0.3, 1.0]))


@pytest.mark.parametrize("id", NATIVE)
def test_many_environments_at_once_are_the_same_environments_one_at_a_time(id):
    family = metarl.make(id)
    policy, tasks, steps = a_policy_for(family), family.sample(3, seed=0), family.horizon + 5
    env = family.make_env(3, 2)
    env.set_tasks(tasks)
    together = collect(env, policy, steps, seed=11)
    single = family.make_env(1)
    for m in range(3):
        single.set_tasks(tasks[m])
        for n in range(2):
            alone = collect(single, policy, steps, seed=11 + 2 * m + n)
            for name in ("observations", "actions", "rewards", "terminated", "truncated", "final_observations"):
                torch.testing.assert_close(getattr(together, name)[:, m, n], getattr(alone, name)[:, 0, 0])
            if together.success is not None:
                assert torch.equal(together.success[:, m, n], alone.success[:, 0, 0])


class Diary:
    """Pulls arms in turn and writes down everything that it is told, in order."""

    def __init__(self):
        self.lines = []

    def act(self, observations):
        self.lines.append(("act", observations))
        turn = sum(kind == "act" for kind, *_ in self.lines)
        actions = torch.full(observations.shape[:2], turn % 5)
        return PolicyStep(actions, log_probs=-actions.float(), extras={"turn": torch.full_like(actions, turn)})

    def observe(self, rewards, terminated, truncated):
        self.lines.append(("observe", rewards, terminated, truncated))


def test_a_policy_hears_of_every_step_before_it_acts_again():
    family = metarl.make("Bandit-v0", pulls=3)
    env, diary = family.make_env(2, 4), Diary()
    env.set_tasks(family.sample(2, seed=0))
    trajectories = collect(env, diary, 7, seed=0)

    assert [kind for kind, *_ in diary.lines] == ["act", "observe"] * 7
    for t in range(7):
        (_, observations), (_, rewards, terminated, truncated) = diary.lines[2 * t : 2 * t + 2]
        assert torch.equal(observations, trajectories.observations[t])
        assert torch.equal(rewards, trajectories.rewards[t])
        assert not terminated.any()
        # The last reward and the end of an episode arrive before the first act of the next one.
        assert truncated.tolist() == [[t in (2, 5)] * 4] * 2
        assert trajectories.episode_starts[t].all() == (t in (0, 3, 6))
    assert trajectories.rewards.any()
    assert trajectories.extras["turn"][:, 0, 0].tolist() == list(range(1, 8))
    assert torch.equal(trajectories.log_probs, -trajectories.actions.float())


def test_final_observations_are_those_before_the_reset():
    family = metarl.make("PointNavigation-v0", horizon=4)
    env = family.make_env(1, 2)
    env.set_tasks(family.task(goal=[-0.4, -0.4]))
    trajectories = collect(env, lambda observations: torch.full_like(observations, 0.1), 9)
    path = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.0, 0.1, 0.2, 0.3, 0.0])
    torch.testing.assert_close(trajectories.observations[:, 0, 1, 0], path)
    torch.testing.assert_close(trajectories.final_observations[:, 0, 1, 0], path + 0.1)
    assert trajectories.num_steps == 9
    assert trajectories.num_transitions == 18


def test_tasks_come_first_in_the_layout():
    family = metarl.make("PointNavigation-v0")
    env = family.make_env(2, 3)
    env.set_tasks(metarl.Tasks({"goal": torch.tensor([[0.1, 0.0], [0.5, 0.0]])}))
    rewards = collect(env, torch.zeros_like, 1).rewards[0]
    torch.testing.assert_close(rewards, torch.tensor([[-0.01] * 3, [-0.25] * 3]))


def test_without_a_seed_the_random_streams_go_on():
    family = metarl.make("Bandit-v0", pulls=50)
    env = family.make_env(1, 1, seed=4)
    env.set_tasks(family.task(probabilities=[0.5] * 5))

    def run(seed=None):
        return collect(env, lambda observations: torch.zeros(1, dtype=torch.int64), 50, seed=seed).rewards

    first, second = run(), run()
    assert not torch.equal(first, second)
    assert torch.equal(run(seed=4), first)
    assert torch.equal(run(), second)


def test_a_function_policy_sees_flat_observations():
    policy = FunctionPolicy(lambda observations: observations.sum(-1))
    observations = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(policy.act(observations).actions, observations.sum(-1))


@pytest.mark.parametrize("steps", [0, -3])
def test_a_wrong_number_of_steps_is_refused(steps):
    family = metarl.make("Bandit-v0")
    env = family.make_env(1)
    env.set_tasks(family.sample(1, seed=0))
    with pytest.raises(UsageError, match="number of steps"):
        collect(env, Diary(), steps)


@pytest.fixture
def trajectories() -> Trajectories:
    """Five steps of one task in two environments: episodes of 2, 3 and of 1, 3, 1 steps."""
    starts = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 0, 0, 1]], dtype=torch.bool).T[:, None]
    rewards = torch.tensor([[1, 2, 4, 8, 16], [1, 2, 4, 8, 16]], dtype=torch.float32).T[:, None]
    terminated = torch.tensor([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool).T[:, None]
    truncated = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 1, 0]], dtype=torch.bool).T[:, None]
    observations = torch.arange(20.0).reshape(5, 1, 2, 2)
    success = rewards == 4
    return Trajectories(
        observations, rewards.long(), rewards, terminated, truncated, starts, observations, success=success,
        extras={"twice": 2 * rewards},
    )  # fmt: skip


def test_episodes_are_counted_per_environment(trajectories):
    assert trajectories.episode_index[:, 0].T.tolist() == [[0, 0, 1, 1, 1], [0, 1, 1, 1, 2]]
    assert trajectories.ended[:, 0].T.int().tolist() == [[0, 1, 0, 0, 1], [1, 0, 0, 1, 0]]
    assert trajectories.episode_returns(0).tolist() == [[3, 1]]
    assert trajectories.episode_returns(1).tolist() == [[28, 14]]
    assert trajectories.episode_returns(2).tolist() == [[0, 16]]
    assert trajectories.episode_success(0).tolist() == [[False, False]]
    assert trajectories.episode_success(1).tolist() == [[True, True]]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]),
        (2, [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]),
        (3, [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]),
        (4, [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
    ],
)
def test_the_first_episodes_of_a_task_go_round_its_environments(trajectories, count, expected):
    assert trajectories.in_first_episodes(count)[:, 0].T.int().tolist() == expected


def test_selected_environments_keep_every_field(trajectories):
    second = trajectories.select_envs(slice(1, 2))
    assert torch.equal(second.rewards, trajectories.rewards[:, :, 1:])
    assert torch.equal(second.extras["twice"], 2 * trajectories.rewards[:, :, 1:])
    assert torch.equal(second.success, trajectories.success[:, :, 1:])
    assert second.log_probs is None
    assert second.episode_index[:, 0, 0].tolist() == [0, 1, 1, 1, 2]

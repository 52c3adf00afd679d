"""`collect` and `Trajectories`: what is recorded, in which order the policy hears of it, how episodes are counted."""

import importlib

import pytest
import torch
from gymnasium.spaces import Discrete

import metarl
from metarl import Policy, PolicyStep, Trajectories, UsageError, collect
from metarl.rollout import FunctionPolicy, used_fraction

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


class Diary(Policy):
    """Pulls arms in turn and writes down everything that it is told, in order."""

    def __init__(self):
        self.lines = []

    def act(self, observations):
        self.lines.append(("act", observations))
        turn = sum(kind == "act" for kind, *_ in self.lines)
        actions = torch.full(observations.shape[:2], turn % 5)
        return PolicyStep(actions, log_probs=-actions.float(), extras={"turn": torch.full_like(actions, turn)})

    def observe(self, transition):
        self.lines.append(("observe", transition))

    def begin_trial(self, mask):
        self.lines.append(("begin_trial", mask))


def test_a_policy_hears_of_every_step_before_it_acts_again():
    family = metarl.make("Bandit-v0", pulls=3)
    env, diary = family.make_env(2, 4), Diary()
    env.set_tasks(family.sample(2, seed=0))
    trajectories = collect(env, diary, 7, seed=0)

    assert [kind for kind, *_ in diary.lines] == ["act", "observe"] * 7
    for t in range(7):
        (_, observations), (_, transition) = diary.lines[2 * t : 2 * t + 2]
        assert torch.equal(observations, trajectories.observations[t])
        assert torch.equal(transition.observations, observations)
        assert torch.equal(transition.actions, trajectories.actions[t])
        assert torch.equal(transition.rewards, trajectories.rewards[t])
        assert torch.equal(transition.next_observations, trajectories.final_observations[t])
        assert transition.active is None
        assert not transition.terminated.any()
        # The last reward and the end of an episode arrive before the first act of the next one.
        assert transition.truncated.tolist() == [[t in (2, 5)] * 4] * 2
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "number of steps"),
        ({"num_steps": -3}, "number of steps"),
        ({"episodes": 0}, "number of episodes"),
        ({"num_steps": 3, "episodes": 1}, "either a number of steps or episodes=K"),
        ({}, "either a number of steps or episodes=K"),
        ({"num_steps": 3, "episodes_per_trial": 0}, "episodes_per_trial"),
    ],
)
def test_a_wrong_length_is_refused(arguments, message):
    family = metarl.make("Bandit-v0")
    env = family.make_env(1)
    env.set_tasks(family.sample(1, seed=0))
    with pytest.raises(UsageError, match=message):
        collect(env, Diary(), **arguments)


# Whole episodes ------------------------------------------------------------------------------------------------------


def uneven(num_tasks=3, envs_per_task=2):
    """Cart poles, whose episodes end at different times."""
    family = metarl.make("CartPoleParams-v0", horizon=60)
    env = family.make_env(num_tasks, envs_per_task)
    env.set_tasks(family.sample(num_tasks, seed=0))
    return family, env


def leaning(observations):
    """Pushes to the side that the pole leans to."""
    return (observations[:, 2] > 0).long()


def test_episodes_go_on_until_every_environment_has_ended_them_and_no_longer():
    _, env = uneven()
    trajectories = collect(env, leaning, episodes=2, seed=3)
    ended = trajectories.ended.sum(0)
    assert ended.min() == 2
    assert len(trajectories.ended.nonzero()[:, 0].unique()) > 4, "at different times"
    assert trajectories.ended[:-1].sum(0).min() == 1, "it ends with the last of them"
    longer = collect(env, leaning, trajectories.num_steps + 7, seed=3)
    for name in ("observations", "rewards", "terminated", "episode_starts"):
        assert torch.equal(getattr(trajectories, name), getattr(longer, name)[: trajectories.num_steps])
    assert torch.equal(trajectories.final_observations, longer.final_observations[: trajectories.num_steps])
    env.close()


def test_a_policy_is_told_which_environments_only_wait():
    _, env = uneven()

    class Watching(Policy):
        def __init__(self):
            self.active = []

        def act(self, observations):
            return PolicyStep(leaning(observations.flatten(0, 1)).unflatten(0, observations.shape[:2]))

        def observe(self, transition):
            self.active.append(transition.active)

    policy = Watching()
    trajectories = collect(env, policy, episodes=1, seed=3)
    assert torch.equal(torch.stack(policy.active), trajectories.episode_index < 1)
    env.close()


def test_an_episode_is_as_long_as_the_environment_says():
    for horizon in (3, 11):
        family = metarl.make("PointNavigation-v0", horizon=horizon)
        env = family.make_env(1, 2)
        env.set_tasks(family.task(goal=[0.4, 0.4]))
        assert collect(env, torch.zeros_like, episodes=2).num_steps == 2 * horizon


def test_more_steps_than_there_is_room_for_at_first():
    family = metarl.make("PointNavigation-v0", horizon=importlib.import_module("metarl.rollout.collect").ROOM + 50)
    env = family.make_env(1, 1)
    env.set_tasks(family.task(goal=[0.4, 0.4]))
    by_episodes = collect(env, lambda observations: torch.full_like(observations, 1e-4), episodes=1, seed=0)
    by_steps = collect(env, lambda observations: torch.full_like(observations, 1e-4), family.horizon, seed=0)
    assert torch.equal(by_episodes.observations, by_steps.observations)
    assert torch.equal(by_episodes.rewards, by_steps.rewards)


def test_environments_that_outlast_their_horizon_are_named():
    family = metarl.make("PointNavigation-v0", horizon=5)
    env = family.make_env(1, 2)
    env.set_tasks(family.task(goal=[0.4, 0.4]))
    step = env.step

    def endless(actions):
        *_, info = result = step(actions)
        return *result[:3], torch.zeros(2, dtype=torch.bool), info

    env.step = endless
    with pytest.raises(UsageError, match=r"PointNavigation-v0: an environment did not end 2 episodes"):
        collect(env, torch.zeros_like, episodes=2)


def test_trials_begin_after_so_many_episodes_of_each_environment():
    _, env = uneven()
    diary = Diary()
    diary.act = lambda observations: PolicyStep((observations[..., 2] > 0).long())
    trajectories = collect(env, diary, 100, episodes_per_trial=2, seed=3)
    told = torch.stack([mask for kind, mask in diary.lines if kind == "begin_trial"])
    assert torch.equal(told[:-1], trajectories.trial_starts[1:])
    assert trajectories.trial_starts[0].all()
    expected = trajectories.episode_starts & (trajectories.episode_index % 2 == 0)
    assert torch.equal(trajectories.trial_starts, expected)
    complete = trajectories.in_complete_trials(2)
    for m in range(3):
        for n in range(2):
            starts = [*trajectories.trial_starts[:, m, n].nonzero()[:, 0].tolist()]
            ends = trajectories.ended[:, m, n] & (trajectories.episode_index[:, m, n] % 2 == 1)
            last = int(ends.nonzero()[-1, 0]) if ends.any() else -1
            assert complete[:, m, n].tolist() == [t <= last for t in range(100)]
            assert not ends.any() or starts[-1] in (last + 1, *starts)
    env.close()


def test_without_trials_only_the_beginning_is_one():
    _, env = uneven()
    diary = Diary()
    diary.act = lambda observations: PolicyStep((observations[..., 2] > 0).long())
    trajectories = collect(env, diary, 50)
    assert trajectories.trial_starts[0].all()
    assert not trajectories.trial_starts[1:].any()
    assert not any(kind == "begin_trial" for kind, *_ in diary.lines)
    env.close()


# Forks ---------------------------------------------------------------------------------------------------------------


def test_a_fork_is_independent_by_default():
    class Counter(Policy):
        def __init__(self):
            self.seen, self.generator = torch.zeros(1), torch.Generator().manual_seed(3)

        def act(self, observations):
            self.seen += 1
            return PolicyStep(torch.rand(*observations.shape[:2], 2, generator=self.generator))

    policy = Counter()
    fork = policy.fork()
    first = fork.act(torch.zeros(1, 1, 2)).actions
    assert (policy.seen.item(), fork.seen.item()) == (0, 1)
    assert torch.equal(policy.act(torch.zeros(1, 1, 2)).actions, first)


def test_an_observer_put_on_a_single_policy_is_heard():
    """What a policy is not told must not depend on where its `observe` was written."""
    policy, heard = FunctionPolicy(torch.zeros_like), []
    policy.observe = heard.append
    family = metarl.make("PointNavigation-v0", horizon=4)
    env = family.make_env(1, 2)
    env.set_tasks(family.sample(1, seed=0))
    trajectories = collect(env, policy, 3)
    assert torch.equal(torch.stack([transition.rewards for transition in heard]), trajectories.rewards)


def test_half_a_policy_is_refused_in_one_line():
    class OldPolicy:
        def act(self, observations):
            return PolicyStep(observations)

        def __call__(self, observations):
            raise AssertionError("it is no function")

    family = metarl.make("PointNavigation-v0")
    env = family.make_env(1)
    env.set_tasks(family.sample(1, seed=0))
    with pytest.raises(UsageError, match=r"OldPolicy lacks methods of a policy: subclass metarl\.Policy"):
        collect(env, OldPolicy(), 3)


@pytest.fixture
def trajectories() -> Trajectories:
    """Five steps of one task in two environments: episodes of 2, 3 and of 1, 3, 1 steps."""
    starts = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 0, 0, 1]], dtype=torch.bool).T[:, None]
    rewards = torch.tensor([[1, 2, 4, 8, 16], [1, 2, 4, 8, 16]], dtype=torch.float32).T[:, None]
    terminated = torch.tensor([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool).T[:, None]
    truncated = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 1, 0]], dtype=torch.bool).T[:, None]
    trials = starts & (torch.arange(5)[:, None, None] == 0)
    observations = torch.arange(20.0).reshape(5, 1, 2, 2)
    last = -torch.arange(8.0).reshape(4, 2)  # env 1 at step 0, env 0 at step 1, env 1 at step 3, env 0 at step 4
    return Trajectories(
        observations, rewards.long(), rewards, terminated, truncated, starts, trials, last, torch.full((1, 2, 2), 99.0),
        success=rewards == 4, extras={"twice": 2 * rewards},
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


def test_final_observations_are_put_together_again(trajectories):
    final, observations = trajectories.final_observations, trajectories.observations
    assert final[0, 0].tolist() == [observations[1, 0, 0].tolist(), [0.0, -1.0]]
    assert final[1, 0].tolist() == [[-2.0, -3.0], observations[2, 0, 1].tolist()]
    assert final[3, 0].tolist() == [observations[4, 0, 0].tolist(), [-4.0, -5.0]]
    assert final[4, 0].tolist() == [[-6.0, -7.0], [99.0, 99.0]]


def test_complete_episodes_leave_out_what_is_under_way(trajectories):
    assert trajectories.in_complete_episodes[:, 0].T.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert trajectories.in_complete_trials(2)[:, 0].T.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert trajectories.in_complete_trials(3)[:, 0].T.int().tolist() == [[0] * 5, [0] * 5]
    assert used_fraction(trajectories.in_complete_episodes) == 0.9


def test_selected_environments_keep_every_field(trajectories):
    second = trajectories.select_envs(slice(1, 2))
    assert torch.equal(second.final_observations, trajectories.final_observations[:, :, 1:])
    assert torch.equal(second.rewards, trajectories.rewards[:, :, 1:])
    assert torch.equal(second.extras["twice"], 2 * trajectories.rewards[:, :, 1:])
    assert torch.equal(second.success, trajectories.success[:, :, 1:])
    assert second.log_probs is None
    assert second.episode_index[:, 0, 0].tolist() == [0, 1, 1, 1, 2]

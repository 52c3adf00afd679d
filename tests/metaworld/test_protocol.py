"""The package's protocol: which episodes count, and that each of them starts from what adaptation has taught."""

import pytest
import torch

import metarl
from metarl.agents.recurrent import RecurrentPolicy
from metarl.agents.rl2 import RL2, RL2Config
from metarl.envs.metaworld.protocol import FIRST_EPISODES, Round, _settled, count_first, first_to_finish


def counted_as_the_package_does(rounds, names, count):
    """`metaworld.evaluation.evaluation`'s loop over steps, for environments that run their episodes back to back."""
    tasks, envs = rounds[0].lengths.shape
    ends = {
        (task, env): torch.stack([part.lengths[task, env] for part in rounds]).cumsum(0).tolist()
        for task in range(tasks)
        for env in range(envs)
    }
    returns = {int(name): [] for name in names}
    successes = dict.fromkeys(returns, 0)
    for step in range(1, max(max(times) for times in ends.values()) + 1):
        for (task, env), times in ends.items():
            if step in times:
                part, name = rounds[times.index(step)], int(names[task])
                returns[name].append(float(part.returns[task, env]))
                if len(returns[name]) <= count:
                    successes[name] += int(part.success[task, env])
    means = [sum(returns[name][:count]) / count for name in sorted(returns)]
    return torch.tensor(means), torch.tensor([successes[name] / count for name in sorted(returns)])


def random_rounds(generator, number, shape, horizon=15):
    rounds = []
    for _ in range(number):
        success = torch.rand(shape, generator=generator) < 0.5
        success[4:] = False  # a name that never succeeds
        lengths = torch.randint(1, horizon, shape, generator=generator).where(success, torch.tensor(horizon))
        rounds.append(Round(lengths, torch.rand(shape, generator=generator), success))
    return rounds


@pytest.mark.parametrize("seed", range(5))
def test_episodes_are_counted_as_the_package_does(seed):
    names = torch.tensor([2, 0, 2, 0, 1, 1, 1])
    rounds = random_rounds(torch.Generator().manual_seed(seed), FIRST_EPISODES, (7, 2))
    scores = count_first(rounds, names)
    for ours, theirs in zip(
        (scores.returns, scores.success), counted_as_the_package_does(rounds, names, FIRST_EPISODES), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert scores.tasks.tolist() == [1, 4, 0]


@pytest.mark.parametrize("seed", range(20))
def test_no_more_rounds_are_run_than_can_count(seed):
    names = torch.tensor([0, 0, 1, 1])
    rounds = random_rounds(torch.Generator().manual_seed(seed), FIRST_EPISODES, (4, 1))
    needed = next(number for number in range(1, FIRST_EPISODES + 1) if _settled(rounds[:number], names))
    few, all_rounds = count_first(rounds[:needed], names), count_first(rounds, names)
    assert torch.equal(few.returns, all_rounds.returns)
    assert torch.equal(few.success, all_rounds.success)


def test_an_easy_goal_counts_three_times():
    lengths, success = torch.tensor([[1], [9]]), torch.tensor([[True], [False]])
    scores = count_first([Round(lengths, torch.ones(2, 1), success)] * 3, torch.tensor([0, 0]))
    assert scores.success.tolist() == [1.0]


class Watched(RecurrentPolicy):
    """Writes down the memory with which each environment starts each of its episodes."""

    starts: list

    def act(self, observations):
        memory = self.memory
        step = super().act(observations)
        if memory is not None and not hasattr(self, "seen"):
            self.seen = memory.hidden[0].clone()
            self.starts.append(self.seen)
        return step


def test_every_counted_episode_starts_from_the_adapted_memory():
    family = metarl.make("ML1-reach-v3", horizon=6)
    agent = RL2(RL2Config(num_tasks=1, hidden=8), metarl.EnvSpec.of(family))
    env = family.make_env(1, 1)
    env.set_tasks(family.sample(1, split="test", seed=0))
    adapted = agent.adapt(env, 2, seed=1)
    starts: list = []

    def probe(number):
        fork = Watched(adapted.network, metarl.randomness.make_generator("probe", number))
        fork.memory, fork.starts = adapted.memory, starts
        return fork

    before = adapted.memory.hidden[0].clone()
    first_to_finish(env, probe, seed=0)
    env.close()
    assert len(starts) == FIRST_EPISODES  # one environment has to run them all
    assert all(torch.equal(start, before) for start in starts)
    assert torch.equal(adapted.memory.hidden[0], before)


def test_it_is_for_the_batched_backends():
    family = metarl.make("ML1-reach-v3", horizon=6, vectorization="sync")
    env = family.make_env(1, 1, backend="gymnasium")
    with pytest.raises(metarl.UsageError, match="needs backend mujoco or warp"):
        first_to_finish(env, lambda number: None, seed=0)
    env.close()

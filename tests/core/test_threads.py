"""Torch's threads: one inside metarl's own work, as the user has set them everywhere else."""

import subprocess
import sys
import threading

import pytest
import torch

import metarl
from metarl import UsageError
from metarl.agents.random import RandomAgent
from metarl.threads import LARGE, in_threads, more_threads, torch_threads


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Counting(RandomAgent):
    """Notes the number of threads of each iteration."""

    seen: list[int] = []

    def improve(self, env, *, seed):
        self.seen.append(torch.get_num_threads())
        return super().improve(env, seed=seed)


def test_importing_changes_nothing():
    program = "import torch; n = torch.get_num_threads(); import metarl.api; print(torch.get_num_threads() == n)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"


def test_a_rollout_computes_with_one_thread_and_leaves_the_number_as_it_was():
    family, seen = metarl.make("PointNavigation-v0", horizon=3), []
    env = family.make_env(1)
    env.set_tasks(family.sample(1, seed=0))

    def act(observations):
        seen.append(torch.get_num_threads())
        if len(seen) == 5:
            raise RuntimeError("broken")
        return torch.zeros(1, 2)

    metarl.collect(env, act, 3)
    assert (seen, torch.get_num_threads()) == ([1, 1, 1], 3)
    with pytest.raises(RuntimeError, match="broken"):
        metarl.collect(env, act, 3)
    assert torch.get_num_threads() == 3
    with torch_threads(2):
        seen.clear()
        metarl.collect(env, act, 2)
    assert (seen, torch.get_num_threads()) == ([2, 2], 3)


@pytest.mark.parametrize(("threads", "expected"), [(None, 1), (2, 2)])
def test_training_computes_with_one_thread_or_as_many_as_asked_for(threads, expected, tmp_path):
    Counting.seen = []
    options = {"num_tasks": 1, "envs_per_task": 1}
    config = metarl.TrainConfig(
        Counting, "Bandit-v0", {}, options, iterations=2, threads=threads, output=tmp_path / "r"
    )
    metarl.train(config, progress=False)
    assert Counting.seen == [expected] * 2
    assert torch.get_num_threads() == 3


def test_more_threads_are_those_of_the_script_unless_the_user_has_chosen():
    with torch_threads():
        with more_threads(10**7):
            assert torch.get_num_threads() == 3
        with more_threads(1000):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    with torch_threads(2), more_threads(10**7):
        assert torch.get_num_threads() == 2
    with more_threads(10**7):
        assert torch.get_num_threads() == 3


def test_independent_work_is_spread_over_the_threads_that_more_threads_gives():
    meeting, seen = threading.Barrier(3), []

    def work(number):
        seen.append((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))
        meeting.wait(30)  # all three are at work at once
        return 10 * number

    for recorded in (True, False):
        with torch_threads(), torch.set_grad_enabled(recorded):
            assert in_threads(work, [1, 2, 3], LARGE) == [10, 20, 30]
        assert len({thread for thread, *_ in seen}) == 3
        assert {tuple(rest) for _, *rest in seen} == {(1, recorded)}
        seen.clear()
    assert torch.get_num_threads() == 3


def test_small_work_and_a_single_item_stay_on_the_thread_of_the_caller():
    def work(_):
        return threading.get_ident(), torch.get_num_threads()

    with torch_threads():
        assert in_threads(work, [1, 2, 3], LARGE - 1) == [(threading.get_ident(), 1)] * 3
        assert in_threads(work, [1], LARGE) == [(threading.get_ident(), 3)]
        assert in_threads(work, [], LARGE) == []
    with torch_threads(1):
        assert in_threads(work, [1, 2, 3], LARGE) == [(threading.get_ident(), 1)] * 3


def test_an_error_on_another_thread_is_raised_and_leaves_the_number_of_threads_as_it_was():
    def work(number):
        if number == 2:
            raise UsageError("broken")

    with torch_threads(), pytest.raises(UsageError, match="broken"):
        in_threads(work, [1, 2, 3], LARGE)
    assert torch.get_num_threads() == 3


def test_a_script_that_allows_one_thread_gets_no_more():
    """`OMP_NUM_THREADS=1` gives torch this number, too."""
    torch.set_num_threads(1)
    with torch_threads(), more_threads(10**7):
        assert torch.get_num_threads() == 1


def test_no_threads_are_refused(tmp_path):
    with pytest.raises(UsageError, match="threads"), torch_threads(0):
        pass
    with pytest.raises(UsageError, match="threads"):
        metarl.train(metarl.TrainConfig("random", "Bandit-v0", threads=0, output=tmp_path / "run"))

"""Meta-World in batches: what one environment does depends on its task and its actions, and on nothing beside it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import metarl
from metarl import Tasks, UsageError, check_distribution
from metarl.envs.metaworld import episode_starts
from metarl.envs.metaworld.family import random_space

INFO = {
    "final_obs",
    "_final_obs",
    "success",
    "near_object",
    "grasp_success",
    "grasp_reward",
    "in_place_reward",
    "obj_to_target",
    "unscaled_reward",
    "fault",
}
# Two of one scene, one whose reward remembers its first step, one with a fixture, one with a mug before the arm.
MIXED = ["door-open-v3", "door-close-v3", "bin-picking-v3", "drawer-open-v3", "coffee-pull-v3"]


def mixed(horizon=20, **options):
    return metarl.make("ML-custom", train=MIXED, test=["reach-v3"], horizon=horizon, **options)


def draw(distribution, indices, seed=0):
    """One task of each of `indices`, its random vector uniform in the task's space."""
    random, rows = np.random.default_rng(seed), []
    for index in indices:
        low, high = random_space(distribution.names[index])
        rows.append(random.uniform(low, high))
    return Tasks({"task_index": torch.tensor(indices), "rand_vec": torch.from_numpy(np.stack(rows))})


def actions_for(count, steps, seed=0):
    return 2 * torch.rand(steps, count, 4, generator=torch.Generator().manual_seed(seed)) - 1


def begin(distribution, tasks, envs_per_task=1, **options):
    env = distribution.make_env(len(tasks), envs_per_task, backend="mujoco", **options)
    env.set_tasks(tasks)
    observations, _ = env.reset(seed=0)
    return env, observations


def take(env, actions):
    """What the steps return, `[T, B, ...]` by name."""
    rows = []
    for action in actions:
        observations, reward, terminated, truncated, info = env.step(action)
        parts = {"observations": observations, "reward": reward, "terminated": terminated, "truncated": truncated}
        rows.append(parts | info)
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def run(distribution, tasks, actions, envs_per_task=1):
    env, first = begin(distribution, tasks, envs_per_task)
    steps = take(env, actions)
    env.close()
    return {"first": first[None], **steps}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# The same bits ------------------------------------------------------------------------------------------------------


def test_a_task_runs_the_same_in_any_company():
    distribution, indices = metarl.make("ML10-v3", horizon=6), [0, 3, 3, 7, 12]
    tasks, actions = draw(distribution, indices), actions_for(10, 8)
    together = run(distribution, tasks, actions, envs_per_task=2)
    order = [4, 1, 0, 3, 2]
    shuffled = run(distribution, tasks[order], actions.unflatten(1, (5, 2))[:, order].flatten(1, 2), envs_per_task=2)
    for place, task in enumerate(order):
        for name, value in together.items():
            assert torch.equal(value[:, 2 * task : 2 * task + 2], shuffled[name][:, 2 * place : 2 * place + 2]), name
    for task in (1, 4):
        alone = run(distribution, tasks[task], actions[:, [2 * task]])
        name = distribution.names[indices[task]]
        by_itself = metarl.make(f"ML1-{name}", horizon=6)
        renamed = Tasks({**tasks[task].parameters, "task_index": torch.tensor([0])})
        assert_same(alone, {key: value[:, [2 * task]] for key, value in together.items()})
        assert_same(alone, run(by_itself, renamed, actions[:, [2 * task]]))


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    distribution = mixed()
    tasks, actions = draw(distribution, [0, 2, 4]), actions_for(9, 5)
    episode_starts._store.cache_clear()
    many = run(distribution, tasks, actions, envs_per_task=3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    episode_starts._store.cache_clear()
    assert_same(many, run(distribution, tasks, actions, envs_per_task=3))


def test_environments_of_one_task_differ_by_their_actions_alone():
    distribution = mixed()
    actions = actions_for(1, 5).expand(5, 4, 4)
    for name, value in run(distribution, draw(distribution, [2]), actions, envs_per_task=4).items():
        assert (value == value[:, :1]).all(), name


# Tasks under way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [[0, 2, 4], [1, 2, 3], [2, 2, 0], [5, 1, 5]])
def test_a_new_task_under_way_takes_effect_at_once_and_finds_no_trace_of_the_old(new):
    distribution = mixed(horizon=12)
    env, _ = begin(distribution, draw(distribution, [0, 2, 4]), envs_per_task=2)
    take(env, actions_for(6, 4, seed=1))
    tasks = draw(distribution, new, seed=3)
    env.set_tasks(tasks)
    fresh, first = begin(distribution, tasks, envs_per_task=2)
    state, expected = env.get_state(), fresh.get_state()
    assert state.pop("elapsed_steps").tolist() == [4] * 6  # the time in the episode goes on
    assert expected.pop("elapsed_steps").tolist() == [0] * 6
    assert_same(state, expected)
    actions = actions_for(6, 20, seed=2)
    found, wanted = take(env, actions[:8]), take(fresh, actions[:8])
    assert found.pop("truncated")[-1].all()
    assert not wanted.pop("truncated").any()
    assert torch.equal(found.pop("observations")[-1], first)
    assert torch.equal(found.pop("_final_obs"), torch.arange(8)[:, None].expand(8, 6) == 7)
    del wanted["observations"], wanted["_final_obs"]
    assert_same(found, wanted)
    fresh.reset()
    assert_same(take(env, actions[8:]), take(fresh, actions[8:]))  # and what comes after is the new task, too
    env.close()
    fresh.close()


def test_wrong_tasks_change_nothing():
    distribution = mixed()
    tasks, actions = draw(distribution, [0, 4]), actions_for(2, 6)
    expected = run(distribution, tasks, actions)
    env, _ = begin(distribution, tasks)
    steps = [take(env, actions[:3])]
    outside = Tasks({**tasks.parameters, "rand_vec": tasks.parameters["rand_vec"] + 1})
    with pytest.raises(UsageError, match=r"'rand_vec': .* is out of range"):
        env.set_tasks(outside)
    with pytest.raises(UsageError, match="runs 2 tasks, got 1"):
        env.set_tasks(tasks[0])
    assert env.tasks == tasks
    steps.append(take(env, actions[3:]))
    assert_same({name: torch.cat([step[name] for step in steps]) for name in steps[0]}, _without(expected, "first"))
    env.close()


def _without(parts, *names):
    return {name: value for name, value in parts.items() if name not in names}


# Episodes -----------------------------------------------------------------------------------------------------------


def test_episodes_end_by_time_and_start_again_where_they_started():
    distribution = mixed(horizon=5)
    env, first = begin(distribution, draw(distribution, [0, 2, 3]))
    actions = actions_for(3, 5)
    one, two = take(env, actions), take(env, actions)
    assert torch.equal(one["truncated"], torch.arange(5)[:, None].expand(5, 3) == 4)
    assert torch.equal(one["truncated"], one["_final_obs"])
    assert not one["terminated"].any()
    assert torch.equal(one["observations"][-1], first)
    assert (one["final_obs"][-1] != first).any(1).all()
    assert torch.equal(one["final_obs"][:-1], one["observations"][:-1])
    assert_same(one, two)
    env.close()


def test_observations_hold_now_and_before():
    distribution = mixed()
    steps = run(distribution, draw(distribution, [0, 4]), actions_for(2, 4))
    seen = torch.cat([steps["first"], steps["observations"]])
    assert torch.equal(seen[0, :, :18], seen[0, :, 18:36])
    assert torch.equal(seen[1:, :, 18:36], seen[:-1, :, :18])
    assert not torch.equal(seen[1:, :, :18], seen[:-1, :, :18])


def test_info_holds_the_numbers_of_the_package():
    distribution = mixed()
    env, _ = begin(distribution, draw(distribution, [0, 2]), envs_per_task=2)
    _, reward, _, _, info = env.step(actions_for(4, 1)[0])
    assert info.keys() == INFO
    assert all(value.shape[:1] == (4,) for value in info.values())
    assert torch.equal(info["unscaled_reward"], reward)
    assert info["success"].dtype == info["fault"].dtype == torch.bool
    env.close()


def test_the_goal_is_shown_or_hidden():
    distribution, shown = metarl.make("ML1-reach-v3"), metarl.make("ML1-reach-v3", goal_observable=True)
    tasks, actions = draw(distribution, [0, 0]), actions_for(2, 3)
    hidden, seen = run(distribution, tasks, actions), run(shown, tasks, actions)
    assert not hidden["observations"][..., 36:].any()
    assert (seen["observations"][..., 36:] == tasks.parameters["rand_vec"][:, 3:].float()).all()
    assert torch.equal(hidden["observations"][..., :36], seen["observations"][..., :36])
    assert_same(
        _without(hidden, "first", "observations", "final_obs"), _without(seen, "first", "observations", "final_obs")
    )


def test_one_hot_names_the_task():
    distribution = metarl.make("MT10-v3")
    assert distribution.observation_space.shape == (49,)
    tasks = draw(distribution, [7, 0, 7])
    env, first = begin(distribution, tasks, envs_per_task=2)
    expected = torch.eye(10)[[7, 7, 0, 0, 7, 7]]
    assert torch.equal(first[:, 39:], expected)
    assert torch.equal(take(env, actions_for(6, 2))["final_obs"][..., 39:], expected.expand(2, 6, 10))
    assert all(env.single_observation_space.contains(row.numpy()) for row in first)
    env.close()


def reach_out(env, observations, steps):
    """Moves the hand to the goal: what a step returned, until it ends an episode."""
    for _ in range(steps):
        toward = torch.nn.functional.pad(25 * (observations[:, 36:] - observations[:, :3]), (0, 1))
        step = env.step(toward)
        observations = step[0]
        yield step


def test_success_ends_an_episode_where_it_is_asked_to():
    options = {"goal_observable": True, "horizon": 60}
    for terminate in (False, True):
        distribution = metarl.make("ML1-reach-v3", terminate_on_success=terminate, **options)
        env, first = begin(distribution, draw(distribution, [0, 0, 0], seed=1))
        successes = torch.zeros(3, dtype=torch.int64)
        for observations, _, terminated, truncated, info in reach_out(env, first, 60):
            assert torch.equal(terminated, info["success"] & terminate)
            assert torch.equal(info["_final_obs"], terminated | truncated)
            assert torch.equal(observations[terminated], first[terminated])
            successes += info["success"]
        assert (successes > 0).all()
        assert terminate == bool((successes < 10).all())  # the hand stays where it has arrived unless the episode ends
        env.close()


def test_reward_v1_is_another_reward_for_the_same_motion():
    v2, v1 = (mixed(reward=version) for version in ("v2", "v1"))
    tasks, actions = draw(v2, [0, 3, 4]), actions_for(3, 4)
    one, other = run(v2, tasks, actions), run(v1, tasks, actions)
    assert torch.equal(one["observations"], other["observations"])
    assert (one["reward"] != other["reward"]).all()
    assert (one["reward"] >= 0).all()
    assert (other["reward"] < 0).any()  # v1 begins with the distance to the object


# States -------------------------------------------------------------------------------------------------------------


def test_a_restored_state_repeats_its_steps():
    distribution = mixed(horizon=12)
    tasks, actions = draw(distribution, [0, 1, 2, 4]), actions_for(8, 16)
    one, _ = begin(distribution, tasks, envs_per_task=2)
    other, _ = begin(distribution, tasks, envs_per_task=2)
    at_once = one.get_state()
    from_start = take(one, actions)
    one.set_state(at_once)
    take(one, actions[:7])
    assert_same({name: value[7:] for name, value in from_start.items()}, take(one, actions[7:]))
    one.set_state(at_once)
    take(one, actions[:7])
    state = one.get_state()
    assert all(len(value) == 8 for value in state.values())
    state["memory"] *= 1.5  # what rewards remember is the state's, not what the environment itself has seen
    one.set_state(state)
    expected = take(one, actions[7:])
    assert expected["truncated"].any()
    take(other, actions[:3])
    for env in (other, one):
        env.set_state(state)
        assert_same(env.get_state(), state)
        assert_same(take(env, actions[7:]), expected)
    one.close()
    other.close()


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 1e12])
def test_a_world_that_breaks_down_is_reset_and_counted_and_its_neighbours_do_not_notice(broken):
    distribution = mixed(horizon=10)
    tasks, actions = draw(distribution, [0, 2, 2]), actions_for(6, 8)
    expected = run(distribution, tasks, actions, envs_per_task=2)
    env, first = begin(distribution, tasks, envs_per_task=2)
    before = take(env, actions[:3])
    state = env.get_state()
    state["qvel"][3, 0] = broken
    env.set_state(state)
    at = take(env, actions[3:4])
    assert at["fault"][0].tolist() == at["truncated"][0].tolist() == [place == 3 for place in range(6)]
    assert env.fault_count == 1
    assert at["reward"][0, 3] == 0
    assert not at["success"][0, 3]
    assert all(value.isfinite().all() for value in at.values())
    assert torch.equal(at["final_obs"][0, 3, :18], before["observations"][-1, 3, :18])
    assert torch.equal(at["observations"][0, 3], first[3])
    after = take(env, actions[4:])
    others = [0, 1, 2, 4, 5]
    for name, value in _without(expected, "first").items():
        assert torch.equal(torch.cat([at[name], after[name]])[:, others], value[3:, others]), name
    fresh, _ = begin(distribution, tasks, envs_per_task=2)
    again = take(fresh, actions[4:])
    assert_same(
        {name: value[:, 3] for name, value in after.items()}, {name: value[:, 3] for name, value in again.items()}
    )
    env.close()
    fresh.close()


# The contract, and what it costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["ML1-door-open-v3", "MT1-reach-v3", "ML10-v3", "MT10-v3"])
def test_the_contract_holds(id):
    check_distribution(metarl.make(id, horizon=10), backend="mujoco")


def test_the_contract_holds_for_a_set_of_ones_own():
    check_distribution(mixed(horizon=6, reward="v1", terminate_on_success=True), backend="mujoco", num_tasks=4)


@pytest.mark.slow
def test_batches_step_on_warp_as_on_threads():
    """In float32, and not bit by bit: what Warp's solver finds depends a little on what it found before."""
    distribution = mixed(horizon=5)
    tasks, actions, runs = draw(distribution, [0, 2, 3], seed=1), actions_for(6, 8), []
    for backend in ("warp", "mujoco"):
        env = distribution.make_env(3, 2, backend=backend)
        env.set_tasks(draw(distribution, [4, 2, 0]))
        env.reset(seed=0)
        take(env, actions[:2])
        env.set_tasks(tasks)
        first, _ = env.reset(seed=0)
        runs.append({"first": first[None], **take(env, actions)})
        env.close()
    warp, threads = runs
    for name, value in threads.items():
        if value.dtype == torch.bool:
            assert torch.equal(warp[name], value), name
        else:
            torch.testing.assert_close(warp[name], value, rtol=0, atol=1e-3, msg=name)
    assert torch.equal(warp["observations"][4], warp["first"][0])


MEMORY = """
import resource, torch, metarl
distribution = metarl.make("ML45-v3")
env = distribution.make_env(45, 20, backend="mujoco")
for seed in range(2):
    env.set_tasks(distribution.sample(45, seed=seed))
    env.reset(seed=0)
    for _ in range(5):
        env.step(torch.zeros(900, 4))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_the_largest_set_fits_into_memory():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    gigabytes = int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / 1e9
    print(f"{gigabytes:.2f} GB")
    assert gigabytes < 6

"""The batched tasks against the official environments: the same actions, the same observations, rewards and success.

MuJoCo starts the search of its constraint solver from the last frame's solution. `mujoco.rollout`, our engine on the
CPU, does so within a step but begins each step anew. What is found differs by the solver's tolerance, and where an
object stands on several contact points it starts to roll or to slide another way. So there are two comparisons: with
the official environment as it is, within 1e-6 in the first 10 steps and 1e-3 in 100 but for the tasks in
`CONTACT_RICH`; and with one that, like ours, forgets the solution before each step, to the last digit of float32 but
for the tasks in `REORDERED`.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from official_states import begin, make_official, play, quiet_policy, random_vector

import metarl
from metarl import Tasks
from metarl.envs.metaworld.goals import padded
from metarl.envs.metaworld.task_sets import TASKS
from metarl.envs.metaworld.tasks import definition

STEPS = 100
EARLY = 10
BOUNDS = 1e-6, 1e-3
CONTACT_RICH = {
    "button-press-wall-v3": (1e-6, 5e-3),
    "coffee-pull-v3": (1e-4, 3e-2),
    "coffee-push-v3": (1e-4, 3e-2),
    "hammer-v3": (1e-6, 1e-2),
    "hand-insert-v3": (1e-5, 1e-2),
    "peg-insert-side-v3": (2e-5, 1e-3),
    "peg-unplug-side-v3": (1e-5, 3e-2),
    "pick-place-v3": (1e-4, 3e-2),
    "pick-place-wall-v3": (2e-4, 3e-2),
    "push-v3": (1e-4, 5e-2),
    "push-wall-v3": (1e-4, 5e-2),
    "reach-v3": (1e-4, 1e-3),  # its puck rolls by itself
    "reach-wall-v3": (1e-4, 1e-3),
    "soccer-v3": (1e-6, 1e-2),
    "stick-pull-v3": (1e-6, 3e-2),
}
"""Bounds of the differences in the first 10 and in 100 steps, three times what was found."""
ROUNDING = 2e-7  # of float32, for numbers below 2
REORDERED = {"button-press-v3": 1e-5, "button-press-wall-v3": 5e-3, "dial-turn-v3": 1e-5}
"""Bounds where the contacts that a placed fixture is given explicitly come in another order, which rounds otherwise."""


@dataclass
class Run:
    """What the official environment returned, `[T, ...]`, after its first observation."""

    first: np.ndarray
    actions: np.ndarray
    observations: np.ndarray
    rewards: np.ndarray
    success: np.ndarray


def official_run(name: str, vector: np.ndarray, actions: np.ndarray | None = None) -> Run:
    """The scripted policy, its actions rounded to float32; with `actions`, those, each step's search begun anew."""
    env = make_official(name)
    try:
        beginning = begin(env, definition(name), vector)
        if actions is None:
            policy = quiet_policy(name)
            moments = list(play(env, beginning, lambda seen: policy(seen).clip(-1, 1).astype(np.float32), STEPS))
        else:
            forget_solutions(env)
            given = iter(actions)
            moments = list(play(env, beginning, lambda _: next(given), len(actions)))
    finally:
        env.close()
    return Run(
        beginning.observation,
        np.stack([moment.action[0] for moment in moments]),
        np.stack([moment.observation for moment in moments]),
        np.array([moment.reward for moment in moments]),
        np.array([moment.info["success"] for moment in moments]),
    )


def forget_solutions(env) -> None:
    simulate = env.do_simulation

    def anew(ctrl, n_frames: int) -> None:
        env.data.qacc_warmstart[:] = 0
        simulate(ctrl, n_frames)

    env.do_simulation = anew


def goal(name: str, seed: int) -> np.ndarray:
    env = make_official(name)
    vector = random_vector(env, seed)
    env.close()
    return vector


def our_runs(name: str, vectors: list[np.ndarray], runs: list[Run]) -> list[Run]:
    """The same actions in our environments of the tasks that `vectors` make."""
    env = metarl.make(f"ML1-{name}", goal_observable=True).make_env(len(vectors), backend="mujoco")
    rows = torch.from_numpy(np.stack([padded(vector) for vector in vectors]))
    env.set_tasks(Tasks({"task_index": torch.zeros(len(vectors), dtype=torch.int64), "rand_vec": rows}))
    first, _ = env.reset()
    actions = np.stack([run.actions for run in runs], 1)
    steps = [env.step(action) for action in torch.from_numpy(actions).float()]
    env.close()
    parts = zip(*((step[4]["final_obs"], step[1], step[4]["success"]) for step in steps), strict=True)
    found = [torch.stack(part).numpy() for part in parts]
    return [Run(first[row].numpy(), actions[:, row], *(part[:, row] for part in found)) for row in range(len(runs))]


def check(name: str, seeds: list[int]) -> None:
    vectors = [goal(name, seed) for seed in seeds]
    official = [official_run(name, vector) for vector in vectors]
    early, late = CONTACT_RICH.get(name, BOUNDS)
    for vector, ours, theirs in zip(vectors, our_runs(name, vectors, official), official, strict=True):
        anew = official_run(name, vector, theirs.actions)
        np.testing.assert_allclose(ours.first, theirs.first, rtol=0, atol=ROUNDING)
        rounding = REORDERED.get(name, ROUNDING)
        np.testing.assert_allclose(ours.observations, anew.observations, rtol=0, atol=rounding)
        np.testing.assert_allclose(ours.rewards, anew.rewards, rtol=0, atol=100 * rounding)
        np.testing.assert_array_equal(ours.success, anew.success)
        difference = np.abs(ours.observations - theirs.observations).max(1)
        print(f"{name}: {difference[:EARLY].max():.1e} early, {difference.max():.1e} in {STEPS} steps")
        assert difference[:EARLY].max() < early
        assert difference.max() < late


@pytest.mark.parametrize("name", TASKS)
def test_a_scripted_episode_is_the_official_one(name: str) -> None:
    check(name, [0])


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_scripted_episodes_of_three_goals_are_the_official_ones(name: str) -> None:
    check(name, [1, 2, 3])

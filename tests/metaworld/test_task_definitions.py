"""Every task against the official environment: from the same state, the same reward, success and info."""

import dataclasses

import numpy as np
import pytest
import torch
from official_states import INFO, Moment, begin, make_official, play, quiet_policy, random_vector
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.envs.metaworld.definition import Outcome, Start
from metarl.envs.metaworld.task_sets import TASKS
from metarl.envs.metaworld.tasks import definition as load
from metarl.envs.metaworld.views import View

TOLERANCE = 1e-6
EPISODES = [("random", 250, 0), ("scripted", 250, 1)]
LONG = [("random", 500, seed) for seed in (2, 3)] + [("scripted", 500, seed) for seed in (4, 5)]


class FitForGPU(TorchDispatchMode):
    """Fails where an operation waits for a GPU or loses half of the digits (float32 from whole numbers and masks)."""

    waiting = ("lift_fresh", "_local_scalar_dense", "nonzero", "masked_select", "item")

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        assert name not in self.waiting, f"{name} makes a step wait for the host"
        if isinstance(result, torch.Tensor):
            assert result.dtype != torch.float32, f"{name} returns float32"
        return result


def actions_of(kind: str, name: str, seed: int):
    random = np.random.default_rng(seed)
    if kind == "random":
        return lambda observation: random.uniform(-1, 1, 4)
    policy = quiet_policy(name)
    noise = random.normal(0, 0.1, 4)  # a policy that is never quite right sees more of the rewards
    return lambda observation: policy(observation) + noise


def stack(rows):
    if isinstance(rows[0], View):
        return View(rows[0].layout, torch.cat([r.sensordata for r in rows]), torch.cat([r.qpos for r in rows]))
    return torch.cat(rows)


def repeat(start: Start, rows: int) -> Start:
    extra = {name: value.expand(rows, *value.shape[1:]) for name, value in start.extra.items()}
    points = [getattr(start, name).expand(rows, 3) for name in ("target", "object", "tcp")]
    return Start(*points, extra)


def evaluate(definition, version: str, start: Start, moments: list[Moment]) -> Outcome:
    view, action = stack([m.view for m in moments]), stack([m.action for m in moments])
    first = torch.tensor([m.first for m in moments])
    # What a task remembers changes from step to step: remember step by step, then evaluate all at once.
    remembered = []
    for moment in moments:
        new = definition.remember(moment.view, start, torch.tensor([moment.first]))
        start = dataclasses.replace(start, extra={**start.extra, **new})
        remembered.append(start.extra)
    starts = repeat(start, len(first))
    extra = {name: torch.cat([row[name] for row in remembered]) for name in start.extra}
    starts = dataclasses.replace(starts, extra=extra)
    judge = getattr(definition, "evaluate" if version == "v2" else "evaluate_v1")
    judge(view, starts, action), definition.observe(view)  # constants are made at the first call
    with FitForGPU():
        definition.observe(view)
        return judge(view, starts, action)


def compare(name: str, version: str, episodes) -> None:
    definition, env = load(name), make_official(name, version)
    try:
        for kind, steps, seed in episodes:
            beginning = begin(env, definition, random_vector(env, seed))
            start = definition.start(beginning.vector, beginning.settled, beginning.placed)
            np.testing.assert_allclose(start.target[0], env._target_pos, atol=1e-9)
            moments = list(play(env, beginning, actions_of(kind, name, seed), steps))
            outcome = evaluate(definition, version, start, moments)
            for key, ours in (
                ("reward", outcome.reward),
                ("success", outcome.success),
                *((key, getattr(outcome, key)) for key in INFO),
            ):
                theirs = [m.reward if key == "reward" else m.info[key] for m in moments]
                np.testing.assert_allclose(
                    ours.double(), theirs, rtol=0, atol=TOLERANCE, err_msg=f"{name} {version} {kind} {key}"
                )
            seen = stack([definition.observe(m.view) for m in moments])
            np.testing.assert_allclose(seen, [m.observation[:18] for m in moments], rtol=0, atol=1e-9)
    finally:
        env.close()


@pytest.mark.parametrize("version", ["v2", "v1"])
@pytest.mark.parametrize("name", TASKS)
def test_rewards_are_the_official_ones(name: str, version: str) -> None:
    compare(name, version, EPISODES)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_rewards_are_the_official_ones_in_two_thousand_states(name: str) -> None:
    compare(name, "v2", LONG)


@pytest.mark.parametrize("name", TASKS)
def test_scene_and_start_are_the_official_ones(name: str) -> None:
    definition, env = load(name), make_official(name)
    try:
        assert env.model_name.endswith("/" + definition.scene)
        np.testing.assert_allclose(env._random_reset_space.low, definition.random_low, atol=1e-12)
        np.testing.assert_allclose(env._random_reset_space.high, definition.random_high, atol=1e-12)
        np.testing.assert_allclose(env.goal_space.low, definition.goal_low, atol=1e-12)
        np.testing.assert_allclose(env.goal_space.high, definition.goal_high, atol=1e-12)
        np.testing.assert_allclose(env.mocap_low, definition.hand_low, atol=1e-12)
        np.testing.assert_allclose(env.mocap_high, definition.hand_high, atol=1e-12)
        np.testing.assert_allclose(env.hand_init_pos, definition.hand_start, atol=1e-12)
        for seed in range(2):
            beginning = begin(env, definition, random_vector(env, seed))
            if definition.fixture:
                theirs = env.model.body(definition.fixture).pos
                np.testing.assert_allclose(definition.fixture_position(beginning.vector)[0], theirs, atol=1e-12)
            qpos = beginning.settled_qpos.copy()
            placement = definition.place(beginning.vector, beginning.settled)
            for index, value in (placement.qpos if placement else {}).items():
                qpos[index : index + value.shape[1]] = value[0]
            np.testing.assert_allclose(qpos, beginning.qpos, atol=1e-12)
    finally:
        env.close()

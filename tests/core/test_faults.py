"""Numbers that are not finite end an episode as a fault, disturb nobody else, and stop a run that has too many."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

import metarl
import metarl.agents.maml
from metarl import UsageError
from metarl.envs.native.point_navigation import PointNavigation
from metarl.errors import EnvironmentFault, NumericalFault
from metarl.faults import all_finite, bad_rows
from metarl.randomness import EnvStreams
from metarl.vector_env import TaskVectorEnv, choose_rows, step_info

BAD = (math.nan, math.inf, -math.inf)


def plan_of(count, steps, num_envs, seed=0):
    """`count` different places `(step, environment)`, each with what is bad there: (number, in the reward?)."""
    rng = np.random.default_rng(seed)
    places = rng.choice(steps * num_envs, size=count, replace=False)
    kinds = [(BAD[rng.integers(3)], bool(rng.integers(2))) for _ in places]
    return {(int(p) // num_envs, int(p) % num_envs): kind for p, kind in zip(places, kinds, strict=True)}


def put(plan, t, rewards, observations):
    rewards, observations = rewards.clone(), observations.clone()
    for (step, index), (number, in_reward) in plan.items():
        if step == t:
            (rewards if in_reward else observations[:, 0])[index] = number
    return rewards, observations


def plant_native(env, plan):
    family, steps, transition = env.distribution, iter(range(10_000)), env.distribution.transition

    def planted(state, action, streams, task):
        new, reward, terminated = transition(state, action, streams, task)
        (name,) = new
        reward, values = put(plan, next(steps), reward, new[name].double())
        return {name: values.to(new[name].dtype)}, reward, terminated

    family.transition = planted


def plant_physics(env, plan):
    steps, advance = iter(range(10_000)), env._advance

    def planted(actions):
        raw = advance(actions)
        reward, observations = put(plan, next(steps), raw.reward, raw.observations)
        return dataclasses.replace(raw, reward=reward, observations=observations)

    env._advance = planted


class Simulator(TaskVectorEnv):
    """A simulator of one's own that reports no faults; it can start an episode in any of its environments."""

    plan: dict = {}

    def _set_tasks(self, tasks):
        self._goals = tasks.parameters["goal"].repeat_interleave(self.envs_per_task, 0)

    def _reset(self, seed):
        self._streams = EnvStreams.from_seed(seed or 0, self.num_envs, "cpu")
        self._place, self._time, self._t = self._streams.uniform(2), torch.zeros(self.num_envs), 0
        return self._place, {}

    def _step(self, actions):
        place = self._place + actions
        reward, place = put(self.plan, self._t, -(place - self._goals).norm(dim=1), place)
        self._t += 1
        self._time = self._time + 1
        ended = self._time >= self.distribution.horizon
        self._place = choose_rows(ended, self._streams.uniform(2), place)
        self._time = self._time * ~ended
        return self._place, reward, torch.zeros_like(ended), ended, step_info(place, ended)

    def _restart(self, mask):
        before = self._streams.state
        self._place = choose_rows(mask, self._streams.uniform(2), self._place)
        self._streams.state = torch.where(mask, self._streams.state, before)
        self._time = self._time * ~mask
        return self._place


class Simulated(PointNavigation):
    env_class = Simulator

    def _make_env(self, num_tasks, envs_per_task, backend, device, seed, render_mode):
        return self.env_class(self, num_tasks, envs_per_task, backend="torch", device=device)


def plant_own(env, plan):
    env.plan = plan


SLOW = {"metaworld", "warp"}
FAMILIES = {
    "torch": (lambda: PointNavigation(horizon=7), plant_native, "auto"),
    "own": (lambda: Simulated(horizon=7), plant_own, "auto"),
    "locomotion": (lambda: metarl.make("HopperRandParams-v0", horizon=7), plant_physics, "mujoco"),
    "metaworld": (lambda: metarl.make("ML1-reach-v3", horizon=7), plant_physics, "mujoco"),
    "warp": (lambda: metarl.make("HopperRandParams-v0", horizon=7), plant_physics, "warp"),
}


def recorded(kind, plan, steps=60, num_tasks=3, envs_per_task=4):
    make, plant, backend = FAMILIES[kind]
    family = make()
    env = family.make_env(num_tasks, envs_per_task, backend=backend, seed=0)
    env.set_tasks(family.sample(num_tasks, seed=0))
    plant(env, plan)
    generator = torch.Generator().manual_seed(0)
    size = family.action_space.shape[0]

    def act(observations):
        assert observations.isfinite().all()
        return 0.1 * torch.rand(len(observations), size, generator=generator)

    trajectories = metarl.collect(env, act, steps, seed=0)
    count, report = env.fault_count, env.fault_report
    env.close()
    return trajectories, count, report


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in SLOW)) for k in FAMILIES])
def test_two_hundred_bad_numbers_are_counted_and_disturb_nobody(kind):
    plan = plan_of(200, 60, 8)  # environments 8 … 11 stay sound
    sound, none, _ = recorded(kind, {})
    hurt, count, report = recorded(kind, plan)
    assert none == 0
    assert count == len(plan) == int(hurt.fault.sum())
    assert {(t, 4 * m + n) for t, m, n in hurt.fault.nonzero().tolist()} == plan.keys()
    for name in ("observations", "rewards", "final_observations", "truncated", "terminated"):
        assert getattr(hurt, name).isfinite().all()
        assert torch.equal(getattr(hurt, name)[:, 2], getattr(sound, name)[:, 2]), name
    assert (hurt.rewards[hurt.fault] == 0).all()
    assert hurt.truncated[hurt.fault].all()
    assert not hurt.terminated[hurt.fault].any()
    # The last observation of a faulty episode is the one before; a new episode follows.
    assert torch.equal(hurt.final_observations[hurt.fault], hurt.observations[hurt.fault])
    assert hurt.episode_starts[1:][hurt.fault[:-1]].all()
    assert not hurt.in_complete_episodes[hurt.fault].any()
    assert not hurt.in_complete_trials(1)[hurt.fault].any()
    assert not hurt.in_first_episodes(1000)[hurt.fault].any()
    t, task, n = hurt.fault.nonzero()[0].tolist()
    start = int(hurt.episode_starts[: t + 1, task, n].nonzero()[-1])
    assert f"step {t - start + 1} of an episode of environment {n} of task {task} (" in report


class DenseSimulator(Simulator):
    """Gives a second reward, which is bad in environment 1 at step 2."""

    def _step(self, actions):
        *result, info = super()._step(actions)
        dense = torch.ones(self.num_envs)
        dense[1] = torch.nan if self._t == 3 else 1.0
        return *result, {**info, "dense_reward": dense}


class DenselySimulated(Simulated):
    env_class = DenseSimulator


class DensePoint(PointNavigation):
    """The same of a native family: bad inside a disc, which environment 1 enters at step 2."""

    def dense_reward(self, state, task):
        inside = torch.linalg.vector_norm(state["position"] - torch.tensor([0.3, 0.0]), dim=-1) < 0.01
        return torch.where(inside, torch.nan, 1.0)


@pytest.mark.parametrize("family", [DenselySimulated(horizon=7), DensePoint(horizon=7)], ids=["own", "native"])
def test_a_bad_dense_reward_is_a_fault(family):
    env = family.make_env(2, 2)
    env.set_tasks(family.sample(2, seed=0))
    steps = torch.tensor([[0.0, 0.1], [0.1, 0.0], [0.0, 0.1], [0.0, 0.1]])
    trajectories = metarl.collect(env, lambda observations: steps, 5, seed=0)
    assert trajectories.fault.nonzero().tolist() == [[2, 0, 1]]
    assert trajectories.dense_rewards[2, 0, 1] == 0
    assert trajectories.dense_rewards.sum() == 19
    assert trajectories.rewards[2, 0, 1] == 0


def test_before_its_first_fault_an_environment_is_undisturbed():
    sound, _, _ = recorded("torch", {})
    hurt, _, _ = recorded("torch", {(10, 5): (math.nan, True)})
    assert torch.equal(hurt.rewards[:10], sound.rewards[:10])
    assert torch.equal(hurt.observations[11, 1, 1], sound.observations[0, 1, 1])


def test_an_own_simulator_that_cannot_restart_is_refused_by_name(monkeypatch):
    monkeypatch.delattr(Simulator, "_restart")
    with pytest.raises(EnvironmentFault, match=r"step 4 of an episode .* of task 1 \(goal=.* Simulator cannot restart"):
        recorded("own", {(3, 5): (math.inf, False)})


def test_a_first_observation_that_is_bad_is_refused_with_its_task():
    family = PointNavigation(horizon=7)
    family.observe = lambda state: state["position"] / 0
    env = family.make_env(2, 2)
    env.set_tasks(family.sample(2, seed=0))
    with pytest.raises(EnvironmentFault, match="the first observation of an episode of environment 0 of task 0"):
        env.reset(seed=0)


def test_rows_are_judged_by_rewards_and_float_observations():
    observations = {"vector": torch.zeros(4, 2), "picture": torch.full((4, 2, 2, 3), 255, dtype=torch.uint8)}
    observations["vector"][2, 1] = math.inf
    assert bad_rows(torch.tensor([0.0, math.nan, 0.0, 1.0]), observations).tolist() == [False, True, True, False]
    assert all_finite(torch.full((5,), 3e38))  # their sum overflows
    assert not all_finite(torch.zeros(3), torch.tensor([1.0, -math.inf]))


# Training ------------------------------------------------------------------------------------------------------------


class Planted(PointNavigation):
    """`PointNavigation` with a bad number in one of every `every` steps of all environments, counted from 0."""

    def __init__(self, every: int = 30, number: float = math.nan, first: int = 0):
        super().__init__(horizon=5)
        self.every, self.number, self.first, self.count, self.planted = every, number, first, 0, 0

    def transition(self, state, action, streams, task):
        state, reward, terminated = super().transition(state, action, streams, task)
        numbers = torch.arange(self.count, self.count + len(reward))
        self.count += len(reward)
        bad = (numbers % self.every == self.every - 1) & (numbers >= self.first)
        self.planted += int(bad.sum())
        return state, reward.masked_fill(bad, self.number), terminated


def trained(tmp_path, agent, options, env_options=(), weights=None, **config):
    """The rows of metrics, the agent and the family; `weights` receives what the run has saved, however it ends."""
    metarl.list_distributions()
    with pytest.MonkeyPatch.context() as patch:
        from metarl import registry

        made = []
        patch.setitem(registry._distributions, "Planted-v0", lambda **o: made.append(Planted(**o)) or made[-1])
        output = tmp_path / "run"
        given = {"agent": agent, "env": "Planted-v0", "env_options": dict(env_options), "agent_options": options}
        try:
            metarl.train(metarl.TrainConfig(**given, **config, output=output), progress=False)
        finally:
            rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
            agent = metarl.load_agent(output)
            (weights if weights is not None else []).extend(agent.state()[0].values())
    return rows, agent, made[0]


SMALL = {"num_tasks": 4, "envs_per_task": 3}


@pytest.mark.parametrize(
    ("agent", "options"),
    [("maml", {}), ("maml", {"outer": "ppo"}), ("maml", {"outer": "promp"}), ("rl2", {}), ("random", {})],
    ids=["trpo", "ppo", "promp", "rl2", "random"],
)
def test_an_agent_trains_on_beside_bad_numbers_and_counts_them(agent, options, tmp_path):
    rows, learned, family = trained(tmp_path, agent, SMALL | options, {"every": 11}, iterations=4, max_faults=100)
    assert sum(row["faults"] for row in rows) == family.planted > 15
    assert all(value.isfinite().all() for value in learned.state()[0].values())
    assert all(row["return_mean"] is not None for row in rows)
    if "used_fraction" in rows[0]:
        assert all(row["used_fraction"] < 1 for row in rows)


@pytest.mark.parametrize("agent", ["maml", "rl2"])
def test_too_many_faults_stop_the_run_before_they_are_learned_from(agent, tmp_path):
    env_options = {"every": 4, "first": 600}
    with pytest.raises(
        EnvironmentFault, match=r"--max-faults tolerates 10 .* step \d of an episode .* \(goal="
    ) as caught:
        trained(tmp_path, agent, SMALL, env_options, iterations=50)
    assert "\n" not in str(caught.value)
    saved = sorted((tmp_path / "run" / "checkpoints").glob("*.json"))[-1]
    content = json.loads(saved.read_text())
    assert content["env_steps"] <= 600
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == content["iteration"] > 0
    assert all(row["faults"] == 0 for row in rows)


@pytest.mark.parametrize("agent", ["maml", "rl2"])
def test_the_bound_on_faults_can_be_chosen(agent, tmp_path):
    with pytest.raises(EnvironmentFault, match=r"1 faults in .* tolerates 0"):
        trained(tmp_path, agent, SMALL, {"every": 100}, iterations=3, max_faults=0)


def test_a_run_that_faults_have_stopped_goes_on_with_another_bound(tmp_path):
    from metarl import registry

    with pytest.MonkeyPatch.context() as patch:
        metarl.list_distributions()
        patch.setitem(registry._distributions, "Planted-v0", Planted)
        config = metarl.TrainConfig(
            "random", "Planted-v0", {"every": 20}, SMALL, iterations=2, max_faults=0, output=str(tmp_path / "run")
        )
        with pytest.raises(EnvironmentFault, match="metarl resume takes another bound"):
            metarl.train(config, progress=False)
        with pytest.raises(EnvironmentFault, match="tolerates 0"):
            metarl.resume(tmp_path / "run", progress=False)
        run = metarl.resume(tmp_path / "run", progress=False, max_faults=20)
        assert metarl.load_run(run).finished


@pytest.mark.parametrize("agent", ["maml", "rl2"])
def test_rewards_too_large_to_learn_from_stop_the_run_with_sound_weights(agent, tmp_path):
    """1e38 is finite, its square is not."""
    weights = []
    with pytest.raises(NumericalFault, match="not finite"):
        trained(tmp_path, agent, SMALL, {"every": 5, "number": 1e38, "first": 300}, weights, iterations=50)
    assert len(weights) > 5
    assert all(value.isfinite().all() for value in weights)


def test_an_agent_whose_state_is_not_finite_is_not_saved(tmp_path):
    from metarl.agents.random import RandomAgent

    class Rotting(RandomAgent):
        """Its third iteration leaves a NaN."""

        count = 0

        def improve(self, env, *, seed):
            self.count += 1
            return super().improve(env, seed=seed)

        def state(self):
            return {"weight": torch.tensor([math.nan if self.count >= 3 else 1.0])}, {}

    from metarl import registry

    with pytest.MonkeyPatch.context() as patch:
        metarl.list_agents()
        patch.setitem(registry._agents, "rotting", Rotting)
        config = metarl.TrainConfig(
            agent="rotting", env="PointNavigation-v0", iterations=9, agent_options=SMALL, output=tmp_path / "run"
        )
        with pytest.raises(NumericalFault, match="weight is not finite after iteration 3"):
            metarl.train(config, progress=False)
        assert metarl.load_run(tmp_path / "run").checkpoint.iteration == 2


def test_the_bound_on_faults_is_a_count(tmp_path):
    config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", max_faults=-1, output=tmp_path / "run")
    with pytest.raises(UsageError, match="max_faults"):
        metarl.train(config)


def test_an_evaluation_counts_faults():
    family = Planted(every=13)
    agent = metarl.agents.maml.MAML(metarl.agents.maml.MAMLConfig(**SMALL), metarl.EnvSpec.of(family))
    evaluation = metarl.evaluate(agent, family, num_tasks=4)
    assert evaluation.faults == family.planted > 10
    assert evaluation.returns.isfinite().all()
    assert metarl.Evaluation.from_json(evaluation.to_json()).faults == evaluation.faults

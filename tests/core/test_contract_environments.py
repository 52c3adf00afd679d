"""`check_distribution` on environments with one fault each, beside what has to be said of it."""

import numpy as np
import pytest
import torch
from broken_families import Infinite, Point, UnknownBackend, edited, put
from gymnasium.spaces import Box, Discrete, Tuple
from gymnasium.vector import AutoresetMode

from metarl import Tasks, check_distribution
from metarl.contract import ContractError
from metarl.envs.native.bandit import Bandit
from metarl.envs.native.base import NativeEnv
from metarl.randomness import EnvStreams


class SwappedCounts(NativeEnv):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.num_tasks, self.envs_per_task = self.envs_per_task, self.num_tasks


class NextStep(NativeEnv):
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}


class ResetsWithoutTasks(NativeEnv):
    def reset(self, *, seed=None, options=None):
        if self._tasks is None:
            return torch.zeros(self.num_envs, 2), {}
        return super().reset(seed=seed)


class TakesAnyNumberOfTasks(NativeEnv):
    def set_tasks(self, tasks):
        super().set_tasks(tasks[: self.num_tasks])


class StepsBeforeReset(NativeEnv):
    def step(self, actions):
        if not self._started:
            self.reset()
        return super().step(actions)


class DoublePrecision(NativeEnv):
    def _reset(self, seed):
        observations, info = super()._reset(seed)
        return observations.double(), info


class OneBuffer(NativeEnv):
    def _step(self, actions):
        observations, *rest = super()._step(actions)
        self.buffer = getattr(self, "buffer", torch.empty_like(observations)).copy_(observations)
        return self.buffer, *rest


class Endless(NativeEnv):
    def _step(self, actions):
        self._elapsed = torch.zeros_like(self._elapsed)
        return super()._step(actions)


class KeepsTheLastObservation(NativeEnv):
    def _step(self, actions):
        _, *rest = super()._step(actions)
        return rest[-1]["final_obs"].clone(), *rest


class ForgetsTheTime(NativeEnv):
    def set_state(self, state):
        super().set_state(state | {"elapsed_steps": torch.zeros_like(state["elapsed_steps"])})


class OneRowOfState(NativeEnv):
    def get_state(self):
        return super().get_state() | {"time": self._elapsed[0]}


class NeverTwiceTheSame(NativeEnv):
    drift = 0.0

    def _step(self, actions):
        self.drift += 1e-3
        return super()._step(actions + self.drift)


class NewTasksAtEachReset(NativeEnv):
    def _reset(self, seed):
        if seed is None:
            self.set_tasks(self.distribution.sample(self.num_tasks, seed=99))
        return super()._reset(seed)


class OwnTasksAtEachReset(NativeEnv):
    """Reports the tasks given, runs others after the first reset."""

    def _set_tasks(self, tasks):
        super()._set_tasks(tasks)
        self.resets = 0

    def _reset(self, seed):
        self.resets += 1
        if self.resets > 1:
            self._env_tasks = Tasks({"goal": torch.zeros(self.num_envs, 2)})
        return super()._reset(seed)


class TasksOfTheFirstReset(NativeEnv):
    def _set_tasks(self, tasks):
        if not self._started or self.num_envs == 1:
            super()._set_tasks(tasks)


class EnvironmentsFirst(NativeEnv):
    def _set_tasks(self, tasks):
        self._env_tasks = Tasks({name: value.repeat(self.envs_per_task, 1) for name, value in tasks.parameters.items()})


class NoisyStart(Point):
    def initial_state(self, streams, task):
        return {"position": 0.1 * streams.uniform(2)}


class OneSeedForAll(NativeEnv):
    def _reset(self, seed):
        super()._reset(seed)
        if seed is not None:
            self._streams = EnvStreams(torch.full((self.num_envs,), seed))
        return super()._reset(None)


class MeansOverTheBatch(NativeEnv):
    def _step(self, actions):
        observations, reward, *rest = super()._step(actions)
        return observations, reward - reward.mean(), *rest


class TakesAnyAction(NativeEnv):
    def _check_actions(self, actions):
        return torch.zeros(self.num_envs, 2)


class StepsBeforeItChecks(NativeEnv):
    def step(self, actions):
        if self._started:
            self._streams.uniform()
            self._state = {"position": self._state["position"] + 0.01}
        return super().step(actions)


class ReadsTasksLate(NativeEnv):
    def _reset(self, seed):
        self._set_tasks(self.tasks)
        return super()._reset(seed)


class Unclipped(Point):
    def transition(self, state, action, streams, task):
        position = state["position"] + action
        distance = torch.linalg.vector_norm(position - task.parameters["goal"], dim=-1)
        return {"position": position}, self.reward(distance), self.terminated(distance)


class UnclippedHalfOpen(Unclipped):
    def __init__(self):
        super().__init__()
        self.action_space = Box(np.array([-0.1, -np.inf], np.float32), np.array([np.inf, np.inf], np.float32))


class UnclippedMixed(Unclipped):
    def __init__(self):
        super().__init__()
        self.action_space = Tuple((Discrete(3), Box(-0.1, 0.1, (1,))))


class NoTaskAtAll(Point):
    def transition(self, state, action, streams, task):
        return super().transition(state, action, streams, Tasks({"goal": torch.ones(len(action), 2)}))


class CrashInStep(NativeEnv):
    def _step(self, actions):
        raise ArithmeticError("unstable")


ENVIRONMENTS = [
    (SwappedCounts, "make_env: expected num_tasks 3, found 2"),
    (UnknownBackend, "make_env: expected a backend among torch, found 'other'"),
    (NextStep, "make_env: expected autoreset mode SAME_STEP in the metadata, found AutoresetMode.NEXT_STEP"),
    (ResetsWithoutTasks, "reset: expected a UsageError before set_tasks, found no error"),
    (TakesAnyNumberOfTasks, "set_tasks: expected a UsageError for 4 tasks, found no error"),
    (StepsBeforeReset, "step: expected a UsageError before reset, found no error"),
    (edited(lambda r: put(r, 1, r[1].double())), r"torch.float32 tensor \[6\] on cpu, found torch.float64 \[6\]"),
    (edited(lambda r: put(r, 1, r[1][:, None])), r"rewards: expected .* found torch.float32 \[6, 1\]"),
    (edited(lambda r: put(r, 1, r[1] * torch.nan)), "rewards: expected finite numbers, found nan"),
    (edited(lambda r: put(r[4], "final_obs", r[0].numpy())), r"info\['final_obs'\]: expected .* found ndarray"),
    (edited(lambda r: put(r, 2, r[2].long())), "terminated: expected a torch.bool tensor .* found torch.int64"),
    (edited(lambda r: r[4].pop("final_obs")), r"info\['final_obs'\]: expected .* found NoneType"),
    (edited(lambda r: r[4].update(success=r[2])), r"info\['success'\]: expected none if has_success is False"),
    (edited(lambda r: put(r[4], "final_obs", r[0] + 1)), "wherever no episode ended, found another at step"),
    (edited(lambda r: put(r[4], "_final_obs", ~r[3])), r"expected terminated \| truncated, found another mask at"),
    (DoublePrecision, r"reset observations: expected a torch.float32 tensor \[6, 2\] on cpu, found torch.float64"),
    (OneBuffer, "step: expected later steps to leave returned arrays alone, found those of step 0 changed"),
    (Endless, "horizon: expected episodes of at most 6 steps, found one going on at"),
    (KeepsTheLastObservation, "autoreset: expected .* the first observation of the next, found the last of the old"),
    (ForgetsTheTime, "set_state: expected the same steps from a restored state, found .* at step"),
    (OneRowOfState, r"get_state: expected 'time' to be a tensor \[6, ...\], found \[\]"),
    (NeverTwiceTheSame, "determinism: expected the same seed, tasks and actions to give the same run, found"),
    (NewTasksAtEachReset, "set_tasks: expected env.tasks to be the tasks given, whatever is reset, found others"),
    (OwnTasksAtEachReset, "set_tasks: expected the tasks to stay over resets, found rewards that differ by"),
    (TasksOfTheFirstReset, "set_tasks: expected it to take effect, found environment 1 running the task it had"),
    (EnvironmentsFirst, r"layout: expected environment 1 to run task 0 \(task-major\), found it running task 1"),
    (MeansOverTheBatch, "batch: expected environment 1 to behave as a single environment with task 0 and seed"),
    (TakesAnyAction, "step: expected a UsageError for too few actions, found no error"),
    (TakesAnyAction, "step: expected a UsageError for NaN, found no error"),
    (StepsBeforeItChecks, "step: expected refused actions to change nothing, found .* that differ by .* after them"),
    (ReadsTasksLate, "tasks: expected a change of env.tasks in place to stay there, found"),
    (CrashInStep, "run: expected no crash, found ArithmeticError: unstable"),
]  # fmt: skip


@pytest.mark.parametrize(("env_class", "message"), ENVIRONMENTS)
def test_wrong_environments_are_found(env_class, message):
    family = type("Broken", (Point,), {"env_class": env_class})()
    with pytest.raises(ContractError, match=message):
        check_distribution(family)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Unclipped, "step: expected actions out of bounds to be clipped to them, found final_obs that differ by"),
        (UnclippedHalfOpen, "step: expected actions out of bounds to be clipped to them, found"),
        (UnclippedMixed, "step: expected actions out of bounds to be clipped to them, found"),
        (NoTaskAtAll, "set_tasks: expected other tasks to give other runs, found none in 20 trials"),
        (
            type("Broken", (NoisyStart,), {"env_class": OneSeedForAll}),
            r"reset: expected environment 1 to be seeded with seed \+ 1, found it seeded with seed",
        ),
    ],
)
def test_wrong_dynamics_are_found(family, message):
    with pytest.raises(ContractError, match=message):
        check_distribution(family())


class FloatArms(Bandit):
    def _make_env(self, num_tasks, envs_per_task, backend, device, seed, render_mode):
        env = super()._make_env(num_tasks, envs_per_task, backend, device, seed, render_mode)
        env._check_actions = lambda actions: actions.long()[: env.num_envs] % 5
        return env


@pytest.mark.parametrize("what", ["float actions", "a choice beyond the last", "a choice before the first"])
def test_wrong_discrete_actions_that_are_not_refused_are_found(what):
    with pytest.raises(ContractError, match=f"step: expected a UsageError for {what}, found no error"):
        check_distribution(FloatArms())


class MixedUnchecked(UnclippedMixed):
    def _make_env(self, num_tasks, envs_per_task, backend, device, seed, render_mode):
        env = super()._make_env(num_tasks, envs_per_task, backend, device, seed, render_mode)
        env._check_actions = lambda actions: actions.float()
        return env


@pytest.mark.parametrize("what", ["integer actions", "NaN", "a choice beyond the last", "a choice that is no whole"])
def test_wrong_mixed_actions_that_are_not_refused_are_found(what):
    with pytest.raises(ContractError, match=f"step: expected a UsageError for {what}.*, found no error"):
        check_distribution(MixedUnchecked())


class SharesItsTasks(NativeEnv):
    def set_tasks(self, tasks):
        super().set_tasks(tasks)
        self._tasks = tasks


def test_tasks_that_leak_are_found():
    family = type("Broken", (Point,), {"env_class": SharesItsTasks})()
    with pytest.raises(ContractError, match="found it in the tasks that were given"):
        check_distribution(family)


def test_faults_under_random_actions_are_found_with_the_first():
    with pytest.raises(ContractError, match=r"expected no faults under random actions, found \d+, .* step 1 of"):
        check_distribution(Infinite())

"""`check_distribution`: every rule broken once and caught, every registered family passing."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import metarl
from metarl import Tasks, UsageError, check_distribution, registry
from metarl.contract import ContractError
from metarl.envs.native.bandit import Bandit
from metarl.envs.native.base import NativeEnv
from metarl.envs.native.point_navigation import PointNavigation, SparsePointNavigation
from metarl.randomness import EnvStreams
from metarl.vector_env import TaskVectorEnv


class Point(PointNavigation):
    """A short `PointNavigation`, to be broken by subclasses; `env_class` is what steps it."""

    env_class: type[TaskVectorEnv] = NativeEnv

    def __init__(self):
        super().__init__(horizon=6)
        self.id = "Broken-v0"

    def _make_env(self, num_tasks, envs_per_task, backend, device, seed, render_mode):
        return self.env_class(self, num_tasks, envs_per_task, device=device, seed=seed, render_mode=render_mode)


def test_sound_families_pass():
    check_distribution(Point())
    check_distribution(Bandit(pulls=3), num_tasks=1, envs_per_task=1)
    check_distribution(SparsePointNavigation(), num_tasks=2, envs_per_task=3, seed=7, backend="torch")


# Families with one fault each, beside what has to be said of it ------------------------------------------------------


def with_attribute(name, value):
    return type("Broken", (Point,), {"__init__": lambda self: (Point.__init__(self), setattr(self, name, value))[0]})


ATTRIBUTES = [
    ("horizon", 0, "horizon: expected a whole number of at least 1, found 0"),
    ("horizon", 6.0, "horizon: expected a whole number of at least 1, found 6.0"),
    ("id", "", "id: expected a name, found ''"),
    ("backends", ["torch"], r"backends: expected a tuple of one name or more, found \['torch'\]"),
    ("has_success", 1, "has_success: expected True or False, found 1"),
    ("observation_space", gym.spaces.Box(-1, 1, (1, 2)), r"observation_space: expected a Box of shape \[D\]"),
    ("observation_space", gym.spaces.Box(-1, 1, (2,), np.float64), "observation_space: expected float32, found"),
    ("action_space", gym.spaces.MultiBinary(2), "action_space: expected a Box or a Discrete space, found MultiBinary"),
    ("action_space", gym.spaces.Box(-1, 1, (2, 1)), r"action_space: expected a Box of shape \[A\]"),
    ("task_space", {"goal": gym.spaces.Discrete(3)}, r"task_space: expected a Box for 'goal', found Discrete\(3\)"),
    ("task_space", {}, "task_space: expected one parameter or more, found none"),
    ("has_success", True, r"info\['success'\]: expected a torch.bool tensor \[6\] on cpu, found NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), ATTRIBUTES)
def test_wrong_attributes_are_found(name, value, message):
    with pytest.raises(ContractError, match=message):
        check_distribution(with_attribute(name, value)())


class RememberedSampling(Point):
    calls = 0

    def _sample(self, num_tasks, split, generator):
        self.calls += 1
        return {"goal": torch.full((num_tasks, 2), 1e-3 * self.calls)}


class SeedlessSampling(Point):
    def _sample(self, num_tasks, split, generator):
        return {"goal": torch.linspace(-0.5, 0.5 if split == "train" else 0.4, 2 * num_tasks).reshape(-1, 2)}


class OneSplit(Point):
    def sample(self, num_tasks, *, split="train", seed):
        return super().sample(num_tasks, split="train", seed=seed)


class GlobalTorch(Point):
    def _sample(self, num_tasks, split, generator):
        torch.rand(1)
        return super()._sample(num_tasks, split, generator)


class GlobalNumPy(Point):
    def _sample(self, num_tasks, split, generator):
        np.random.rand()  # noqa: NPY002
        return super()._sample(num_tasks, split, generator)


class TooFewTasks(Point):
    def _sample(self, num_tasks, split, generator):
        return super()._sample(max(1, num_tasks - 1), split, generator)


class InvalidTasks(Point):
    def _sample(self, num_tasks, split, generator):
        return {"goal": 4 * super()._sample(num_tasks, split, generator)["goal"]}


class TasksWithNaN(Point):
    def _sample(self, num_tasks, split, generator):
        return {"goal": torch.full((num_tasks, 2), torch.nan)}

    def validate(self, tasks):
        pass


class Finite(Point):
    def all_tasks(self, split):
        return Tasks({"goal": torch.linspace(-0.5, 0.4 + 0.1 * (split == "train"), 20).reshape(10, 2)})

    def _sample(self, num_tasks, split, generator):
        return metarl.TaskDistribution._sample(self, num_tasks, split, generator)


class Shuffled(Finite):
    def all_tasks(self, split):
        self.seed = getattr(self, "seed", 0) + 1
        return super().all_tasks(split)[torch.randperm(10, generator=torch.Generator().manual_seed(self.seed))]


class WithReplacement(Finite):
    def _sample(self, num_tasks, split, generator):
        return self.all_tasks(split)[torch.randint(10, (num_tasks,), generator=generator)].parameters


class CrashInSampling(Point):
    def _sample(self, num_tasks, split, generator):
        if split == "test":
            raise ZeroDivisionError("no test tasks\nat all")
        return super()._sample(num_tasks, split, generator)


class CrashInMakeEnv(Point):
    def _make_env(self, *args):
        raise RuntimeError("no scene")


FAMILIES = [
    (RememberedSampling, "sampling: expected the same train tasks for the same seed, found others"),
    (SeedlessSampling, "sampling: expected other test tasks for another seed, found the same"),
    (OneSplit, "sampling: expected different tasks in train and test, found the same"),
    (OneSplit, "sampling: expected a UsageError for the split 'no-such-split', found no error"),
    (GlobalTorch, "sampling: expected it to leave torch's global random state alone, found it changed"),
    (GlobalNumPy, "sampling: expected it to leave NumPy's global random state alone, found it changed"),
    (TooFewTasks, "sampling: expected 16 train tasks, found 15"),
    (InvalidTasks, "tasks: expected sampled train tasks to be valid, found task parameter 'goal': .* out of range"),
    (TasksWithNaN, "tasks: expected train tasks to survive JSON, found others"),
    (TasksWithNaN, "tasks: expected a UsageError for an unknown parameter, found no error"),
    (Shuffled, "all_tasks: expected train tasks in a fixed order, found another on the second call"),
    (WithReplacement, "sampling: expected each of the 10 test tasks once among 10 samples, found [1-9] missing"),
    (CrashInSampling, "sampling: expected no crash, found ZeroDivisionError: no test tasks$"),
    (CrashInMakeEnv, "make_env: expected no crash, found RuntimeError: no scene"),
]


@pytest.mark.parametrize(("family", "message"), FAMILIES)
def test_wrong_families_are_found(family, message):
    with pytest.raises(ContractError, match=f"(?m){message}"):
        check_distribution(family())


def test_a_finite_family_passes():
    check_distribution(Finite())


class AnyCounts(Point):
    def make_env(self, num_tasks, envs_per_task=1, *, backend="auto", device="cpu", seed=0, render_mode=None):
        counts = max(1, num_tasks), max(1, envs_per_task)
        return self._make_env(*counts, "torch", torch.device("cpu"), seed, render_mode)


@pytest.mark.parametrize(
    "what", ["0 tasks", "-1 tasks", "0 environments per task", "the backend 'no-such-backend'", "the device"]
)
def test_arguments_that_are_not_refused_are_found(what):
    with pytest.raises(ContractError, match=f"make_env: expected a UsageError for {what}.*, found no error"):
        check_distribution(AnyCounts())


class SwappedCounts(NativeEnv):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.num_tasks, self.envs_per_task = self.envs_per_task, self.num_tasks


class UnknownBackend(NativeEnv):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.backend = "other"


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


class Edited(NativeEnv):
    """`edit` changes what a step returns, `[observations, rewards, terminated, truncated, info]`."""

    def edit(self, result):
        raise NotImplementedError

    def _step(self, actions):
        result = list(super()._step(actions))
        self.edit(result)
        return tuple(result)


def edited(function):
    return type("EditedEnv", (Edited,), {"edit": lambda self, result: function(result)})


def put(result, index, value):
    result[index] = value


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
    (edited(lambda r: r[4].update(success=r[2])), r"info\['success'\]: expected none where has_success is False"),
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


@pytest.mark.parametrize("what", ["float actions", "the action 5"])
def test_wrong_discrete_actions_that_are_not_refused_are_found(what):
    with pytest.raises(ContractError, match=f"step: expected a UsageError for {what}, found no error"):
        check_distribution(FloatArms())


class SharesItsTasks(NativeEnv):
    def set_tasks(self, tasks):
        super().set_tasks(tasks)
        self._tasks = tasks


def test_tasks_that_leak_are_found():
    family = type("Broken", (Point,), {"env_class": SharesItsTasks})()
    with pytest.raises(ContractError, match="found it in the tasks that were given"):
        check_distribution(family)


# The report ----------------------------------------------------------------------------------------------------------


class TwoFaults(GlobalTorch):
    env_class = edited(lambda result: put(result, 1, result[1].double()))


def test_all_faults_are_raised_together_a_line_each():
    with pytest.raises(ContractError) as caught:
        check_distribution(TwoFaults())
    assert len(caught.value.failures) == 2
    lines = str(caught.value).splitlines()
    assert lines[0] == "Broken-v0 breaks the contract of task distributions:"
    assert [line.removeprefix("  - ") for line in lines[1:]] == caught.value.failures
    assert isinstance(caught.value, AssertionError)


def test_a_crash_hides_no_other_fault_and_is_the_cause():
    with pytest.raises(ContractError) as caught:
        check_distribution(with_attribute("has_success", 1)())
    assert caught.value.__cause__ is None

    class Both(CrashInSampling):
        env_class = UnknownBackend

    with pytest.raises(ContractError) as caught:
        check_distribution(Both())
    text = str(caught.value)
    assert "found ZeroDivisionError: no test tasks" in text
    assert "found 'other'" in text
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_environments_are_closed():
    closed = []

    class Counted(NativeEnv):
        def close_extras(self, **options):
            closed.append(self)

    check_distribution(type("Counted", (Point,), {"env_class": Counted})())
    assert len(closed) == 2


def test_wrong_counts_are_a_usage_error():
    with pytest.raises(UsageError, match="number of tasks"):
        check_distribution(Point(), num_tasks=0)
    with pytest.raises(UsageError, match="environments per task"):
        check_distribution(Point(), envs_per_task=0)


# Every registered family ---------------------------------------------------------------------------------------------

FAST_ML1 = {"ML1-reach-v3", "ML1-door-open-v3"}


def registered():
    for id in metarl.list_distributions():
        factory = registry._distributions[id]
        if not getattr(factory, "func", factory).__module__.startswith("metarl."):
            continue  # another test's
        slow = id.startswith("ML") and id not in FAST_ML1
        yield pytest.param(id, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.filterwarnings("ignore:ML25-v3. basketball-v3 is in both splits")
@pytest.mark.parametrize("id", list(registered()))
def test_every_registered_family_keeps_the_contract(id):
    check_distribution(metarl.make(id))

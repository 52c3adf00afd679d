"""Whole steps as one graph, by a stand-in for the capture that repeats every operation at the same addresses."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from phantom_gpu import Tape, in_host, on_gpu, phantom_gpu, waiting_refused

import metarl
from metarl import UsageError
from metarl.envs.launches import count_launches
from metarl.envs.native.base import NativeDistribution, NativeEnv
from metarl.envs.step_state import describe, find_state, put
from metarl.vector_env import TaskVectorEnv

FAMILIES = ["PointNavigation-v0", "SparsePointNavigation-v0", "Bandit-v0", "TabularMDP-v0"]
ENVS = (2, 3)


@pytest.fixture
def gpu(monkeypatch):
    with phantom_gpu(monkeypatch) as made:
        yield made


@pytest.fixture
def tape(gpu, monkeypatch):
    made = Tape(gpu)
    monkeypatch.setattr(NativeEnv, "capture", staticmethod(made.capture))
    return made


class Walk(NativeDistribution):
    """A walk on a line: simple, and open to what a graph cannot repeat."""

    id, horizon = "Walk-v0", 4
    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    task_space = {"drift": Box(-1.0, 1.0, (1,), np.float32)}
    steps = 0
    counts = False
    scale = 1.0

    def _sample(self, num_tasks, split, generator):
        return {"drift": torch.rand(num_tasks, 1, generator=generator)}

    def initial_state(self, streams, task):
        return {"place": streams.uniform(1), "pace": torch.zeros(len(task), 1, device=streams.state.device)}

    def transition(self, state, action, streams, task):
        if self.counts:
            self.steps += 1
        pace = self.scale * action + task.parameters["drift"] + self.steps
        # The two change places: what is carried over must not be read after it has been overwritten.
        return {"place": pace + state["pace"], "pace": state["place"]}, pace[:, 0], state["place"][:, 0] > 1.5

    def observe(self, state):
        return state["place"]


def make(family, graph, **options):
    env = family.make_env(*ENVS, device="cuda", seed=1, graph=graph, **options)
    env.set_tasks(family.sample(2, seed=0))
    env.reset(seed=0)
    return env


def draw(family, seed):
    generator = torch.Generator().manual_seed(seed)
    space = family.action_space
    if space.shape == ():
        return on_gpu(torch.randint(0, int(space.n), (6,), generator=generator))
    return on_gpu(2 * torch.rand(6, *space.shape, generator=generator) - 1)


def assert_equal(one, other):
    if isinstance(one, tuple | dict):
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_equal(one[key], other[key])
    else:
        torch.testing.assert_close(in_host(one), in_host(other), atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("id", [*FAMILIES, "Walk-v0"])
def test_a_graph_gives_what_its_twin_gives_across_resets_tasks_and_states(tape, id):
    family = Walk() if id == "Walk-v0" else metarl.make(id, **{"pulls" if id == "Bandit-v0" else "horizon": 8})
    one, other = make(family, None), make(family, False)
    kept = []
    for seed in range(3):
        tasks = family.sample(2, seed=seed)
        for env in (one, other):
            env.set_tasks(tasks)
        if seed != 1:
            assert_equal(one.reset(seed=seed)[0], other.reset(seed=seed)[0])
        for number in range(family.horizon // 2 + 3):
            actions = draw(family, number)
            kept.append((one.step(actions), other.step(actions)))
    for pair in kept:  # no result was overwritten by a later step
        assert_equal(*pair)
    state = one.get_state()
    assert_equal(state, other.get_state())
    later = one.step(actions)
    one.set_state(state)
    assert_equal(one.step(actions), later)
    assert one.fault_count == other.fault_count
    assert (one.is_captured, one._graph.captures) == (True, 1)
    assert tape.replays == len(kept) + 2
    assert not other.is_captured


@pytest.mark.parametrize("id", FAMILIES)
def test_a_captured_step_is_three_launches_and_waits_for_nothing(gpu, tape, id):
    family = metarl.make(id)
    env, twin = make(family, True), make(family, False)
    actions = draw(family, 0)
    for _ in range(3):
        env.step(actions)
    with waiting_refused(gpu):
        replays = tape.replays
        launches = count_launches(lambda: env.step(actions))
        assert tape.replays == replays + 1
        assert launches.tensor == 2  # the actions in, the results out
        assert count_launches(lambda: twin.step(actions)).tensor > 10


def test_what_python_counts_in_a_step_is_not_captured(tape):
    family = Walk()
    family.counts = True
    env, twin = make(family, None), make(family, False)
    with pytest.warns(
        RuntimeWarning, match="Walk-v0 on cuda: steps are launched piece by piece.* changes .*steps on the"
    ):
        env.step(draw(family, 0))
    assert "steps on the host" in env.graph_refusal
    assert not env.is_captured
    family.steps = 0
    twin.set_state(env.get_state())
    one = env.step(draw(family, 1))
    family.steps = 0
    assert_equal(one, twin.step(draw(family, 1)))


def test_a_changed_setting_of_the_family_is_captured_anew(tape):
    family = Walk()
    env, twin = make(family, None), make(family, False)
    for scale in (1.0, 3.0):
        family.scale = scale
        for each in (env, twin):
            each.reset(seed=0)
        for number in range(4):
            assert_equal(env.step(draw(family, number)), twin.step(draw(family, number)))
    assert env._graph.captures == 2


def test_a_capture_that_fails_leaves_everything_to_the_twin(gpu, monkeypatch):
    def fail(work, device):
        work()
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(NativeEnv, "capture", staticmethod(fail))
    family = Walk()
    env, twin = make(family, True), make(family, False)
    with pytest.warns(RuntimeWarning, match="because RuntimeError: operation not permitted when stream is capturing"):
        first = env.step(draw(family, 0))
    assert_equal(first, twin.step(draw(family, 0)))
    for number in range(5):  # and warns no more
        assert_equal(env.step(draw(family, number)), twin.step(draw(family, number)))


def test_a_graph_that_differs_is_given_up_and_its_step_undone(gpu, tape, monkeypatch):
    def capture(work, device):
        replay = tape.capture(work, device)

        def broken():
            replay()
            env._state["place"].add_(1)

        return broken

    monkeypatch.setattr(NativeEnv, "capture", staticmethod(capture))
    family = Walk()
    env, twin = make(family, True), make(family, False)
    with pytest.warns(RuntimeWarning, match="the captured step and the step itself differ in"):
        first = env.step(draw(family, 0))
    assert_equal(first, twin.step(draw(family, 0)))
    for number in range(5):
        assert_equal(env.step(draw(family, number)), twin.step(draw(family, number)))


def test_the_check_of_a_second_step_sees_state_that_is_not_carried_over(gpu, tape, monkeypatch):
    def capture(work, device):
        replay = tape.capture(work, device)
        first = {}

        def forgetful():
            for name, value in env._state.items():
                first.setdefault(name, value.clone())
                value.copy_(first[name])
            replay()

        return forgetful

    monkeypatch.setattr(NativeEnv, "capture", staticmethod(capture))
    family = Walk()
    env, twin = make(family, True), make(family, False)
    assert_equal(env.step(draw(family, 0)), twin.step(draw(family, 0)))
    with pytest.warns(RuntimeWarning, match="differ in"):
        second = env.step(draw(family, 1))
    assert_equal(second, twin.step(draw(family, 1)))


def test_on_the_cpu_nothing_is_captured_and_a_graph_is_refused():
    family = metarl.make("PointNavigation-v0")
    for graph in (None, False):
        env = family.make_env(2, graph=graph)
        assert not env.is_captured
    with pytest.raises(UsageError, match=r"graph=True: PointNavigation-v0 captures its steps on a GPU only.* 'cpu'"):
        family.make_env(2, graph=True)


def test_an_environment_that_cannot_capture_says_so():
    env = metarl.make("PointNavigation-v0").make_env(1)
    with pytest.raises(UsageError, match="under backend 'torch' cannot capture its steps: leave graph out"):
        TaskVectorEnv.use_graph(env, True)
    TaskVectorEnv.use_graph(env, None)


def test_state_is_found_by_paths_that_lead_back_to_it():
    class Part:
        def __init__(self):
            self.numbers, self.names = [torch.zeros(2), torch.ones(3)], ("a", {"b": torch.zeros(1)})
            self.loop = self

    root = Part()
    state = find_state(root, outside={"left_out"})
    assert {describe(path) for path in state.tensors} == {"numbers[0]", "numbers[1]", "names[1]['b']"}
    new = torch.full((3,), 7.0)
    path = next(path for path in state.tensors if describe(path) == "numbers[1]")
    assert put(root, path, new)
    assert root.numbers[1] is new


# On a GPU ------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize(
    "id", [*FAMILIES, "HalfCheetahVel-v0", "AntGoal-v0", "HumanoidDir-v0", "ML1-reach-v3", "ML10-v3"]
)
def test_a_graph_on_a_gpu_steps_as_its_twin_does_by_few_launches_and_without_waiting(id):
    """First things to look at if it fails: `graph_refusal` of the environment, which names the reason."""
    family = metarl.make(id, horizon=4) if id != "Bandit-v0" else metarl.make(id, pulls=4)
    env, twin = (family.make_env(10, 4, device="cuda", graph=graph) for graph in (True, False))
    tasks = family.sample(10, seed=0)
    for each in (env, twin):
        each.set_tasks(tasks)
        each.reset(seed=0)
    shape = (40, *family.action_space.shape)
    actions = torch.zeros(shape, device="cuda", dtype=torch.float32 if family.action_space.shape else torch.int64)
    for _ in range(9):
        twin.set_state(env.get_state())
        one, other = env.step(actions), twin.step(actions)
        close = ((one[4]["final_obs"] - other[4]["final_obs"]).abs() < 1e-2).all(-1)
        assert close.double().mean() >= 0.9
    assert env.graph_refusal is None
    torch.cuda.set_sync_debug_mode("error")
    try:
        launches = count_launches(lambda: env.step(actions))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert launches.graphs == 1
    assert launches.total <= 5
    env.close()
    twin.close()

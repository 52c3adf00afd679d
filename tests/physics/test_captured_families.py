"""Families with simulated physics on a phantom GPU: no waits, few launches, and the numbers of the uncaptured twin."""

import pytest
import torch
from agents_on_gpu import AGENTS, roll_strictly
from phantom_gpu import Tape, in_host, on_gpu, phantom_gpu, phantom_warp, waiting_refused

import metarl
from metarl.envs.launches import count_launches
from metarl.envs.physics import PhysicsEnv
from metarl.envs.step_graph import CHECKS

pytestmark = pytest.mark.slow  # compiling the kernels of a scene takes half a minute
EXACT = ["HalfCheetahVel-v0", "AntGoal-v0", "HumanoidDir-v0", "HopperRandParams-v0"]
"""Warp's CPU device repeats these bit by bit. In Meta-World's scenes, the solver's last bits differ from run to run."""
FAMILIES = [*EXACT, "ML1-reach-v3", "ML10-v3"]


@pytest.fixture
def gpu(monkeypatch):
    with phantom_gpu(monkeypatch) as made:
        made.tape = Tape(made)
        monkeypatch.setattr(PhysicsEnv, "capture", staticmethod(made.tape.capture))
        with phantom_warp(monkeypatch, made.tape):
            yield made


def assert_close(one, other, tolerance):
    if isinstance(one, tuple | dict):
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_close(one[key], other[key], tolerance)
    else:
        torch.testing.assert_close(in_host(one), in_host(other), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("id", FAMILIES)
def test_captured_steps(gpu, id):
    family = metarl.make(id, horizon=5)
    env, twin = (family.make_env(10, device="cuda", backend="warp", graph=graph) for graph in (True, False))
    generator, tolerance = torch.Generator().manual_seed(0), 0.0 if id in EXACT else 2e-3
    kept = []
    for seed in range(2):
        tasks = family.sample(10, seed=seed)
        for each in (env, twin):
            each.set_tasks(tasks)
        assert_close(env.reset(seed=seed)[0], twin.reset(seed=seed)[0], 0.0)
        for _ in range(7):  # past the end of an episode
            actions = on_gpu(2 * torch.rand(10, *family.action_space.shape, generator=generator) - 1)
            kept.append((env.step(actions), twin.step(actions)))
            if id not in EXACT:
                twin.set_state(env.get_state())
    for (one, *_), (other, *_) in kept:
        assert_close(one, other, tolerance)
    assert_close(kept[0][0], kept[0][1], max(tolerance, 1e-2 if tolerance else 0.0))
    assert env.graph_refusal is None
    with waiting_refused(gpu):
        replays = gpu.tape.replays
        launches = count_launches(lambda: env.step(actions))
        for _ in range(6):
            twin.step(actions)
    assert gpu.tape.replays == replays + 1
    assert launches.tensor + 1 <= 5  # and the graph
    state = env.get_state()
    later = env.step(actions)
    env.set_state(state)
    assert_close(env.step(actions)[0], later[0], tolerance)
    env.close()
    twin.close()


@pytest.mark.parametrize("id", ["HalfCheetahVel-v0", "ML1-reach-v3"])
@pytest.mark.parametrize("name", AGENTS)
def test_agents_wait_for_nothing_on_robots(gpu, monkeypatch, id, name):
    family = metarl.make(id, horizon=4)

    def make_env():
        env = family.make_env(2, 3, device="cuda", backend="warp")
        env.set_tasks(family.sample(2, seed=0))
        env.reset(seed=0)
        for _ in range(1 + CHECKS):  # the capture, and the steps compared with its twin, may wait
            env.step(torch.zeros(6, *family.action_space.shape, device="cuda"))
        return env

    roll_strictly(gpu, monkeypatch, name, make_env)

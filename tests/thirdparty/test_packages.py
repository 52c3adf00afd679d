"""Environments that others wrote, through both agents: train, stop, resume, evaluate (extra `thirdparty`)."""

import importlib.util
import json
from pathlib import Path

import packages
import pytest
import torch
from packages import FAMILIES

import metarl
from metarl.agents.random import RandomPolicy
from metarl.spaces import map_tensors

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the packages' own warnings are theirs

SMALL = {"num_tasks": 2, "envs_per_task": 2}


@pytest.fixture(params=FAMILIES)
def name(request):
    if importlib.util.find_spec(FAMILIES[request.param]) is None:
        pytest.skip(f"{FAMILIES[request.param]} is not installed")
    return request.param


@pytest.fixture(autouse=True)
def packages_by_name(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_environments_step_the_same_in_workers_and_here(name):
    def run(vectorization):
        family = getattr(packages, name)(vectorization=vectorization, workers=2)
        env = family.make_env(2, 2, seed=0)
        env.set_tasks(family.sample(2, seed=0))
        policy = RandomPolicy(family.action_space, torch.Generator().manual_seed(0))
        trajectories = metarl.collect(env, policy, family.horizon + 2, seed=0)
        env.close()
        return trajectories

    here, there = run("sync"), run("async")
    assert not here.fault.any()
    assert here.ended.any()
    assert torch.equal(here.rewards, there.rewards)
    assert torch.equal(here.terminated, there.terminated)
    same = map_tensors(torch.equal, here.observations, there.observations)
    assert same is True or all(same.values())


@pytest.mark.parametrize("agent", ["maml", "rl2"])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_agent_trains_stops_resumes_and_is_evaluated(name, agent, vectorization, tmp_path):
    whole, parts = (tmp_path / n for n in ("whole", "parts"))
    config = {
        "agent": agent,
        "env": f"packages:{name}",
        "env_options": {"vectorization": vectorization, "workers": 2},
        "agent_options": SMALL,
        "checkpoint_every": 1,
    }
    metarl.train(metarl.TrainConfig(**config, iterations=2, output=whole), progress=False)
    metarl.train(metarl.TrainConfig(**config, iterations=2, output=parts), progress=False)
    for file in (parts / "checkpoints").glob("iteration-000002.*"):
        file.unlink()
    (parts / "plots" / "training.png").unlink()
    metarl.resume(parts, progress=False)
    one, other = (metarl.load_agent(run).state()[0] for run in (whole, parts))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(value.isfinite().all() for value in one.values())
    rows = [json.loads(line) for line in (parts / "metrics.jsonl").read_text().splitlines()]
    assert [row["faults"] for row in rows] == [0, 0]
    run = metarl.load_run(parts)
    evaluation = metarl.evaluate(run.agent, run.distribution, num_tasks=2, episodes=2, envs_per_task=2)
    assert evaluation.returns.isfinite().all()
    assert (evaluation.success is not None) == run.distribution.has_success


def test_a_text_is_refused_with_what_leaves_it_out():
    pytest.importorskip("minigrid")
    starts = {"x": {"train": [1, 2], "test": [3]}}
    with pytest.raises(
        metarl.UsageError,
        match=r"'mission' .* no network .*FilterObservation\(env, \['direction', 'image'\]\)",
    ):
        packages.family("MiniGrid", "minigrid:MiniGrid-Empty-5x5-v0", starts, packages.put_agent)

"""An outsider's off-policy agent: it trains, is stopped, goes on exactly, and adapts to goals never seen."""

from pathlib import Path

import pytest
import torch
from outsider import Outsider

import metarl
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.metrics import read_metrics

ITERATIONS = 45


def config(output, iterations=ITERATIONS, **options):
    return metarl.TrainConfig(
        agent="outsider:Outsider",
        env="PointNavigation-v0",
        env_options={"horizon": 10},
        agent_options=options,
        iterations=iterations,
        checkpoint_every=4,
        output=output,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return metarl.train(config(tmp_path_factory.mktemp("runs") / "straight"), progress=False)


def returns(agent):
    """On goals of the test split, by episode of adaptation."""
    evaluation = metarl.evaluate(agent, agent_family(), num_tasks=30, episodes=2, seed=1)
    assert evaluation.episodes_used == [0, 1, 2]
    return evaluation.returns.mean(0).tolist()


def agent_family(horizon=10):
    return metarl.make("PointNavigation-v0", horizon=horizon)


def test_it_is_an_agent_of_a_hundred_lines():
    lines = (Path(__file__).parent / "outsider.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 100


def test_it_learns_to_adapt_to_goals_that_training_never_saw(trained):
    agent = metarl.load_agent(trained)
    zero_shot, _, adapted = returns(agent)
    untrained = returns(Outsider(agent.config, agent.spec))[2]
    assert adapted > zero_shot + 0.2
    assert adapted > untrained + 0.2


def test_it_keeps_a_buffer_for_each_of_a_fixed_list_of_tasks(trained):
    run = metarl.load_run(trained)
    assert run.config.agent_options.train_tasks == 30
    counts = load_checkpoint(trained).buffers
    assert len(counts) == 30
    assert {name.removeprefix("task-") for name in counts} == {str(i) for i in range(30)}
    assert (trained / "buffers").is_dir()


def test_stopped_in_the_middle_it_goes_on_exactly(trained, tmp_path, monkeypatch):
    real, stop_at = Outsider.improve, 18

    def stopped(self, env, *, seed):
        metrics = real(self, env, seed=seed)
        stopped.count += 1
        if stopped.count == stop_at:
            raise KeyboardInterrupt  # after the buffers have grown, before the iteration counts
        return metrics

    stopped.count = 0
    monkeypatch.setattr(Outsider, "improve", stopped)
    with pytest.raises(KeyboardInterrupt):
        metarl.train(config(tmp_path / "run"), progress=False)
    monkeypatch.setattr(Outsider, "improve", real)
    assert load_checkpoint(tmp_path / "run").iteration == stop_at - 1
    metarl.resume(tmp_path / "run", progress=False)
    expected, found = (load_checkpoint(run).tensors for run in (trained, tmp_path / "run"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    rows = [
        [(row["return_mean"], row["critic_error"]) for row in read_metrics(run)] for run in (trained, tmp_path / "run")
    ]
    assert rows[0] == rows[1]


def test_it_is_evaluated_at_another_horizon(trained):
    agent, family = metarl.load_agent(trained), agent_family(horizon=25)
    env = family.make_env(3, 2)
    env.set_tasks(family.sample(3, split="test", seed=0))
    policy = agent.adapt(env, 1, seed=0)
    assert (policy.count == 25).all()

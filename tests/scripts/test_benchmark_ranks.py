"""`metarl benchmark ranks` on a small training: its figures fit together."""

import pytest

import metarl
from metarl.scripts import benchmark_ranks

SMALL = {
    "agent": "rl2",
    "env": "PointNavigation-v0",
    "env_options": {"horizon": 5},
    "agent_options": {"num_tasks": 8, "hidden": 8},
}


@pytest.mark.slow
def test_ranks_are_measured_beside_one_process_and_independent_ones(monkeypatch):
    monkeypatch.setattr(benchmark_ranks, "SETTINGS", {"small": SMALL})
    arguments = benchmark_ranks.Arguments(rounds=2, settings=("small",), shrink=2)
    result = benchmark_ranks.run(arguments)["results"]["small"]
    assert result["setting"]["agent_options"]["num_tasks"] == 4
    assert all(len(values) == 2 and min(values) > 0 for values in result["rounds"].values())
    agent = metarl.TrainConfig(**result["setting"]).resolve().make()
    gradients = 20 * sum(p.numel() for p in agent.network.parameters() if p.requires_grad) * 4
    # Beside the gradients, each minibatch sums its count and its losses, and statistics are a few numbers.
    assert gradients < result["traffic"]["bytes"] < 1.2 * gradients + 4000
    assert result["traffic"]["sums"] >= 2 * 20


def test_a_training_that_is_not_there_is_named():
    with pytest.raises(metarl.UsageError, match="no training 'mmal' to measure: there are maml-cheetah, rl2-reach"):
        benchmark_ranks.run(benchmark_ranks.Arguments(settings=("mmal",)))

"""The peers of the few-shot benchmark are given the very network that they are compared with."""

import dataclasses

import pytest
import torch

from metarl.fewshot.episodes import EpisodeShape, TaskSpec
from metarl.fewshot.learners.maml import MAMLLearner
from metarl.fewshot.preprocessing import Preprocessing
from metarl.scripts.benchmark_fewshot import _peer_module


@pytest.mark.parametrize(
    "spec",
    [
        TaskSpec("regression", EpisodeShape(1, 5, 5), Preprocessing((1,)), 1),
        TaskSpec("classification", EpisodeShape(5, 1, 2), Preprocessing((1, 28, 28)), 5),
    ],
)
def test_the_peers_network_is_the_learners(spec: TaskSpec):
    learner = MAMLLearner(dataclasses.replace(MAMLLearner.default_config(spec), width=4), spec)
    module = _peer_module(learner)
    parameters = dict(module.named_parameters())
    assert sorted(value.shape for value in parameters.values()) == sorted(v.shape for v in learner.parameters.values())
    for target, value in zip(parameters.values(), learner.parameters.values(), strict=True):
        target.data.copy_(value)
    x = torch.rand(7, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x), learner.network(learner.parameters, x[None])[0], rtol=1e-4, atol=1e-5)

"""Streams of random numbers: uniform, independent, the same whatever runs beside them."""

import random

import numpy as np
import pytest
import scipy.stats
import torch

from metarl.randomness import EnvStreams, derive_seed, make_generator


def test_derived_seeds_are_pinned():
    """Runs that were recorded must stay reproducible."""
    assert derive_seed("evaluation", 0) == 907159372
    assert derive_seed("a", "b") != derive_seed("ab")
    assert derive_seed("a", 1) == derive_seed("a", "1")


def test_derived_seeds_are_spread_evenly():
    seeds = np.array([derive_seed("x", i) for i in range(4000)]) / 2**31
    assert scipy.stats.kstest(seeds, "uniform").pvalue > 0.01


def test_generators_of_other_names_differ():
    draws = [torch.rand(4, generator=make_generator("tasks", name)) for name in ("a", "a", "b")]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_uniform_numbers_are_uniform_along_and_across_streams():
    streams = EnvStreams.from_seed(0, 500, "cpu")
    values = torch.stack([streams.uniform() for _ in range(200)])
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    assert scipy.stats.kstest(values.flatten().numpy(), "uniform").pvalue > 0.01
    along = [scipy.stats.kstest(values[:, i].numpy(), "uniform").pvalue for i in range(500)]
    across = [scipy.stats.kstest(values[t].numpy(), "uniform").pvalue for t in range(200)]
    # The p-values of true hypotheses are themselves uniform.
    assert scipy.stats.kstest(along, "uniform").pvalue > 0.01
    assert scipy.stats.kstest(across, "uniform").pvalue > 0.01


def test_normal_numbers_are_normal():
    values = EnvStreams.from_seed(1, 100, "cpu").normal(1000)
    assert values.shape == (100, 1000)
    assert scipy.stats.kstest(values.flatten().numpy(), "norm").pvalue > 0.01


def test_streams_of_neighbouring_seeds_are_independent():
    values = EnvStreams.from_seed(0, 40, "cpu").uniform(5000).double()
    correlations = torch.corrcoef(values)[torch.triu_indices(40, 40, 1).unbind()]
    # Under independence each is normal with deviation 1 / sqrt(5000).
    assert scipy.stats.kstest((correlations * 5000**0.5).numpy(), "norm").pvalue > 0.01
    # Nor is one stream its neighbour's, a step behind.
    lagged = torch.corrcoef(torch.cat([values[:, 1:], values[:, :-1]]))[:40, 40:].flatten()
    assert scipy.stats.kstest((lagged * 4999**0.5).numpy(), "norm").pvalue > 0.01


def test_successive_numbers_are_independent():
    values = EnvStreams.from_seed(3, 1, "cpu").uniform(100_000)[0]
    cells = (values[:-1] * 10).long() * 10 + (values[1:] * 10).long()
    assert scipy.stats.chisquare(torch.bincount(cells, minlength=100).numpy()).pvalue > 0.01


def test_numbers_do_not_depend_on_the_batch():
    together = EnvStreams.from_seed(7, 5, "cpu")
    alone = EnvStreams.from_seed(7 + 3, 1, "cpu")
    for _ in range(3):
        assert torch.equal(together.uniform(2, 3)[3], alone.uniform(2, 3)[0])
        torch.testing.assert_close(together.normal(4)[3], alone.normal(4)[0])


def test_one_draw_of_many_is_many_draws_of_one():
    at_once, one_by_one = EnvStreams.from_seed(0, 3, "cpu"), EnvStreams.from_seed(0, 3, "cpu")
    assert torch.equal(at_once.uniform(6), torch.stack([one_by_one.uniform() for _ in range(6)], dim=1))
    assert torch.equal(at_once.state, one_by_one.state)


def test_a_restored_state_goes_on_exactly():
    streams = EnvStreams.from_seed(0, 4, "cpu")
    streams.uniform(3)
    saved = streams.state.clone()
    first = streams.normal(5)
    streams.state = saved
    assert torch.equal(streams.normal(5), first)


@pytest.mark.parametrize("seed", [-1, 0, 2**31 - 1, 2**62])
def test_any_seed_gives_its_own_numbers(seed):
    assert len(EnvStreams.from_seed(seed, 64, "cpu").uniform(1).unique()) == 64


def test_no_global_state_is_touched():
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    EnvStreams.from_seed(0, 4, "cpu").normal(3)
    make_generator("x")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (str(np.random.get_state()), random.getstate())  # noqa: NPY002

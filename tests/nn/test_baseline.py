"""The linear feature baseline against NumPy, and what it may not fit away."""

import resource

import numpy as np
import pytest
import torch

from metarl.nn import blocks
from metarl.nn.baseline import baseline_metrics, episode_time, fit_baseline


def clock(t, m, n):
    return torch.arange(t)[:, None, None].expand(t, m, n)


def noise(t, m, n, d, seed=0):
    """Independent observations and returns, and the remaining arguments of a fit to them."""
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(t, m, n, d, generator=generator)
    return observations, clock(t, m, n), torch.randn(t, m, n, generator=generator), torch.ones(t, m, n).bool()


def least_squares(features, time, returns, rows):
    """The ridge solution for one task, by least squares with extra rows: `features` `[T, N, F]`."""
    u = time.double().numpy()[..., None] / 100
    x = np.concatenate([features, u, u**2, u**3, np.ones_like(u)], axis=-1)
    a = np.concatenate([x[rows], np.sqrt(1e-5) * np.eye(x.shape[-1])])
    b = np.concatenate([returns.double().numpy()[rows], np.zeros(x.shape[-1])])
    return x @ np.linalg.lstsq(a, b, rcond=None)[0]


def removed(values, returns):
    """The share of the variance of the returns that each task's fit removes."""
    total = (returns - returns.mean((0, 2), keepdim=True)).square().sum((0, 2))
    return 1 - (returns - values).square().sum((0, 2)) / total


def test_episode_time_counts_from_each_start():
    starts = torch.tensor([[1, 1], [0, 0], [0, 1], [1, 0], [0, 0]], dtype=torch.bool)
    assert episode_time(starts).tolist() == [[0, 0], [1, 1], [2, 0], [0, 1], [1, 2]]


@pytest.mark.parametrize("d", [1, 2, 20])
def test_many_samples_get_the_ridge_solution_with_the_features_of_the_paper(d):
    t, m, n = 150, 3, 6
    observations, time, returns, _ = noise(t, m, n, d)
    observations = 6 * observations  # some beyond the clip
    valid = torch.rand(t, m, n, generator=torch.Generator().manual_seed(1)) < 0.7
    baseline = fit_baseline(observations, time, returns, valid)
    assert baseline.num_features.tolist() == [2 * d + 4] * m
    for task in range(m):
        o = observations[:, task].double().clamp(-10, 10).numpy()
        features = np.concatenate([o, o**2], -1)
        expected = least_squares(features, time[:, task], returns[:, task], valid[:, task].numpy())
        np.testing.assert_allclose(baseline.values[:, task].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_fewer_samples_get_the_observations_without_their_squares():
    observations, time, returns, valid = noise(30, 2, 10, 20)  # the squares would take 440 samples
    baseline = fit_baseline(observations, time, returns, valid)
    assert baseline.num_features.tolist() == [24, 24]
    for task in range(2):
        expected = least_squares(
            observations[:, task].double().numpy(), time[:, task], returns[:, task], np.ones((30, 10), dtype=bool)
        )
        np.testing.assert_allclose(baseline.values[:, task].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("d", [1, 20, 147, 300, 2835])
@pytest.mark.parametrize("horizon", [10, 50])
def test_little_of_a_variance_that_observations_do_not_explain_is_fitted_away(d, horizon):
    tasks = 6
    observations, time, returns, valid = noise(horizon, tasks, 20, d)
    baseline = fit_baseline(observations, time, returns, valid)
    samples, features = 20 * horizon, int(baseline.num_features[0])
    assert features <= samples / 10
    expected, deviation = features / samples, (2 * features / tasks) ** 0.5 / samples  # of a fit to white noise
    assert removed(baseline.values, returns).mean() < expected + 3 * deviation


def test_wide_observations_that_tell_the_return_are_used():
    """300 numbers that depend on 5: what random projections keep is enough."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 2, 20, 5, generator=generator)
    observations = hidden @ torch.randn(5, 300, generator=generator)
    baseline = fit_baseline(observations, clock(50, 2, 20), hidden[..., 0], torch.ones(50, 2, 20).bool())
    assert baseline.num_features.tolist() == [36, 36]
    assert (removed(baseline.values, hidden[..., 0]) > 0.8).all()
    assert baseline_metrics(baseline)["baseline_r2"] > 0.7


@pytest.mark.parametrize("d", [10, 40])
def test_observations_that_only_tell_episodes_apart_are_left_out(d):
    """4,000 samples bear the features, but the 20 episodes do not: the fit would reproduce each one's mean return."""
    t, m, n = 200, 2, 20
    observations, _, returns, valid = noise(1, m, n, d)
    observations, returns = observations.expand(t, m, n, d), returns.expand(t, m, n)
    baseline = fit_baseline(observations, clock(t, m, n), returns, valid.expand(t, m, n))
    assert baseline.num_features.tolist() == [4, 4]
    assert (removed(baseline.values, returns) < 0.01).all()


def test_one_episode_is_fitted_with_time_and_as_much_else_as_its_steps_bear():
    for horizon, features in ((30, 4), (60, 6), (100, 8)):
        observations, time, returns, valid = noise(horizon, 2, 1, 2)
        baseline = fit_baseline(observations, time, returns, valid)
        assert baseline.num_features.tolist() == [features, features]
        assert baseline_metrics(baseline)["baseline_r2"] == 0, "there is nothing that it could have been tested on"


def test_every_task_is_fitted_by_itself():
    observations, time, returns, valid = noise(40, 2, 10, 12)
    valid = valid.clone()
    valid[5:, 0] = False  # 50 samples, that do not bear what the other's 400 do
    both = fit_baseline(observations, time, returns, valid)
    assert both.num_features.tolist() == [4, 28]
    for task in (slice(0, 1), slice(1, 2)):
        alone = fit_baseline(observations[:, task], time[:, task], returns[:, task], valid[:, task])
        torch.testing.assert_close(both.values[:, task], alone.values)
        assert torch.equal(both.num_features[task], alone.num_features)
        torch.testing.assert_close(both.held_out_error[task], alone.held_out_error)


def test_held_out_error_is_that_of_fits_to_the_other_environments():
    observations, time, returns, valid = noise(40, 2, 5, 2)
    baseline = fit_baseline(observations, time, returns, valid)
    for task in range(2):
        o, y = observations[:, task].double().numpy(), returns[:, task].double().numpy()
        features, error = np.concatenate([o, o**2], -1), 0.0
        for held_out in (np.arange(5) % 2 == 0, np.arange(5) % 2 == 1):
            rows = np.broadcast_to(~held_out, (40, 5))
            predicted = least_squares(features, time[:, task], returns[:, task], rows)
            error += np.square(y - predicted.clip(y.min(), y.max()))[:, held_out].sum()
        np.testing.assert_allclose(baseline.held_out_error[task].item(), error, rtol=1e-4)
        np.testing.assert_allclose(baseline.squared_deviation[task].item(), y.var() * y.size, rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("d", [2, 300])
def test_steps_that_are_not_valid_do_not_count(bad, d):
    observations, time, returns, valid = noise(50, 2, 10, d)
    valid = valid.clone()
    valid[30:, 0] = False
    expected = fit_baseline(torch.where(valid[..., None], observations, 0.5), time, returns, valid)
    baseline = fit_baseline(
        torch.where(valid[..., None], observations, bad), time, torch.where(valid, returns, bad), valid
    )
    assert torch.equal(baseline.values[valid], expected.values[valid])
    assert baseline.values.isfinite().all()
    assert torch.equal(baseline.num_features, expected.num_features)
    assert torch.equal(baseline.held_out_error, expected.held_out_error)


@pytest.mark.parametrize("d", [3, 300])
def test_constant_and_repeated_observations_change_nothing(d):
    observations, time, returns, valid = noise(60, 2, 20, 1)
    returns = returns + observations[..., 0]
    constant = fit_baseline(torch.full((60, 2, 20, d), 3.0), time, returns, valid)
    without = fit_baseline(torch.zeros(60, 2, 20, 1), time, returns, valid)
    torch.testing.assert_close(constant.values, without.values, rtol=1e-3, atol=1e-3)
    repeated = fit_baseline(observations.expand(*returns.shape, d), time, returns, valid)
    for task in range(2):
        o, rows = observations[:, task].double().numpy(), np.ones((60, 20), dtype=bool)
        features = np.concatenate([o, o**2], -1) if d == 3 else o  # projections of wide ones have no squares
        expected = least_squares(features, time[:, task], returns[:, task], rows)
        np.testing.assert_allclose(repeated.values[:, task].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_pictures_and_dictionaries():
    """A picture counts as its projections, beside other entries; a dictionary of vectors as one vector."""
    observations, time, returns, valid = noise(60, 2, 20, 6)
    whole = fit_baseline(observations, time, returns, valid)
    parts = fit_baseline({"hand": observations[..., :2], "goal": observations[..., 2:]}, time, returns, valid)
    assert torch.equal(whole.values, parts.values)
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (60, 2, 20, 8, 8, 3), generator=generator, dtype=torch.uint8)
    lit = picture[..., 0].float().mean((-1, -2))
    picture[..., 0, 0, :] = (10 * observations[..., :1]).clamp(0, 255).to(torch.uint8)
    alone = fit_baseline(picture, time, lit, valid)
    assert alone.num_features.tolist() == [36, 36]
    beside = fit_baseline({"camera": picture, "hand": observations}, time, observations[..., 1], valid)
    assert beside.num_features.tolist() == [16 + 6 + 4] * 2
    torch.testing.assert_close(beside.values, observations[..., 1], rtol=0, atol=0.05)


def test_pictures_of_100_800_numbers_need_little_memory():
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (20, 1, 20, 210, 160, 3), generator=generator, dtype=torch.uint8)
    some = torch.ones(20, 1, 20)
    fit_baseline(picture[..., :8, :8, :], clock(20, 1, 20), some, some > 0)  # libraries load what they need once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    baseline = fit_baseline(
        picture, clock(20, 1, 20), torch.rand(20, 1, 20, generator=generator), torch.ones(20, 1, 20) > 0
    )
    assert baseline.num_features.tolist() == [36]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_returns_that_do_not_differ():
    observations, time, returns, valid = noise(40, 2, 5, 2)
    for value in (0.0, 0.1):
        metrics = baseline_metrics(fit_baseline(observations, time, torch.full_like(returns, value), valid))
        assert 0 <= metrics["baseline_r2"] <= 1


def test_no_valid_step_at_all():
    observations, time, returns, valid = noise(40, 2, 5, 2)
    baseline = fit_baseline(observations, time, returns, ~valid)
    assert baseline.values.isfinite().all()
    assert baseline_metrics(baseline)["baseline_r2"] == 0


@pytest.mark.parametrize("d", [2, 20, 300])
def test_blocks_of_tasks_change_nothing(d, monkeypatch):
    observations, time, returns, valid = noise(40, 5, 10, d)
    valid = valid.clone()
    valid[5:, 1] = False  # 50 samples bear less than 400
    whole = fit_baseline(observations, time, returns, valid)
    for numbers in (1, 2 * 400 * 8):
        monkeypatch.setattr(blocks, "CACHED", numbers)
        parts = fit_baseline(observations, time, returns, valid)
        torch.testing.assert_close(vars(parts), vars(whole))

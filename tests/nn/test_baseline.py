"""The linear feature baseline against NumPy."""

import numpy as np
import torch

from metarl.nn.baseline import episode_time, fit_baseline


def test_episode_time_counts_from_each_start():
    starts = torch.tensor([[1, 1], [0, 0], [0, 1], [1, 0], [0, 0]], dtype=torch.bool)
    assert episode_time(starts).tolist() == [[0, 0], [1, 1], [2, 0], [0, 1], [1, 2]]


def test_baseline_is_the_ridge_solution_of_each_task():
    generator = torch.Generator().manual_seed(0)
    t, m, n, d = 12, 3, 4, 2
    observations = 6 * torch.randn(t, m, n, d, generator=generator)  # some beyond the clip
    returns = torch.randn(t, m, n, generator=generator)
    valid = torch.rand(t, m, n, generator=generator) < 0.7
    time = torch.arange(t)[:, None, None].expand(t, m, n)
    values = fit_baseline(observations, time, returns, valid)
    for task in range(m):
        o = observations[:, task].double().clamp(-10, 10).numpy()
        u = np.broadcast_to((np.arange(t) / 100)[:, None, None], (t, n, 1))
        x = np.concatenate([o, o**2, u, u**2, u**3, np.ones_like(u)], axis=-1)
        rows = valid[:, task].numpy()
        # ridge regression as least squares with extra rows
        a = np.concatenate([x[rows], np.sqrt(1e-5) * np.eye(2 * d + 4)])
        b = np.concatenate([returns[:, task].double().numpy()[rows], np.zeros(2 * d + 4)])
        expected = x @ np.linalg.lstsq(a, b, rcond=None)[0]
        np.testing.assert_allclose(values[:, task].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_invalid_steps_do_not_count():
    generator = torch.Generator().manual_seed(1)
    observations, returns = torch.randn(9, 2, 3, 2, generator=generator), torch.randn(9, 2, 3, generator=generator)
    valid = torch.ones(9, 2, 3, dtype=torch.bool)
    valid[5:] = False
    time = torch.arange(9)[:, None, None].expand(9, 2, 3)
    values = fit_baseline(observations, time, returns, valid)
    changed = torch.where(valid, returns, 1e6)
    torch.testing.assert_close(fit_baseline(observations, time, changed, valid), values)

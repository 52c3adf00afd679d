"""Running statistics against NumPy's over everything at once."""

import numpy as np
import torch

from metarl.nn.normalization import RunningNorm


def test_merged_batches_equal_all_at_once():
    rng = np.random.default_rng(0)
    norm, rows = RunningNorm(3), []
    for size in (5, 1, 40):
        values = torch.tensor(rng.normal([1, -20, 0], [2, 0.1, 5], (size, 3)), dtype=torch.float32)
        valid = torch.tensor(rng.random(size) < 0.8) | (torch.arange(size) == 0)
        norm.update(values, valid)
        rows.append(values[valid].numpy())
    everything = np.concatenate(rows)
    np.testing.assert_allclose(norm.mean.numpy(), everything.mean(0), rtol=1e-4)
    np.testing.assert_allclose(norm.std.numpy(), everything.std(0), rtol=1e-3)
    np.testing.assert_allclose(
        norm(torch.tensor(everything)).numpy(), (everything - everything.mean(0)) / everything.std(0), atol=5e-3
    )


def test_nothing_seen_is_the_identity_and_constants_do_not_blow_up():
    norm = RunningNorm(2)
    values = torch.tensor([[0.5, -3.0]])
    torch.testing.assert_close(norm(values), values)
    norm.update(torch.tensor([[1.0, 2.0], [1.0, 4.0]]), torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(norm(torch.tensor([[1.5, 3.0]])), torch.tensor([[0.5, 0.0]]))

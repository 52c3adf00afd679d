"""Running statistics against NumPy's over everything at once."""

import numpy as np
import torch

from metarl.nn.normalization import RunningNorm, RunningScale


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


def test_a_running_scale_is_the_root_mean_square_of_everything_and_never_enlarges():
    rng = np.random.default_rng(0)
    scale, batches = RunningScale(3), []
    for shape in ((4, 2), (1, 1), (10, 3)):
        batch = rng.normal(0, [0.1, 1.5, 40], (*shape, 3)).astype(np.float32)
        scale.update(torch.tensor(batch))
        batches.append(batch.reshape(-1, 3))
    everything = np.concatenate(batches)
    expected = everything / np.maximum(1, np.sqrt(np.square(everything).mean(0)))
    np.testing.assert_allclose(scale(torch.tensor(everything)).numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(expected[:, 0], everything[:, 0])
    torch.testing.assert_close(RunningScale(2)(torch.tensor([[50.0, -3.0]])), torch.tensor([[50.0, -3.0]]))


def test_small_values_are_not_copied():
    scale, values = RunningScale(3), torch.rand(4, 3)
    scale.update(values)
    assert scale(values) is values

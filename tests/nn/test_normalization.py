"""Running statistics against NumPy's over everything at once."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

import metarl.nn.normalization as normalization
from metarl.nn.normalization import EntryScales, PictureNorm, RunningNorm, RunningScale
from metarl.parallel import Ranks


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


def test_nothing_valid_changes_nothing():
    norm = RunningNorm(2)
    norm.update(torch.ones(3, 2), torch.zeros(3, dtype=torch.bool))
    pictures = PictureNorm(2)
    pictures.update(torch.ones(3, 4, 4, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.bool))
    for each in (norm, pictures):
        assert each.count == 0
        assert not each.mean.any()
        assert (each.variance == 1).all()


@pytest.mark.parametrize("chunk", [2**25, 1])
def test_channels_of_pictures_are_normalised_by_all_their_pixels(chunk, monkeypatch):
    monkeypatch.setattr(normalization, "CHUNK_BYTES", chunk)
    rng = np.random.default_rng(0)
    norm, seen = PictureNorm(3), []
    for size in (5, 1, 40):
        batch = rng.integers([0, 100, 7], [11, 256, 8], (size, 2, 5, 4, 3)).astype(np.uint8)
        valid = rng.random((size, 2)) < 0.8
        norm.update(torch.tensor(batch), torch.tensor(valid))
        seen.append(batch[valid])
    pixels = np.concatenate(seen).reshape(-1, 3) / 255
    np.testing.assert_allclose(norm.mean.numpy(), pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.std.numpy()[:2], pixels.std(0)[:2], rtol=1e-4)
    assert norm.std[2] == 1  # a channel that never varies
    expected = (seen[0] / 255 - pixels.mean(0)) / norm.std.numpy()
    np.testing.assert_allclose(norm(torch.tensor(seen[0])).numpy(), expected, atol=2e-4)


def test_rare_levels_of_pictures_stay_apart():
    norm, pictures = PictureNorm(1), torch.ones(1000, 7, 7, 1, dtype=torch.uint8)
    pictures[0, 0, 0], pictures[1, 0, 0], pictures[2, 0, 0] = 4, 5, 8
    norm.update(pictures)
    usual, *rare = norm(torch.tensor([1, 4, 5, 8], dtype=torch.uint8).reshape(4, 1, 1, 1)).flatten().tolist()
    assert usual == pytest.approx(0, abs=0.01)
    assert rare == pytest.approx([30 / 7, 40 / 7, 10], abs=0.01)


def test_unseen_pictures_are_shares_of_255():
    norm = PictureNorm(1)
    torch.testing.assert_close(norm(torch.full((1, 2, 2, 1), 51, dtype=torch.uint8)), torch.full((1, 2, 2, 1), 0.2))


class TwoAlike(Ranks):
    """As if the other rank had the same numbers."""

    def sum(self, tensor):
        return 2 * tensor


def test_statistics_of_pictures_are_those_of_all_ranks():
    pictures = torch.randint(0, 256, (6, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    alone, together = PictureNorm(3), PictureNorm(3)
    alone.update(torch.cat([pictures, pictures]))
    together.update(pictures, ranks=TwoAlike(world_size=2))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value)


def test_scales_of_entries_are_saved_and_restored():
    spaces = {"a.b": Box(-1, 1, (2,)), "a": Box(0, 255, (4, 4, 3), "uint8")}
    scales, other = EntryScales(spaces), EntryScales(spaces)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "a.b": 30 * torch.randn(1, 3, 2, generator=generator),
        "a": torch.randint(0, 256, (1, 3, 4, 4, 3), dtype=torch.uint8, generator=generator),
    }
    scales.update(batch)
    other.load_state_dict({name: value.clone() for name, value in scales.state_dict().items()})
    torch.testing.assert_close(other(batch)["a.b"], scales(batch)["a.b"])
    torch.testing.assert_close(*(s(batch)["a"].norm(batch["a"]) for s in (scales, other)))

"""Rows chosen by a mask."""

import pytest
import torch

from metarl.envs.physics.selection import Selection


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("mask", [[True, False, True, False], [False] * 4, [True] * 4])
def test_only_chosen_rows_are_written(device, mask):
    mask = torch.tensor(mask, device=device)
    place = torch.arange(8.0, device=device).reshape(4, 2)
    expected = place.clone()
    expected[mask] = 10 * place[mask] + 1
    chosen = Selection(mask)
    chosen.put(place, (10 * chosen.take(place) + 1).double())  # of another type: it is converted
    assert torch.equal(place, expected)


def test_on_the_cpu_only_chosen_rows_are_taken():
    values = torch.arange(4)
    chosen = Selection(torch.tensor([False, True, False, True]))
    assert chosen.take(values).tolist() == [1, 3]
    assert not chosen.is_empty
    assert Selection(torch.zeros(4, dtype=torch.bool)).is_empty

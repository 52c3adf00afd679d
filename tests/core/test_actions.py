"""Batches of actions of every action space: which are valid, random ones, and spaces that are refused."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from metarl import UsageError
from metarl.actions import ActionFormat
from metarl.spaces import check_action_space

S = gym.spaces
HALF_OPEN = S.Box(np.array([0, -1], np.float32), np.array([np.inf, 1], np.float32))
MIXED = S.Tuple((S.Box(-1, 1, (2,)), S.Discrete(3, start=2), S.MultiBinary(2)))

# space, shape of an action, its dtype
SPACES = [
    (S.Box(-1, 1, (2,)), (2,), torch.float32),
    (S.Box(-1, 1, ()), (), torch.float32),
    (S.Box(-1, 1, (2, 3)), (2, 3), torch.float32),
    (S.Discrete(3, start=-1), (), torch.int64),
    (S.MultiDiscrete([2, 4], start=[0, 5]), (2,), torch.int64),
    (S.MultiBinary(3), (3,), torch.int64),
    (MIXED, (5,), torch.float32),
    (S.Tuple((S.Discrete(3), S.Discrete(2, start=7))), (2,), torch.float32),
]


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("space", "shape", "dtype"), SPACES, ids=str)
def test_random_actions_are_valid_and_of_the_right_kind(space, shape, dtype):
    check_action_space(space, "id")
    actions = ActionFormat(space)
    drawn = actions.draw((4, 5), generator())
    assert (drawn.shape, drawn.dtype) == ((4, 5, *shape), dtype)
    flat = drawn.flatten(0, 1)
    assert torch.equal(actions.check(flat, 20), flat)
    if not isinstance(space, S.Tuple):
        assert all(space.contains(np.asarray(action, space.dtype)) for action in flat.numpy())


def test_random_choices_are_uniform():
    actions = ActionFormat(S.Tuple((S.MultiDiscrete([2, 5], start=[0, -3]), S.Box(2.0, 6.0, (1,)))))
    drawn = actions.draw((20_000,), generator())
    choices = torch.bincount(drawn[:, 1].long() + 3, minlength=5) / 20_000
    torch.testing.assert_close(choices, torch.full((5,), 0.2), atol=0.01, rtol=0)
    assert drawn[:, 0].mean().item() == pytest.approx(0.5, abs=0.02)
    assert (drawn[:, 2].mean().item(), drawn[:, 2].std().item()) == pytest.approx((4.0, 4 / 12**0.5), abs=0.03)


def test_random_choices_among_very_many_reach_all():
    """float32 knows only every 64th of a billion."""
    drawn = ActionFormat(S.MultiDiscrete([2**30])).draw((1000,), generator())
    assert (drawn % 64).unique().numel() == 64


@pytest.mark.parametrize(
    ("low", "high", "bottom", "top"),
    [
        (0.0, np.inf, 0.0, 2.0),
        (-np.inf, 3.0, 1.0, 3.0),
        (-np.inf, np.inf, -1.0, 1.0),
        (-3.4028235e38, 3.4028235e38, -1.0, 1.0),
        (-1e10, 5.0, 3.0, 5.0),
        (0.5, 0.5, 0.5, 0.5),
        (-9e5, 9e5, -9e5, 9e5),
    ],
)
def test_random_actions_of_boxes_stay_where_policies_explore(low, high, bottom, top):
    drawn = ActionFormat(S.Box(np.float32(low), np.float32(high), (1,))).draw((1000,), generator())
    assert bottom <= drawn.min() <= bottom + 0.01 * (top - bottom)
    assert top - 0.01 * (top - bottom) <= drawn.max() <= top


WRONG = [
    (S.Box(-1, 1, (2, 3)), torch.zeros(2, 6), r"shape \[2, 2, 3\], got \[2, 6\]"),
    (S.Box(-1, 1, ()), torch.zeros(2, 1), r"shape \[2\], got \[2, 1\]"),
    (S.Box(-1, 1, (1,)), torch.zeros(2, 1, dtype=torch.int64), "floating-point numbers, got torch.int64"),
    (S.Box(-1, 1, (1,)), [[0.0], [0.0]], "torch tensor, got list"),
    (S.MultiDiscrete([2, 4]), torch.zeros(2), r"shape \[2, 2\], got \[2\]"),
    (S.MultiDiscrete([2, 4]), torch.zeros(2, 2), "discrete actions must be integers, got torch.float32"),
    (
        S.MultiDiscrete([2, 4], start=[0, -5]),
        torch.tensor([[0, -5], [1, 3]]),
        r"actions\[:, 1\] must be whole numbers in \[-5, -2\], got 3",
    ),
    (
        S.MultiDiscrete([2, 4]),
        torch.tensor([[0, 0], [255, 3]], dtype=torch.uint8),
        r"actions\[:, 0\] .* \[0, 1\], got 255",
    ),
    (S.MultiBinary(2), torch.ones(2, 2, dtype=torch.bool), "integers, got torch.bool"),
    (S.MultiBinary(2), torch.tensor([[0, 1], [0, -1]]), r"actions\[:, 1\] must be whole numbers in \[0, 1\], got -1"),
    (MIXED, torch.zeros(2, 4), r"shape \[2, 5\], got \[2, 4\]"),
    (MIXED, torch.tensor([[0, 0, 2, 0, 0], [0, 0, 4, 1, 1]]), "floating-point numbers, got torch.int64"),
    (MIXED, torch.tensor([[0, 0, 2, 0, 0], [9, 0, 5.0, 1, 1]]), r"actions\[:, 2\] must be .* \[2, 4\], got 5.0"),
    (MIXED, torch.tensor([[0, 0, 2, 0, 0], [0, 0, 2.5, 1, 1]]), r"actions\[:, 2\] must be whole .*, got 2.5"),
    (MIXED, torch.tensor([[0, 0, 2, 0, 0], [0, 0, 2, torch.nan, 1]]), "NaN or infinity"),
]


@pytest.mark.parametrize(("space", "actions", "message"), WRONG)
def test_wrong_actions_are_refused(space, actions, message):
    with pytest.raises(UsageError, match=message):
        ActionFormat(space).check(actions, 2)


def test_actions_beyond_a_box_pass_and_whole_numbers_of_any_width_become_int64():
    beyond = torch.tensor([[9.0, 0, 2, 0, 1]])
    assert ActionFormat(MIXED).check(beyond, 1) is beyond
    assert ActionFormat(S.MultiBinary(2)).check(torch.tensor([[0, 1]], dtype=torch.uint8), 1).dtype == torch.int64


REFUSED = [
    (S.Box(0, 9, (2,), np.int64), "Box of float32, .* not Box.*int64"),
    (S.Box(-1, 1, (2,), np.float64), "not Box.*float64"),
    (S.Text(3), "not Text"),
    (S.Dict(a=S.Discrete(2)), "not Dict"),
    (S.MultiBinary((2, 2)), r"MultiBinary \[K\].*, not MultiBinary\(\(2, 2\)\)"),
    (S.MultiDiscrete([[2, 2]]), "not MultiDiscrete"),
    (S.Tuple((S.Tuple((S.Discrete(2),)),)), "not Tuple"),
    (S.Tuple((S.Discrete(2), S.Box(-1, 1, (2, 2)))), r"Tuple of these \(with boxes \[A\]\), not Box"),
    (S.Tuple(()), "must not be an empty Tuple"),
    (S.Box(-1, 1, (0,)), "must hold one number or more, but Box"),
    (S.MultiDiscrete([]), "must hold one number or more, but MultiDiscrete"),
    (S.Box(1e7, 2e7, (1,)), r"lies beyond ±1000000, .*gymnasium.wrappers.RescaleAction"),
    (S.Box(-np.inf, -1e7, (1,)), r"lies beyond ±1000000"),
    (S.Tuple((S.Discrete(2, start=2**24), S.Discrete(2))), "Discrete.* in a Tuple .* let it start at 0"),
    (S.Tuple((S.MultiDiscrete([2, 2**25]),)), "MultiDiscrete.* in a Tuple"),
    (S.Box(np.linspace(-1, 0, 400), np.ones(400), dtype=np.float64), "not Box"),
]


@pytest.mark.parametrize(("space", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_spaces_outside_the_contract_are_refused_in_one_line(space, message):
    with pytest.raises(UsageError, match=message) as caught:
        check_action_space(space, "Mine-v0")
    assert str(caught.value).startswith("Mine-v0: ")
    assert "\n" not in str(caught.value)

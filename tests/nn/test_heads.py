"""Action distributions against torch.distributions, their derivatives against autograd."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from metarl import UsageError
from metarl.nn.heads import CategoricalHead, FactoredCategoricalHead, GaussianHead, Head, ProductHead, head_for

M, N, A = 2, 5, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOW, HIGH = torch.tensor([-0.1, 0.0, -torch.inf]), torch.tensor([0.1, 4.0, torch.inf])
CENTRE, HALF = torch.tensor([0.0, 2.0, 0.0]).double(), torch.tensor([0.1, 2.0, 1.0]).double()


def normal(mean, log_std, centre=0.0, half=1.0):
    return Normal(centre + half * mean, (half * log_std.exp()).expand_as(mean))


def gaussian(phi):
    return [normal(*phi)]


def gaussian_in_a_box(phi):
    return [normal(*phi, CENTRE, HALF)]


def choices(*counts):
    return lambda phi: [Categorical(logits=logits) for logits in phi[0].split(counts, -1)]


def mixed(phi):
    box, choice, pair, more = phi[0].split([3, 4, 2 + 3, 2], -1)
    bits = [Categorical(logits=logits) for logits in pair.split([2, 3], -1)]
    return [
        normal(box, phi[1][..., :3], CENTRE, HALF),
        Categorical(logits=choice),
        *bits,
        normal(more, phi[1][..., 3:]),
    ]


MIXED = ProductHead(
    [GaussianHead(3, LOW, HIGH), CategoricalHead(4, start=-1), FactoredCategoricalHead([2, 3]), GaussianHead(2)]
)


def whole(*counts, starts=None):
    """Actions that take every choice, `[M, N, K]`."""
    columns = torch.arange(M * N).reshape(M, N, 1) // torch.arange(1, len(counts) + 1) % torch.tensor(counts)
    return columns + torch.tensor(starts or [0] * len(counts))


def mixed_actions():
    numbers = whole(4, 2, 3, starts=[-1, 0, 0])
    return torch.cat([draw(M, N, 3, seed=9), numbers, draw(M, N, 2, seed=8)], dim=-1)


# head, its distributions part by part as torch.distributions, actions, and the actions of each part
CASES = [
    pytest.param(GaussianHead(A), gaussian, draw(M, N, A, seed=9), lambda a: [a], id="gaussian"),
    pytest.param(GaussianHead((1, A)), gaussian, draw(M, N, 1, A, seed=9), lambda a: [a[..., 0, :]], id="matrix"),
    pytest.param(GaussianHead(()), gaussian, draw(M, N, seed=9), lambda a: [a[..., None]], id="number"),
    pytest.param(GaussianHead(A, LOW, HIGH), gaussian_in_a_box, draw(M, N, A, seed=9), lambda a: [a], id="box"),
    pytest.param(CategoricalHead(A), choices(A), whole(A)[..., 0], lambda a: [a], id="categorical"),
    pytest.param(
        FactoredCategoricalHead([2, 2, 2]), choices(2, 2, 2), whole(2, 2, 2), lambda a: a.unbind(-1), id="binary"
    ),
    pytest.param(
        FactoredCategoricalHead([1, 4, 3], starts=[7, 0, -2]),
        choices(1, 4, 3),
        whole(1, 4, 3, starts=[7, 0, -2]),
        lambda a: (a - torch.tensor([7, 0, -2])).unbind(-1),
        id="factored",
    ),
    pytest.param(
        MIXED,
        mixed,
        mixed_actions(),
        lambda a: [a[..., :3], a[..., 3] + 1, a[..., 4], a[..., 5], a[..., 6:]],
        id="mixed",
    ),
    pytest.param(
        ProductHead([CategoricalHead(2), CategoricalHead(3)]),
        choices(2, 3),
        whole(2, 3).double(),
        lambda a: a.unbind(-1),
        id="mixed without a Gaussian",
    ),
]


def make_phi(head, seed):
    output = draw(M, N, head.size, seed=seed)
    return (output, 0.3 * draw(M, 1, head.scale_size, seed=seed + 1)) if head.scale_size else (output,)


def total(values):
    """Sums over the numbers of a Gaussian part and over the parts."""
    return sum(value.sum(-1) if value.ndim == 3 else value for value in values)


@pytest.mark.parametrize(("head", "reference", "actions", "split"), CASES)
def test_matches_torch_distributions(head, reference, actions, split):
    phi, other = make_phi(head, 1), make_phi(head, 5)
    parts, others = reference(phi), reference(other)
    expected = total(part.log_prob(own) for part, own in zip(parts, split(actions), strict=True))
    torch.testing.assert_close(head.log_prob(phi, actions), expected)
    torch.testing.assert_close(head.entropy(phi), total(part.entropy() for part in parts))
    torch.testing.assert_close(head.kl(phi, other), total(map(kl_divergence, parts, others)))


def expanded(phi):
    """One φ a sample, as `score` reports it."""
    return tuple(value.expand(M, N, value.shape[-1]).contiguous() for value in phi)


@pytest.mark.parametrize(("head", "reference", "actions", "split"), CASES)
def test_score_and_its_derivative_match_autograd(head, reference, actions, split):
    phi, r_phi = make_phi(head, 1), make_phi(head, 7)

    def score(*phi):
        return torch.func.grad(lambda p: head.log_prob(p, actions).sum())(phi)

    expected, derivative = torch.func.jvp(score, expanded(phi), expanded(r_phi))
    for mine, theirs in zip(head.score(phi, actions), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(head.score_derivative(phi, actions, r_phi), derivative, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("head", "reference", "actions", "split"), CASES)
def test_fisher_is_the_hessian_of_the_kl(head, reference, actions, split):
    phi, r_phi = make_phi(head, 1), make_phi(head, 7)
    full = expanded(phi)

    def slope(*new):
        return torch.func.grad(lambda p: head.kl(full, p).sum())(new)

    at_itself, product = torch.func.jvp(slope, full, expanded(r_phi))
    assert all(value.abs().max() < 1e-12 for value in at_itself)
    for mine, theirs in zip(head.fisher(phi, r_phi), product, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("head", "reference", "actions", "split"), CASES)
def test_shapes_and_features(head, reference, actions, split):
    """A head keeps to its own attributes; `features` are the size that recurrent policies are built for."""
    assert isinstance(head, Head)
    assert head.features(actions).shape == (M, N, head.size)
    sample = head.sample(make_phi(head, 1), torch.Generator().manual_seed(0))
    assert sample.shape == (M, N, *head.action_shape) == actions.shape
    assert sample.dtype == actions.dtype == (torch.int64 if head.discrete else torch.float64)
    blank = head.blank(torch.zeros(4, 7, dtype=torch.float64))
    assert (blank.shape, blank.dtype) == ((4, *head.action_shape), actions.dtype)
    assert head.features(blank).isfinite().all()


def test_features_are_one_hots_and_scaled_boxes():
    factored = FactoredCategoricalHead([2, 3], starts=[0, 5])
    assert factored.features(torch.tensor([[1, 5], [0, 7]])).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    features = ProductHead([GaussianHead(1, torch.zeros(1), torch.full((1,), 4.0)), factored])
    assert features.features(torch.tensor([3.0, 1.0, 6.0])).tolist() == [0.5, 0, 1, 0, 1, 0]


# Sampling ------------------------------------------------------------------------------------------------------------

COUNT = 100_000


def test_samples_follow_the_distribution():
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.tensor([[[0.5, -2.0]]]), torch.tensor([[[0.0, -1.0]]])
    actions = GaussianHead(2).sample((mean.expand(1, COUNT, 2), log_std), generator)
    torch.testing.assert_close(actions.mean(1), mean[0], atol=0.015, rtol=0)
    torch.testing.assert_close(actions.std(1), log_std.exp()[0], atol=0.015, rtol=0)
    logits = torch.tensor([[[0.1, 1.0, -1.0]]])
    actions = CategoricalHead(3, start=4).sample((logits.expand(1, COUNT, 3),), generator)
    torch.testing.assert_close(frequencies(actions, 4, 3), logits.softmax(-1)[0, 0], atol=0.01, rtol=0)


def frequencies(actions, start, count):
    return torch.bincount(actions.flatten().long() - start, minlength=count) / COUNT


def test_samples_of_several_choices_follow_the_distribution_and_are_independent():
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([[[0.1, 1.0, -1.0, 0.7, -0.7]]])
    head = FactoredCategoricalHead([3, 2], starts=[4, -1])
    actions = head.sample((logits.expand(1, COUNT, 5),), generator)[0]
    first, second = logits[0, 0, :3].softmax(-1), logits[0, 0, 3:].softmax(-1)
    joint = frequencies((actions[:, 0] - 4) * 2 + actions[:, 1] + 1, 0, 6).reshape(3, 2)
    torch.testing.assert_close(joint, first[:, None] * second, atol=0.01, rtol=0)


def test_samples_of_a_product_follow_the_distribution():
    generator = torch.Generator().manual_seed(0)
    head = ProductHead([CategoricalHead(2, start=3), GaussianHead(1)])
    outputs, log_std = torch.tensor([[[0.0, 1.0, 0.5]]]), torch.tensor([[[-1.0]]])
    actions = head.sample((outputs.expand(1, COUNT, 3), log_std), generator)
    expected = outputs[0, 0, :2].softmax(-1)
    torch.testing.assert_close(frequencies(actions[..., 0], 3, 2), expected, atol=0.01, rtol=0)
    assert actions[..., 1].mean().item() == pytest.approx(0.5, abs=0.01)
    assert actions[..., 1].std().item() == pytest.approx(math.exp(-1), abs=0.01)


@pytest.mark.parametrize("logit", [0.0, -200.0, 1e4])
def test_a_choice_that_does_not_exist_is_never_sampled(logit):
    """The choices have 1, 2 and 5 options: the rows of the shorter ones are filled up."""
    head = FactoredCategoricalHead([1, 2, 5])
    phi = (torch.full((1, 10_000, 8), logit),)
    actions = head.sample(phi, torch.Generator().manual_seed(0))
    assert actions.amax((0, 1)).tolist() == [0, 1, 4]
    assert actions.amin((0, 1)).tolist() == [0, 0, 0]
    for value in (head.log_prob(phi, actions), head.entropy(phi), head.kl(phi, phi), *head.score(phi, actions)):
        assert value.isfinite().all()


# Bounds --------------------------------------------------------------------------------------------------------------

LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("low", "high", "centre", "half"),
    [
        (-0.1, 0.3, 0.1, 0.2),
        (2.0, 2.0, 2.0, 1.0),  # the environment clips every action to 2
        (0.0, 1e-45, 0.0, 1.0),  # half of it is 0 in float32
        (-math.inf, math.inf, 0.0, 1.0),
        (-LARGEST, LARGEST, 0.0, 1.0),
        (-1e10, 1e10, 0.0, 1.0),
        (-1e6, 1e6, 0.0, 1.0),
        (-9e5, 9e5, 0.0, 9e5),
        (5.0, math.inf, 6.0, 1.0),
        (5.0, LARGEST, 6.0, 1.0),
        (-math.inf, -5.0, -6.0, 1.0),
    ],
)
def test_the_unit_of_a_box(low, high, centre, half):
    """Where a mean of 0 acts, and how far a standard deviation of 1 reaches: finite for all bounds."""
    space = gym.spaces.Box(np.array([low, -1], np.float32), np.array([high, 1], np.float32))
    head = head_for(space)
    phi = (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))
    at = torch.tensor([[[centre, 0.0]]])
    torch.testing.assert_close(head.features(at), torch.zeros(1, 1, 2))
    torch.testing.assert_close(head.features(at + half)[..., 0], torch.ones(1, 1))
    expected = Normal(centre, half).log_prob(at[..., 0]) + Normal(0.0, 1.0).log_prob(torch.tensor(0.0))
    torch.testing.assert_close(head.log_prob(phi, at), expected)
    assert head.sample(phi, torch.Generator()).isfinite().all()
    assert all(value.isfinite().all() for value in head.score(phi, at))


# Spaces --------------------------------------------------------------------------------------------------------------


def test_head_follows_the_action_space():
    assert head_for(gym.spaces.Box(-1, 1, (4,))).action_shape == (4,)
    assert head_for(gym.spaces.Box(-1, 1, (2, 3))).size == 6
    assert head_for(gym.spaces.Box(-1, 1, ())).action_shape == ()
    assert head_for(gym.spaces.Discrete(3, start=2)).start == 2
    assert head_for(gym.spaces.MultiBinary(3)).size == 6
    head = head_for(gym.spaces.MultiDiscrete([2, 4], start=[0, 5]))
    assert head.blank(torch.zeros(1)).tolist() == [[0, 5]]
    head = head_for(gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,)), gym.spaces.MultiBinary(2))))
    assert (head.size, head.scale_size, head.action_shape) == (3 + 2 + 4, 2, (1 + 2 + 2,))


@pytest.mark.parametrize("space", [gym.spaces.Text(3), gym.spaces.Box(0, 9, (2,), np.int64)], ids=str)
def test_other_spaces_are_refused(space):
    with pytest.raises(UsageError, match="no policy for this action space: actions must be a Box of float32, Discrete"):
        head_for(space)

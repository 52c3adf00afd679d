"""Action distributions against torch.distributions, their derivatives against autograd."""

import gymnasium as gym
import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from metarl import UsageError
from metarl.nn.heads import CategoricalHead, GaussianHead, head_for

M, N, A = 2, 5, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(seed):
    phi = (draw(M, N, A, seed=seed), 0.3 * draw(M, 1, A, seed=seed + 1))
    return phi, Independent(Normal(phi[0], phi[1].exp().expand_as(phi[0])), 1)


LOW, HIGH = torch.tensor([-0.1, 0.0, -torch.inf]), torch.tensor([0.1, 4.0, torch.inf])
CENTRE, HALF = torch.tensor([0.0, 2.0, 0.0]).double(), torch.tensor([0.1, 2.0, 1.0]).double()


def gaussian_in_a_box(seed):
    phi, _ = gaussian(seed)
    return phi, Independent(Normal(CENTRE + HALF * phi[0], HALF * phi[1].exp().expand_as(phi[0])), 1)


def categorical(seed):
    phi = (draw(M, N, A, seed=seed),)
    return phi, Categorical(logits=phi[0])


CASES = [
    pytest.param(GaussianHead(A), gaussian, draw(M, N, A, seed=9), id="gaussian"),
    pytest.param(GaussianHead(A, LOW, HIGH), gaussian_in_a_box, draw(M, N, A, seed=9), id="gaussian in a box"),
    pytest.param(CategoricalHead(A), categorical, torch.arange(M * N).reshape(M, N) % A, id="categorical"),
]


@pytest.mark.parametrize(("head", "make", "actions"), CASES)
def test_matches_torch_distributions(head, make, actions):
    (phi, reference), (other, other_reference) = make(1), make(5)
    torch.testing.assert_close(head.log_prob(phi, actions), reference.log_prob(actions))
    torch.testing.assert_close(head.entropy(phi), reference.entropy())
    torch.testing.assert_close(head.kl(phi, other), kl_divergence(reference, other_reference))


@pytest.mark.parametrize(("head", "make", "actions"), CASES)
def test_score_and_its_derivative_match_autograd(head, make, actions):
    phi, r_phi = make(1)[0], make(7)[0]
    full = tuple(value.expand(M, N, A).contiguous() for value in phi)  # one φ a sample, as `score` reports it
    r_full = tuple(value.expand(M, N, A).contiguous() for value in r_phi)

    def score(*phi):
        return torch.func.grad(lambda p: head.log_prob(p, actions).sum())(phi)

    expected, derivative = torch.func.jvp(score, full, r_full)
    for mine, reference in zip(head.score(phi, actions), expected, strict=True):
        torch.testing.assert_close(mine, reference)
    for mine, reference in zip(head.score_derivative(phi, actions, r_phi), derivative, strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize(("head", "make", "actions"), CASES)
def test_fisher_is_the_hessian_of_the_kl(head, make, actions):
    phi, r_phi = make(1)[0], make(7)[0]
    full = tuple(value.expand(M, N, A).contiguous() for value in phi)
    r_full = tuple(value.expand(M, N, A).contiguous() for value in r_phi)

    def slope(*new):
        return torch.func.grad(lambda p: head.kl(full, p).sum())(new)

    at_itself, product = torch.func.jvp(slope, full, r_full)
    assert all(value.abs().max() < 1e-12 for value in at_itself)
    for mine, reference in zip(head.fisher(phi, r_phi), product, strict=True):
        torch.testing.assert_close(mine, reference)


def test_samples_follow_the_distribution():
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.tensor([[[0.5, -2.0]]]), torch.tensor([[[0.0, -1.0]]])
    actions = GaussianHead(2).sample((mean.expand(1, 100_000, 2), log_std), generator)
    torch.testing.assert_close(actions.mean(1), mean[0], atol=0.015, rtol=0)
    torch.testing.assert_close(actions.std(1), log_std.exp()[0], atol=0.015, rtol=0)
    logits = torch.tensor([[[0.1, 1.0, -1.0]]])
    actions = CategoricalHead(3, start=4).sample((logits.expand(1, 100_000, 3),), generator)
    frequencies = torch.bincount(actions.flatten() - 4, minlength=3) / 100_000
    torch.testing.assert_close(frequencies, logits.softmax(-1)[0, 0], atol=0.01, rtol=0)


def test_head_follows_the_action_space():
    assert isinstance(head_for(gym.spaces.Box(-1, 1, (4,))), GaussianHead)
    assert head_for(gym.spaces.Discrete(3, start=2)).start == 2
    with pytest.raises(UsageError, match="MultiDiscrete"):
        head_for(gym.spaces.MultiDiscrete([2, 2]))

"""VariBAD's belief: divergences and ELBOs against closed forms, what it depends on, and what it decodes."""

import math

import pytest
import torch

import metarl
from metarl.agents.belief import Belief, BeliefModel, Experience, kl_divergence, log_density
from metarl.nn.heads import head_for
from metarl.randomness import make_generator

POINT = metarl.make("PointNavigation-v0")


def make_model(seed=0, **options):
    model = BeliefModel(2, head_for(POINT.action_space), **({"latent": 3, "hidden": 16} | options))
    model.initialize(make_generator("test", seed))
    return model


def make_experience(steps, envs, seed=0, starts=(), invalid=()):
    """Random steps; trials start at the first step and at `starts`, (time, environment) pairs; those `invalid` are."""
    generator = make_generator("experience", seed)
    observations, reached = torch.randn(2, steps, envs, 2, generator=generator)
    begins, valid = torch.zeros(steps, envs, dtype=torch.bool), torch.ones(steps, envs, dtype=torch.bool)
    begins[0] = True
    for place in starts:
        begins[place] = True
    for place in invalid:
        valid[place] = False
    actions = torch.randn(steps, envs, 2, generator=generator)
    return Experience(observations, actions, torch.randn(steps, envs, generator=generator), reached, begins, valid)


def beliefs_of(model, e):
    return model.beliefs(e.actions, e.rewards, e.next_observations, e.starts)


def test_the_divergence_is_that_of_torch():
    generator = make_generator("kl")
    q, p = (Belief(*torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)) for _ in range(2))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(q.mean, q.std), normal(p.mean, p.std)).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p), expected)
    assert not kl_divergence(q, q).any()


def test_the_log_density_is_that_of_a_gaussian_of_variance_1():
    errors = torch.linspace(-3, 3, 12).reshape(3, 4)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(errors).sum(-1)
    torch.testing.assert_close(log_density(errors), expected)


class KnownPosterior(BeliefModel):
    """r = m + noise with m and the noise standard normal: n rewards leave m ~ N(Σ r / (n + 1), 1 / (n + 1))."""

    def beliefs(self, actions, rewards, next_observations, starts):
        counts = torch.arange(1, len(rewards) + 1.0)[:, None].expand_as(rewards)
        return Belief((rewards.cumsum(0) / (counts + 1))[..., None], -0.5 * (counts + 1).log()[..., None])

    def log_likelihood(self, experience, steps, latents):
        error = latents[:, None, :, 0] - experience.rewards[steps]
        return torch.distributions.Normal(0.0, 1.0).log_prob(error), error.square()


# The integrand is quadratic in m, whose mean over a Gaussian is that over μ ± σ.
PLUS_AND_MINUS = (1.0, -1.0)


def exact_elbo(model, experience, times, steps):
    """The terms of the ELBO, with the exact mean over the embedding's noise."""
    shape = (len(times), experience.rewards.shape[1], 1)
    both = [model.elbo(experience, times, steps, torch.full(shape, noise))[:2] for noise in PLUS_AND_MINUS]
    return torch.stack([(a + b) / 2 for a, b in zip(*both, strict=True)])


def test_the_elbo_of_the_exact_posterior_is_the_log_evidence():
    """After one step of a trial of one step; r ~ N(0, 2)."""
    model, e = KnownPosterior(2, head_for(POINT.action_space), 1, 4), make_experience(1, 50)
    all_steps = torch.arange(1)
    likelihood, kl = exact_elbo(model, e, all_steps, all_steps)
    evidence = torch.distributions.Normal(0.0, math.sqrt(2)).log_prob(e.rewards)
    torch.testing.assert_close(likelihood - kl, evidence)


def test_steps_of_a_chain_of_exact_posteriors_sum_to_the_log_evidence():
    """E_{q_t}[log p(r_t | m)] − KL(q_t ‖ q_{t−1}) = log p(r_t | r_{<t}): the divergence is from the belief before."""
    horizon = 6
    model, e = KnownPosterior(2, head_for(POINT.action_space), 1, 4), make_experience(horizon, 20)
    total = torch.zeros(20)
    for t in torch.arange(horizon):
        likelihood, kl = exact_elbo(model, e, t[None], t[None])
        total += (likelihood / horizon - kl)[0]  # one of `horizon` steps estimates the sum over all
    covariance = torch.eye(horizon) + torch.ones(horizon, horizon)
    evidence = torch.distributions.MultivariateNormal(torch.zeros(horizon), covariance).log_prob(e.rewards.T)
    torch.testing.assert_close(total, evidence, rtol=1e-4, atol=1e-4)


def test_the_whole_elbo_is_its_hand_sum():
    """Every belief decodes the whole trial: Σ_s −½ log 2π − ½ ((r_s − μ_t)² + σ_t²) − KL_t."""
    horizon = 5
    model, e = KnownPosterior(2, head_for(POINT.action_space), 1, 4), make_experience(horizon, 3)
    times = torch.tensor([3, 0, 4])
    likelihood, kl = exact_elbo(model, e, times, torch.randperm(horizon, generator=make_generator("order")))
    for k, t in enumerate(times.tolist()):
        for b in range(3):
            rewards = e.rewards[:, b].tolist()
            mean, variance = sum(rewards[: t + 1]) / (t + 2), 1 / (t + 2)
            old_mean, old_variance = sum(rewards[:t]) / (t + 1), 1 / (t + 1)
            by_hand = sum(-0.5 * (math.log(2 * math.pi) + (r - mean) ** 2 + variance) for r in rewards)
            gap = (variance + (mean - old_mean) ** 2) / old_variance - 1 - math.log(variance / old_variance)
            assert float(likelihood[k, b]) == pytest.approx(by_hand, rel=1e-4)
            assert float(kl[k, b]) == pytest.approx(gap / 2, rel=1e-4, abs=1e-6)


def test_a_trained_model_comes_close_to_the_log_evidence():
    """r ~ N(0, 2) in trials of one step, of which no model's ELBO exceeds the mean log-evidence."""
    model, generator = make_model(latent=1), make_generator("training")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    still, flags = torch.zeros(1, 128, 2), torch.ones(1, 128, dtype=torch.bool)
    step, elbos = torch.arange(1), []
    for _ in range(200):
        rewards = torch.randn(2, 1, 128, generator=generator).sum(0)
        e = Experience(still, still, rewards, still, flags, flags)
        likelihood, kl, _ = model.elbo(e, step, step, torch.randn(1, 128, 1, generator=generator))
        elbo = (likelihood - kl).mean()
        optimizer.zero_grad()
        (-elbo).backward()
        optimizer.step()
        elbos.append(float(elbo.detach()))
    evidence = -0.5 * (math.log(2 * math.pi * 2) + 1)
    start, end = sum(elbos[:5]) / 5, sum(elbos[-100:]) / 100
    assert start < evidence - 0.1
    assert evidence - 0.06 < end < evidence + 0.03  # 12,800 rewards have a standard error of 0.007


def test_drawn_steps_estimate_the_sum_over_all():
    """The mean over all ways to draw one step is the sum over all of them."""
    model, e = make_model(decode_states=True), make_experience(6, 4, starts=[(2, 1)], invalid=[(4, 0), (5, 0)])
    times, noise = torch.tensor([1, 3]), torch.zeros(2, 4, 3)
    whole = model.elbo(e, times, torch.arange(6), noise)[0]
    parts = torch.stack([model.elbo(e, times, torch.tensor([s]), noise)[0] for s in range(6)])
    torch.testing.assert_close(parts.mean(0), whole)


def test_no_belief_decodes_another_trial_nor_an_invalid_step():
    """Outcomes of other trials and of invalid steps change nothing that a belief is trained on."""
    places = {"starts": [(3, 0), (6, 1)], "invalid": [(4, 0)]}
    model, e = make_model(), make_experience(8, 2, **places)
    times, steps, noise = torch.arange(8), torch.arange(8), torch.zeros(8, 2, 3)
    before = model.elbo(e, times, steps, noise)[0]
    after = Belief(*(v.detach() for v in beliefs_of(model, e)))
    model.beliefs = lambda *_: after  # what the beliefs read stays as it was
    for s in range(8):
        for b in range(2):
            e.observations[s, b] += 5.0
            change = (model.elbo(e, times, steps, noise)[0] - before).abs() > 1e-6
            asked = (e.trials[:, b] == e.trials[s, b]) & e.valid[s, b]
            assert torch.equal(change[:, b], asked)
            assert not change[:, 1 - b].any()
            e.observations[s, b] -= 5.0


def test_decoding_pairs_is_decoding_each_step_with_each_embedding():
    """The first layer of a decoder reads steps and embeddings apart: against one that reads both at once."""
    decoder = make_model().reward_decoder
    generator = make_generator("pairs")
    steps, latents = torch.randn(5, 3, 6, generator=generator), torch.randn(4, 3, 3, generator=generator)
    together = decoder(steps, latents)
    for k in range(4):
        for s in range(5):
            embedded = decoder.embedding(steps[s]).relu()
            weight = torch.cat([decoder.from_step.weight, decoder.from_task.weight], 1)
            first = torch.cat([embedded, latents[k]], 1) @ weight.T + decoder.from_step.bias
            one = decoder.output(decoder.hidden(first.relu()).relu())
            torch.testing.assert_close(together[k, s], one)


def test_a_belief_knows_the_past_of_its_trial_alone():
    """A change of step s of one environment changes the beliefs from s to the end of its trial, and no other."""
    model, e = make_model(), make_experience(8, 2, starts=[(5, 0)])
    before = beliefs_of(model, e)
    for s in range(8):
        for values in (e.actions, e.rewards, e.next_observations):
            value = values[s, 0].clone()
            values[s, 0] += 1.0
            changed = (beliefs_of(model, e).mean != before.mean).any(-1)
            values[s, 0] = value
            end = 5 if s < 5 else 8
            assert changed[:, 0].nonzero()[:, 0].tolist() == list(range(s, end))
            assert not changed[:, 1].any()


def test_beliefs_step_by_step_are_those_over_whole_trials():
    model, e = make_model(), make_experience(9, 3, starts=[(4, 1), (7, 2)])
    whole = beliefs_of(model, e)
    for b in range(3):
        for t in range(9):
            if e.starts[t, b]:
                state, _ = model.prior(1, e.rewards)
            rows = (e.actions[t, b], e.rewards[t, b], e.next_observations[t, b])
            state, belief = model.advance(*(row[None] for row in rows), state)
            torch.testing.assert_close(belief.mean[0], whole.mean[t, b], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(belief.log_std[0], whole.log_std[t, b], rtol=1e-4, atol=1e-5)


def test_the_elbo_has_the_gradient_of_finite_differences():
    model = make_model(decode_states=True, latent=2, hidden=3).double()
    e = make_experience(4, 2, starts=[(2, 1)])
    e = Experience(*(v.double() if v.is_floating_point() else v for v in vars(e).values()))
    times, steps, noise = torch.tensor([0, 3]), torch.tensor([1, 2]), torch.full((2, 2, 2), 0.3, dtype=torch.float64)

    def loss():
        likelihood, kl, _ = model.elbo(e, times, steps, noise)
        return (0.1 * kl - likelihood).sum()

    loss().backward()
    for name, parameter in model.named_parameters():
        flat, place, step = parameter.data.view(-1), parameter.numel() // 2, 1e-6
        with torch.no_grad():
            flat[place] += step
            above = loss()
            flat[place] -= 2 * step
            below = loss()
            flat[place] += step
        slope = float(above - below) / (2 * step)
        assert float(parameter.grad.view(-1)[place]) == pytest.approx(slope, rel=1e-4, abs=1e-6), name

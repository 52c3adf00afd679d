"""The heads of recurrent agents: by hand, at their start, and when the scale of returns changes."""

import math

import pytest
import torch

import metarl
from metarl.agents.heads import CONTEXT, HEADS, UNITS, HypernetworkHead, StateAgainHead
from metarl.agents.rl2 import RL2, RL2Config

FEATURES, OBSERVED, OUTPUTS = 5, 3, 2
everywhere = pytest.mark.parametrize("name", list(HEADS))


def make_head(name, *, trained, dtype=torch.float64):
    """A head in float64; `trained` ones have no weight that is zero."""
    generator = torch.Generator().manual_seed(0)
    head = HEADS[name](FEATURES, OBSERVED, OUTPUTS)
    with torch.no_grad():
        head.initialize(generator)
        for parameter in head.parameters() if trained else ():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    features = torch.randn(4, 6, FEATURES, generator=generator)
    observed = torch.randn(4, 6, OBSERVED, generator=generator)
    return head.to(dtype), features.to(dtype), observed.to(dtype)


def make_agent(head, core="gru"):
    distribution = metarl.make("PointNavigation-v0", horizon=5)
    return RL2(RL2Config(num_tasks=4, hidden=8, core=core, head=head), metarl.EnvSpec.of(distribution), seed=0)


def test_a_generated_network_by_hand():
    """Weights of one step, number by number, from the rows of the hypernetwork's last layer."""
    head, features, observed = make_head("hypernetwork", trained=True)
    outputs = head(features, observed)
    assert outputs.shape == (4, 6, OUTPUTS + 1)
    for place in ((0, 0), (3, 5)):
        context = head.context.weight @ features[place] + head.context.bias
        numbers = iter((head.generator.weight @ context + head.generator.bias).tolist())
        first = [[next(numbers) for _ in range(OBSERVED)] for _ in range(UNITS)]
        first_bias = [next(numbers) for _ in range(UNITS)]
        last = [[next(numbers) for _ in range(UNITS)] for _ in range(OUTPUTS + 1)]
        last_bias = [next(numbers) for _ in range(OUTPUTS + 1)]
        assert next(numbers, None) is None
        o = observed[place].tolist()
        rows = zip(first, first_bias, strict=True)
        hidden = [math.tanh(sum(w * x for w, x in zip(row, o, strict=True)) + b) for row, b in rows]
        rows = zip(last, last_bias, strict=True)
        expected = [sum(w * z for w, z in zip(row, hidden, strict=True)) + b for row, b in rows]
        assert outputs[place].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_observation_given_again_by_hand():
    head, features, observed = make_head("state-again", trained=True)
    context = features @ head.context.weight.T + head.context.bias
    hidden = torch.cat([context, observed], -1) @ head.hidden.weight.T + head.hidden.bias
    expected = [hidden.tanh() @ layer.weight.T + layer.bias for layer in (head.actor, head.critic)]
    torch.testing.assert_close(head(features, observed), torch.cat(expected, -1))


def test_at_first_a_hypernetwork_makes_the_same_network_of_every_memory():
    """Bias-HyperInit: what it makes is an ordinary initialisation, and the memory does not matter yet."""
    head, features, observed = make_head("hypernetwork", trained=False)
    outputs = head(features, observed)
    torch.testing.assert_close(head(torch.randn_like(features), observed), outputs, rtol=0, atol=0)
    assert (head(features, -observed) - outputs).abs().max() > 1e-3
    first, first_bias, last, last_bias = head._generated(head.generator.bias)
    torch.testing.assert_close(first.T @ first, torch.eye(OBSERVED, dtype=torch.float64), rtol=0, atol=1e-5)
    assert not first_bias.any()
    assert not last_bias.any()
    assert last.norm(dim=1).tolist() == pytest.approx([0.01] * OUTPUTS + [1.0], rel=1e-5)
    # It learns from the first step on what to do with the memory, and then what to remember.
    outputs.square().sum().backward()
    assert head.generator.weight.grad.abs().max() > 0
    assert not head.context.weight.grad.any()


@everywhere
def test_gradients_are_those_of_finite_differences(name):
    head, features, observed = make_head(name, trained=True)
    features, observed = features[0, :2].requires_grad_(), observed[0, :2].requires_grad_()
    names = [name for name, _ in head.named_parameters()]

    def answers(features, observed, *values):
        return torch.func.functional_call(head, dict(zip(names, values, strict=True)), (features, observed))

    leaves = [parameter.detach().requires_grad_() for parameter in head.parameters()]
    assert torch.autograd.gradcheck(answers, (features, observed, *leaves), fast_mode=True)


@everywhere
def test_rescaling_changes_the_value_alone(name):
    head, features, observed = make_head(name, trained=True)
    scale, shift = torch.tensor([0.25], dtype=torch.float64), torch.tensor([-7.0], dtype=torch.float64)
    with torch.no_grad():
        before = head(features, observed)
        head.rescale_value(scale, shift)
        after = head(features, observed)
    torch.testing.assert_close(after[..., :-1], before[..., :-1], rtol=0, atol=0)
    torch.testing.assert_close(after[..., -1], 0.25 * before[..., -1] - 7)


@everywhere
@pytest.mark.parametrize("core", ["gru", "transformer"])
def test_values_in_units_of_the_return_stay_when_its_statistics_change(name, core):
    network = make_agent(name, core).network
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.actor_critic.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        inputs = torch.randn(4, 3, network.core.inputs, generator=generator)
        every = torch.ones(10, 2, dtype=torch.bool)
        network.update_return_norm(torch.randn(10, 2, generator=generator), every)
        phi, values, _ = network(inputs)
        before = network.denormalize(values)
        network.update_return_norm(50 + 9 * torch.randn(10, 2, generator=generator), every)
        phi_after, values, _ = network(inputs)
    torch.testing.assert_close(network.denormalize(values), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(phi_after, phi)


def test_the_network_that_reads_the_observation_has_the_same_shape_in_both_heads():
    first, first_bias, last, last_bias = HypernetworkHead(FEATURES, OBSERVED, OUTPUTS).shapes
    control = StateAgainHead(FEATURES, OBSERVED, OUTPUTS)
    assert control.hidden.weight.shape == (first[0], CONTEXT + first[1])
    assert control.hidden.bias.shape == first_bias
    assert (control.actor.out_features + 1, control.actor.in_features) == last
    assert (control.actor.out_features + control.critic.out_features,) == last_bias


def test_run_folders_that_name_the_plain_head_otherwise_are_read():
    """Before there were other heads, its layers were `actor` and `critic` of the network."""
    agent, other = make_agent("plain"), make_agent("plain")
    tensors, values = agent.state()
    old = {name.replace("network.actor_critic.", "network."): value + 1 for name, value in tensors.items()}
    assert {"network.actor.weight", "network.critic.bias"} <= old.keys()
    other.load_state(old, values)
    for name, value in other.state()[0].items():
        assert torch.equal(value, tensors[name] + 1)


def test_a_state_of_another_head_is_refused():
    with pytest.raises(metarl.UsageError, match="not of this agent"):
        make_agent("hypernetwork").load_state(*make_agent("plain").state())

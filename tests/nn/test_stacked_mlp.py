"""Stacked ReLU networks against one network after the other."""

import torch
import torch.nn.functional as F

from metarl.nn.stacked_mlp import StackedMLP


def networks(count=2):
    stacked = StackedMLP((3, 8, 6, 2), count)
    stacked.initialize(torch.Generator().manual_seed(0))
    return stacked.double()


def one(stacked, k, inputs):
    hidden = inputs
    for layer, (weight, bias) in enumerate(zip(stacked.weights, stacked.biases, strict=True)):
        hidden = F.linear(hidden, weight[k].T, bias[k, 0])
        hidden = hidden if layer == 2 else torch.relu(hidden)
    return hidden


def test_each_network_gives_what_it_gives_alone():
    stacked, inputs = networks(3), torch.randn(5, 3, dtype=torch.float64)
    with torch.no_grad():
        for bias in stacked.biases:
            bias.normal_(generator=torch.Generator().manual_seed(1))
    together = stacked(inputs)
    for k in range(3):
        torch.testing.assert_close(together[k], one(stacked, k, inputs))
    assert not torch.equal(together[0], together[1])


def test_gradients_are_those_of_autograd_and_of_finite_differences():
    stacked = networks()
    inputs = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stacked, inputs)
    parameters = list(stacked.parameters())
    together = torch.autograd.grad(stacked(inputs).square().sum(), parameters)
    alone = torch.autograd.grad(sum(one(stacked, k, inputs).square().sum() for k in range(2)), parameters)
    torch.testing.assert_close(together, alone)


def test_frozen_parameters_get_no_gradient_and_inputs_do():
    stacked, inputs = networks(), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    stacked(inputs, frozen=True).sum().backward()
    assert all(parameter.grad is None for parameter in stacked.parameters())
    torch.testing.assert_close(inputs.grad, torch.autograd.grad(stacked(inputs).sum(), inputs)[0])

"""The functional networks beside torch's own modules, for one set of parameters and for stacks of them."""

import pytest
import torch
from torch import nn

from metarl import UsageError
from metarl.adaptation import stack
from metarl.fewshot.networks import Conv4, ReluMLP, Statistics, network_for

GENERATOR = torch.Generator()


def as_module(network: Conv4, parameters: dict[str, torch.Tensor]) -> nn.Sequential:
    """The same network of torch's modules."""
    layers: list[nn.Module] = []
    for block in range(4):
        weight = parameters[f"weight{block}"]
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, stride=2 if network.strided else 1, padding=1, bias=False)
        norm = nn.BatchNorm2d(weight.shape[0])
        conv.weight.data, norm.weight.data, norm.bias.data = (
            parameters[f"{part}{block}"].clone() for part in ("weight", "scale", "shift")
        )
        layers += [conv, norm, nn.ReLU()] + ([] if network.strided else [nn.MaxPool2d(2)])
    layers += [nn.AdaptiveAvgPool2d(1)] if network.averaged else []
    layers.append(nn.Flatten())
    if network.has_head:
        head = nn.Linear(network.features, network.outputs)
        head.weight.data, head.bias.data = parameters["weight4"].clone(), parameters["bias4"].clone()
        layers.append(head)
    return nn.Sequential(*layers)


def random_parameters(network: Conv4, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parameters = network.initialize(generator)
    return {name: value + 0.3 * torch.randn(value.shape, generator=generator) for name, value in parameters.items()}


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("strided", [True, False])
@pytest.mark.parametrize("outputs", [None, 3])
def test_conv4_is_what_torchs_modules_make_of_it(strided: bool, outputs: int | None, averaged: bool):
    network = Conv4((2, 28, 20), 6, outputs, strided=strided, averaged=averaged)
    parameters, x = random_parameters(network, 0), torch.rand(2, 5, 2, 28, 20, generator=GENERATOR.manual_seed(1))
    module = as_module(network, parameters)
    each = torch.stack([module(task) for task in x])
    torch.testing.assert_close(network(parameters, x), each, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(stack(parameters, 2), x), each, rtol=1e-4, atol=1e-5)
    assert network.outputs == each.shape[-1]


def test_a_stack_is_one_network_for_each_task():
    network = Conv4((1, 16, 16), 4, 3, strided=True)
    sets = [random_parameters(network, seed) for seed in range(3)]
    stacked = {name: torch.stack([one[name] for one in sets]) for name in sets[0]}
    x = torch.rand(3, 6, 1, 16, 16, generator=GENERATOR.manual_seed(2))
    each = torch.stack([as_module(network, one)(task) for one, task in zip(sets, x, strict=True)])
    torch.testing.assert_close(network(stacked, x), each, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_those_of_torchs_batch_norm():
    network = Conv4((1, 16, 16), 4, None)
    parameters, running = random_parameters(network, 0), network.initial_statistics()
    module = as_module(network, parameters)
    for seed in range(3):
        x = torch.rand(2, 5, 1, 16, 16, generator=GENERATOR.manual_seed(seed))
        training = network(parameters, x, Statistics(running=running, update=True))
        torch.testing.assert_close(training.flatten(0, 1), module(x.flatten(0, 1)), rtol=1e-4, atol=1e-5)
    module.eval()
    tested = network(parameters, x, Statistics(running=running))
    torch.testing.assert_close(tested.flatten(0, 1), module(x.flatten(0, 1)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(stack(parameters, 2), x, Statistics(running=running)), tested)
    with pytest.raises(ValueError, match="shared parameters"):
        network(stack(parameters, 2), x, Statistics(running=running, update=True))


def test_statistics_of_the_first_inputs_leave_the_others_out_of_it():
    network = Conv4((1, 16, 16), 4, 3)
    parameters, x = random_parameters(network, 0), torch.rand(2, 6, 1, 16, 16, generator=GENERATOR.manual_seed(3))
    together = network(parameters, x, Statistics(reference=4))
    torch.testing.assert_close(together[:, :4], network(parameters, x[:, :4]), rtol=1e-4, atol=1e-5)
    one_by_one = [network(parameters, x[:, [0, 1, 2, 3, row]], Statistics(reference=4))[:, 4] for row in (4, 5)]
    torch.testing.assert_close(together[:, 4:], torch.stack(one_by_one, 1), rtol=1e-4, atol=1e-5)


def test_relu_mlp_is_what_torchs_modules_make_of_it():
    network = ReluMLP((3, 5, 4, 2))
    parameters = network.initialize(GENERATOR.manual_seed(4))
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    for target, value in zip(module.parameters(), parameters.values(), strict=True):
        target.data = value
    x = torch.randn(2, 7, 3, generator=GENERATOR)
    torch.testing.assert_close(network(parameters, x), module(x))
    torch.testing.assert_close(network(stack(parameters, 2), x), module(x))
    torch.testing.assert_close(network.head(parameters, network.body(parameters, x)), module(x))
    assert network.head_names() == ("weight2", "bias2")


def test_small_images_are_refused():
    with pytest.raises(UsageError, match="too small"):
        network_for((1, 8, 8), 5, width=4, hidden=())

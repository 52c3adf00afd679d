"""The picture encoder and its written-out derivatives against torch's own convolution and torch.func, in float64."""

import pytest
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, Dict

import metarl
import metarl.nn.encoder as encoder_module
from metarl.nn.convolution import Convolution, layers_for
from metarl.nn.encoder import PictureEncoder
from metarl.nn.entries import EncodedMLP, EntryEncoder
from metarl.nn.normalization import EntryScales

M, N = 2, 3
SIZES = [(1, 1, 1), (2, 2, 3), (4, 4, 1), (5, 5, 3), (7, 7, 3), (8, 8, 3), (12, 9, 2), (30, 3, 1), (56, 56, 3)]


def picture(height, width, channels):
    return Box(0, 255, (height, width, channels), "uint8")


def pixels(generator, *shape):
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


SPACES = {
    "small picture": {"observation": picture(7, 7, 3)},
    "two layers": {"observation": picture(12, 9, 2)},
    "a large first layer": {"observation": picture(30, 28, 1)},
    "vectors": {"a": Box(-1, 1, (2,)), "b": Box(-1, 1, (3,))},
    "a wide vector, mostly zeros": {"code": Box(0, 1, (700,)), "camera": picture(5, 5, 1)},
    "all": {
        "speed": Box(-1, 1, (2,)),
        "camera": picture(6, 5, 3),
        "goal": Box(-1, 1, (1,)),
        "map.top": picture(9, 9, 1),
    },
}


class Case:
    """A network with parameters, a direction, inputs and a cotangent, and `oracle`, another way to its output."""

    def __init__(self, spaces):
        generator = torch.Generator().manual_seed(0)
        self.spaces, self.network = spaces, EncodedMLP(spaces, (6, 4))
        shapes = {n: v.shape for n, v in self.network.initialize(generator).items()}

        def draw(scale):
            return {
                n: scale * torch.randn(M, *s, generator=generator, dtype=torch.float64) / s[-1] ** 0.5
                for n, s in shapes.items()
            }

        self.parameters, self.direction = draw(1.0), draw(1.0)
        scales = EntryScales(spaces)
        raw = {
            n: pixels(generator, M, N, *s.shape)
            if s.dtype == "uint8"
            else torch.randn(M, N, *s.shape, generator=generator, dtype=torch.float64)
            for n, s in spaces.items()
        }
        if "code" in raw:
            raw["code"][..., 4:690] = 0
        scales.update({n: v.float() if v.is_floating_point() else v for n, v in raw.items()})
        self.inputs = scales(raw)
        self.plain = {
            n: v if isinstance(v, torch.Tensor) else v.norm(v.pictures).double() for n, v in self.inputs.items()
        }
        self.cotangent = torch.randn(M, N, 4, generator=generator, dtype=torch.float64)

    def oracle(self, parameters):
        """Task after task, with torch's convolution and padding of [N, C, H, W]."""
        return torch.stack([self.task({n: v[m] for n, v in parameters.items()}, m) for m in range(M)])

    def task(self, parameters, m):
        features = []
        for name in self.spaces:
            maps = self.plain[name][m]
            if maps.ndim == 2:
                features.append(maps)
                continue
            maps = maps.permute(0, 3, 1, 2)
            for number, layer in enumerate(layers_for(*self.spaces[name].shape)):
                (tall, wide), stride = layer.kernel, layer.stride
                below, right = -(maps.shape[2] - tall) % stride, -(maps.shape[3] - wide) % stride
                weight = parameters[f"encoder.{name}.weight{number}"].reshape(-1, tall, wide, maps.shape[1])
                bias = parameters[f"encoder.{name}.bias{number}"]
                maps = F.conv2d(F.pad(maps, (0, right, 0, below)), torch.movedim(weight, 3, 1), bias, stride).tanh()
            features.append(maps.permute(0, 2, 3, 1).flatten(1))
        hidden = F.linear(torch.cat(features, 1), parameters["weight0"], parameters["bias0"]).tanh()
        return F.linear(hidden, parameters["weight1"], parameters["bias1"])


@pytest.fixture(params=SPACES)
def case(request):
    return Case(SPACES[request.param])


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-9, atol=1e-10)


def check_derivatives(case):
    """Output, jvp, vjp and hvp, the last of a loss whose cotangent depends on the output."""
    network, parameters, direction, cotangent = case.network, case.parameters, case.direction, case.cotangent
    output, tangent = torch.func.jvp(case.oracle, (parameters,), (direction,))
    torch.testing.assert_close(network(parameters, case.inputs), output)
    local = network.linearize(parameters, case.inputs)
    torch.testing.assert_close(local.output, output)
    torch.testing.assert_close(local.jvp(direction), tangent)
    _, pull_back = torch.func.vjp(case.oracle, parameters)
    assert_same(local.vjp(cotangent), pull_back(cotangent)[0])
    gradient = torch.func.grad(lambda p: (case.oracle(p).sin() * cotangent).sum())
    _, expected = torch.func.jvp(gradient, (parameters,), (direction,))
    local.vjp(output.cos() * cotangent)
    for vector in (parameters, direction):  # the second product must not depend on the first
        tangent = local.jvp(vector)
        product = local.hvp(vector, -output.sin() * tangent * cotangent)
    assert_same(product, expected)


def test_output_and_derivatives(case):
    check_derivatives(case)


@pytest.mark.parametrize("kind", ["two layers", "all"])
def test_chunks_change_nothing(kind, monkeypatch):
    monkeypatch.setattr(encoder_module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(encoder_module, "STORED_BYTES", 0)
    case = Case(SPACES[kind])
    check_derivatives(case)
    leaves = {n: v.clone().requires_grad_() for n, v in case.parameters.items()}
    by_chunks = torch.autograd.grad((case.network(leaves, case.inputs) * case.cotangent).sum(), list(leaves.values()))
    _, pull_back = torch.func.vjp(case.oracle, case.parameters)
    assert_same(dict(zip(leaves, by_chunks, strict=True)), pull_back(case.cotangent)[0])


def test_scattering_is_the_transpose_of_taking_patches():
    generator = torch.Generator().manual_seed(0)
    for kernel, stride in (((3, 3), 2), ((4, 2), 3), ((8, 8), 4)):
        layer = Convolution(11, 9, 2, 5, kernel, stride)
        maps = torch.randn(3, 11, 9, 2, generator=generator, dtype=torch.float64)
        windows = torch.randn(3, layer.num_patches, layer.patch_size, generator=generator, dtype=torch.float64)
        one, other = (layer.patches(maps) * windows).sum(), (layer.scatter(windows) * maps).sum()
        assert one.item() == pytest.approx(other.item(), rel=1e-12)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_network_gives_the_numbers_of_a_stack_of_one_and_every_pixel_counts(size):
    generator = torch.Generator().manual_seed(0)
    module = EntryEncoder(picture(*size))
    module.initialize(generator)
    pictures = pixels(generator, 1, 2, *size)
    scales = EntryScales({"observation": picture(*size)})
    encoder = PictureEncoder(picture(*size))
    stacked = {n: v[None] for n, v in dict(module.weights[0]).items()}
    features = module(pictures)
    assert features.shape == (1, 2, module.outputs)
    torch.testing.assert_close(encoder(stacked, scales(pictures)["observation"]), features)
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    for row, column in corners:  # a layer that left out the last rows or columns would be blind there
        changed = pictures.clone()
        changed[..., row, column, :] += 100
        assert (module(changed) != features).any(-1).all()


def test_features_of_minibatches_are_those_of_chunks(monkeypatch):
    """With the same gradient, although autograd encodes each chunk again."""
    generator = torch.Generator().manual_seed(0)
    spaces = {"camera": picture(12, 12, 3), "speed": Box(-1, 1, (2,))}
    module = EntryEncoder(Dict(spaces))
    module.initialize(generator)
    observations = {"camera": pixels(generator, 5, 3, 12, 12, 3), "speed": torch.randn(5, 3, 2, generator=generator)}
    results = []
    for chunk in (2**25, 1):
        monkeypatch.setattr(encoder_module, "CHUNK_BYTES", chunk)
        features = module(observations)
        results.append([features, *torch.autograd.grad(features.square().sum(), list(module.parameters()))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("size", [*SIZES, (84, 84, 4), (210, 160, 3), (480, 640, 3), (1000, 7, 1)], ids=str)
def test_pictures_of_any_size_become_a_few_hundred_numbers(size):
    layers = layers_for(*size)
    assert max(layers[-1].rows, layers[-1].columns) <= 4
    assert max(layers[0].rows, layers[0].columns) <= 26
    assert len(layers) <= 4
    assert PictureEncoder(picture(*size)).outputs <= 512


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(metarl.UsageError, match=r"\[0, 5, 3\] has nothing in it"):
        PictureEncoder(picture(0, 5, 3))

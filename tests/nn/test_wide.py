"""Wide vectors in a basis against the dense vectors."""

import pytest
import torch

from metarl.nn.baseline import fit_baseline
from metarl.nn.mlp import MLP
from metarl.nn.normalization import RunningScale
from metarl.nn.wide import Basis, WideVectors, map_values, without_constant_columns
from metarl.parallel import Ranks

WIDTH = 400


def sparse(*shape, varying=30, seed=0, dtype=torch.float64, constants=((50, 2.0), (51, -30.0))):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.zeros(*shape, WIDTH, dtype=dtype)
    for column, value in constants:
        vectors[..., column] = value
    vectors[..., 100 + 5 * seed : 100 + 5 * seed + varying] = torch.randn(
        *shape, varying, generator=generator, dtype=dtype
    )
    return vectors


def test_columns_that_vary_and_constants():
    vectors = sparse(3, 7)
    wide = without_constant_columns(vectors)
    assert wide.varying.tolist() == list(range(100, 130))
    assert wide.constants.nonzero()[:, 0].tolist() == [50, 51]
    assert wide.shape == vectors.shape
    everywhere = wide.constants.expand(3, 7, -1).clone().index_copy_(-1, wide.varying, wide.values)
    assert torch.equal(everywhere, vectors)
    assert without_constant_columns(wide) is wide


@pytest.mark.parametrize(
    "observations",
    [
        torch.zeros(3, 7, 255),
        torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(0)),
        torch.zeros(3, 7, 8, 300, 3, dtype=torch.uint8),
        torch.zeros(0, 7, WIDTH),
        torch.zeros(3, 7, WIDTH, requires_grad=True),
        {"codes": torch.zeros(3, 7, WIDTH)},
    ],
    ids=["narrow", "dense", "pictures", "empty", "leaves", "dictionary"],
)
def test_others_are_left_alone(observations):
    assert without_constant_columns(observations) is observations


def test_a_single_difference_is_seen_wherever_it_is():
    for row, value in ((0, 1e-30), (2, -1e30), (4999, 3.0), (4999, torch.nan), (0, torch.inf)):
        vectors = torch.zeros(5000, WIDTH)
        vectors[row, 17] = value
        assert without_constant_columns(vectors).varying.tolist() == [17]


def test_a_number_that_is_not_finite_is_no_constant():
    vectors = torch.zeros(5, WIDTH)
    vectors[:, 3], vectors[:, 4] = torch.nan, torch.inf
    assert without_constant_columns(vectors).varying.tolist() == [3, 4]


@pytest.mark.parametrize("constants", [((50, 2.0), (51, -30.0)), ()], ids=["constants", "zeros only"])
def test_a_basis_is_orthonormal_and_holds_the_vectors(constants):
    vectors = sparse(3, 7, constants=constants)
    wide = without_constant_columns(vectors)
    basis = wide.basis()
    eye = torch.eye(30 + bool(constants), dtype=torch.float64)
    rows = basis.spread(eye)
    torch.testing.assert_close(rows @ rows.T, eye)
    torch.testing.assert_close(basis.take(torch.eye(WIDTH, dtype=torch.float64)), rows.T)
    torch.testing.assert_close(basis.spread(wide.within(basis)), vectors)


def test_a_joined_basis_holds_both_and_keeps_what_is_constant_in_both():
    first = sparse(3, 7, constants=((50, 2.0), (51, -30.0), (52, 1.0)))
    second = sparse(4, 5, seed=1, constants=((50, 2.0), (51, 8.0), (105, 0.0), (60, 4.0)))
    parts = [without_constant_columns(vectors) for vectors in (first, second)]
    basis = parts[0].basis().joined(parts[1].basis())
    assert basis.varying.tolist() == [51, 52, 60, *range(100, 135)]
    assert basis.constants.nonzero()[:, 0].tolist() == [50]
    for vectors, wide in zip((first, second), parts, strict=True):
        torch.testing.assert_close(basis.spread(wide.within(basis)), vectors)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_vectors_that_do_not_vary_at_all(value):
    mlp, vectors = MLP((WIDTH, 4, 2)), torch.full((1, 6, WIDTH), value)
    parameters = {name: v[None] for name, v in mlp.initialize(torch.Generator().manual_seed(0)).items()}
    wide = without_constant_columns(vectors)
    assert wide.values.shape == (1, 6, 0)
    torch.testing.assert_close(mlp(parameters, wide), mlp(parameters, vectors))
    torch.testing.assert_close(mlp.linearize(parameters, wide).output, mlp(parameters, vectors))


def test_a_network_and_its_two_derivatives_by_autograd():
    mlp, vectors = MLP((WIDTH, 4, 2)), sparse(3, 7)
    generator = torch.Generator().manual_seed(1)
    sizes = {name: value.shape for name, value in mlp.initialize(generator).items()}
    parameters = {n: 0.1 * torch.randn(3, *s, generator=generator, dtype=torch.float64) for n, s in sizes.items()}

    def derivatives(inputs):
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        outputs = mlp(leaves, inputs)
        slopes = torch.autograd.grad(outputs.sin().sum(), list(leaves.values()), create_graph=True)
        bends = torch.autograd.grad(sum(slope.square().sum() for slope in slopes), list(leaves.values()))
        return [outputs, *slopes, *bends]

    for value, expected in zip(derivatives(without_constant_columns(vectors)), derivatives(vectors), strict=True):
        torch.testing.assert_close(value, expected)


class TwoRanks(Ranks):
    """As if another rank had seen `other` on average."""

    def mean(self, tensor):
        return (tensor + self.other) / 2


def test_a_running_scale_of_wide_vectors_is_that_of_the_dense_ones():
    scales = RunningScale(WIDTH), RunningScale(WIDTH)
    ranks = TwoRanks(world_size=2)
    ranks.other = torch.arange(float(WIDTH))
    for seed in (0, 1):
        vectors = 9 * sparse(5, 3, 7, seed=seed, dtype=torch.float32)
        for scale, values in zip(scales, (without_constant_columns(vectors), vectors), strict=True):
            scale.update(values, ranks)
    for name, value in scales[1].state_dict().items():
        torch.testing.assert_close(scales[0].state_dict()[name], value)
    scaled, expected = scales[0](without_constant_columns(vectors)), scales[1](vectors)
    torch.testing.assert_close(scaled.basis().spread(scaled.within(scaled.basis())), expected)


def test_the_baseline_of_wide_vectors_is_that_of_the_dense_ones():
    vectors = 20 * sparse(40, 2, 20, varying=60, dtype=torch.float32)  # more than the baseline clips to
    time = torch.arange(40)[:, None, None].expand(40, 2, 20)
    returns = vectors[..., 110].clamp(-10, 10) + 0.1 * time
    valid = torch.ones(40, 2, 20, dtype=torch.bool)
    found, expected = (fit_baseline(v, time, returns, valid) for v in (without_constant_columns(vectors), vectors))
    assert torch.equal(found.num_features, expected.num_features)
    assert (expected.num_features > 4).all()
    torch.testing.assert_close(found.values, expected.values, rtol=1e-3, atol=1e-3)


def test_mapping_moves_the_batch_dimensions_only():
    wide = without_constant_columns(sparse(3, 7))
    part = map_values(lambda values: values[:, :2], wide)
    assert isinstance(part, WideVectors)
    assert part.shape == (3, 2, WIDTH)
    assert torch.equal(part.constants, wide.constants)


def test_the_norm_of_large_constants_does_not_overflow():
    basis = Basis(torch.tensor([0]), torch.tensor([0.0, 3e30, 4e30]))
    assert basis.length == pytest.approx(5e30)
    torch.testing.assert_close(basis.take(torch.tensor([1.0, 0.0, 1.0])), torch.tensor([1.0, 0.8]))

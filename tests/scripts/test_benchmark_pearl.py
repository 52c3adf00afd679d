"""`metarl benchmark pearl`: the products that it counts and computes again are those of the step."""

import torch

from metarl.scripts.benchmark_pearl import Arguments, Products, run


def test_products_of_forward_and_backward_pass_are_recorded():
    layer = torch.nn.Linear(5, 7)
    inputs = torch.zeros(4, 5, requires_grad=True)
    with Products() as products:
        layer(inputs).sum().backward()
    assert len(products.calls) == 3  # outputs, and the gradients of weights and inputs
    assert products.flops == 3 * 2 * 4 * 5 * 7
    products.run()


def test_products_are_those_of_the_networks():
    """Policy (2 hidden layers of 8) and critics on 16 × 4 rows; the encoder on 16 × 100 rows."""
    figures = run(Arguments(hidden=(8, 8), batch_size=4, stored=2000, repeats=1))
    rows, z, o, a = 64, 5, 17, 6
    actor, critic = (o + z) * 8 + 8 * 8 + 8 * 2 * a, 2 * ((o + z + a) * 8 + 8 * 8 + 8)
    encoder, factors = (o + a + 1) * 200 + 200 * 200 * 2 + 200 * 2 * z, 1600
    # Policy: now and next, backward to weights of all layers and to inputs of all but the first.
    products = 2 * actor + actor + actor - (o + z) * 8
    # Critics: slow ones, values, values of the policy's actions; backward to weights once and to inputs twice.
    products += 3 * critic + critic + 2 * critic
    total = 2 * rows * products + 2 * factors * (3 * encoder - (o + a + 1) * 200)
    assert figures["gflop"] * 1e9 == total
    assert figures["ratio"] > 0

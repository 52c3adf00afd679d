"""ReLU networks of the same sizes, evaluated together."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metarl.nn.mlp import xavier_uniform


class StackedMLP(nn.Module):
    """`count` networks of `sizes[0]` inputs, ReLU layers of `sizes[1:-1]` and `sizes[-1]` linear outputs.

    All networks read the same rows. A layer is one batched matrix product, such as for the two critics of SAC.
    Parameters are zero until `initialize`.

    >>> from metarl.nn.stacked_mlp import StackedMLP
    >>> twins = StackedMLP((3, 64, 64, 1), count=2)
    >>> twins.initialize(torch.Generator())
    >>> twins(torch.zeros(5, 3)).shape
    torch.Size([2, 5, 1])
    """

    def __init__(self, sizes: Sequence[int], count: int = 1):
        super().__init__()
        self.count = count
        layers = list(itertools.pairwise(sizes))
        self.weights = nn.ParameterList(torch.zeros(count, inputs, outputs) for inputs, outputs in layers)
        self.biases = nn.ParameterList(torch.zeros(count, 1, outputs) for _, outputs in layers)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator, last_gain: float = 1.0) -> None:
        """Xavier-uniform weights (Glorot and Bengio 2010), those of the last layer times `last_gain`; zero biases."""
        for layer, weight in enumerate(self.weights):
            gain = last_gain if layer == len(self.weights) - 1 else 1.0
            _, inputs, outputs = weight.shape
            for network in weight:
                network.copy_(gain * xavier_uniform(outputs, inputs, generator).mT)
            self.biases[layer].zero_()

    def forward(self, inputs: Float[Tensor, "R I"], *, frozen: bool = False) -> Float[Tensor, "K R O"]:
        """The outputs of all networks for each row. If `frozen`, gradients reach the inputs and not the parameters."""
        hidden = inputs.expand(self.count, *inputs.shape)
        last = len(self.weights) - 1
        for layer in range(last + 1):
            weight: Tensor = self.weights[layer]
            bias: Tensor = self.biases[layer]
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < last:
                hidden = F.relu(hidden, inplace=True)  # the product needs its inputs for the gradient, not its result
        return hidden

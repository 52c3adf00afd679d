"""A tanh multi-layer perceptron as a pure function of stacked parameters, with its derivatives written out.

Meta-gradients spend most of their time in Hessian-vector products. For a fully connected network, these are a few
matrix products per layer (Pearlmutter 1994, "Fast exact multiplication by the Hessian"). `Linearization` computes them
from one stored forward pass, for all tasks at once and several times faster than differentiating twice with autograd.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Parameters = dict[str, Tensor]
"""Name → tensor; `[...]` for one network, `[M, ...]` for a stack of M."""

MANY_COLUMNS = 256
"""Inputs from which on it pays to look for columns of zeros."""


class MLP:
    """`sizes[0]` inputs, tanh layers of `sizes[1:-1]`, `sizes[-1]` linear outputs. Parameters are arguments.

    Layer l has `weight{l}` `[out, in]` and `bias{l}` `[out]`, with a leading `M` when stacked.

    >>> from metarl.adaptation import stack
    >>> from metarl.nn.mlp import MLP
    >>> mlp = MLP((2, 64, 64, 1))
    >>> mlp(stack(mlp.initialize(torch.Generator()), 3), torch.zeros(3, 5, 2)).shape
    torch.Size([3, 5, 1])
    """

    def __init__(self, sizes: Sequence[int]):
        self.sizes = tuple(sizes)
        self.num_layers = len(self.sizes) - 1

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Xavier-uniform weights (Glorot and Bengio 2010) and zero biases, for one network."""
        parameters = {}
        for layer, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = (6 / (fan_in + fan_out)) ** 0.5
            uniform = torch.rand(fan_out, fan_in, generator=generator, device=generator.device)
            parameters[f"weight{layer}"] = (2 * uniform - 1) * bound
            parameters[f"bias{layer}"] = torch.zeros(fan_out, device=generator.device)
        return parameters

    def __call__(self, parameters: Parameters, inputs: Float[Tensor, "M n D"]) -> Float[Tensor, "M n O"]:
        """The outputs of network m for `inputs[m]`, differentiable by autograd."""
        hidden = inputs
        for layer in range(self.num_layers):
            hidden = _affine(parameters, layer, hidden)
            if layer < self.num_layers - 1:
                hidden = hidden.tanh()
        return hidden


class Linearization:
    """A stored forward pass of an `MLP` and the derivatives of the network at that point.

    h_l are the inputs of layer l, a_l = W_l h_l + b_l, h_{l+1} = tanh a_l. R{·} is the derivative along a direction of
    the parameters, δ_l the derivative of the loss with respect to a_l. Every method returns plain tensors: autograd is
    not involved.

    Wide inputs, such as one-hot codes, are often zero in most columns at all samples. Such columns change no output and
    have no gradient, so products leave them out.

    >>> from metarl.adaptation import stack
    >>> from metarl.nn.mlp import MLP, Linearization
    >>> mlp = MLP((2, 64, 1))
    >>> local = Linearization(mlp, stack(mlp.initialize(torch.Generator()), 3), torch.zeros(3, 5, 2))
    >>> local.vjp(torch.ones(3, 5, 1))["weight0"].shape
    torch.Size([3, 64, 2])
    """

    @torch.no_grad()
    def __init__(self, mlp: MLP, parameters: Parameters, inputs: Float[Tensor, "M n D"]):
        self.mlp = mlp
        self.parameters = {name: value.detach() for name, value in parameters.items()}
        self._columns = _used_columns(inputs)
        self.hidden = [inputs if self._columns is None else inputs[..., self._columns]]
        used = self.parameters | {"weight0": self._narrow(_weight(self.parameters, 0))}
        for layer in range(mlp.num_layers):
            activation = _affine(used, layer, self.hidden[-1])
            if layer < mlp.num_layers - 1:
                self.hidden.append(activation.tanh_())
        self.output: Float[Tensor, "M n O"] = activation
        self.slopes = [1 - hidden.square() for hidden in self.hidden[1:]]  # tanh' at h_1, h_2, …
        self._buffers: dict[tuple[str, int], Tensor] = {}

    @torch.no_grad()
    def jvp(self, direction: Parameters) -> Float[Tensor, "M n O"]:
        """R{output} along `direction`; stores R{h_l} for `hvp`."""
        self._r_hidden: list[Tensor] = []
        for layer in range(self.mlp.num_layers):
            last = layer == self.mlp.num_layers - 1
            bias = direction[f"bias{layer}"][:, None]
            out = None if last else self._buffer("tangent", layer, len(bias), self.mlp.sizes[layer + 1])
            weight = _weight(direction, layer) if layer > 0 else self._narrow(_weight(direction, 0))
            tangent = torch.baddbmm(bias, self.hidden[layer], weight.mT, out=out)
            if layer > 0:
                tangent.baddbmm_(self._r_hidden[-1], _weight(self.parameters, layer).mT)
            if not last:
                self._r_hidden.append(tangent.mul_(self.slopes[layer]))
        return tangent

    @torch.no_grad()
    def vjp(self, cotangent: Float[Tensor, "M n O"]) -> Parameters:
        """The gradient `[M, ...]` of Σ output · `cotangent`; stores what `hvp` needs from the backward pass."""
        gradient: Parameters = {}
        self._deltas = [cotangent]
        self._bends: list[Tensor] = []
        for layer in reversed(range(self.mlp.num_layers)):
            delta = self._deltas[0]
            weight = delta.mT @ self.hidden[layer]
            gradient[f"weight{layer}"] = weight if layer > 0 else self._widen(weight)
            gradient[f"bias{layer}"] = delta.sum(1)
            if layer > 0:
                upstream = delta @ _weight(self.parameters, layer)
                # R{tanh'(a)} = −2 h R{h}, so −2 h (Wᵀδ) is the factor of R{h} in R{δ}.
                self._bends.insert(0, (upstream * self.hidden[layer]).mul_(-2))
                self._deltas.insert(0, upstream.mul_(self.slopes[layer - 1]))
        return gradient

    @torch.no_grad()
    def hvp(self, direction: Parameters, r_cotangent: Float[Tensor, "M n O"]) -> Parameters:
        """R{gradient} along `direction`, after `vjp` and `jvp(direction)`; `r_cotangent` is R of `vjp`'s cotangent."""
        product: Parameters = {}
        r_delta = r_cotangent
        for layer in reversed(range(self.mlp.num_layers)):
            delta = self._deltas[layer]
            weight = r_delta.mT @ self.hidden[layer]
            if layer > 0:
                weight.baddbmm_(delta.mT, self._r_hidden[layer - 1])
            product[f"weight{layer}"] = weight if layer > 0 else self._widen(weight)
            product[f"bias{layer}"] = r_delta.sum(1)
            if layer > 0:
                upstream = self._buffer("upstream", layer, len(delta), self.mlp.sizes[layer])
                torch.bmm(r_delta, _weight(self.parameters, layer), out=upstream)
                upstream.baddbmm_(delta, _weight(direction, layer).expand(len(delta), -1, -1))
                upstream.mul_(self.slopes[layer - 1])
                r_delta = upstream.addcmul_(self._bends[layer - 1], self._r_hidden[layer - 1])
        return product

    def _narrow(self, weight: Float[Tensor, "M out in"]) -> Float[Tensor, "M out k"]:
        """The part of a first layer's weights that meets inputs other than zero."""
        return weight if self._columns is None else weight[..., self._columns]

    def _widen(self, weight: Float[Tensor, "M out k"]) -> Float[Tensor, "M out in"]:
        """The reverse of `_narrow`, with zeros in the other columns."""
        if self._columns is None:
            return weight
        return weight.new_zeros(*weight.shape[:2], self.mlp.sizes[0]).index_copy_(2, self._columns, weight)

    def _buffer(self, name: str, layer: int, num_tasks: int, width: int) -> Float[Tensor, "M n width"]:
        """Memory that all products of a conjugate-gradient solve reuse: fresh pages cost more than the arithmetic."""
        if (name, layer) not in self._buffers:
            shape = (num_tasks, self.hidden[0].shape[1], width)
            self._buffers[name, layer] = self.hidden[0].new_empty(shape)
        return self._buffers[name, layer]


def _used_columns(inputs: Float[Tensor, "M n D"]) -> Int[Tensor, "k"] | None:
    """The columns that are not zero at all samples, if they are fewer than half of many.

    None on a GPU, which would have to be waited for.
    """
    if inputs.device.type != "cpu" or inputs.shape[-1] < MANY_COLUMNS:
        return None
    for rows in (inputs[:, :16], inputs):  # a few rows tell dense inputs
        columns = rows.any(1).any(0).nonzero()[:, 0]
        if 2 * len(columns) > inputs.shape[-1]:
            return None
    return columns


def _weight(parameters: Parameters, layer: int) -> Float[Tensor, "M out in"]:
    return parameters[f"weight{layer}"]


def _affine(parameters: Parameters, layer: int, hidden: Float[Tensor, "M n in"]) -> Float[Tensor, "M n out"]:
    return torch.baddbmm(parameters[f"bias{layer}"][:, None], hidden, _weight(parameters, layer).mT)

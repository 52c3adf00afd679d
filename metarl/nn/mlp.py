"""A tanh multi-layer perceptron as a pure function of stacked parameters, with its derivatives written out.

Meta-gradients spend most of their time in Hessian-vector products. For a fully connected network, these are a few
matrix products per layer (Pearlmutter 1994, "Fast exact multiplication by the Hessian"). `Linearization` computes them
from one stored forward pass, for all tasks at once and several times faster than differentiating twice with autograd.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.nn.wide import Basis, WideVectors, without_constant_columns

Parameters = dict[str, Tensor]
"""Name → tensor; `[...]` for one network, `[M, ...]` for a stack of M."""


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
        self.width = max(self.sizes[1:])
        """The most numbers that one sample takes between two layers."""

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Xavier-uniform weights (Glorot and Bengio 2010) and zero biases, for one network."""
        parameters = {}
        for layer, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            parameters[f"weight{layer}"] = xavier_uniform(fan_out, fan_in, generator)
            parameters[f"bias{layer}"] = torch.zeros(fan_out, device=generator.device)
        return parameters

    def __call__(self, parameters: Parameters, inputs: Float[Tensor, "M n D"] | WideVectors) -> Float[Tensor, "M n O"]:
        """The outputs of network m for `inputs[m]`, differentiable by autograd."""
        if isinstance(inputs, WideVectors):
            basis = inputs.basis()
            parameters, inputs = restricted(parameters, basis), inputs.within(basis)
        hidden = inputs
        for layer in range(self.num_layers):
            hidden = affine(parameters, layer, hidden)
            if layer < self.num_layers - 1:
                hidden = tanh_(hidden)
        return hidden

    def linearize(self, parameters: Parameters, inputs: Float[Tensor, "M n D"] | WideVectors) -> "Linearization":
        """The network and its derivatives at stacked `parameters`."""
        return Linearization(parameters, inputs, self.num_layers, num_tanh=self.num_layers - 1)


class Linearization:
    """A stored forward pass of a chain of layers and the derivatives of the chain at that point.

    x_l are the inputs of layer l, a_l = W_l x_l + b_l, h_l = tanh a_l for the first `num_tanh` layers, and
    x_{l+1} = G_l h_l. In an `MLP`, G is the identity; a subclass defines another linear map by `_gather` and its
    transpose `_scatter`. R{·} is the derivative along a direction of the parameters (and of the inputs, if R{inputs} is
    given), δ_l the derivative of the loss with respect to a_l. Every method returns plain tensors: autograd is not
    involved.

    Wide inputs, such as one-hot codes, are often constant in most columns. Products of the first layer then go through
    a `Basis` that holds the inputs.

    >>> from metarl.adaptation import stack
    >>> from metarl.nn.mlp import MLP
    >>> mlp = MLP((2, 64, 1))
    >>> local = mlp.linearize(stack(mlp.initialize(torch.Generator()), 3), torch.zeros(3, 5, 2))
    >>> local.vjp(torch.ones(3, 5, 1))["weight0"].shape
    torch.Size([3, 64, 2])
    """

    @torch.no_grad()
    def __init__(self, parameters: Parameters, inputs: Any, num_layers: int, num_tanh: int):
        self.num_layers, self.num_tanh = num_layers, num_tanh
        self.parameters = {name: value.detach() for name, value in parameters.items()}
        self._wide: WideVectors | None = None
        self.basis: Basis | None = None
        """What holds the inputs of the first layer, if they are wide and mostly constant."""
        self.inputs = [self._narrowed(inputs)]
        self.hidden: list[Tensor] = []
        for layer in range(num_layers):
            activation = self._affine(self.parameters, layer)
            if layer < num_tanh:
                self.hidden.append(tanh_(activation))
            if layer < num_layers - 1:
                self.inputs.append(self._gather(layer, activation))
        self.output: Float[Tensor, "M n O"] = activation
        self.input_cotangent: Tensor | None = None
        """δ (after `vjp`) or R{δ} (after `hvp`) of the inputs, if asked for with `to_inputs`."""

    @torch.no_grad()
    def jvp(
        self, direction: Parameters, r_inputs: Float[Tensor, "M n D"] | None = None, *, keep: bool = True
    ) -> Float[Tensor, "M n O"]:
        """R{output} along `direction`. Stores what the next `hvp` needs, unless `keep` is False."""
        self._r_inputs = [r_inputs] if keep else []
        self._r_hidden: list[Tensor] = []
        r_input = r_inputs
        for layer in range(self.num_layers):
            tangent = self._affine(direction, layer)
            if r_input is not None:
                tangent.baddbmm_(r_input, weight(self.parameters, layer).mT)
            if layer < self.num_tanh:
                times_slope_(tangent, self.hidden[layer])
            if layer < self.num_layers - 1:
                r_input = self._gather(layer, tangent)
                if keep:
                    self._r_inputs.append(r_input)
            if keep and layer < self.num_tanh:
                self._r_hidden.append(tangent)
        return tangent

    @torch.no_grad()
    def vjp(self, cotangent: Float[Tensor, "M n O"], *, to_inputs: bool = False, keep: bool = True) -> Parameters:
        """The gradient `[M, ...]` of Σ output · `cotangent`. Stores what `hvp` needs of it, unless `keep` is False.

        Overwrites `cotangent` if the last layer has a tanh.
        """
        gradient: Parameters = {}
        if keep:
            self._deltas: list[Tensor] = []
            self._bends: list[Tensor] = []
        delta = cotangent
        for layer in reversed(range(self.num_layers)):
            if layer < self.num_tanh:
                if keep:
                    # `delta` is still that of h here. R{tanh'(a)} = −2 h R{h}, so −2 h δ is the factor of R{h}.
                    self._bends.insert(0, delta * self.hidden[layer])
                times_slope_(delta, self.hidden[layer])
            if keep:
                self._deltas.insert(0, delta)
            gradient[f"weight{layer}"] = self._outer(delta, layer)
            gradient[f"bias{layer}"] = delta.sum(1)
            if layer > 0 or to_inputs:
                delta = self._scatter(layer, torch.bmm(delta, weight(self.parameters, layer)))
        self.input_cotangent = delta if to_inputs else None
        return gradient

    @torch.no_grad()
    def hvp(self, direction: Parameters, r_cotangent: Float[Tensor, "M n O"], *, to_inputs: bool = False) -> Parameters:
        """R{gradient} along `direction`, after `vjp` and a `jvp(direction)` for each product.

        `r_cotangent` is R of `vjp`'s cotangent, and overwritten if the last layer has a tanh.
        """
        product: Parameters = {}
        r_delta = r_cotangent
        for layer in reversed(range(self.num_layers)):
            if layer < self.num_tanh:
                times_slope_(r_delta, self.hidden[layer])
                r_delta.addcmul_(self._bends[layer], self._r_hidden.pop(), value=-2)
            delta = self._deltas[layer]
            change = self._outer(r_delta, layer)
            if (r_input := self._r_inputs.pop()) is not None:
                change.baddbmm_(delta.mT, r_input)
            product[f"weight{layer}"] = change
            product[f"bias{layer}"] = r_delta.sum(1)
            if layer > 0 or to_inputs:
                upstream = torch.bmm(r_delta, weight(self.parameters, layer))
                upstream.baddbmm_(delta, weight(direction, layer).expand(len(delta), -1, -1))
                r_delta = self._scatter(layer, upstream)
        self.input_cotangent = r_delta if to_inputs else None
        return product

    def restricted(self, basis: Basis) -> "Linearization":
        """The same for the network that reads coordinates in a basis, which must hold the inputs.

        It takes directions and returns gradients of `restricted` parameters. Shares what `vjp` stored for `hvp`.
        """
        assert self._wide is not None
        copied = copy.copy(self)
        copied.parameters = restricted(self.parameters, basis)
        copied.inputs = [self._wide.within(basis), *self.inputs[1:]]
        copied._wide, copied.basis = None, None
        return copied

    def _affine(self, parameters: Parameters, layer: int) -> Tensor:
        """W x + b with W and b from `parameters` and x the stored inputs of `layer`."""
        if layer == 0 and self.basis is not None:
            parameters = restricted(parameters, self.basis)
        return affine(parameters, layer, self.inputs[layer])

    def _outer(self, deltas: Tensor, layer: int) -> Float[Tensor, "M out in"]:
        """Σ δ xᵀ over the samples, x being the stored inputs of `layer`."""
        product = torch.bmm(deltas.mT, self.inputs[layer])
        return product if layer > 0 or self.basis is None else self.basis.spread(product)

    def _narrowed(self, inputs: Any) -> Any:
        """The inputs of the first layer, in a small basis if there is one."""
        inputs = without_constant_columns(inputs)
        if not isinstance(inputs, WideVectors):
            return inputs
        self._wide, self.basis = inputs, inputs.basis()
        return inputs.within(self.basis)

    def _gather(self, layer: int, hidden: Tensor) -> Tensor:
        """G: the inputs of layer `layer + 1`, from the outputs of `layer`."""
        return hidden

    def _scatter(self, layer: int, cotangent: Tensor) -> Tensor:
        """Gᵀ: the cotangent of the outputs of layer `layer - 1`, from that of the inputs of `layer`."""
        return cotangent


def restricted(parameters: Parameters, basis: Basis) -> Parameters:
    """The parameters of the network that reads the coordinates of its inputs in `basis`."""
    return parameters | {"weight0": basis.take(parameters["weight0"])}


def weight(parameters: Parameters, layer: int) -> Float[Tensor, "M out in"]:
    """The weights of one layer of a stack of networks."""
    return parameters[f"weight{layer}"]


def affine(parameters: Parameters, layer: int, inputs: Float[Tensor, "M n in"]) -> Float[Tensor, "M n out"]:
    """W x + b of one layer of a stack of networks."""
    return torch.baddbmm(parameters[f"bias{layer}"][:, None], inputs, weight(parameters, layer).mT)


def tanh_(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """tanh x, in the memory of `values` unless autograd records.

    On a CPU in float32 it is 2 σ(2x) − 1, which takes a fifth of the time of `torch.tanh`. The error is below 3e-7: as
    large as the rounding of the sums that the values are.
    """
    recorded = torch.is_grad_enabled() and values.requires_grad
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.tanh() if recorded else values.tanh_()
    if recorded:
        return (2 * values).sigmoid() * 2 - 1
    return values.mul_(2).sigmoid_().mul_(2).sub_(1)


def times_slope_(values: Float[Tensor, "..."], hidden: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """`values` times 1 − h², the slope of tanh where its value is h, in place and in one pass."""
    return torch.ops.aten.tanh_backward.grad_input(values, hidden, grad_input=values)


def xavier_uniform(outputs: int, inputs: int, generator: torch.Generator) -> Float[Tensor, "O I"]:
    """A weight matrix, uniform in ±√(6 / (inputs + outputs)) (Glorot and Bengio 2010)."""
    uniform = torch.rand(outputs, inputs, generator=generator, device=generator.device)
    return (2 * uniform - 1) * (6 / (inputs + outputs)) ** 0.5

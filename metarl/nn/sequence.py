"""Networks that read sequences, as pure functions of their parameters: one interface for agents and few-shot learners.

A core reads inputs one after the other and answers each. `step` reads one more, `sequence` a whole stretch at once;
both give the same numbers. What has been read is a `State`, a tuple of tensors with the batch in front, so that a mask
can pick rows of it (`choose_state`).
"""

import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.adaptation import Parameters

State = tuple[Shaped[Tensor, "B ..."], ...]
"""What a core remembers of `B` sequences, each tensor `[B, ...]`."""


@runtime_checkable
class SequenceCore(Protocol):
    """A causal map of sequences `[T, B, I]` to `[T, B, O]`.

    >>> core = GRU(inputs=5, units=16)
    >>> parameters = core.initialize(torch.Generator().manual_seed(0))
    >>> outputs, state = core.sequence(parameters, torch.zeros(10, 3, 5))
    >>> output, state = core.step(parameters, torch.zeros(3, 5), state)
    """

    inputs: int
    outputs: int

    def initialize(self, generator: torch.Generator, weights: "WeightInit") -> Parameters:
        """Its parameters before any training; `weights` draws each matrix."""

    def initial(self, batch: int, like: Tensor) -> State:
        """What it remembers before the first input, on the device and of the dtype of `like`."""

    def step(
        self, parameters: Parameters, inputs: Float[Tensor, "B I"], state: State
    ) -> tuple[Float[Tensor, "B O"], State]:
        """The answer to one more input, and what is remembered then."""

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "T B I"],
        state: State | None = None,
        starts: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], State]:
        """The answers to `T` inputs from `state` (or nothing) on; memory is blank before each input in `starts`."""


@runtime_checkable
class WeightInit(Protocol):
    """Draws the matrix of one gate."""

    def __call__(self, outputs: int, inputs: int, generator: torch.Generator) -> Float[Tensor, "O I"]: ...


def fan_in_uniform(outputs: int, inputs: int, generator: torch.Generator) -> Float[Tensor, "O I"]:
    """Weights of a layer, uniform in ±1/√inputs."""
    return (2 * torch.rand(outputs, inputs, generator=generator, device=generator.device) - 1) * inputs**-0.5


def orthogonal(outputs: int, inputs: int, generator: torch.Generator) -> Float[Tensor, "O I"]:
    """A random matrix with orthonormal rows or columns (Saxe et al. 2014)."""
    weight = torch.empty(outputs, inputs, device=generator.device)
    return torch.nn.init.orthogonal_(weight, generator=generator)


class GRU:
    """A gated recurrent unit (Cho et al. 2014), with PyTorch's equations; `units` numbers are remembered and answered.

        r, z = σ(W x + b + U h + c)   n = tanh(W x + b + r ⊙ (U h + c))   h' = (1 − z) n + z h

    Parameters: `input` `[3 H, I]`, `recurrent` `[3 H, H]`, `bias` and `recurrent_bias` `[3 H]`, rows in order r, z, n.
    """

    def __init__(self, inputs: int, units: int):
        self.inputs, self.outputs = inputs, units

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        return _gates(3, self.inputs, self.outputs, generator, weights)

    def initial(self, batch: int, like: Tensor) -> State:
        return (like.new_zeros(batch, self.outputs),)

    def step(
        self, parameters: Parameters, inputs: Float[Tensor, "B I"], state: State
    ) -> tuple[Float[Tensor, "B O"], State]:
        hidden = self._next(parameters, F.linear(inputs, parameters["input"], parameters["bias"]), state[0])
        return hidden, (hidden,)

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "T B I"],
        state: State | None = None,
        starts: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], State]:
        (hidden,) = state or self.initial(inputs.shape[1], inputs)
        if starts is None:
            outputs, hidden = _fused(torch.gru, inputs, hidden[None], parameters)
            return outputs, (hidden[0],)
        going_on = (~starts).to(inputs.dtype)[..., None]
        steps = []
        for t, gates in enumerate(F.linear(inputs, parameters["input"], parameters["bias"])):
            hidden = self._next(parameters, gates, hidden * going_on[t])
            steps.append(hidden)
        return torch.stack(steps), (hidden,)

    def _next(
        self, parameters: Parameters, gates: Float[Tensor, "B G"], hidden: Float[Tensor, "B H"]
    ) -> Float[Tensor, "B H"]:
        """h' from the gates' share of the input."""
        recurrent = F.linear(hidden, parameters["recurrent"], parameters["recurrent_bias"])
        units = self.outputs
        reset, update = (gates[..., : 2 * units] + recurrent[..., : 2 * units]).sigmoid().chunk(2, -1)
        new = torch.addcmul(gates[..., 2 * units :], reset, recurrent[..., 2 * units :]).tanh()
        return torch.lerp(new, hidden, update)


class LSTM:
    """A long short-term memory (Hochreiter and Schmidhuber 1997, with a forget gate), with PyTorch's equations.

        i, f, o = σ(W x + b + U h + c)   g = tanh(W x + b + U h + c)   c' = f ⊙ c + i ⊙ g   h' = o ⊙ tanh c'

    Parameters as a GRU's, rows in the order i, f, g, o. The state is (h, c).
    """

    def __init__(self, inputs: int, units: int):
        self.inputs, self.outputs = inputs, units

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        """The forget gates are open at first (Jozefowicz et al. 2015)."""
        parameters = _gates(4, self.inputs, self.outputs, generator, weights)
        parameters["bias"][self.outputs : 2 * self.outputs] = 1
        return parameters

    def initial(self, batch: int, like: Tensor) -> State:
        return like.new_zeros(batch, self.outputs), like.new_zeros(batch, self.outputs)

    def step(
        self, parameters: Parameters, inputs: Float[Tensor, "B I"], state: State
    ) -> tuple[Float[Tensor, "B O"], State]:
        state = self._next(parameters, F.linear(inputs, parameters["input"], parameters["bias"]), *state)
        return state[0], state

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "T B I"],
        state: State | None = None,
        starts: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], State]:
        hidden, cell = state or self.initial(inputs.shape[1], inputs)
        if starts is None:
            outputs, hidden, cell = _fused(torch.lstm, inputs, (hidden[None], cell[None]), parameters)
            return outputs, (hidden[0], cell[0])
        going_on = (~starts).to(inputs.dtype)[..., None]
        steps = []
        for t, gates in enumerate(F.linear(inputs, parameters["input"], parameters["bias"])):
            hidden, cell = self._next(parameters, gates, hidden * going_on[t], cell * going_on[t])
            steps.append(hidden)
        return torch.stack(steps), (hidden, cell)

    def _next(
        self, parameters: Parameters, gates: Float[Tensor, "B G"], hidden: Float[Tensor, "B H"], cell: Tensor
    ) -> State:
        sums = gates + F.linear(hidden, parameters["recurrent"], parameters["recurrent_bias"])
        take, keep, new, show = sums.chunk(4, -1)
        cell = keep.sigmoid() * cell + take.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell


def choose_state(mask: Bool[Tensor, "B"], chosen: State, other: State) -> State:
    """Rows of `chosen` in the mask, rows of `other` elsewhere."""
    return tuple(torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(chosen, other, strict=True))


def _gates(count: int, inputs: int, units: int, generator: torch.Generator, weights: WeightInit) -> Parameters:
    """Matrices of `count` gates, one below the other, and zero biases."""
    return {
        "input": torch.cat([weights(units, inputs, generator) for _ in range(count)]),
        "recurrent": torch.cat([weights(units, units, generator) for _ in range(count)]),
        "bias": torch.zeros(count * units, device=generator.device),
        "recurrent_bias": torch.zeros(count * units, device=generator.device),
    }


def _fused(kernel: Callable, inputs: Float[Tensor, "T B I"], state: Any, parameters: Parameters) -> tuple[Tensor, ...]:
    """Torch's own loop over the steps: a third faster than one in Python, and cuDNN's on a GPU."""
    weights = [parameters[name] for name in ("input", "recurrent", "bias", "recurrent_bias")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
        return kernel(inputs, state, weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)

"""Networks that read sequences, as pure functions of their parameters: one interface for agents and few-shot learners.

A core reads inputs one after the other; its output for each input depends on the inputs so far. `step` reads one more
input, `sequence` reads a whole stretch, and `peek` returns what `step` would output without advancing the state. All
three give the same numbers. `metarl.nn.recurrent` has GRU and LSTM, `metarl.nn.snail` has SNAIL,
`metarl.nn.transformer` has a transformer.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.errors import UsageError

State = tuple[Shaped[Tensor, "B ..."], ...]
"""The memory of a core for `B` sequences: tensors `[B, ...]`, so that a mask can select rows (`choose_state`)."""


@runtime_checkable
class WeightInit(Protocol):
    """Draws one weight matrix.

    >>> from metarl.nn.recurrent import GRU
    >>> from metarl.nn.sequence import orthogonal
    >>> parameters = GRU(inputs=5, units=16).initialize(torch.Generator(), orthogonal)
    """

    def __call__(self, outputs: int, inputs: int, generator: torch.Generator) -> Float[Tensor, "O I"]: ...


def fan_in_uniform(outputs: int, inputs: int, generator: torch.Generator) -> Float[Tensor, "O I"]:
    """The weights of a layer, uniform in ±1/√inputs."""
    return (2 * torch.rand(outputs, inputs, generator=generator, device=generator.device) - 1) * inputs**-0.5


def orthogonal(outputs: int, inputs: int, generator: torch.Generator) -> Float[Tensor, "O I"]:
    """A random matrix with orthonormal rows or columns (Saxe et al. 2014)."""
    weight = torch.empty(outputs, inputs, device=generator.device)
    return torch.nn.init.orthogonal_(weight, generator=generator)


@runtime_checkable
class SequenceCore(Protocol):
    """A causal map of sequences `[T, B, I]` to `[T, B, O]`.

    It holds neither parameters nor state: both are arguments, and no method writes to them.

    >>> from metarl.nn.recurrent import GRU
    >>> core = GRU(inputs=5, units=16)
    >>> parameters = core.initialize(torch.Generator().manual_seed(0))
    >>> outputs, state = core.sequence(parameters, torch.zeros(10, 3, 5))  # [10, 3, 16]
    >>> output, state = core.step(parameters, torch.zeros(3, 5), state)  # [3, 16]
    >>> core.peek(parameters, torch.zeros(3, 8, 5), state).shape  # outputs for 8 possible next inputs
    torch.Size([3, 8, 16])
    """

    inputs: int
    """Numbers in each input (I)."""
    outputs: int
    """Numbers in each output (O)."""

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        """The parameters before any training; `weights` draws each matrix."""

    def initial(self, batch: int, like: Tensor) -> State:
        """The state before the first input, on the device and of the dtype of `like`."""

    def step(
        self, parameters: Parameters, inputs: Float[Tensor, "B I"], state: State
    ) -> tuple[Float[Tensor, "B O"], State]:
        """The output for one more input, and the state after it."""

    def peek(self, parameters: Parameters, inputs: Float[Tensor, "B Q I"], state: State) -> Float[Tensor, "B Q O"]:
        """What `step` would output for each of Q possible next inputs, independently of each other."""

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "T B I"],
        state: State | None = None,
        starts: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], State]:
        """The outputs for T inputs, and the state after them.

        Reading begins with `state`, or with a blank one. Memory is reset to blank before each input in `starts`.
        """


def choose_state(mask: Bool[Tensor, "B"], chosen: State, other: State) -> State:
    """Rows of `chosen` in the mask, rows of `other` elsewhere."""
    return tuple(torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(chosen, other, strict=True))


def ages(steps: int, before: Int[Tensor, "#B"], starts: Bool[Tensor, "T B"] | None) -> Int[Tensor, "#B T"]:
    """The number of inputs of its own sequence before each of `steps` inputs, if `before` come before the first.

    >>> from metarl.nn.sequence import ages
    >>> ages(4, torch.tensor([7]), torch.tensor([[False], [False], [True], [False]]))
    tensor([[7, 8, 0, 1]])
    """
    time = torch.arange(steps, device=before.device)
    if starts is None:
        return time + before[:, None]
    begin = torch.where(starts, time[:, None], -before).cummax(0).values  # of the sequence that an input is in
    return time - begin.T


def check_length(core: str, limit: int, length: int) -> None:
    """Raises `UsageError` if a sequence of `length` inputs is too long for the memory of a core of this name."""
    if length > limit:
        raise UsageError(
            f"{core} was built to remember {limit} inputs and is given a sequence of {length}: "
            "give it shorter sequences, or build it with a larger length"
        )

"""SNAIL as a sequence core (Mishra, Rohaninejad, Chen, Abbeel, ICLR 2018): temporal convolutions and attention.

Section 3 and figure 2; each block appends what it computes to its input:

    dense block    tanh(F) ⊙ σ(G),  F and G convolutions of this element and the one `dilation` before it
    TC block       dense blocks of dilation 1, 2, 4, …, as many as it takes to see the whole sequence
    attention      softmax(Q Kᵀ / √k) V over this element and all earlier ones

in the order attention, TC, attention, TC, attention (appendix A). Each block is causal and stores what it needs of the
elements before: an attention stores their keys and values, a dense block stores what its convolutions take from the
last few. These memories have a fixed length, with the newest element at the end. `age` is the number of elements before
one in its own sequence: anything older is hidden.

Deviation: the dilations follow the paper's figure. Its pseudo-code starts at 2 and would never combine neighbours.
"""

import math
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.nn.sequence import State, WeightInit, ages, check_length, fan_in_uniform

GROWTH = (1, 4, 8)
"""Sizes of the three attentions' keys, in units of the first one's."""


@runtime_checkable
class Block(Protocol):
    """The interface of a block: a causal function of sequences, batch first, with a memory `[B, ...]` of the past.

    >>> from metarl.nn.snail import Block, DenseBlock
    >>> isinstance(DenseBlock(inputs=5, filters=4, dilation=2), Block)
    True
    """

    inputs: int
    """Numbers in each input element (C)."""
    outputs: int
    """Numbers in each output element (D)."""
    names: ClassVar[tuple[str, ...]]
    """The names of its parameters."""

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        """The parameters before any training; `weights` draws each matrix."""

    def initial(self, batch: int, like: Tensor) -> Float[Tensor, "B n m"]:
        """The memory before the first element, on the device and of the dtype of `like`."""

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "B T C"],
        memory: Float[Tensor, "B n m"] | None,
        age: Int[Tensor, "#B T"],
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B n m"]]:
        """The outputs of a stretch, and the memory after it. Without `memory`, the stretch starts the sequence."""

    def peek(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "B Q C"],
        memory: Float[Tensor, "B n m"],
        length: Int[Tensor, "B"],
    ) -> Float[Tensor, "B Q D"]:
        """What `sequence` would output for each of Q possible next elements, after `length` others."""


class DenseBlock:
    """A gated convolution of width 2, appended to its input. Its memory is the contribution of the last `dilation`
    elements to later ones.

    Parameters: `now` and `earlier` `[2 F, C]`, `bias` `[2 F]`, with the rows of F first, then those of G.

    >>> from metarl.nn.snail import DenseBlock
    >>> block = DenseBlock(inputs=5, filters=4, dilation=2)
    >>> parameters = block.initialize(torch.Generator())
    >>> outputs, memory = block.sequence(parameters, torch.zeros(3, 7, 5), None, torch.arange(7)[None])
    >>> outputs.shape
    torch.Size([3, 7, 9])
    """

    names: ClassVar[tuple[str, ...]] = ("now", "earlier", "bias")

    def __init__(self, inputs: int, filters: int, dilation: int):
        self.inputs, self.filters, self.dilation = inputs, filters, dilation
        self.outputs = inputs + filters

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        now, earlier = weights(2 * self.filters, 2 * self.inputs, generator).chunk(2, 1)
        bias = torch.zeros(2 * self.filters, device=generator.device)
        return {"now": now.contiguous(), "earlier": earlier.contiguous(), "bias": bias}

    def initial(self, batch: int, like: Tensor) -> Float[Tensor, "B n m"]:
        return like.new_zeros(batch, self.dilation, 2 * self.filters)

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "B T C"],
        memory: Float[Tensor, "B n m"] | None,
        age: Int[Tensor, "#B T"],
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B n m"]]:
        given = F.linear(inputs, parameters["earlier"])
        given = F.pad(given, (0, 0, self.dilation, 0)) if memory is None else torch.cat([memory, given], 1)
        taken = given[:, : inputs.shape[1]].masked_fill((age < self.dilation)[..., None], 0)
        return self._gated(parameters, inputs, taken), given[:, inputs.shape[1] :]

    def peek(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "B Q C"],
        memory: Float[Tensor, "B n m"],
        length: Int[Tensor, "B"],
    ) -> Float[Tensor, "B Q D"]:
        taken = memory[:, :1].masked_fill((length < self.dilation)[:, None, None], 0)
        return self._gated(parameters, inputs, taken)

    def _gated(self, parameters: Parameters, inputs: Tensor, taken: Tensor) -> Tensor:
        sums = F.linear(inputs, parameters["now"], parameters["bias"]) + taken
        value, gate = sums.chunk(2, -1)
        return torch.cat([inputs, value.tanh() * gate.sigmoid()], -1)


class AttentionBlock:
    """Soft attention with one head, appended to its input. Its memory is keys and values of the last `length` elements.

    Parameters: `weight` `[2 k + v, C]` and `bias` `[2 k + v]`, with the rows of queries, keys and values.

    >>> from metarl.nn.snail import AttentionBlock
    >>> block = AttentionBlock(inputs=5, keys=8, values=4, length=100)
    >>> parameters = block.initialize(torch.Generator())
    >>> outputs, memory = block.sequence(parameters, torch.zeros(3, 7, 5), None, torch.arange(7)[None])
    >>> outputs.shape
    torch.Size([3, 7, 9])
    """

    names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __init__(self, inputs: int, keys: int, values: int, length: int):
        self.inputs, self.keys, self.values, self.length = inputs, keys, values, length
        self.outputs = inputs + values

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        rows = 2 * self.keys + self.values
        return {"weight": weights(rows, self.inputs, generator), "bias": torch.zeros(rows, device=generator.device)}

    def initial(self, batch: int, like: Tensor) -> Float[Tensor, "B n m"]:
        return like.new_zeros(batch, self.length, self.keys + self.values)

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "B T C"],
        memory: Float[Tensor, "B n m"] | None,
        age: Int[Tensor, "#B T"],
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B n m"]]:
        queries, window = self._project(parameters, inputs)
        if memory is not None:
            window = torch.cat([memory, window], 1)
        keys, values = window.split([self.keys, self.values], -1)
        scores = (queries @ keys.mT).masked_fill(self._hidden(age, window.shape[1]), -math.inf)
        # If the window is longer than the memory, the padding is negative and drops the oldest elements.
        last = F.pad(window, (0, 0, self.length - window.shape[1], 0))
        return torch.cat([inputs, scores.softmax(-1) @ values], -1), last

    def peek(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "B Q C"],
        memory: Float[Tensor, "B n m"],
        length: Int[Tensor, "B"],
    ) -> Float[Tensor, "B Q D"]:
        queries, own = self._project(parameters, inputs)
        (own_keys, own_values), (keys, values) = (x.split([self.keys, self.values], -1) for x in (own, memory))
        back = torch.arange(self.length, 0, -1, device=length.device)  # how far each element lies behind the next one
        scores = (queries @ keys.mT).masked_fill((back > length[:, None])[:, None], -math.inf)
        itself = (queries * own_keys).sum(-1, keepdim=True)
        weights = torch.cat([scores, itself], -1).softmax(-1)
        return torch.cat([inputs, weights[..., :-1] @ values + weights[..., -1:] * own_values], -1)

    def _project(
        self, parameters: Parameters, inputs: Float[Tensor, "B n C"]
    ) -> tuple[Float[Tensor, "B n k"], Float[Tensor, "B n m"]]:
        """Queries, divided by √k already; keys and values side by side."""
        projected = F.linear(inputs, parameters["weight"], parameters["bias"])
        queries, rest = projected.split([self.keys, self.keys + self.values], -1)
        return queries / math.sqrt(self.keys), rest

    @staticmethod
    def _hidden(age: Int[Tensor, "#B T"], window: int) -> Bool[Tensor, "#B T W"]:
        """The elements of the window that the last T must not see: later ones, and those of other sequences."""
        place = torch.arange(window, device=age.device)
        back = place[-age.shape[1] :, None] - place
        return (back < 0) | (back > age[..., None])


class SNAILCore:
    """The blocks of SNAIL one after the other, for sequences of at most `length` inputs.

    `filters` is the number of filters of each dense block. `keys` is the size of the first attention's keys, twice the
    size of its values; both grow by `GROWTH`. The TC blocks see `reach` inputs including the current one (default:
    `length`). The parameters depend on `reach`, not on `length`; those of block n have n appended to their names.

    The state is the length of each sequence so far `[B]` and the memory of each block. `step`, `peek` and `sequence`
    raise `UsageError` if a sequence grows longer than `length`. Given a state, this check makes the host wait for the
    GPU.

    >>> from metarl.nn.snail import SNAILCore
    >>> core = SNAILCore(inputs=5, filters=16, keys=8, length=100)
    >>> parameters = core.initialize(torch.Generator().manual_seed(0))
    >>> outputs, state = core.sequence(parameters, torch.zeros(10, 3, 5))
    >>> output, state = core.step(parameters, torch.zeros(3, 5), state)
    """

    def __init__(self, inputs: int, filters: int, keys: int, length: int, reach: int | None = None):
        self.inputs, self.length = inputs, length
        self.blocks: list[Block] = [AttentionBlock(inputs, keys, keys // 2, length)]
        for growth in GROWTH[1:]:
            for level in range(math.ceil(math.log2(reach or length))):
                self.blocks.append(DenseBlock(self.blocks[-1].outputs, filters, 2**level))
            self.blocks.append(AttentionBlock(self.blocks[-1].outputs, growth * keys, growth * keys // 2, length))
        self.outputs = self.blocks[-1].outputs

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        parameters = {}
        for number, block in enumerate(self.blocks):
            for name, value in block.initialize(generator, weights).items():
                parameters[f"{name}{number}"] = value
        return parameters

    def initial(self, batch: int, like: Tensor) -> State:
        length = torch.zeros(batch, dtype=torch.long, device=like.device)
        return length, *(block.initial(batch, like) for block in self.blocks)

    def step(
        self, parameters: Parameters, inputs: Float[Tensor, "B I"], state: State
    ) -> tuple[Float[Tensor, "B O"], State]:
        outputs, state = self.sequence(parameters, inputs[None], state)
        return outputs[0], state

    def peek(self, parameters: Parameters, inputs: Float[Tensor, "B Q I"], state: State) -> Float[Tensor, "B Q O"]:
        length, *memories = state
        check_length("SNAIL", self.length, int(length.max()) + 1)
        hidden = inputs
        for number, (block, memory) in enumerate(zip(self.blocks, memories, strict=True)):
            hidden = block.peek(_own(block, number, parameters), hidden, memory, length)
        return hidden

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "T B I"],
        state: State | None = None,
        starts: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], State]:
        steps, batch = inputs.shape[:2]
        before = inputs.new_zeros(1, dtype=torch.long) if state is None else state[0]
        age = ages(steps, before, starts)
        if state is not None or steps > self.length:
            check_length("SNAIL", self.length, int(age.max()) + 1)
        hidden, memories = inputs.transpose(0, 1), []
        for number, block in enumerate(self.blocks):
            memory = None if state is None else state[1 + number]
            hidden, memory = block.sequence(_own(block, number, parameters), hidden, memory, age)
            memories.append(memory)
        return hidden.transpose(0, 1), ((age[:, -1] + 1).expand(batch), *memories)


def _own(block: Block, number: int, parameters: Parameters) -> Parameters:
    """The parameters of one block by its own names."""
    return {name: parameters[f"{name}{number}"] for name in block.names}

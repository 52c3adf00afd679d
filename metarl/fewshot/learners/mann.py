"""Memory-augmented neural network with least recently used access (Santoro et al., ICML 2016).

Each head emits a key k_t, a row a_t, a gate α_t and a strength β_t from the controller's h_t. w^r, w^w and w^u are the
weights of reading, writing and usage over the slots i of the memory M (sections 3.1 and 3.2):

    w^w_t = σ(α_t) w^r_{t−1} + (1 − σ(α_t)) w^lu_{t−1}         write to the slots last read, or to the least used
    M_t(i) = M_{t−1}(i) + Σ_heads w^w_t(i) a_t                  after emptying the least used slots
    w^r_t = softmax_i β_t cos(k_t, M_t(i)),   r_t = Σ_i w^r_t(i) M_t(i)
    w^u_t = γ w^u_{t−1} + Σ_heads (w^r_t + w^w_t)

w^lu_{t−1} marks the least used slots, as many as there are heads. The classifier sees [h_t, r_t]. A slot can store an
image and, one step later, when the slot has been read, the label of the image.

Deviations: in the paper the row a_t is the key k_t, so a head can only search for what it writes. Here the row only
starts as the key; if it does not, nothing is found again and labels are not learned within thousands of steps. The
strength β, which the paper's softmax lacks, is that of the Neural Turing Machine and starts at about 3. Each head has
its own least used slot; the paper's equation 6 marks all of them for all heads. No gradient flows through the usage.
The label's weights start larger, and each image is standardised separately (`MemoryLearner`). Adam replaces RMSProp.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metarl.errors import UsageError
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.memory import (
    MEMORY_START,
    Controller,
    ControllerKind,
    MemoryCell,
    MemoryConfig,
    MemoryLearner,
    cosine,
    split,
)

STRENGTH_START = 3.0
"""β = softplus(STRENGTH_START + …). With β = 1, reading would average all slots almost equally."""


@dataclass(frozen=True)
class MANNConfig(MemoryConfig):
    """Options of MANN.

    >>> from metarl.fewshot.learners.mann import MANNConfig
    >>> MANNConfig(slots=64).read_heads
    4
    """

    usage_decay: float = 0.99
    """Share of a slot's usage that remains after one step (γ)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.usage_decay <= 1:
            raise UsageError(f"usage_decay must lie in [0, 1], got {self.usage_decay}")


class LRUAState(NamedTuple):
    """The state of B sequences between steps.

    >>> from metarl.fewshot.learners.mann import LRUACell
    >>> cell = LRUACell("lstm", inputs=6, units=32, heads=2, slots=16, size=8, usage_decay=0.99)
    >>> cell.initial(3).memory.shape
    torch.Size([3, 16, 8])
    """

    hidden: Float[Tensor, "B H"]
    cell: Float[Tensor, "B H"]
    memory: Float[Tensor, "B M W"]
    reads: Float[Tensor, "B R W"]
    """r of each head."""
    weights: Float[Tensor, "B R M"]
    """w^r of each head."""
    usage: Float[Tensor, "B M"]
    """w^u."""


class LRUACell(MemoryCell):
    """A memory that reads by content and writes to the slots last read or to the least used.

    >>> from metarl.fewshot.learners.mann import LRUACell
    >>> cell = LRUACell("lstm", inputs=6, units=32, heads=2, slots=16, size=8, usage_decay=0.99)
    >>> outputs, state = cell(torch.zeros(5, 3, 6), cell.initial(3))
    >>> outputs.shape  # 32 units and 2 reads of size 8
    torch.Size([5, 3, 48])
    """

    def __init__(
        self, kind: ControllerKind, inputs: int, units: int, heads: int, slots: int, size: int, usage_decay: float
    ):
        super().__init__()
        self.heads, self.slots, self.size, self.usage_decay = heads, slots, size, usage_decay
        self.controller = Controller(kind, inputs, heads * size, units)
        self.sizes = (size, size, 1, 1)
        self.interface = nn.Linear(units, heads * sum(self.sizes))
        self.outputs = units + heads * size

    def initial(self, size: int) -> LRUAState:
        like = self.interface.weight
        memory = like.new_full((size, self.slots, self.size), MEMORY_START)
        return LRUAState(
            hidden=like.new_zeros(size, self.controller.units),
            cell=like.new_zeros(size, self.controller.units),
            memory=memory,
            reads=like.new_zeros(size, self.heads, self.size),
            weights=like.new_zeros(size, self.heads, self.slots),
            usage=like.new_zeros(size, self.slots),
        )

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """As for any cell; in addition, a head's row starts equal to its key, so that the head finds what it writes."""
        super().initialize(generator)
        for parameter in (self.interface.weight, self.interface.bias):
            keys, rows, *_ = parameter.unflatten(0, (self.heads, -1)).split(self.sizes, 1)
            rows.copy_(keys)

    def advance(self, inputs: Float[Tensor, "B G"], state: LRUAState) -> tuple[Float[Tensor, "B O"], LRUAState]:
        hidden, cell = self.controller(inputs, state.reads, state.hidden, state.cell)
        keys, written, gate, strength = split(self.interface(hidden), self.sizes, self.heads)
        keys, written, gate = keys.tanh(), written.tanh(), gate.sigmoid()
        strength = F.softplus(STRENGTH_START + strength)
        unused = least_used(state.usage, self.heads)
        writes = gate * state.weights + (1 - gate) * unused
        emptied = state.memory * (1 - unused.sum(1))[..., None]
        memory = torch.baddbmm(emptied, writes.mT, written)
        weights = (strength * cosine(keys, memory)).softmax(2)
        reads = weights @ memory
        usage = self.usage_decay * state.usage + (weights + writes).detach().sum(1)
        output = torch.cat([hidden, reads.flatten(1)], 1)
        return output, LRUAState(hidden, cell, memory, reads, weights, usage)


def least_used(usage: Float[Tensor, "B M"], count: int) -> Float[Tensor, "B R M"]:
    """w^lu with one row for each of `count` heads: the least used slot, the second least used and so on."""
    slots = usage.topk(count, dim=1, largest=False).indices
    return F.one_hot(slots, usage.shape[1]).to(usage.dtype)


class MANN(MemoryLearner):
    """The memory-augmented neural network as a few-shot learner. `adapt` depends on the order of the support set.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.mann import MANN, MANNConfig
    >>> learner = MANN(MANNConfig(slots=16), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = MANNConfig
    config: MANNConfig

    def make_cell(self, inputs: int) -> LRUACell:
        config = self.config
        return LRUACell(
            config.controller,
            inputs,
            config.controller_size,
            config.read_heads,
            config.slots,
            config.slot_size,
            config.usage_decay,
        )

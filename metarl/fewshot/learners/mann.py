"""Memory-augmented neural network with least recently used access (Santoro et al., ICML 2016).

Each head emits a key k_t, a row a_t, a gate α_t and a strength β_t from the controller's h_t. With w^r, w^w, w^u the
weights of reading, of writing and of usage over the slots i of the memory M (sections 3.1 and 3.2):

    w^w_t = σ(α_t) w^r_{t−1} + (1 − σ(α_t)) w^lu_{t−1}         write where it has read, or where least was used
    M_t(i) = M_{t−1}(i) + Σ_heads w^w_t(i) a_t                  after the least used slots have been emptied
    w^r_t = softmax_i β_t cos(k_t, M_t(i)),   r_t = Σ_i w^r_t(i) M_t(i)
    w^u_t = γ w^u_{t−1} + Σ_heads (w^r_t + w^w_t)

w^lu_{t−1} marks the slots of least usage, as many as there are heads. The classifier sees [h_t, r_t]. A slot can be
filled by an image and, a step later, where it has been read, by its label.

Deviations: the row a_t is the key k_t in the paper, where a head can look for nothing but what it writes; here it only
starts as the key, without which nothing is found again and labels are not learned within thousands of steps. The
strength β, which the paper's softmax lacks, is that of the Neural Turing Machine and starts at about 3; each head has
one of the least used slots to itself, where the paper's equation 6 marks all of them for all heads; no gradient goes
through the usage; the label's weights start larger and images are standardised one by one (`MemoryLearner`); Adam takes
the place of RMSProp.
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
"""β = softplus(STRENGTH_START + …): with β = 1, reading takes almost the same of every slot."""


@dataclass(frozen=True)
class MANNConfig(MemoryConfig):
    """Options of MANN.

    >>> from metarl.fewshot.learners.mann import MANNConfig
    >>> MANNConfig(slots=64).read_heads
    4
    """

    usage_decay: float = 0.99
    """How much of a slot's usage is left a step later (γ)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.usage_decay <= 1:
            raise UsageError(f"usage_decay must lie in [0, 1], got {self.usage_decay}")


class LRUAState(NamedTuple):
    """What B sequences carry from step to step.

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
    """Reads by content, writes to where it has read or to what was used least.

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
        """As any cell's; besides, a head's row starts equal to its key, so that what it writes it finds again."""
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
    """w^lu as one row for each of `count` heads: the least used slot, the second least used and so on."""
    slots = usage.topk(count, dim=1, largest=False).indices
    return F.one_hot(slots, usage.shape[1]).to(usage.dtype)


class MANN(MemoryLearner):
    """Memory-augmented neural network.

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

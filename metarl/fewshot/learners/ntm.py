"""Neural Turing Machine (Graves, Wayne, Danihelka 2014): a controller with heads that move over a memory.

The controller's h_t determines a key k, a strength β, a gate g, a shift s and a sharpness γ of each head. They
determine the head's weights w over the slots i of the memory M (section 3.3, equations 5 to 9):

    w^c = softmax_i β cos(k, M(i))            address by content
    w^g = g w^c + (1 − g) w_{t−1}             or keep the last position
    w̃(i) = Σ_j w^g(i − j) s(j)                shift by at most one slot, cyclically
    w(i) = w̃(i)^γ / Σ_j w̃(j)^γ               sharpen

One head writes, M_t(i) = M_{t−1}(i) (1 − w(i) e) + w(i) a (equations 3 and 4). Then the others read
r_t = Σ_i w(i) M_t(i) (equation 2). The output is a linear function of [h_t, r_t].

Deviations: M_0 is a small constant (Collier and Beel 2018), heads start at slot 0, and r_0 = 0; the paper learns biases
for these. As a few-shot learner it reads the same sequences as MANN, as in Santoro et al. (2016).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

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

SHIFTS = 3
"""A head moves by −1, 0 or 1 slots."""
TINY = 1e-12
"""Smallest weight before sharpening, so that the logarithm in the gradient of the power stays finite."""


@dataclass(frozen=True)
class NTMConfig(MemoryConfig):
    """Options of the Neural Turing Machine.

    >>> from metarl.fewshot.learners.ntm import NTMConfig
    >>> NTMConfig(slots=64).slot_size
    40
    """


class NTMState(NamedTuple):
    """The state of B sequences between steps.

    >>> from metarl.fewshot.learners.ntm import NTMCell
    >>> cell = NTMCell("lstm", inputs=6, units=32, heads=2, slots=16, size=8)
    >>> cell.initial(3).read_weights.shape
    torch.Size([3, 2, 16])
    """

    hidden: Float[Tensor, "B H"]
    cell: Float[Tensor, "B H"]
    memory: Float[Tensor, "B M W"]
    reads: Float[Tensor, "B R W"]
    """r of each read head."""
    write_weights: Float[Tensor, "B 1 M"]
    read_weights: Float[Tensor, "B R M"]


class NTMCell(MemoryCell):
    """The Neural Turing Machine's cell, with one write head and `heads` read heads.

    >>> from metarl.fewshot.learners.ntm import NTMCell
    >>> cell = NTMCell("lstm", inputs=6, units=32, heads=2, slots=16, size=8)
    >>> outputs, state = cell(torch.zeros(5, 3, 6), cell.initial(3))
    >>> outputs.shape  # 32 units and 2 reads of size 8
    torch.Size([5, 3, 48])
    """

    def __init__(self, kind: ControllerKind, inputs: int, units: int, heads: int, slots: int, size: int):
        super().__init__()
        self.heads, self.slots, self.size = heads, slots, size
        self.controller = Controller(kind, inputs, heads * size, units)
        self.addresses = (size, 1, 1, SHIFTS, 1)
        self.write = nn.Linear(units, sum(self.addresses) + 2 * size)
        self.read = nn.Linear(units, heads * sum(self.addresses))
        self.outputs = units + heads * size

    def initial(self, size: int) -> NTMState:
        like = self.write.weight
        start = like.new_zeros(size, 1 + self.heads, self.slots)
        start[..., 0] = 1.0
        return NTMState(
            hidden=like.new_zeros(size, self.controller.units),
            cell=like.new_zeros(size, self.controller.units),
            memory=like.new_full((size, self.slots, self.size), MEMORY_START),
            reads=like.new_zeros(size, self.heads, self.size),
            write_weights=start[:, :1],
            read_weights=start[:, 1:],
        )

    def advance(self, inputs: Float[Tensor, "B G"], state: NTMState) -> tuple[Float[Tensor, "B O"], NTMState]:
        hidden, cell = self.controller(inputs, state.reads, state.hidden, state.cell)
        *address, erase, add = split(self.write(hidden), (*self.addresses, self.size, self.size), 1)
        write_weights = self._address(address, state.memory, state.write_weights)
        kept = 1 - write_weights.mT * erase.sigmoid()
        memory = torch.addcmul(write_weights.mT * add, state.memory, kept)
        address = split(self.read(hidden), self.addresses, self.heads)
        read_weights = self._address(address, memory, state.read_weights)
        reads = read_weights @ memory
        output = torch.cat([hidden, reads.flatten(1)], 1)
        return output, NTMState(hidden, cell, memory, reads, write_weights, read_weights)

    def _address(
        self, parameters: list[Float[Tensor, "B R _"]], memory: Float[Tensor, "B M W"], before: Float[Tensor, "B R M"]
    ) -> Float[Tensor, "B R M"]:
        """The weights of heads, with the ranges of section 3.3: β > 0, g in (0, 1), s a distribution, γ ≥ 1."""
        keys, strength, gate, shift, sharpness = parameters
        by_content = (F.softplus(strength) * cosine(keys, memory)).softmax(2)
        weights = torch.lerp(before, by_content, gate.sigmoid())
        shift = shift.softmax(2)
        weights = weights.roll(-1, 2) * shift[..., :1] + weights * shift[..., 1:2] + weights.roll(1, 2) * shift[..., 2:]
        weights = weights.clamp_min(TINY) ** (1 + F.softplus(sharpness))
        return weights / weights.sum(2, keepdim=True)


class NTM(MemoryLearner):
    """The Neural Turing Machine as a few-shot learner. `adapt` depends on the order of the support set.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.ntm import NTM, NTMConfig
    >>> learner = NTM(NTMConfig(slots=16), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = NTMConfig
    config: NTMConfig

    def make_cell(self, inputs: int) -> NTMCell:
        config = self.config
        return NTMCell(
            config.controller, inputs, config.controller_size, config.read_heads, config.slots, config.slot_size
        )

"""SNAIL (Mishra, Rohaninejad, Chen, Abbeel, ICLR 2018): temporal convolutions and attention over one sequence.

The sequence is the support set, pairs [x_i, y_i], and then one query [x, 0], whose features at the end give the scores.
Section 3 and figure 2, each block appending what it computes to its input:

    dense block    tanh(F) ⊙ σ(G),  F and G convolutions of this element and the one `dilation` before it
    TC block       dense blocks of dilation 1, 2, 4, …, as many as it takes to see the whole sequence
    attention      softmax(Q Kᵀ / √k) V, over this element and earlier ones alone

in the order attention, TC, attention, TC, attention, linear (appendix A). All is causal, so the support set is read
once, without queries, and every query is the end of a sequence of its own, at the price of one element: the result is
that of E·Q whole sequences. It depends on the order of the support set, of which training shows random ones.

Deviations: `filters` and `keys` are smaller by default than the paper's 128 and 64, to be affordable on a CPU core; the
dilations follow the paper's figure, as its pseudo-code, which begins at 2, would never join neighbours.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.errors import UsageError
from metarl.fewshot.episodes import TaskSpec
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.mapping import MappingConfig, MappingLearner, fan_in_uniform
from metarl.fewshot.parameter_names import part, with_prefix
from metarl.tasks import check_count


@dataclass(frozen=True)
class SNAILConfig(MappingConfig):
    """Options of SNAIL."""

    filters: int = 64
    """Filters of each dense block; 128 in the paper."""
    keys: int = 32
    """Size of the first attention's keys, twice its values'; it grows fourfold, then twofold. 64 in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("filters", self.filters)
        if self.keys < 2:
            raise UsageError(f"keys must be at least 2, got {self.keys}")


class Block(Protocol):
    """A causal function of sequences."""

    outputs: int
    """Size of an element that comes out."""

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Its parameters."""

    def sequence(self, parameters: Parameters, inputs: Float[Tensor, "E S C"]) -> Float[Tensor, "E S D"]:
        """All elements of whole sequences."""

    def last(
        self, parameters: Parameters, past: Float[Tensor, "E S C"], inputs: Float[Tensor, "E Q C"]
    ) -> Float[Tensor, "E Q D"]:
        """What `sequence` has at the end of `past` followed by each of the Q `inputs` alone."""


class DenseBlock:
    """Gated convolution of width 2."""

    def __init__(self, inputs: int, filters: int, dilation: int):
        self.inputs, self.filters, self.dilation = inputs, filters, dilation
        self.outputs = inputs + filters

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Rows of `now` and `earlier`: first F's, then G's."""
        both = fan_in_uniform(2 * self.filters, 2 * self.inputs, generator)
        now, earlier = (part.contiguous() for part in both.chunk(2, 1))
        return {"now": now, "earlier": earlier, "bias": torch.zeros(2 * self.filters, device=generator.device)}

    def sequence(self, parameters: Parameters, inputs: Float[Tensor, "E S C"]) -> Float[Tensor, "E S D"]:
        earlier = F.pad(inputs, (0, 0, self.dilation, 0))[:, : inputs.shape[1]]
        return self._gated(parameters, inputs, earlier)

    def last(
        self, parameters: Parameters, past: Float[Tensor, "E S C"], inputs: Float[Tensor, "E Q C"]
    ) -> Float[Tensor, "E Q D"]:
        place = past.shape[1] - self.dilation
        earlier = past[:, place, None] if place >= 0 else past.new_zeros(len(past), 1, self.inputs)
        return self._gated(parameters, inputs, earlier)

    def _gated(self, parameters: Parameters, inputs: Tensor, earlier: Tensor) -> Tensor:
        sums = F.linear(inputs, parameters["now"], parameters["bias"]) + F.linear(earlier, parameters["earlier"])
        value, gate = sums.chunk(2, -1)
        return torch.cat([inputs, value.tanh() * gate.sigmoid()], -1)


class AttentionBlock:
    """Soft attention with one head."""

    def __init__(self, inputs: int, keys: int, values: int):
        self.inputs, self.keys, self.values = inputs, keys, values
        self.outputs = inputs + values

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Rows: queries, keys, values."""
        rows = 2 * self.keys + self.values
        return {
            "weight": fan_in_uniform(rows, self.inputs, generator),
            "bias": torch.zeros(rows, device=generator.device),
        }

    def sequence(self, parameters: Parameters, inputs: Float[Tensor, "E S C"]) -> Float[Tensor, "E S D"]:
        queries, keys, values = self._project(parameters, inputs)
        later = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool, device=inputs.device).triu(1)
        weights = (queries @ keys.mT).masked_fill(later, -math.inf).softmax(-1)
        return torch.cat([inputs, weights @ values], -1)

    def last(
        self, parameters: Parameters, past: Float[Tensor, "E S C"], inputs: Float[Tensor, "E Q C"]
    ) -> Float[Tensor, "E Q D"]:
        queries, keys, values = self._project(parameters, inputs)
        _, past_keys, past_values = self._project(parameters, past)
        itself = (queries * keys).sum(-1, keepdim=True)
        weights = torch.cat([queries @ past_keys.mT, itself], -1).softmax(-1)
        return torch.cat([inputs, weights[..., :-1] @ past_values + weights[..., -1:] * values], -1)

    def _project(self, parameters: Parameters, inputs: Tensor) -> tuple[Tensor, ...]:
        """Queries, divided by √k already, keys and values."""
        projected = F.linear(inputs, parameters["weight"], parameters["bias"])
        queries, keys, values = projected.split([self.keys, self.keys, self.values], -1)
        return queries / math.sqrt(self.keys), keys, values


class SNAIL(MappingLearner):
    """A Simple Neural AttentIve Learner."""

    config_class: ClassVar[type[LearnerConfig]] = SNAILConfig
    config: SNAILConfig

    @classmethod
    def default_config(cls, spec: TaskSpec) -> SNAILConfig:
        if spec.kind == "regression":
            return SNAILConfig(iterations=10_000, num_tasks=64, halve_every=2500, train_queries=20)
        return SNAILConfig(iterations=4000, num_tasks=16, halve_every=1500, train_queries=5)

    def map_parameters(self, generator: torch.Generator) -> Parameters:
        shape, keys = self.spec.shape, self.config.keys
        length = shape.ways * shape.shots + 1
        self.blocks: list[Block] = [AttentionBlock(self.features + self.targets, keys, keys // 2)]
        for growth in (4, 8):
            for level in range(math.ceil(math.log2(length))):
                self.blocks.append(DenseBlock(self.blocks[-1].outputs, self.config.filters, 2**level))
            self.blocks.append(AttentionBlock(self.blocks[-1].outputs, growth * keys, growth * keys // 2))
        size = self.blocks[-1].outputs
        parameters = {
            "weight": fan_in_uniform(self.targets, size, generator),
            "bias": torch.zeros(self.targets, device=generator.device),
        }
        for number, block in enumerate(self.blocks):
            parameters |= with_prefix(f"{number}.", block.initialize(generator))
        return parameters

    def read(self, x: Float[Tensor, "E S F"], y: Float[Tensor, "E S T"]) -> list[Float[Tensor, "E S _"]]:
        """What every block is given of the support set."""
        sequences = [torch.cat([x, y], 2)]
        for number, block in enumerate(self.blocks[:-1]):
            sequences.append(block.sequence(part(f"{number}.", self.map), sequences[-1]))
        return sequences

    def answer(self, memory: list[Float[Tensor, "E S _"]], x: Float[Tensor, "E Q F"]) -> Float[Tensor, "E Q O"]:
        hidden = torch.cat([x, x.new_zeros(*x.shape[:2], self.targets)], 2)
        for number, (block, past) in enumerate(zip(self.blocks, memory, strict=True)):
            hidden = block.last(part(f"{number}.", self.map), past, hidden)
        return F.linear(hidden, self.map["weight"], self.map["bias"])

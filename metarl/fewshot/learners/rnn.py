"""A recurrent network that learns to learn (Hochreiter, Younger, Conwell, ICANN 2001; the LSTM of Santoro et al. 2016).

It reads the support set one pair (x, y) after the other, then a query whose label is blank, and answers:

    s_0 = 0,   s_i = cell(s_{i−1}, [x_i, y_i]),   prediction = W cell(s_S, [x, 0]) + b

Every query is read from the same state s_S, so that none sees another. What is learned depends on the order of the
support set: training shows random orders, which teaches the network to mind it little, but nothing makes it ignore it.
`cell` is an LSTM (Hochreiter and Schmidhuber 1997, with a forget gate) or a GRU (Cho et al. 2014), equations as PyTorch
has them.

Deviation: Santoro et al. present a query's label with the next input; here it comes with its own.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.fewshot.episodes import TaskSpec
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.mapping import MappingConfig, MappingLearner, fan_in_uniform
from metarl.tasks import check_count

GATES = {"lstm": 4, "gru": 3}

State = tuple[Float[Tensor, "E _ U"], Float[Tensor, "E _ U"]]
"""Output h and memory c of one cell, or of one for each query; in a GRU both are h."""


@dataclass(frozen=True)
class RNNConfig(MappingConfig):
    """Options of the recurrent mapping model."""

    cell: Literal["lstm", "gru"] = "lstm"
    """Kind of recurrent cell."""
    units: int = 256
    """Units of the cell."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("units", self.units)


class RecurrentMapping(MappingLearner):
    """One layer of LSTM or GRU."""

    config_class: ClassVar[type[LearnerConfig]] = RNNConfig
    config: RNNConfig

    @classmethod
    def default_config(cls, spec: TaskSpec) -> RNNConfig:
        if spec.kind == "regression":
            return RNNConfig(iterations=20_000, num_tasks=64, halve_every=5000, train_queries=20)
        return RNNConfig(
            iterations=4000, num_tasks=16, learning_rate=2e-3, halve_every=1500, train_queries=5, readings=8
        )

    def map_parameters(self, generator: torch.Generator) -> Parameters:
        """Uniform in ±1/√inputs of each layer; the LSTM's forget gates are open at first (Jozefowicz et al. 2015)."""
        units, rows = self.config.units, GATES[self.config.cell] * self.config.units
        bias = torch.zeros(rows, device=generator.device)
        if self.config.cell == "lstm":
            bias[units : 2 * units] = 1
        return {
            "input": fan_in_uniform(rows, self.features + self.targets, generator),
            "recurrent": fan_in_uniform(rows, units, generator),
            "bias": bias,
            "recurrent_bias": torch.zeros(rows, device=generator.device),
            "weight": fan_in_uniform(self.targets, units, generator),
            "output": torch.zeros(self.targets, device=generator.device),
        }

    def read(self, x: Float[Tensor, "E S F"], y: Float[Tensor, "E S T"]) -> State:
        """The state after the last pair, `[E, 1, U]`."""
        inputs = F.linear(torch.cat([x, y], 2), self.map["input"], self.map["bias"])
        h = c = inputs.new_zeros(len(x), 1, self.config.units)
        for step in range(inputs.shape[1]):
            h, c = self._step(inputs[:, step, None], (h, c))
        return h, c

    def answer(self, memory: State, x: Float[Tensor, "E Q F"]) -> Float[Tensor, "E Q O"]:
        blank = x.new_zeros(*x.shape[:2], self.targets)
        inputs = F.linear(torch.cat([x, blank], 2), self.map["input"], self.map["bias"])
        h, _ = self._step(inputs, memory)
        return F.linear(h, self.map["weight"], self.map["output"])

    def _step(self, inputs: Float[Tensor, "E n G"], state: State) -> State:
        """One step of the cell; `inputs` are its gates' share of the input."""
        h, c = state
        recurrent = F.linear(h, self.map["recurrent"], self.map["recurrent_bias"])
        if self.config.cell == "lstm":
            enter, forget, cell, leave = (inputs + recurrent).chunk(4, -1)
            c = forget.sigmoid() * c + enter.sigmoid() * cell.tanh()
            return leave.sigmoid() * c.tanh(), c
        (reset, update, new), (reset_h, update_h, new_h) = inputs.chunk(3, -1), recurrent.chunk(3, -1)
        new = (new + (reset + reset_h).sigmoid() * new_h).tanh()
        h = torch.lerp(new, h, (update + update_h).sigmoid())
        return h, h

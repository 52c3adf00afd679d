"""LSTMs that feed back something other than their own output.

The LSTM `name` has the parameters `NAME.input` `[4 H, D]`, `NAME.recurrent` `[4 H, R]` and `NAME.bias` `[4 H]`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.nn.recurrent import lstm_cell


def lstm_step(
    parameters: Parameters,
    name: str,
    x: Float[Tensor, "... D"],
    hidden: Float[Tensor, "... R"],
    cell: Float[Tensor, "... H"],
) -> tuple[Float[Tensor, "... H"], Float[Tensor, "... H"]]:
    """(h, c) of the LSTM `name` after the input `x`, given its feedback (`hidden`) and c."""
    sums = F.linear(x, parameters[f"{name}.input"], parameters[f"{name}.bias"])
    return lstm_cell(sums + F.linear(hidden, parameters[f"{name}.recurrent"]), cell)


def initial_lstm(name: str, inputs: int, units: int, recurrent: int, generator: torch.Generator) -> Parameters:
    """Parameters of an LSTM with `recurrent` numbers of feedback: uniform in ±1/√units as in torch, zero biases."""

    def uniform(columns: int) -> Tensor:
        return (2 * torch.rand(4 * units, columns, generator=generator) - 1) * units**-0.5

    return {
        f"{name}.input": uniform(inputs),
        f"{name}.recurrent": uniform(recurrent),
        f"{name}.bias": torch.zeros(4 * units),
    }

"""GRU and LSTM as sequence cores, with PyTorch's equations.

`step` and `peek` are written out here. `sequence` calls torch's own kernels: cuDNN on a GPU, and a loop over the steps
in C++ on a CPU, for which the GRU has a faster one (`metarl.nn.gru_kernel`).
"""

import abc
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.nn.gru_kernel import GRUSequence
from metarl.nn.sequence import State, WeightInit, fan_in_uniform


class RecurrentCore(abc.ABC):
    """The common part of GRU and LSTM. State and output have `units` numbers.

    Parameters: `input` `[G, I]`, `recurrent` `[G, H]`, `bias` and `recurrent_bias` `[G]`. The G rows hold one block of
    H units for each gate.

    >>> from metarl.nn.recurrent import GRU, RecurrentCore
    >>> isinstance(GRU(inputs=5, units=16), RecurrentCore)
    True
    """

    gates: ClassVar[int]
    """Blocks of rows in each matrix."""
    memories: ClassVar[int]
    """Tensors `[B, H]` in the state. The first one is the output."""
    kernel: ClassVar[Callable[..., tuple[Tensor, ...]]]
    """Torch's loop over the steps."""

    def __init__(self, inputs: int, units: int):
        self.inputs, self.outputs = inputs, units

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        """Matrices by `weights`, one draw for each gate, and zero biases."""
        rows = self.gates * self.outputs
        return {
            "input": torch.cat([weights(self.outputs, self.inputs, generator) for _ in range(self.gates)]),
            "recurrent": torch.cat([weights(self.outputs, self.outputs, generator) for _ in range(self.gates)]),
            "bias": torch.zeros(rows, device=generator.device),
            "recurrent_bias": torch.zeros(rows, device=generator.device),
        }

    def initial(self, batch: int, like: Tensor) -> State:
        return tuple(like.new_zeros(batch, self.outputs) for _ in range(self.memories))

    def step(
        self, parameters: Parameters, inputs: Float[Tensor, "B I"], state: State
    ) -> tuple[Float[Tensor, "B O"], State]:
        state = self._next(parameters, F.linear(inputs, parameters["input"], parameters["bias"]), *state)
        return state[0], state

    def peek(self, parameters: Parameters, inputs: Float[Tensor, "B Q I"], state: State) -> Float[Tensor, "B Q O"]:
        sums = F.linear(inputs, parameters["input"], parameters["bias"])
        return self._next(parameters, sums, *(memory[:, None] for memory in state))[0]

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "T B I"],
        state: State | None = None,
        starts: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], State]:
        state = state or self.initial(inputs.shape[1], inputs)
        if starts is None:
            return self._run(parameters, inputs, state)
        # The kernel cannot blank memory, so it runs from one time at which any sequence starts to the next.
        begins = sorted({0, *starts.any(1).nonzero()[:, 0].tolist()})
        lengths = [end - begin for begin, end in zip(begins, [*begins[1:], len(inputs)], strict=True)]
        outputs = []
        for stretch, start in zip(inputs.split(lengths), starts[begins], strict=True):
            blank = tuple(memory.masked_fill(start[:, None], 0) for memory in state)
            answers, state = self._run(parameters, stretch, blank)
            outputs.append(answers)
        return torch.cat(outputs), state

    @abc.abstractmethod
    def _next(self, parameters: Parameters, sums: Float[Tensor, "*n G"], *state: Float[Tensor, "..."]) -> State:
        """The next state; `sums` is W x + b, the contribution of the input to every gate."""

    def _run(
        self, parameters: Parameters, inputs: Float[Tensor, "T B I"], state: State
    ) -> tuple[Float[Tensor, "T B O"], State]:
        """The outputs and the last state, by torch's kernel."""
        weights = [parameters[name] for name in ("input", "recurrent", "bias", "recurrent_bias")]
        hidden: Any = [memory[None] for memory in state]  # a layer each
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
            outputs, *last = type(self).kernel(
                inputs,
                hidden if self.memories > 1 else hidden[0],
                weights,
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=torch.is_grad_enabled(),
                bidirectional=False,
                batch_first=False,
            )
        return outputs, tuple(memory[0] for memory in last)


class GRU(RecurrentCore):
    """A gated recurrent unit (Cho et al. 2014).

        r, z = σ(W x + b + U h + c)   n = tanh(W x + b + r ⊙ (U h + c))   h' = (1 − z) n + z h

    W is `input`, U `recurrent`, b `bias`, c `recurrent_bias`, with rows in order r, z, n; the state is (h,).

    >>> from metarl.nn.recurrent import GRU
    >>> core = GRU(inputs=5, units=16)
    >>> outputs, (hidden,) = core.sequence(core.initialize(torch.Generator()), torch.zeros(10, 3, 5))
    >>> outputs.shape
    torch.Size([10, 3, 16])
    """

    gates, memories, kernel = 3, 1, torch.gru

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "T B I"],
        state: State | None = None,
        starts: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], State]:
        if inputs.device.type != "cpu":
            return super().sequence(parameters, inputs, state, starts)
        (hidden,) = state or self.initial(inputs.shape[1], inputs)
        weights = (parameters[name] for name in ("input", "recurrent", "bias", "recurrent_bias"))
        outputs = GRUSequence.apply(inputs, hidden, *weights, starts)
        return outputs, (outputs[-1],)

    def _next(self, parameters: Parameters, sums: Float[Tensor, "*n G"], *state: Float[Tensor, "..."]) -> State:
        (hidden,) = state
        recurrent = F.linear(hidden, parameters["recurrent"], parameters["recurrent_bias"])
        units = self.outputs
        reset, update = (sums[..., : 2 * units] + recurrent[..., : 2 * units]).sigmoid().chunk(2, -1)
        new = torch.addcmul(sums[..., 2 * units :], reset, recurrent[..., 2 * units :]).tanh()
        return (torch.lerp(new, hidden, update),)


class LSTM(RecurrentCore):
    """A long short-term memory (Hochreiter and Schmidhuber 1997) with a forget gate (Gers et al. 2000).

    The equations are those of `lstm_cell` with sums W x + b + U h + c. W is `input`, U `recurrent`, b `bias`, c
    `recurrent_bias`, with rows in order i, f, g, o; the state is (h, c).

    >>> from metarl.nn.recurrent import LSTM
    >>> core = LSTM(inputs=5, units=16)
    >>> outputs, (hidden, cell) = core.sequence(core.initialize(torch.Generator()), torch.zeros(10, 3, 5))
    >>> outputs.shape
    torch.Size([10, 3, 16])
    """

    gates, memories, kernel = 4, 2, torch.lstm

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        """As for any recurrent core, but the forget gates start open (bias 1; Jozefowicz et al. 2015)."""
        parameters = super().initialize(generator, weights)
        parameters["bias"][self.outputs : 2 * self.outputs] = 1
        return parameters

    def _next(self, parameters: Parameters, sums: Float[Tensor, "*n G"], *state: Float[Tensor, "..."]) -> State:
        hidden, cell = state
        return lstm_cell(sums + F.linear(hidden, parameters["recurrent"], parameters["recurrent_bias"]), cell)


def lstm_cell(
    sums: Float[Tensor, "*n G"], cell: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "*n H"], Float[Tensor, "*n H"]]:
    """(h', c') of an LSTM with any feedback; `sums` holds the input of each gate, in the order i, f, g, o.

        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)   h' = σ(o) ⊙ tanh c'

    `cell` is c, broadcastable to `[*n, H]`; G = 4 H.
    """
    units = cell.shape[-1]
    opening, new, show = sums.split([2 * units, units, units], -1)
    take, keep = opening.sigmoid().chunk(2, -1)
    cell = keep * cell + take * new.tanh()
    return show.sigmoid() * cell.tanh(), cell

"""The copy task (Graves et al. 2014, section 4.1): read a sequence of random 8-bit vectors, then output it from memory.

A sequence of L vectors takes 2 L + 2 steps: a start marker, the vectors, an end marker, and L steps without input in
which the network outputs the vectors. Two networks learn from the same sequences, a Neural Turing Machine and an LSTM
with at least as many parameters. The cost of a vector is Σ over its bits of −log₂ p(bit).

Deviations: batches of sequences of one length and Adam; the paper has single sequences and RMSProp with momentum. The
LSTM has one layer of 256 units; the paper's has three.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metarl.errors import UsageError
from metarl.fewshot.learners.memory import ControllerKind, initialize
from metarl.fewshot.learners.ntm import NTMCell
from metarl.randomness import make_generator
from metarl.tasks import check_count

BITS = 8
INPUTS = BITS + 2
"""The bits and a channel for each marker."""


@dataclass(frozen=True)
class CopyConfig:
    """One comparison on the copy task.

    >>> from metarl.fewshot.copy_task import CopyConfig
    >>> CopyConfig(updates=100).test_lengths
    (40,)
    """

    updates: int = 10_000
    """Training steps of either network."""
    batch: int = 16
    """Sequences per step, all of one length."""
    max_length: int = 20
    """Most vectors in a training sequence; the fewest is 1."""
    test_lengths: tuple[int, ...] = (40,)
    """Lengths of longer test sequences, which training never shows."""
    test_sequences: int = 200
    """Test sequences of each length."""
    learning_rate: float = 1e-3
    """Adam's step size at first; it falls linearly to a tenth."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    controller: ControllerKind = "feed-forward"
    """Controller of the Neural Turing Machine."""
    controller_size: int = 100
    """Units of the controller."""
    slots: int = 128
    """Rows of the memory."""
    slot_size: int = 20
    """Numbers in each row."""
    lstm_size: int = 256
    """Units of the LSTM."""
    seed: int = 0
    """All randomness comes from it."""

    def __post_init__(self) -> None:
        sizes = ("updates", "batch", "max_length", "test_sequences", "controller_size", "slots", "slot_size")
        for name in (*sizes, "lstm_size"):
            check_count(name, getattr(self, name))
        for length in self.test_lengths:
            check_count("test_lengths", length)
        if not (self.learning_rate > 0 and self.clip > 0):
            raise UsageError(f"learning_rate and clip must be positive, got {self.learning_rate} and {self.clip}")


class NTMCopier(nn.Module):
    """A Neural Turing Machine with one read head.

    >>> from metarl.fewshot.copy_task import INPUTS, CopyConfig, NTMCopier
    >>> network = NTMCopier(CopyConfig(slots=16), torch.Generator())
    >>> network(torch.zeros(6, 3, INPUTS)).shape
    torch.Size([6, 3, 8])
    """

    def __init__(self, config: CopyConfig, generator: torch.Generator):
        super().__init__()
        self.cell = NTMCell(
            config.controller, INPUTS, config.controller_size, heads=1, slots=config.slots, size=config.slot_size
        )
        self.readout = nn.Linear(self.cell.outputs, BITS)
        self.cell.initialize(generator)
        initialize(self.readout, generator)

    def forward(self, inputs: Float[Tensor, "T B I"]) -> Float[Tensor, "T B 8"]:
        outputs, _ = self.cell(inputs, self.cell.initial(inputs.shape[1]))
        return self.readout(outputs)


class LSTMCopier(nn.Module):
    """An LSTM.

    >>> from metarl.fewshot.copy_task import INPUTS, CopyConfig, LSTMCopier
    >>> network = LSTMCopier(CopyConfig(), torch.Generator())
    >>> network(torch.zeros(6, 3, INPUTS)).shape
    torch.Size([6, 3, 8])
    """

    def __init__(self, config: CopyConfig, generator: torch.Generator):
        super().__init__()
        self.lstm = nn.LSTM(INPUTS, config.lstm_size)
        self.readout = nn.Linear(config.lstm_size, BITS)
        initialize(self, generator)
        with torch.no_grad():
            dict(self.lstm.named_parameters())["bias_ih_l0"][config.lstm_size : 2 * config.lstm_size] = 1.0  # remember

    def forward(self, inputs: Float[Tensor, "T B I"]) -> Float[Tensor, "T B 8"]:
        return self.readout(self.lstm(inputs)[0])


def draw(batch: int, length: int, generator: torch.Generator) -> tuple[Float[Tensor, "T B 10"], Float[Tensor, "L B 8"]]:
    """Draws inputs of T = 2 L + 2 steps, and the target vectors of the last L steps."""
    vectors = torch.randint(2, (length, batch, BITS), generator=generator).float()
    inputs = torch.zeros(2 * length + 2, batch, INPUTS)
    inputs[0, :, BITS] = 1.0
    inputs[1 : length + 1, :, :BITS] = vectors
    inputs[length + 1, :, BITS + 1] = 1.0
    return inputs, vectors


def bits_per_vector(network: nn.Module, inputs: Tensor, vectors: Float[Tensor, "L B 8"]) -> Float[Tensor, ""]:
    """The mean cost of a vector: 8 bits for guessing, 0 for a perfect copy."""
    logits = network(inputs)[-len(vectors) :]
    nats = F.binary_cross_entropy_with_logits(logits, vectors, reduction="sum")
    return nats / math.log(2) / (vectors.shape[0] * vectors.shape[1])


def train(
    network: nn.Module, config: CopyConfig, report: Callable[[int, float], None] = lambda step, bits: None
) -> list[float]:
    """Trains on sequences that depend on the seed only; returns the bits per vector of each step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    bits = []
    for step in range(config.updates):
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - 0.9 * step / config.updates)
        generator = make_generator("copy", config.seed, step)
        length = int(torch.randint(1, config.max_length + 1, (), generator=generator))
        loss = bits_per_vector(network, *draw(config.batch, length, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        bits.append(float(loss.detach()))
        report(step + 1, bits[-1])
    return bits


@torch.no_grad()
def measure(network: nn.Module, lengths: Sequence[int], sequences: int, seed: int) -> dict[int, float]:
    """Bits per vector at each length, on new sequences."""
    return {
        length: float(bits_per_vector(network, *draw(sequences, length, make_generator("copy test", seed, length))))
        for length in lengths
    }


def run_copy_task(
    config: CopyConfig, report: Callable[[float, str, int, float], None] = lambda done, name, step, bits: None
) -> dict[str, dict[str, Any]]:
    """Trains and tests both networks; returns the results by name.

    `report` is called with the share of all work done, the name of the network, its step and its bits per vector.
    """
    networks: dict[str, nn.Module] = {
        "ntm": NTMCopier(config, make_generator("copy", "ntm", config.seed)),
        "lstm": LSTMCopier(config, make_generator("copy", "lstm", config.seed)),
    }
    lengths = [*range(1, config.max_length + 1), *config.test_lengths]
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    if sizes["lstm"] < sizes["ntm"]:
        raise UsageError(f"the LSTM has {sizes['lstm']:,} parameters, the NTM {sizes['ntm']:,}: raise --lstm-size")
    results = {}
    for number, (name, network) in enumerate(networks.items()):

        def heard(step: int, bits: float, before: int = number, name: str = name) -> None:
            report((before + step / config.updates) / len(networks), name, step, bits)

        began = time.perf_counter()
        train(network, config, heard)
        results[name] = {
            "parameters": sizes[name],
            "training_seconds": time.perf_counter() - began,
            "bits_per_vector": measure(network, lengths, config.test_sequences, config.seed),
        }
    return results

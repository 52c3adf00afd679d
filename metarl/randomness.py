"""Explicit randomness: seeds derived from names, and one random stream per environment.

Nothing in metarl touches the global state of NumPy or torch. `derive_seed` derives all seeds of a run from one.
Environments written in torch draw from `EnvStreams`: their numbers depend on the environment's own seed and on how many
it has drawn, not on the number of environments or the device.
"""

import hashlib
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_MIX_2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**31) that is a pure function of `parts`, equal on every platform."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**31


def make_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on `device`, seeded by `derive_seed(*parts)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def _wrap(x: int) -> int:
    """`x` modulo 2**64 as a signed 64-bit integer."""
    return (x + 2**63) % 2**64 - 2**63


def _mix(x: Tensor) -> Tensor:
    """The SplitMix64 finaliser (Steele et al., OOPSLA 2014), on wrapping signed integers."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1  # the masks make the arithmetic shift a logical one
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


class EnvStreams:
    """`B` independent counter-based streams of random numbers: SplitMix64 keyed by each environment's seed.

    `state` `[B]` (int64) is the whole state: copy it to save the streams, assign it to restore them.

    >>> from metarl.randomness import EnvStreams
    >>> streams = EnvStreams.from_seed(0, num_envs=3, device="cpu")
    >>> same = EnvStreams.resume(streams.state)
    >>> torch.equal(streams.uniform(2), same.uniform(2))
    True
    """

    def __init__(self, seeds: Int[Tensor, "B"]):
        self.state = _mix(_mix(seeds.to(torch.int64) * _GOLDEN + 1))

    @classmethod
    def from_seed(cls, seed: int, num_envs: int, device: torch.device | str) -> "EnvStreams":
        """Environment `i` gets the seed `seed + i`, as in Gymnasium's vector environments."""
        return cls(torch.arange(num_envs, dtype=torch.int64, device=device) + seed)

    @classmethod
    def resume(cls, state: Int[Tensor, "B"]) -> "EnvStreams":
        """Streams that continue from a saved `state`."""
        streams = cls.__new__(cls)
        streams.state = state
        return streams

    def uniform(self, *shape: int) -> Float[Tensor, "B ..."]:
        """Numbers in [0, 1), `[B, *shape]`, float32 with 24 random bits."""
        size = math.prod(shape)
        offsets = torch.arange(1, size + 1, dtype=torch.int64, device=self.state.device) * _GOLDEN
        bits = _mix(self.state[:, None] + offsets)
        self.state = self.state + _wrap(size * _GOLDEN)
        values = ((bits >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24
        return values.reshape(len(self.state), *shape)

    def normal(self, *shape: int) -> Float[Tensor, "B ..."]:
        """Standard normal numbers, `[B, *shape]`: `standard_normal` of two uniform ones each."""
        return standard_normal(self.uniform(2, *shape))


def standard_normal(uniform: Float[Tensor, "B 2 ..."]) -> Float[Tensor, "B ..."]:
    """Standard normal numbers from pairs that are uniform in [0, 1), by the Box-Muller transform."""
    radius = torch.sqrt(-2.0 * torch.log1p(-uniform[:, 0]))
    return radius * torch.cos(2.0 * math.pi * uniform[:, 1])


def dirichlet(concentration: Float[Tensor, "... K"], generator: torch.Generator) -> Float[Tensor, "... K"]:
    """A draw from the Dirichlet distribution of each row; for K = 2, its first entry is from a beta distribution."""
    return torch._sample_dirichlet(concentration, generator)  # torch.distributions takes no generator

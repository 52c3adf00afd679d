"""Networks for dictionaries of observations: an encoder for each picture, then a network that reads all entries."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.nn.encoder import PictureEncoder
from metarl.nn.mlp import MLP, Parameters
from metarl.nn.normalization import PictureNorm, RunningNorm
from metarl.parallel import Ranks
from metarl.spaces import Observations, entries, is_picture, named


class EncodedMLP:
    """A tanh MLP that reads the vectors of a dictionary as they are and its pictures through a `PictureEncoder` each.

    The MLP's parameters have the names of `MLP`, those of the encoder of entry e begin with `encoder.e.`. All of them
    adapt. `inputs` has the entries of `spaces`, vectors `[M, n, D]` and `PictureInputs`.

    >>> from gymnasium.spaces import Box
    >>> from metarl.nn.entries import EncodedMLP
    >>> spaces = {"speed": Box(-1, 1, (2,)), "camera": Box(0, 255, (7, 7, 3), "uint8")}
    >>> network = EncodedMLP(spaces, (64, 4))
    >>> list(network.initialize(torch.Generator()))
    ['encoder.camera.weight0', 'encoder.camera.bias0', 'weight0', 'bias0', 'weight1', 'bias1']
    """

    def __init__(self, spaces: Mapping[str, gym.spaces.Box], sizes: Sequence[int]):
        self.encoders = {name: PictureEncoder(space) for name, space in spaces.items() if is_picture(space)}
        widths = [self.encoders[n].outputs if n in self.encoders else s.shape[0] for n, s in spaces.items()]
        self.columns: dict[str, slice] = {}
        """Where the trunk's inputs hold each entry."""
        for name, width in zip(spaces, widths, strict=True):
            start = sum(widths[: len(self.columns)])
            self.columns[name] = slice(start, start + width)
        self.trunk = MLP((sum(widths), *sizes))
        self.width = max([self.trunk.width, *(encoder.width for encoder in self.encoders.values())])

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Parameters of one network."""
        parameters: Parameters = {}
        for name, encoder in self.encoders.items():
            parameters |= _prefixed(name, encoder.initialize(generator))
        return parameters | self.trunk.initialize(generator)

    def __call__(self, parameters: Parameters, inputs: dict[str, Any]) -> Float[Tensor, "M n O"]:
        """The outputs of network m for the inputs of task m, differentiable by autograd."""
        features = {n: encoder(own(n, parameters), inputs[n]) for n, encoder in self.encoders.items()}
        return self.trunk(parameters, self.side_by_side(inputs | features))

    def side_by_side(self, features: Mapping[str, Tensor]) -> Float[Tensor, "M n D"]:
        """The trunk's inputs: vectors, and the outputs of encoders."""
        return torch.cat([features[name] for name in self.columns], -1)

    def linearize(self, parameters: Parameters, inputs: dict[str, Any]) -> "EncodedLinearization":
        """The network and its derivatives at stacked `parameters`."""
        return EncodedLinearization(self, parameters, inputs)


class EncodedLinearization:
    """A stored forward pass of an `EncodedMLP` and the derivatives of the network at that point, as `Linearization`.

    R{·} goes from the encoders into the trunk, δ and R{δ} from the trunk's inputs back into the encoders.

    >>> from gymnasium.spaces import Box
    >>> from metarl.adaptation import stack
    >>> from metarl.nn.entries import EncodedMLP
    >>> network = EncodedMLP({"speed": Box(-1, 1, (2,))}, (64, 4))
    >>> parameters = stack(network.initialize(torch.Generator()), 3)
    >>> network.linearize(parameters, {"speed": torch.zeros(3, 5, 2)}).jvp(parameters).shape
    torch.Size([3, 5, 4])
    """

    @torch.no_grad()
    def __init__(self, network: EncodedMLP, parameters: Parameters, inputs: dict[str, Any]):
        self.columns = network.columns
        self.encoders = {n: e.linearize(own(n, parameters), inputs[n]) for n, e in network.encoders.items()}
        features = {n: _flat(encoder.output, network.encoders[n].outputs) for n, encoder in self.encoders.items()}
        self.trunk = network.trunk.linearize(parameters, network.side_by_side(inputs | features))
        self.parameters, self.output = self.trunk.parameters, self.trunk.output
        width = max(columns.stop for columns in self.columns.values())
        self._r_features = self.output.new_zeros(*self.output.shape[:2], width)  # as it stays for vectors

    @torch.no_grad()
    def jvp(self, direction: Parameters, *, keep: bool = True) -> Float[Tensor, "M n O"]:
        """R{output} along `direction`. Stores what the next `hvp` needs, unless `keep` is False."""
        for name, encoder in self.encoders.items():
            part = self._r_features[..., self.columns[name]]
            part.copy_(encoder.jvp(own(name, direction), keep=keep).reshape(part.shape))
        return self.trunk.jvp(direction, self._r_features if self.encoders else None, keep=keep)

    def vjp(self, cotangent: Float[Tensor, "M n O"], *, keep: bool = True) -> Parameters:
        """The gradient `[M, ...]` of Σ output · `cotangent`. Stores what `hvp` needs of it, unless `keep` is False."""
        gradient = self.trunk.vjp(cotangent, to_inputs=bool(self.encoders), keep=keep)
        for name, encoder in self.encoders.items():
            gradient |= _prefixed(name, encoder.vjp(self._cotangent(name), keep=keep))
        return gradient

    def hvp(self, direction: Parameters, r_cotangent: Float[Tensor, "M n O"]) -> Parameters:
        """R{gradient} along `direction`, after `vjp` and `jvp(direction)`; `r_cotangent` is R of `vjp`'s cotangent."""
        product = self.trunk.hvp(direction, r_cotangent, to_inputs=bool(self.encoders))
        for name, encoder in self.encoders.items():
            product |= _prefixed(name, encoder.hvp(own(name, direction), self._cotangent(name)))
        return product

    def _cotangent(self, name: str) -> Float[Tensor, "M r F"]:
        """The trunk's last cotangent of the outputs of one encoder, in the encoder's shape: a copy."""
        assert self.trunk.input_cotangent is not None
        part = self.trunk.input_cotangent[..., self.columns[name]]
        return part.clone(memory_format=torch.contiguous_format).reshape(self.encoders[name].output.shape)


class EntryEncoder(nn.Module):
    """Features of observations with pictures: vectors normalised, pictures normalised and encoded, side by side.

    It owns its parameters and statistics, which `update` changes. Observations of any batch shape.

    >>> from gymnasium.spaces import Box
    >>> from metarl.nn.entries import EntryEncoder
    >>> encoder = EntryEncoder(Box(0, 255, (7, 7, 3), "uint8"))
    >>> encoder.initialize(torch.Generator())
    >>> encoder(torch.zeros(10, 5, 7, 7, 3, dtype=torch.uint8)).shape
    torch.Size([10, 5, 144])
    """

    def __init__(self, space: gym.Space):
        super().__init__()
        spaces = entries(space)
        self.names = tuple(spaces)
        self.encoders = [PictureEncoder(s) if is_picture(s) else None for s in spaces.values()]
        # By number: names of entries can be anything, names of submodules cannot. Any: torch's type is Module.
        self.norms: Any = nn.ModuleList(
            PictureNorm(s.shape[-1]) if is_picture(s) else RunningNorm(s.shape[0]) for s in spaces.values()
        )
        self.weights: Any = nn.ModuleList(nn.ParameterDict() for _ in spaces)
        self.outputs = sum(
            encoder.outputs if encoder else s.shape[0]
            for encoder, s in zip(self.encoders, spaces.values(), strict=True)
        )

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """The encoders' parameters before training."""
        for encoder, weights in zip(self.encoders, self.weights, strict=True):
            if encoder is not None:
                weights.update(encoder.initialize(generator))

    def forward(self, observations: Observations) -> Float[Tensor, "... F"]:
        values, features = named(observations), []
        for name, encoder, norm, weights in zip(self.names, self.encoders, self.norms, self.weights, strict=True):
            value = values[name]
            if encoder is None:
                features.append(norm(value))
            else:
                features.append(encoder.one(dict(weights), value.flatten(0, -4), norm).unflatten(0, value.shape[:-3]))
        return torch.cat(features, -1)

    def update(self, observations: Observations, valid: Bool[Tensor, "..."], ranks: Ranks | None = None) -> None:
        """Adds the `valid` observations of all `ranks` to the statistics."""
        values = named(observations)
        for name, norm in zip(self.names, self.norms, strict=True):
            norm.update(values[name], valid, ranks)


def own(name: str, parameters: Parameters) -> Parameters:
    """The parameters of the encoder of one entry, by the encoder's names."""
    prefix = f"encoder.{name}."
    return {key.removeprefix(prefix): value for key, value in parameters.items() if key.startswith(prefix)}


def _prefixed(name: str, parameters: Parameters) -> Parameters:
    return {f"encoder.{name}.{key}": value for key, value in parameters.items()}


def _flat(outputs: Float[Tensor, "M r F"], size: int) -> Float[Tensor, "M n O"]:
    """The outputs of an encoder with those of each sample side by side."""
    return outputs.reshape(len(outputs), -1, size)

"""A convolutional encoder for pictures, with one set of parameters or with one for each task."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import gymnasium as gym
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metarl.errors import UsageError
from metarl.nn.convolution import Convolution, layers_for
from metarl.nn.mlp import Linearization, Parameters, affine, tanh_, xavier_uniform
from metarl.nn.normalization import CHUNK_BYTES, PictureInputs, PictureNorm

STORED_BYTES = 2**27
"""A linearization stores the windows of its first layer if they take less memory, and else makes them when needed."""


class PictureEncoder:
    """Convolutions with tanh that turn a picture `[H, W, C]` into `outputs` numbers: a map, flattened.

    `metarl.nn.convolution.layers_for` says which. The network that reads the numbers is the dense layer that usually
    follows. tanh, because second-order meta-gradients need a smooth function. Parameters are arguments, as in
    `metarl.nn.mlp.MLP`: layer l has `weight{l}` `[filters, K]` and `bias{l}` `[filters]`, with a leading `M` when
    stacked.

    Pictures are normalised and encoded in chunks of `CHUNK_BYTES`. If autograd records and there are several chunks, it
    encodes each again in the backward pass instead of storing it (`torch.utils.checkpoint`).

    >>> from gymnasium.spaces import Box
    >>> from metarl.adaptation import stack
    >>> from metarl.nn.encoder import PictureEncoder
    >>> from metarl.nn.normalization import PictureInputs, PictureNorm
    >>> encoder, norm = PictureEncoder(Box(0, 255, (7, 7, 3), "uint8")), PictureNorm(3)
    >>> parameters, pictures = encoder.initialize(torch.Generator()), torch.zeros(3, 5, 7, 7, 3, dtype=torch.uint8)
    >>> encoder.one(parameters, pictures[0], norm).shape
    torch.Size([5, 144])
    >>> encoder(stack(parameters, 3), PictureInputs(pictures, norm)).shape
    torch.Size([3, 5, 144])
    """

    def __init__(self, space: gym.spaces.Box):
        if not all(space.shape):
            raise UsageError(f"a picture of shape {list(space.shape)} has nothing in it to encode")
        height, width, channels = space.shape
        self.layers = layers_for(height, width, channels)
        last = self.layers[-1]
        self.outputs = last.num_patches * last.filters
        self.width = max(layer.num_patches * max(layer.patch_size, layer.filters) for layer in self.layers)
        """The most numbers that one sample takes between two layers."""

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Xavier-uniform weights and zero biases, for one network."""
        parameters = {}
        for number, layer in enumerate(self.layers):
            parameters[f"weight{number}"] = xavier_uniform(layer.filters, layer.patch_size, generator)
            parameters[f"bias{number}"] = torch.zeros(layer.filters, device=generator.device)
        return parameters

    def __call__(self, parameters: Parameters, inputs: PictureInputs) -> Float[Tensor, "M n F"]:
        """The outputs of encoder m for the pictures of task m, differentiable by autograd."""
        tasks, samples = inputs.pictures.shape[:2]

        def encode(part: slice) -> Tensor:
            maps = inputs.part(part, parameters["weight0"].dtype).flatten(0, 1)
            for number, layer in enumerate(self.layers):
                windows = by_task(layer.patches(maps), tasks)
                maps = as_maps(layer, tanh_(affine(parameters, number, windows)))
            return maps.reshape(tasks, -1, self.outputs)

        return _in_chunks(encode, samples, self.chunk(tasks), dim=1)

    def one(
        self, parameters: Parameters, pictures: UInt8[Tensor, "R H W C"], norm: PictureNorm
    ) -> Float[Tensor, "R F"]:
        """The outputs of one encoder for all pictures, differentiable by autograd."""

        def encode(part: slice) -> Tensor:
            maps = norm(pictures[part])
            for number, layer in enumerate(self.layers):
                maps = layer(parameters[f"weight{number}"], parameters[f"bias{number}"], maps).tanh()
            return maps.flatten(1)

        return _in_chunks(encode, len(pictures), self.chunk(), dim=0)

    def chunk(self, tasks: int = 1) -> int:
        """The number of samples of each task that make a chunk."""
        largest = max(layer.num_patches * layer.patch_size for layer in self.layers)
        return max(1, CHUNK_BYTES // (4 * largest * tasks))

    def linearize(self, parameters: Parameters, inputs: PictureInputs) -> "PictureLinearization":
        """The encoder and its derivatives at stacked `parameters`."""
        return PictureLinearization(self, parameters, inputs)


class FirstWindows:
    """The windows `[M, n·P, K]` that the first layer reads, in chunks of samples.

    >>> from gymnasium.spaces import Box
    >>> from metarl.nn.encoder import FirstWindows, PictureEncoder
    >>> from metarl.nn.normalization import PictureInputs, PictureNorm
    >>> encoder = PictureEncoder(Box(0, 255, (7, 7, 3), "uint8"))
    >>> inputs = PictureInputs(torch.zeros(3, 5, 7, 7, 3, dtype=torch.uint8), PictureNorm(3))
    >>> [(rows, windows.shape) for rows, windows in FirstWindows(encoder, inputs, torch.float32)]
    [(slice(0, 45, None), torch.Size([3, 45, 27]))]
    """

    def __init__(self, encoder: PictureEncoder, inputs: PictureInputs, dtype: torch.dtype):
        self.layer, self.pictures, self.dtype = encoder.layers[0], inputs, dtype
        tasks, samples = inputs.pictures.shape[:2]
        self.shape = (tasks, samples * self.layer.num_patches, self.layer.patch_size)
        self._bounds = range(0, samples, encoder.chunk(tasks))
        fits = math.prod(self.shape) * dtype.itemsize <= STORED_BYTES
        self._stored = list(self._made()) if fits else None

    def __iter__(self) -> Iterator[tuple[slice, Float[Tensor, "M r K"]]]:
        """Chunks, and the rows of the whole that they are."""
        return iter(self._stored) if self._stored is not None else self._made()

    def _made(self) -> Iterator[tuple[slice, Float[Tensor, "M r K"]]]:
        for start in self._bounds:
            maps = self.pictures.part(slice(start, start + self._bounds.step), self.dtype)
            first, count = start * self.layer.num_patches, maps.shape[1] * self.layer.num_patches
            yield slice(first, first + count), by_task(self.layer.patches(maps.flatten(0, 1)), self.shape[0])


class PictureLinearization(Linearization):
    """A stored forward pass of a `PictureEncoder` and its derivatives: the chain of `Linearization`, with G = im2col.

    All maps and windows are stored, except those of the first layer if they are large (`STORED_BYTES`). Outputs and
    their cotangents are `[M, n·P, filters]`, P being the windows of the last layer.

    >>> from gymnasium.spaces import Box
    >>> from metarl.adaptation import stack
    >>> from metarl.nn.encoder import PictureEncoder
    >>> from metarl.nn.normalization import PictureInputs, PictureNorm
    >>> encoder = PictureEncoder(Box(0, 255, (7, 7, 3), "uint8"))
    >>> inputs = PictureInputs(torch.zeros(3, 5, 7, 7, 3, dtype=torch.uint8), PictureNorm(3))
    >>> local = encoder.linearize(stack(encoder.initialize(torch.Generator()), 3), inputs)
    >>> local.vjp(torch.ones(3, 5 * 9, 16))["weight0"].shape
    torch.Size([3, 16, 27])
    """

    def __init__(self, encoder: PictureEncoder, parameters: Parameters, inputs: PictureInputs):
        self.encoder = encoder
        windows = FirstWindows(encoder, inputs, parameters["weight0"].dtype)
        super().__init__(parameters, windows, len(encoder.layers), num_tanh=len(encoder.layers))

    def _narrowed(self, inputs: FirstWindows) -> FirstWindows:
        return inputs

    def _affine(self, parameters: Parameters, layer: int) -> Tensor:
        if layer > 0:
            return super()._affine(parameters, layer)
        weight = parameters["weight0"]
        out = weight.new_empty(*self.inputs[0].shape[:2], weight.shape[-2])
        for rows, windows in self.inputs[0]:
            out[:, rows] = affine(parameters, 0, windows)
        return out

    def _outer(self, deltas: Tensor, layer: int) -> Float[Tensor, "M out in"]:
        if layer > 0:
            return super()._outer(deltas, layer)
        return sum(deltas[:, rows].mT @ windows for rows, windows in self.inputs[0])

    def _gather(self, layer: int, hidden: Tensor) -> Tensor:
        before, after = self.encoder.layers[layer : layer + 2]
        return by_task(after.patches(as_maps(before, hidden)), len(hidden))

    def _scatter(self, layer: int, cotangent: Tensor) -> Tensor:
        windows = cotangent.reshape(-1, self.encoder.layers[layer].num_patches, cotangent.shape[-1])
        maps = self.encoder.layers[layer].scatter(windows)
        return maps.reshape(len(cotangent), -1, maps.shape[-1])


def by_task(windows: Float[Tensor, "R P K"], tasks: int) -> Float[Tensor, "M r K"]:
    """The windows of all samples of each task, one after the other."""
    return windows.reshape(tasks, -1, windows.shape[-1])


def as_maps(layer: Convolution, outputs: Float[Tensor, "M r F"]) -> Float[Tensor, "R H W F"]:
    """The outputs of `layer` for all its windows, as maps."""
    return outputs.reshape(-1, layer.rows, layer.columns, layer.filters)


def _in_chunks(function: Callable[[slice], Tensor], count: int, size: int, dim: int) -> Tensor:
    """`function` of the parts of `range(count)`, concatenated; autograd stores the results and nothing else."""
    if count <= size:
        return function(slice(0, count))
    # The function draws no random numbers, so there is no state of them to restore.
    again = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
    run = again if torch.is_grad_enabled() else function
    return torch.cat([run(slice(start, start + size)) for start in range(0, count, size)], dim)

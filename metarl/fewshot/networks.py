"""Networks of the few-shot learners as pure functions of their parameters, so that E tasks run at once.

Parameters are one set for all tasks, `[...]`, or one set per task, stacked `[E, ...]` (`metarl.adaptation.stack`). A
network recognises which by the shapes. Inputs are `[E, n, *shape]`, outputs `[E, n, O]`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.errors import UsageError
from metarl.importing import import_named

EPSILON = 1e-5
MOMENTUM = 0.1
"""Share of a new batch in the running statistics."""
_LINEAR = ("weight", "bias")


@dataclass(frozen=True)
class Statistics:
    """The statistics that batch normalisation uses: those of each task separately, unless `running` is given.

    >>> from metarl.fewshot.networks import Conv4, Statistics
    >>> network = Conv4((1, 28, 28), width=8)
    >>> parameters, running = network.initialize(torch.Generator()), network.initial_statistics()
    >>> network(parameters, torch.zeros(2, 5, 1, 28, 28), Statistics(running=running)).shape
    torch.Size([2, 5, 8])
    """

    reference: int | None = None
    """Use the statistics of this many first inputs of each task; of all inputs if None."""
    running: Parameters | None = None
    """Running averages over training, for all tasks together; they start from `initial_statistics`."""
    update: bool = False
    """Normalise by the statistics of this call, for all tasks together, and update `running` with them."""


DEFAULT = Statistics()
"""Batch statistics: those of each task's inputs in the current call."""


@runtime_checkable
class Network(Protocol):
    """The interface of a network: a function of parameters and inputs.

    >>> from metarl.fewshot.networks import Network, ReluMLP
    >>> isinstance(ReluMLP((2, 64, 3)), Network)
    True
    """

    outputs: int
    """Size of one output."""

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Parameters of one network, on the generator's device."""

    def initial_statistics(self) -> Parameters:
        """The initial `Statistics.running`; empty if nothing is normalised."""

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "E n ..."], statistics: Statistics = DEFAULT
    ) -> Float[Tensor, "E n O"]:
        """The outputs for each task: `head` of `body`."""

    def body(
        self, parameters: Parameters, inputs: Float[Tensor, "E n ..."], statistics: Statistics = DEFAULT
    ) -> Float[Tensor, "E n F"]:
        """All but the last linear layer."""

    def head(self, parameters: Parameters, features: Float[Tensor, "E n F"]) -> Float[Tensor, "E n O"]:
        """The last linear layer, `weight{l}` and `bias{l}` named by `head_names`; an encoder has none."""

    def head_names(self) -> tuple[str, ...]:
        """The parameters of the last linear layer, the only ones that ANIL adapts; empty for an encoder."""

    def activation_bytes(self, num_inputs: int) -> int:
        """Bytes of the largest layer's outputs for `num_inputs` inputs, which limits how many to process at once."""


class ReluMLP:
    """`sizes[0]` inputs, ReLU layers of `sizes[1:-1]`, `sizes[-1]` linear outputs, without normalisation.

    Layer l has `weight{l}` `[out, in]` and `bias{l}` `[out]`. With `has_head=False` it is an encoder: its outputs are
    those of the body.

    >>> from metarl.adaptation import stack
    >>> from metarl.fewshot.networks import ReluMLP
    >>> network = ReluMLP((2, 64, 3))
    >>> network(stack(network.initialize(torch.Generator()), 4), torch.zeros(4, 5, 2)).shape
    torch.Size([4, 5, 3])
    """

    def __init__(self, sizes: Sequence[int], *, has_head: bool = True):
        self.sizes = tuple(sizes)
        self.outputs = self.sizes[-1]
        self.num_layers = len(self.sizes) - 1
        self.body_layers = self.num_layers - 1 if has_head else self.num_layers

    def initialize(self, generator: torch.Generator) -> Parameters:
        """He-normal weights (He et al. 2015), zero biases."""
        parameters, device = {}, generator.device
        for layer, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            normal = torch.randn(fan_out, fan_in, generator=generator, device=device)
            parameters[f"weight{layer}"] = normal * (2 / fan_in) ** 0.5
            parameters[f"bias{layer}"] = torch.zeros(fan_out, device=device)
        return parameters

    def initial_statistics(self) -> Parameters:
        return {}

    def head_names(self) -> tuple[str, ...]:
        return tuple(f"{part}{layer}" for layer in range(self.body_layers, self.num_layers) for part in _LINEAR)

    def activation_bytes(self, num_inputs: int) -> int:
        return 4 * num_inputs * max(self.sizes)

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "E n D"], statistics: Statistics = DEFAULT
    ) -> Float[Tensor, "E n O"]:
        return self.head(parameters, self.body(parameters, inputs, statistics))

    def body(
        self, parameters: Parameters, inputs: Float[Tensor, "E n D"], statistics: Statistics = DEFAULT
    ) -> Float[Tensor, "E n F"]:
        hidden = inputs
        for layer in range(self.body_layers):
            hidden = linear(parameters[f"weight{layer}"], parameters[f"bias{layer}"], hidden)
            if layer < self.num_layers - 1:
                hidden = hidden.relu()
        return hidden

    def head(self, parameters: Parameters, features: Float[Tensor, "E n F"]) -> Float[Tensor, "E n O"]:
        for layer in range(self.body_layers, self.num_layers):
            features = linear(parameters[f"weight{layer}"], parameters[f"bias{layer}"], features)
        return features


class Conv4:
    """Four blocks of 3 × 3 convolution, batch normalisation and ReLU, for images; `outputs` adds a linear layer.

    For signals (C, L), the convolutions and the pooling are one-dimensional: 3 long, and by 2.

    With `strided`, strided convolutions halve the size (MAML, Finn et al. 2017, appendix A.1), otherwise 2 × 2
    max-pooling does (Vinyals et al. 2016, section 4.1.1). The last block's output is flattened, or averaged over its
    positions with `averaged`, which leaves `width` features. Block l has `weight{l}` `[width, in, 3, 3]`, `scale{l}`
    and `shift{l}` `[width]`. The convolutions have no bias, because batch normalisation would remove it. The linear
    layer is number 4; without it the output is the flattened last block. With `normalised=False`, only scale and shift
    remain of batch normalisation.

    Stacked parameters run as grouped convolutions. The layout `[n, E·C, H, W]` also gives each task its own statistics.

    >>> from metarl.fewshot.networks import Conv4
    >>> network = Conv4((1, 28, 28), width=64, outputs=5)
    >>> network(network.initialize(torch.Generator()), torch.zeros(4, 10, 1, 28, 28)).shape
    torch.Size([4, 10, 5])
    """

    blocks = 4

    def __init__(
        self,
        input_shape: Sequence[int],
        width: int,
        outputs: int | None = None,
        *,
        strided: bool = False,
        averaged: bool = False,
        normalised: bool = True,
    ):
        self.channels, *size = input_shape
        self.dimensions = len(size)
        """2 for images, 1 for signals."""
        self.width = width
        self.strided = strided
        self.averaged = averaged
        self.normalised = normalised
        self._largest = width * math.prod(-(-side // 2) if strided else side for side in size)
        for _ in range(self.blocks):
            size = [-(-side // 2) if strided else side // 2 for side in size]
        if min(size) < 1:
            what, fewest = ("images", "16 × 16") if self.dimensions == 2 else ("signals", "16")
            shown = " × ".join(map(str, input_shape[1:]))
            raise UsageError(f"{what} of {shown} are too small: want at least {fewest}")
        self.features = width if averaged else width * math.prod(size)
        self.has_head = outputs is not None
        self.outputs = self.features if outputs is None else outputs

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Xavier-uniform weights (Glorot and Bengio 2010), zero shifts, unit scales."""
        parameters, device = {}, generator.device
        for block in range(self.blocks):
            fan_in = self.channels if block == 0 else self.width
            parameters[f"weight{block}"] = _xavier((self.width, fan_in, *[3] * self.dimensions), generator)
            parameters[f"scale{block}"] = torch.ones(self.width, device=device)
            parameters[f"shift{block}"] = torch.zeros(self.width, device=device)
        if self.has_head:
            parameters[f"weight{self.blocks}"] = _xavier((self.outputs, self.features), generator)
            parameters[f"bias{self.blocks}"] = torch.zeros(self.outputs, device=device)
        return parameters

    def initial_statistics(self) -> Parameters:
        """`mean{l}` and `variance{l}` `[width]`."""
        zeros = {f"mean{block}": torch.zeros(self.width) for block in range(self.blocks)}
        return zeros | {f"variance{block}": torch.ones(self.width) for block in range(self.blocks)}

    def head_names(self) -> tuple[str, ...]:
        return tuple(f"{part}{self.blocks}" for part in _LINEAR) if self.has_head else ()

    def activation_bytes(self, num_inputs: int) -> int:
        return 4 * num_inputs * self._largest

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "E n C ..."], statistics: Statistics = DEFAULT
    ) -> Float[Tensor, "E n O"]:
        return self.head(parameters, self.body(parameters, inputs, statistics))

    def head(self, parameters: Parameters, features: Float[Tensor, "E n F"]) -> Float[Tensor, "E n O"]:
        if not self.has_head:
            return features
        return linear(parameters[f"weight{self.blocks}"], parameters[f"bias{self.blocks}"], features)

    def body(
        self, parameters: Parameters, inputs: Float[Tensor, "E n C ..."], statistics: Statistics = DEFAULT
    ) -> Float[Tensor, "E n F"]:
        num_tasks = len(inputs)
        stacked = parameters["weight0"].ndim == self.dimensions + 3
        groups = num_tasks if stacked else 1
        one_batch = num_tasks == 1 or (not stacked and statistics.running is not None)
        # 1.3 times as fast on a CPU; grouped convolutions are not.
        last = one_batch and self.dimensions == 2 and inputs.device.type == "cpu"
        layout = torch.channels_last if last else torch.contiguous_format
        convolve, pool = (F.conv2d, F.max_pool2d) if self.dimensions == 2 else (F.conv1d, F.max_pool1d)
        hidden = inputs.transpose(0, 1).flatten(1, 2) if stacked else inputs.flatten(0, 1)
        hidden = hidden.contiguous(memory_format=layout)
        for block in range(self.blocks):
            weight, scale, shift = (parameters[f"{part}{block}"] for part in ("weight", "scale", "shift"))
            if stacked:
                weight, scale, shift = weight.flatten(0, 1), scale.flatten(), shift.flatten()
            hidden = convolve(hidden, weight, stride=2 if self.strided else 1, padding=1, groups=groups)
            hidden = hidden.contiguous(memory_format=layout)  # one channel reads as either layout
            if not self.normalised:
                hidden = hidden * _wide(scale, hidden) + _wide(shift, hidden)
            elif statistics.running is not None:
                hidden = _running_norm(hidden, scale, shift, statistics, block)
            elif stacked or num_tasks == 1:
                hidden = _batch_norm(hidden, scale, shift, statistics.reference)
            else:  # shared parameters, but each task has its own statistics
                hidden = hidden.unflatten(0, (num_tasks, -1)).transpose(0, 1).flatten(1, 2)
                hidden = _batch_norm(hidden, scale.repeat(num_tasks), shift.repeat(num_tasks), statistics.reference)
                hidden = hidden.unflatten(1, (num_tasks, -1)).transpose(0, 1).flatten(0, 1)
            if not self.strided:
                hidden = pool(hidden, 2)  # before the ReLU, which then processes a quarter
            hidden = hidden.relu()
        if self.averaged:
            hidden = hidden.mean(_places(hidden), keepdim=True)
        if stacked:
            return hidden.unflatten(1, (num_tasks, -1)).transpose(0, 1).flatten(2)
        return hidden.unflatten(0, (num_tasks, -1)).flatten(2)


def _places(values: Float[Tensor, "n C ..."]) -> tuple[int, ...]:
    """The dimensions of the positions in a map."""
    return tuple(range(2, values.ndim))


def _wide(of_channels: Float[Tensor, "C"], values: Float[Tensor, "n C ..."]) -> Tensor:
    """One number for each channel, to be combined with maps."""
    return of_channels.reshape(-1, *[1] * (values.ndim - 2))


def _batch_norm(
    values: Float[Tensor, "n C ..."], scale: Float[Tensor, "C"], shift: Float[Tensor, "C"], reference: int | None
) -> Float[Tensor, "n C ..."]:
    """Normalises each channel by the mean and the variance of the first `reference` of the n maps, or of all."""
    if reference is None:
        return F.batch_norm(values, None, None, scale, shift, training=True, eps=EPSILON)
    variance, mean = torch.var_mean(values[:reference], (0, *_places(values)), correction=0)
    factor = scale * (variance + EPSILON).rsqrt()
    return values * _wide(factor, values) + _wide(shift - mean * factor, values)


def _running_norm(
    values: Float[Tensor, "n C ..."], scale: Tensor, shift: Tensor, statistics: Statistics, block: int
) -> Float[Tensor, "n C ..."]:
    """Normalises by the running averages, or by this batch if it updates them."""
    assert statistics.running is not None
    mean, variance = statistics.running[f"mean{block}"], statistics.running[f"variance{block}"]
    if len(scale) != len(mean):
        if statistics.update:
            raise ValueError("running statistics are those of shared parameters: stacked ones cannot update them")
        mean, variance = (value.repeat(len(scale) // len(value)) for value in (mean, variance))
    return F.batch_norm(
        values, mean, variance, scale, shift, training=statistics.update, momentum=MOMENTUM, eps=EPSILON
    )


def linear(weight: Tensor, bias: Tensor, inputs: Float[Tensor, "E n D"]) -> Float[Tensor, "E n O"]:
    """W x + b, with one set of parameters for all tasks or, stacked, one per task."""
    if weight.ndim == 2:
        return F.linear(inputs, weight, bias)
    return torch.baddbmm(bias[:, None], inputs, weight.mT)


def network_for(
    input_shape: Sequence[int],
    outputs: int | None,
    *,
    width: int,
    hidden: Sequence[int],
    strided: bool = False,
    averaged: bool = False,
    normalised: bool = True,
    backbone: str | None = None,
) -> Network:
    """`Conv4` of `width` filters for images (C, H, W) and signals (C, L), `ReluMLP` of `hidden` units for vectors (D,).

    Without `outputs` it is an encoder: the last hidden layer of an MLP is then its linear output. A user's `backbone`,
    MODULE:NAME, is called as `NAME(input_shape, outputs)`. Raises `UsageError` if that makes no network.
    """
    if backbone is not None:
        return own_network(backbone, input_shape, outputs)
    if len(input_shape) > 1:
        return Conv4(input_shape, width, outputs, strided=strided, averaged=averaged, normalised=normalised)
    if outputs is None:
        return ReluMLP((*input_shape, *hidden), has_head=False)
    return ReluMLP((*input_shape, *hidden, outputs))


def own_network(backbone: str, input_shape: Sequence[int], outputs: int | None) -> Network:
    """The network that the user's `backbone`, MODULE:NAME, makes; raises `UsageError` if it is no such thing."""
    found = import_named(backbone)
    try:
        network = found(tuple(input_shape), outputs)
    except TypeError as error:
        raise UsageError(f"backbone {backbone} is to be made by NAME(input_shape, outputs): {error}") from None
    if not isinstance(network, Network) or not isinstance(network.outputs, int):
        raise UsageError(f"backbone {backbone} makes no network: want what metarl.fewshot.networks.Network has")
    if outputs not in (None, network.outputs):
        raise UsageError(f"backbone {backbone} has {network.outputs} outputs, want {outputs}")
    return network


def _xavier(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform in ±√(6 / (fan in + fan out))."""
    window = math.prod(shape[2:])
    bound = (6 / (window * (shape[0] + shape[1]))) ** 0.5
    return (2 * torch.rand(shape, generator=generator, device=generator.device) - 1) * bound

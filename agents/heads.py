"""What makes a policy and a value from the output of a recurrent core: the options of `--head`.

    plain          linear in the core's output h                             (Duan et al. 2016, RL², section 2.2)
    state-again    W₂ tanh(W₁ [C h, o] + b₁) + b₂: the observation is given to the head once more
    hypernetwork   W₂(h) tanh(W₁(h) o + b₁(h)) + b₂(h): the weights themselves are linear in C h

The last two are RNN+S and RNN+HN of "Recurrent Hypernetworks are Surprisingly Strong in Meta-RL" (Beck, Vuorio, Xiong
and Whiteson 2023): networks of the same shape, of which one has its weights made from the memory. Part of a
hypernetwork's gain over the plain head is that its network reads the observation, which the other one shows by itself.

The hypernetwork starts by Bias-HyperInit ("Hypernetworks in Meta-Reinforcement Learning", Beck, Jackson, Vuorio and
Whiteson 2022): the weights of its last layer are 0, and its bias is an ordinary initialisation of the generated
network. So at first all memories give the same network.

Deviations: policy and value share the hidden layer of `UNITS` units; in the papers each has its own layers. C is one
linear layer to `CONTEXT` numbers. The observation is read as it is normalised for the core, without a layer of its own.
"""

import abc
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HeadName = Literal["plain", "hypernetwork", "state-again"]
CONTEXT = 16
"""Numbers that the output of the core is mapped to before a hypernetwork or a second look at the observation."""
UNITS = 64
"""Hidden units of the network that reads the observation."""
POLICY_GAIN = 0.01
"""Size of the policy's first weights, so that it starts near uniform."""


class ActorCriticHead(nn.Module, abc.ABC):
    """Maps the core's output `[..., H]` and the observation's features `[..., F]` to O = P + 1 numbers.

    The first P numbers are the parameters of the policy, the last one is the normalised value.

    >>> from metarl.agents.heads import ActorCriticHead, PlainHead
    >>> isinstance(PlainHead(features=128, observed=17, outputs=6), ActorCriticHead)
    True
    """

    @abc.abstractmethod
    def initialize(self, generator: torch.Generator) -> None:
        """Orthogonal weights and zero biases; the policy starts near uniform, the value near zero."""

    @abc.abstractmethod
    def forward(self, features: Float[Tensor, "*n H"], observed: Float[Tensor, "*n F"]) -> Float[Tensor, "*n O"]: ...

    @abc.abstractmethod
    def rescale_value(self, scale: Float[Tensor, "1"], shift: Float[Tensor, "1"]) -> None:
        """Changes the value V to `scale` · V + `shift` for all inputs, and leaves the policy as it is."""


class PlainHead(ActorCriticHead):
    """Policy and value are linear in the core's output.

    >>> from metarl.agents.heads import PlainHead
    >>> head = PlainHead(features=128, observed=17, outputs=6)
    >>> head(torch.zeros(3, 128), torch.zeros(3, 17)).shape
    torch.Size([3, 7])
    """

    def __init__(self, features: int, observed: int, outputs: int):
        super().__init__()
        self.actor = nn.Linear(features, outputs)
        self.critic = nn.Linear(features, 1)

    def initialize(self, generator: torch.Generator) -> None:
        for layer, gain in ((self.actor, POLICY_GAIN), (self.critic, 1.0)):
            _initialize_layer(layer, gain, generator)

    def forward(self, features: Float[Tensor, "*n H"], observed: Float[Tensor, "*n F"]) -> Float[Tensor, "*n O"]:
        layers = self.actor, self.critic  # one product for both
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        return F.linear(features, weight, bias)

    def rescale_value(self, scale: Float[Tensor, "1"], shift: Float[Tensor, "1"]) -> None:
        self.critic.weight.mul_(scale[:, None])
        self.critic.bias.mul_(scale).add_(shift)


class StateAgainHead(PlainHead):
    """A hidden layer that reads the context and the observation; policy and value are linear in it (RNN+S).

    >>> from metarl.agents.heads import StateAgainHead
    >>> head = StateAgainHead(features=128, observed=17, outputs=6)
    >>> head(torch.zeros(3, 128), torch.zeros(3, 17)).shape
    torch.Size([3, 7])
    """

    def __init__(self, features: int, observed: int, outputs: int):
        super().__init__(UNITS, observed, outputs)
        self.context = nn.Linear(features, CONTEXT)
        self.hidden = nn.Linear(CONTEXT + observed, UNITS)

    def initialize(self, generator: torch.Generator) -> None:
        for layer in (self.context, self.hidden):
            _initialize_layer(layer, 1.0, generator)
        super().initialize(generator)

    def forward(self, features: Float[Tensor, "*n H"], observed: Float[Tensor, "*n F"]) -> Float[Tensor, "*n O"]:
        hidden = self.hidden(torch.cat([self.context(features), observed], -1)).tanh()
        return super().forward(hidden, observed)


class HypernetworkHead(ActorCriticHead):
    """A linear hypernetwork makes the network that reads the observation (RNN+HN).

    `generator` maps the context to all weights: W₁ `[UNITS, F]`, b₁ `[UNITS]`, W₂ `[P + 1, UNITS]`, b₂ `[P + 1]`. They
    take that many numbers for each step of each environment.

    >>> from metarl.agents.heads import HypernetworkHead
    >>> head = HypernetworkHead(features=128, observed=17, outputs=6)
    >>> head(torch.zeros(3, 128), torch.zeros(3, 17)).shape
    torch.Size([3, 7])
    """

    def __init__(self, features: int, observed: int, outputs: int):
        super().__init__()
        self.shapes = ((UNITS, observed), (UNITS,), (outputs + 1, UNITS), (outputs + 1,))
        self.context = nn.Linear(features, CONTEXT)
        self.generator = nn.Linear(CONTEXT, sum(map(torch.Size.numel, map(torch.Size, self.shapes))))

    def initialize(self, generator: torch.Generator) -> None:
        _initialize_layer(self.context, 1.0, generator)
        self.generator.weight.zero_()
        self.generator.bias.zero_()
        first, _, last, _ = self._generated(self.generator.bias)
        nn.init.orthogonal_(first, generator=generator)
        for rows, gain in ((last[:-1], POLICY_GAIN), (last[-1:], 1.0)):
            nn.init.orthogonal_(rows, gain, generator=generator)

    def forward(self, features: Float[Tensor, "*n H"], observed: Float[Tensor, "*n F"]) -> Float[Tensor, "*n O"]:
        first, first_bias, last, last_bias = self._generated(self.generator(self.context(features)))
        hidden = ((first @ observed[..., None])[..., 0] + first_bias).tanh()
        return (last @ hidden[..., None])[..., 0] + last_bias

    def rescale_value(self, scale: Float[Tensor, "1"], shift: Float[Tensor, "1"]) -> None:
        """The value's last layer is generated: every number that makes it is rescaled."""
        *_, weight, bias = self._generated(self.generator.weight.mT)
        for rows in (weight[:, -1], bias[:, -1]):
            rows.mul_(scale)
        *_, weight, bias = self._generated(self.generator.bias)
        weight[-1].mul_(scale)
        bias[-1:].mul_(scale).add_(shift)

    def _generated(self, numbers: Float[Tensor, "... n"]) -> tuple[Tensor, ...]:
        """Views of the last dimension as W₁, b₁, W₂ and b₂."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        parts = zip(numbers.split(sizes, -1), self.shapes, strict=True)
        return tuple(part.unflatten(-1, shape) for part, shape in parts)


HEADS: dict[HeadName, type[ActorCriticHead]] = {
    "plain": PlainHead,
    "state-again": StateAgainHead,
    "hypernetwork": HypernetworkHead,
}


def _initialize_layer(layer: nn.Linear, gain: float, generator: torch.Generator) -> None:
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    layer.bias.zero_()

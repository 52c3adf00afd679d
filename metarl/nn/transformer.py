"""A causal transformer as a sequence core, with pre-normalised layers and stored keys and values.

Attention and feed-forward layers are those of Vaswani et al. (2017, sections 3.2 and 3.3), the normalisation comes
before each of them and once after the last (Xiong et al. 2020, figure 1b). For an input x at position t of its
sequence:

    h = √d (W x + b) + e(t)                                                   (section 3.4)
    h ← h + O softmax(Q Kᵀ / √(d / heads)) V,  Q, K, V linear in LN(h)        (equation 1, several heads)
    h ← h + W₂ max(0, W₁ LN(h) + b₁) + b₂                                     (equation 2)
    output = LN(h)

with e(t) the sinusoids of section 3.5. Each layer stores the keys and values of the elements so far, in their order, in
a memory of fixed length: position t in row t. So the memory of a sequence is never moved, and what lies beyond its
length is not looked at.

Transformers over whole trials as memory of meta-RL agents: TrMRL (Melo 2022), AMAGO (Grigsby et al. 2024). Deviations:
no dropout, and no gates (Parisotto et al. 2020, GTrXL, has them against instabilities that pre-normalisation alone
already removes at two layers).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.errors import UsageError
from metarl.nn.sequence import State, WeightInit, ages, check_length, fan_in_uniform

Attend = Callable[[int, Float[Tensor, "B n d"], Float[Tensor, "B n 2*d"]], Float[Tensor, "B n d"]]
"""What a layer's queries find: (number of the layer, queries, keys and values of the same elements) → values."""


class Transformer:
    """`layers` layers of width `units` with `heads` heads, for sequences of at most `length` inputs.

    Parameters: `embedding` `[d, I]`, and for each layer, with its number appended, `attention` `[3 d, d]` with the rows
    of queries, keys and values, `mixing` O `[d, d]`, `expansion` W₁ `[4 d, d]` and `contraction` W₂ `[d, 4 d]`; a bias
    for each (`embedding_bias`, …); scale and shift of each normalisation (`attention0_scale`, `expansion0_scale`, …,
    and `scale` and `shift` of the last one). Nothing depends on `length`.

    The state is the length of each sequence so far `[B]` and the keys and values of each layer `[B, length, 2 d]`. A
    step copies and reads these once, so that it costs the same at the end of a sequence as at its start. `step`, `peek`
    and `sequence` raise `UsageError` if a sequence grows longer than `length`. Given a state, this check makes the host
    wait for the GPU. Gradients cannot be differentiated again.

    Raises `UsageError` if `units` is not an even multiple of `heads`.

    >>> from metarl.nn.transformer import Transformer
    >>> core = Transformer(inputs=5, units=16, length=100)
    >>> parameters = core.initialize(torch.Generator().manual_seed(0))
    >>> outputs, state = core.sequence(parameters, torch.zeros(10, 3, 5))
    >>> output, state = core.step(parameters, torch.zeros(3, 5), state)
    """

    def __init__(self, inputs: int, units: int, length: int, layers: int = 2, heads: int = 4):
        if units % heads or units % 2:
            raise UsageError(
                f"a transformer of {heads} heads has a multiple of {math.lcm(2, heads)} units: "
                f"choose {math.lcm(2, heads) * math.ceil(units / math.lcm(2, heads))} instead of {units}"
            )
        self.inputs, self.outputs, self.length, self.layers, self.heads = inputs, units, length, layers, heads

    def initialize(self, generator: torch.Generator, weights: WeightInit = fan_in_uniform) -> Parameters:
        """Matrices by `weights`, zero biases, and normalisations that only normalise."""
        d, device = self.outputs, generator.device
        shapes = {"embedding": (d, self.inputs)}
        norms = {"": d}
        for layer in range(self.layers):
            shapes |= {f"attention{layer}": (3 * d, d), f"mixing{layer}": (d, d)}
            shapes |= {f"expansion{layer}": (4 * d, d), f"contraction{layer}": (d, 4 * d)}
            norms |= {f"attention{layer}_": d, f"expansion{layer}_": d}
        parameters = {}
        for name, (outputs, inputs) in shapes.items():
            # Queries, keys and values are drawn one by one: jointly orthogonal rows would be too short.
            parts = 3 if name.startswith("attention") else 1
            drawn = [weights(outputs // parts, inputs, generator) for _ in range(parts)]
            parameters[name] = torch.cat(drawn)
            parameters[f"{name}_bias"] = torch.zeros(outputs, device=device)
        for name, size in norms.items():
            parameters[f"{name}scale"] = torch.ones(size, device=device)
            parameters[f"{name}shift"] = torch.zeros(size, device=device)
        return parameters

    def initial(self, batch: int, like: Tensor) -> State:
        length = torch.zeros(batch, dtype=torch.long, device=like.device)
        return length, *(like.new_zeros(batch, self.length, 2 * self.outputs) for _ in range(self.layers))

    def step(
        self, parameters: Parameters, inputs: Float[Tensor, "B I"], state: State
    ) -> tuple[Float[Tensor, "B O"], State]:
        length, *memories = state
        longest = int(length.max()) + 1
        check_length("a transformer", self.length, longest)
        seen = torch.arange(longest, device=length.device) <= length[:, None]
        place = length[:, None, None].expand(-1, 1, 2 * self.outputs)
        extended = []

        def attend(layer: int, queries: Tensor, new: Tensor) -> Tensor:
            extended.append(memories[layer].scatter(1, place, new))
            return self._attention(queries, extended[-1][:, :longest], seen[:, None])

        outputs = self._layers(parameters, inputs[:, None], length[:, None], attend)
        return outputs[:, 0], (length + 1, *extended)

    def peek(self, parameters: Parameters, inputs: Float[Tensor, "B Q I"], state: State) -> Float[Tensor, "B Q O"]:
        length, *memories = state
        longest, queries = int(length.max()), inputs.shape[1]
        check_length("a transformer", self.length, longest + 1)
        before = torch.arange(longest, device=length.device) < length[:, None]
        itself = torch.eye(queries, dtype=torch.bool, device=length.device)
        seen = torch.cat([before[:, None].expand(-1, queries, -1), itself.expand(len(length), -1, -1)], -1)

        def attend(layer: int, asking: Tensor, new: Tensor) -> Tensor:
            return self._attention(asking, torch.cat([memories[layer][:, :longest], new], 1), seen)

        return self._layers(parameters, inputs, length[:, None], attend)

    def sequence(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "T B I"],
        state: State | None = None,
        starts: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], State]:
        steps, batch = inputs.shape[:2]
        length, *memories = (inputs.new_zeros(1, dtype=torch.long),) if state is None else state
        age = ages(steps, length, starts)
        if state is not None or steps > self.length:
            check_length("a transformer", self.length, int(age.max()) + 1)
        stored = self.length if memories else 0
        seen = None if state is None and starts is None else _seen(age, length, stored)
        after = []

        def attend(layer: int, queries: Tensor, new: Tensor) -> Tensor:
            window = torch.cat([memories[layer], new], 1) if memories else new
            after.append(_kept(window, age, length, self.length, stored))
            return self._attention(queries, window, seen)

        outputs = self._layers(parameters, inputs.transpose(0, 1), age, attend)
        return outputs.transpose(0, 1), ((age[:, -1] + 1).expand(batch), *after)

    def _layers(
        self, parameters: Parameters, inputs: Float[Tensor, "B n I"], age: Int[Tensor, "#B #n"], attend: Attend
    ) -> Float[Tensor, "B n d"]:
        """The outputs of all layers; `age` is the position of each input in its sequence."""
        d = self.outputs

        def linear(name: str, values: Tensor) -> Tensor:
            return F.linear(values, parameters[name], parameters[f"{name}_bias"])

        def norm(name: str, values: Tensor) -> Tensor:
            return F.layer_norm(values, (d,), parameters[f"{name}scale"], parameters[f"{name}shift"])

        hidden = math.sqrt(d) * linear("embedding", inputs) + sinusoids(age, d, inputs.dtype)
        for layer in range(self.layers):
            projected = linear(f"attention{layer}", norm(f"attention{layer}_", hidden))
            queries, new = projected.split([d, 2 * d], -1)
            hidden = hidden + linear(f"mixing{layer}", attend(layer, queries, new))
            expanded = linear(f"expansion{layer}", norm(f"expansion{layer}_", hidden)).relu()
            hidden = hidden + linear(f"contraction{layer}", expanded)
        return norm("", hidden)

    def _attention(
        self, queries: Float[Tensor, "B n d"], memory: Float[Tensor, "B W 2*d"], seen: Bool[Tensor, "#B #n W"] | None
    ) -> Float[Tensor, "B n d"]:
        """Softmax attention of all heads to the elements `seen`; None: to those up to the own place."""
        keys, values = memory.unflatten(-1, (2, self.heads, -1)).unbind(2)
        found = F.scaled_dot_product_attention(
            queries.unflatten(-1, (self.heads, -1)).transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=None if seen is None else seen[:, None],
            is_causal=seen is None,
        )
        return found.transpose(1, 2).flatten(2)


def sinusoids(position: Int[Tensor, "..."], size: int, dtype: torch.dtype) -> Float[Tensor, "... d"]:
    """The encoding of positions by sines and cosines, `size` / 2 of each (Vaswani et al. 2017, section 3.5).

    The frequencies fall from 1 to nearly 1/10,000 in a geometric series.

    >>> from metarl.nn.transformer import sinusoids
    >>> sinusoids(torch.tensor([0, 1]), 2, torch.float32)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    place = torch.arange(0, size, 2, device=position.device)
    angles = position[..., None] * (10_000 ** (-place / size))
    return torch.cat([angles.sin(), angles.cos()], -1).to(dtype)


def _seen(age: Int[Tensor, "#B T"], before: Int[Tensor, "#B"], stored: int) -> Bool[Tensor, "#B T W"]:
    """Which elements of its own sequence each new one sees, among `stored` rows of memory and all T new ones.

    The memory of a sequence has elements in its first `before` rows only.
    """
    steps = age.shape[1]
    time = torch.arange(steps, device=age.device)
    row = torch.arange(stored, device=age.device)
    # The time of each element, with that of the first new one 0; later than all if the row holds none.
    old = torch.where(row < before[:, None], row - before[:, None], steps)
    place = torch.cat([old, time.expand(len(before), -1)], 1)[:, None]
    back = time[:, None] - place
    return (back >= 0) & (back <= age[..., None])


def _kept(
    window: Float[Tensor, "B W m"], age: Int[Tensor, "#B T"], before: Int[Tensor, "#B"], length: int, stored: int
) -> Float[Tensor, "B L m"]:
    """The memory after T new elements: those of the last sequence, from row 0 on.

    `window` has `stored` rows of memory, of which `before` are of the sequence that goes on, and the new elements.
    """
    steps = age.shape[1]
    first = steps - 1 - age[:, -1:]  # time of the sequence's first element; it lies in the memory if this is below 0
    row = torch.arange(length, device=window.device)
    source = torch.where((first < 0) & (row < before[:, None]), row, stored + first + row)
    source = source.clamp(max=stored + steps - 1)[..., None].expand(len(window), -1, window.shape[2])
    return window.gather(1, source)

"""A GRU over a whole sequence on the CPU, forward and backward, in few operations per step.

    r, z = σ(a_r), σ(a_z)    n = tanh(a_n)    h' = n + z ⊙ (h − n)
    a_r, a_z = W x + b + U h + c    a_n = W x + b + r ⊙ u    u = U h + c

Each gate has its own rows of W, U, b and c. W x of all steps is one product, so that a step is two products and a few
elementwise operations. Backward, with δ = ∂L/∂h', every derivative is δ times a factor that does not depend on δ:

    ∂L/∂a_n = δ ⊙ (1 − z)(1 − n²)    ∂L/∂u = ∂L/∂a_n ⊙ r
    ∂L/∂a_r = ∂L/∂u ⊙ u (1 − r)      ∂L/∂a_z = δ ⊙ (h − n) z (1 − z)

So the factors of many steps are computed together, a step of the loop is one product and three elementwise operations,
and the gradients of W and U are one product each for many steps. Torch's own GRU builds a graph of a dozen operations
per step, and multiplies matrices four times in each step of the backward pass.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.errors import UsageError

CHUNK = 16
"""Steps of the backward pass that are prepared together: their numbers fit into the cache."""


class GRUSequence(torch.autograd.Function):
    """`apply(inputs, state, input, recurrent, bias, recurrent_bias, starts)`: the outputs h' of all steps `[T, B, H]`.

    `inputs` are `[T, B, I]`, `state` is `[B, H]`, and the parameters W, U, b and c are those of
    `metarl.nn.recurrent.GRU`. Memory is blank before each step in `starts` (bool `[T, B]`, or None). Differentiable
    with respect to all but `starts`, once: `create_graph=True` raises `UsageError`.

    >>> from metarl.nn.gru_kernel import GRUSequence
    >>> parameters = torch.randn(48, 5), torch.randn(48, 16), torch.zeros(48), torch.zeros(48)
    >>> GRUSequence.apply(torch.randn(10, 3, 5), torch.zeros(3, 16), *parameters, None).shape
    torch.Size([10, 3, 16])
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Float[Tensor, "T B I"],
        state: Float[Tensor, "B H"],
        input: Float[Tensor, "G I"],
        recurrent: Float[Tensor, "G H"],
        bias: Float[Tensor, "G"],
        recurrent_bias: Float[Tensor, "G"],
        starts: Bool[Tensor, "T B"] | None,
    ) -> Float[Tensor, "T B H"]:
        two = 2 * state.shape[1]
        gates = F.linear(inputs, input[:two], (bias + recurrent_bias)[:two])  # becomes r and z
        new = F.linear(inputs, 2 * input[two:], 2 * bias[two:])  # becomes n
        pushed = torch.empty_like(new)  # becomes u
        memory = new.new_empty(len(new) + 1, *state.shape)
        memory[0] = state
        to_gates, to_new, new_bias = recurrent[:two].mT, recurrent[two:].mT, recurrent_bias[two:]
        keep, states, minus_one = _blanking(starts, memory), memory.unbind(0), -torch.ones_like(state)
        reset, update = (part.unbind(0) for part in gates.chunk(2, -1))
        rows = zip(gates.unbind(0), reset, update, new.unbind(0), pushed.unbind(0), strict=True)
        for t, (gate, r, z, n, u) in enumerate(rows):
            h = states[t] * keep[t] if t in keep else states[t]
            gate.addmm_(h, to_gates).sigmoid_()
            torch.addmm(new_bias, h, to_new, out=u)
            # tanh a = 2 σ(2a) - 1: torch computes σ five times as fast as tanh.
            n.addcmul_(r, u, value=2).sigmoid_()
            torch.add(minus_one, n, alpha=2, out=n)
            torch.lerp(n, h, z, out=states[t + 1])
        ctx.save_for_backward(inputs, input, recurrent, gates, new, pushed, memory, starts)
        return memory[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "T B H"]) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UsageError(
                "gradients through a GRU's sequence cannot be differentiated again: chain GRU.step instead"
            )
        inputs, input, recurrent, gates, new, pushed, memory, starts = ctx.saved_tensors
        steps, batch, units = new.shape
        three = 3 * units
        room = _Room.of(new.new_empty(min(CHUNK, steps), batch, 4, units))
        rolled = recurrent.roll(units, 0)  # its rows in the order n, r, z
        keep, carry = _blanking(starts, memory), torch.zeros_like(new[0])
        outsides, updates = gradient.unbind(0), gates[..., units:].unbind(0)
        by_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        by_input, by_recurrent = input.new_zeros(input.shape[::-1]), torch.zeros_like(rolled)
        by_bias = recurrent.new_zeros(4 * units)
        for end in range(steps, 0, -len(room.rows)):
            begin = max(0, end - len(room.rows))
            part, push = slice(begin, end), room.all[: end - begin]
            before = memory[part]
            if starts is not None:
                before = before.masked_fill(starts[part][..., None], 0)
            _fill_factors(push, gates[part], new[part], pushed[part], before)
            for t in range(end - 1, begin - 1, -1):
                torch.add(outsides[t], carry, out=room.delta)
                room.rows[t - begin].mul_(room.wide_delta)
                torch.mul(room.delta, updates[t], out=carry).addmm_(room.to_recurrent[t - begin], rolled)
                if t in keep:
                    carry.mul_(keep[t])
            flat = push.flatten(2).flatten(0, 1)
            by_recurrent.addmm_(flat[:, :three].mT, before.flatten(0, 1))
            by_input.addmm_(inputs[part].flatten(0, 1).mT, flat[:, units:])
            by_bias.add_(flat.sum(0))
            if by_inputs is not None:
                torch.mm(flat[:, units:], input, out=by_inputs[part].flatten(0, 1))
        by_recurrent_bias = by_bias[:three].roll(-units)
        return by_inputs, carry, by_input.mT, by_recurrent.roll(-units, 0), by_bias[units:], by_recurrent_bias, None


class _Room(NamedTuple):
    """Memory for the steps of one chunk, `[c, B, 4, H]`: for each, the derivatives with respect to u, a_r, a_z, a_n.

    Its views are made once, which takes about as long as an operation on their numbers.
    """

    all: Float[Tensor, "c B 4 H"]
    rows: tuple[Tensor, ...]
    to_recurrent: tuple[Tensor, ...]
    """The part of each row that goes on through U, `[B, 3 H]`."""
    delta: Float[Tensor, "B H"]
    wide_delta: Float[Tensor, "B 1 H"]

    @classmethod
    def of(cls, memory: Float[Tensor, "c B 4 H"]) -> "_Room":
        delta = torch.empty_like(memory[0, :, 0])
        to_recurrent = memory.flatten(2)[..., : 3 * memory.shape[3]]
        return cls(memory, memory.unbind(0), to_recurrent.unbind(0), delta, delta[:, None])


def _blanking(starts: Bool[Tensor, "T B"] | None, like: Tensor) -> dict[int, Float[Tensor, "B 1"]]:
    """For each step at which any memory is blanked, a factor: 0 if it is, else 1."""
    if starts is None:
        return {}
    times = starts.any(1).nonzero()[:, 0].tolist()
    return {t: (~starts[t]).to(like.dtype)[:, None] for t in times}


def _fill_factors(
    factors: Float[Tensor, "c B 4 H"],
    gates: Float[Tensor, "c B 2*H"],
    new: Float[Tensor, "c B H"],
    pushed: Float[Tensor, "c B H"],
    before: Float[Tensor, "c B H"],
) -> None:
    """Writes the derivatives of h' with respect to u, a_r, a_z and a_n."""
    r, z = gates.chunk(2, -1)
    by_pushed, by_reset, by_update, by_new = factors.unbind(2)
    closed = 1 - z
    torch.addcmul(closed, closed * new, new, value=-1, out=by_new)
    torch.mul(by_new, r, out=by_pushed)
    open_reset = by_pushed * pushed
    torch.addcmul(open_reset, open_reset, r, value=-1, out=by_reset)
    torch.mul((before - new).mul_(z), closed, out=by_update)

"""The functional inner loop that MAML-RL and the supervised learners share (Finn et al. 2017, equation 1).

θ'_i = θ_i − α ∇L_i(θ_i) for all tasks i at once: parameters are stacked `[M, ...]`, one gradient call serves every
task, and the result is differentiable back to what it started from.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Parameters = dict[str, Tensor]
Gradient = Callable[[Parameters], Parameters]
"""Stacked parameters `[M, ...]` → the gradient of each task's loss, `[M, ...]`, differentiable by autograd."""
StepSize = float | Parameters
"""One number, or one for each entry of each parameter, the same for all tasks, `[...]`."""


def stack(parameters: Parameters, num_tasks: int) -> Parameters:
    """The same parameters for every task: `[...]` becomes `[M, ...]`, a view. Gradients flow back through it."""
    return {name: value.expand(num_tasks, *value.shape) for name, value in parameters.items()}


def gradient_of(loss: Callable[[Parameters], Float[Tensor, "M"]]) -> Gradient:
    """The gradient of any per-task loss, by autograd. Tasks must not interact: the loss of task i reads row i only."""

    def gradient(parameters: Parameters) -> Parameters:
        tracked = torch.is_grad_enabled() and any(value.requires_grad for value in parameters.values())
        with torch.enable_grad():
            leaves = parameters
            if not tracked:
                leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
            values = torch.autograd.grad(loss(leaves).sum(), list(leaves.values()), create_graph=tracked)
        return dict(zip(parameters, values, strict=True))

    return gradient


def adapt(
    parameters: Parameters,
    gradients: Sequence[Gradient],
    step_sizes: Sequence[StepSize],
    *,
    first_order: bool = False,
) -> Parameters:
    """Takes one gradient step of all tasks for each entry of `gradients`, from stacked `parameters` `[M, ...]`.

    `first_order` cuts the derivative through the gradients (Finn et al. 2017, section 5.2), so that ∂θ'/∂θ = 1.
    """
    for gradient, step_size in zip(gradients, step_sizes, strict=True):
        if first_order:
            with torch.no_grad():
                step = gradient(parameters)
        else:
            step = gradient(parameters)
        parameters = descend(parameters, step, step_size)
    return parameters


def descend(parameters: Parameters, gradient: Parameters, step_size: StepSize) -> Parameters:
    """θ − α ∘ g for stacked parameters `[M, ...]`."""
    if isinstance(step_size, dict):
        return {n: torch.addcmul(value, step_size[n], gradient[n], value=-1) for n, value in parameters.items()}
    return {name: torch.sub(value, gradient[name], alpha=step_size) for name, value in parameters.items()}

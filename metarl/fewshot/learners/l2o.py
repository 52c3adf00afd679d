"""Learning to learn by gradient descent by gradient descent (Andrychowicz et al., NeurIPS 2016).

A two-layer LSTM m reads the gradient of each parameter separately, with a state per parameter and shared weights φ
(section 2.1):

    (g_t, h_{t+1}) = m(∇_t, h_t, φ),        θ_{t+1} = θ_t + a g_t,        L(φ) = Σ_t f(θ_t)   (equations 2 and 3)

Its inputs are the log-magnitude and the sign of gradients (appendix A): (log|∇| / p, sgn ∇) if |∇| ≥ e^−p, else
(−1, e^p ∇). Gradients are treated as constants, ∂∇_t/∂φ = 0 (section 2.1), which avoids second derivatives.

`metarl.fewshot.quadratics` trains it on the paper's quadratics (section 3.1). As a few-shot learner (`L2O`), it
descends the loss of the support set; f is then the loss of the query set after the last step, and the start θ_0 is also
learned, as in Ravi and Larochelle (ICLR 2017).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.adaptation import Parameters, gradient_of, stack
from metarl.fewshot.episodes import Samples
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.gradient import GradientConfig, GradientLearner
from metarl.fewshot.parameter_names import with_prefix
from metarl.randomness import make_generator
from metarl.tasks import check_count

MAGNITUDE = 10.0
"""p: gradients smaller than e^−p are scaled linearly."""
_PREFIX = "optimizer."


class OptimizerState(NamedTuple):
    """The state of the optimizer for C coordinates.

    >>> from metarl.fewshot.learners.l2o import LearnedOptimizer
    >>> state = LearnedOptimizer(units=20, scale=0.1, generator=torch.Generator()).initial(coordinates=7)
    >>> state.detach().hidden[0].shape
    torch.Size([7, 20])
    """

    hidden: tuple[Float[Tensor, "C U"], Float[Tensor, "C U"]]
    """h of each layer."""
    cell: tuple[Float[Tensor, "C U"], Float[Tensor, "C U"]]
    """c of each layer."""

    def detach(self) -> "OptimizerState":
        (h_1, h_2), (c_1, c_2) = self
        return OptimizerState((h_1.detach(), h_2.detach()), (c_1.detach(), c_2.detach()))


class LearnedOptimizer(nn.Module):
    """The coordinate-wise LSTM; `scale` is the factor a of its output.

    >>> from metarl.fewshot.learners.l2o import LearnedOptimizer
    >>> optimizer = LearnedOptimizer(units=20, scale=0.1, generator=torch.Generator())
    >>> update, state = optimizer(torch.ones(7), optimizer.initial(coordinates=7))
    >>> update.shape
    torch.Size([7])
    """

    def __init__(self, units: int, scale: float, generator: torch.Generator):
        super().__init__()
        self.units, self.scale = units, scale
        self.first = nn.LSTMCell(2, units)
        self.second = nn.LSTMCell(units, units)
        self.readout = nn.Linear(units, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                bound = units**-0.5  # torch's rule for LSTMs
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def initial(self, coordinates: int) -> OptimizerState:
        zeros = self.readout.weight.new_zeros(coordinates, self.units)
        return OptimizerState((zeros, zeros), (zeros, zeros))

    def forward(self, gradient: Float[Tensor, "C"], state: OptimizerState) -> tuple[Float[Tensor, "C"], OptimizerState]:
        """The update to add to each coordinate, and the next state."""
        first = self.first(log_and_sign(gradient), (state.hidden[0], state.cell[0]))
        second = self.second(first[0], (state.hidden[1], state.cell[1]))
        update = self.scale * self.readout(second[0])[:, 0]
        return update, OptimizerState((first[0], second[0]), (first[1], second[1]))


def log_and_sign(gradient: Float[Tensor, "..."], magnitude: float = MAGNITUDE) -> Float[Tensor, "... 2"]:
    """Gradients of any size as two numbers near [−1, 1] (appendix A); `magnitude` is p."""
    size, least = gradient.abs(), math.exp(-magnitude)
    log = size.clamp_min(least).log() / magnitude
    return torch.stack([log, torch.where(size >= least, gradient.sign(), gradient / least)], -1)


@dataclass(frozen=True)
class L2OConfig(GradientConfig):
    """Options of the learned optimizer.

    >>> from metarl.fewshot.learners.l2o import L2OConfig
    >>> L2OConfig(optimizer_size=10).inner_steps
    5
    """

    inner_lr: float = 0.1
    """Factor of the LSTM's output (a)."""
    inner_steps: int = 5
    """Steps of adaptation in training."""
    test_steps: int = 5
    """Steps of adaptation at test time."""
    width: int = 16
    """Filters of each convolution (images); few, because every weight has its own LSTM state."""
    optimizer_size: int = 20
    """Units of each of the optimizer's two layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("optimizer_size", self.optimizer_size)


class L2O(GradientLearner):
    """Adapts a network with a learned optimizer, from a learned initialisation.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.l2o import L2O, L2OConfig
    >>> learner = L2O(L2OConfig(), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = L2OConfig
    config: L2OConfig

    def build(self) -> tuple[Parameters, Parameters]:
        config = self.config
        generator = make_generator("learned optimizer", self.seed)
        self.rule = LearnedOptimizer(config.optimizer_size, config.inner_lr, generator).to(self.device)
        learned = with_prefix(_PREFIX, dict(self.rule.named_parameters()))
        parameters, buffers = super().build()
        return parameters | learned, buffers

    def start(self, num_tasks: int) -> Parameters:
        network = {name: value for name, value in self.parameters.items() if not name.startswith(_PREFIX)}
        return stack(network, num_tasks)

    def path(self, support: Samples, steps: int) -> Iterator[Parameters]:
        parameters = self.start(len(support.x))
        slope = gradient_of(lambda values: self.objective.support_loss(self.network(values, support.x), support))
        names, shapes = list(parameters), [value.shape for value in parameters.values()]
        flat = torch.cat([value.flatten(1) for value in parameters.values()], 1)
        sizes = [shape[1:].numel() for shape in shapes]
        state = self.rule.initial(flat.numel())
        yield parameters
        for _ in range(steps):
            with torch.no_grad():
                gradient = slope(parameters)
            rows = torch.cat([gradient[name].flatten(1) for name in names], 1)
            update, state = self.rule(rows.flatten(), state)
            flat = flat + update.view_as(flat)
            parts = flat.split(sizes, 1)
            parameters = {name: part.reshape(s) for name, part, s in zip(names, parts, shapes, strict=True)}
            yield parameters

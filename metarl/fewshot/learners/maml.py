"""Learners that adapt by gradient steps from a learned initialisation, with the inner loop of MAML-RL.

MAML (Finn, Abbeel, Levine, ICML 2017), algorithm 2 and equation 1:

    θ'_i = θ − α ∇_θ L_support_i(θ),        θ ← θ − β ∇_θ Σ_i L_query_i(θ'_i),

where the second gradient differentiates through the first (MAML), or takes ∂θ'/∂θ = 1 (first-order MAML, section 5.2).
ANIL (Raghu et al., ICLR 2020) adapts only the last linear layer, in training and at test time.

The paper adapts to sine waves with one step size, which diverges within ten steps on some waves. Here the step size is
halved after the steps that training takes, as in the paper's reinforcement learning (appendix A.2). On small images,
the last convolution's output is averaged over its positions, as in the authors' code for Omniglot, which leaves the 64
numbers of section 5.2.

Deviations: convolutions have no bias (batch normalisation removes it). Weights are Xavier-uniform and He-normal instead
of truncated normal with standard deviation 0.01. The meta-loss is the mean over tasks, not the sum.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters, adapt, gradient_of, stack
from metarl.fewshot.episodes import Episodes, Samples, TaskSpec
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.gradient import GradientConfig, GradientLearner
from metarl.fewshot.networks import DEFAULT, Statistics
from metarl.fewshot.objectives.plain import Predictor

Outputs = Callable[[Parameters], Float[Tensor, "E S O"]]
"""The outputs of a network for the support sets, as a function of the adapted parameters."""


@dataclass(frozen=True)
class MAMLConfig(GradientConfig):
    """Options of MAML and its relatives.

    >>> from metarl.fewshot.learners.maml import MAMLConfig
    >>> MAMLConfig(inner_lr=0.1, inner_steps=5, late_lr=0.05).step_size(5)
    0.05
    """

    late_lr: float | None = None
    """Step size of the steps after the first `inner_steps`; α if not given."""

    def step_size(self, step: int) -> float:
        """The size of step number `step`, counted from 0."""
        return self.inner_lr if self.late_lr is None or step < self.inner_steps else self.late_lr


class MAMLLearner(GradientLearner):
    """MAML: differentiates through adaptation. (The reinforcement-learning agent is `metarl.agents.maml.MAML`.)

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.maml import MAMLLearner, MAMLConfig
    >>> learner = MAMLLearner(MAMLConfig(inner_lr=0.1), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = MAMLConfig
    config: MAMLConfig
    first_order: ClassVar[bool] = False

    @classmethod
    def default_config(cls, spec: TaskSpec) -> MAMLConfig:
        """The paper's appendix A for the sinusoid and for Omniglot, 5-way and 20-way; similar ones for other data."""
        if spec.kind == "regression":
            return MAMLConfig(
                iterations=70_000,
                num_tasks=25,
                hidden=(40, 40),
                inner_lr=0.01,
                late_lr=0.005,
                test_steps=10,
                train_queries=spec.shape.shots,
            )
        if len(spec.input_shape) == 1:
            return MAMLConfig(num_tasks=25, hidden=(64, 64), inner_lr=0.1, inner_steps=5, test_steps=5)
        averaged = max(spec.input_shape[1:]) <= 32  # larger images leave more than four places, which the authors keep
        if spec.shape.ways > 5:
            return MAMLConfig(
                num_tasks=16, inner_lr=0.1, inner_steps=5, test_steps=5, train_queries=5, averaged=averaged
            )
        return MAMLConfig(num_tasks=32, inner_lr=0.4, inner_steps=1, test_steps=3, train_queries=5, averaged=averaged)

    def path(self, support: Samples, steps: int) -> Iterator[Parameters]:
        return self.descend(lambda values: self.network(values, support.x), support, steps)

    def descend(self, outputs: Outputs, support: Samples, steps: int) -> Iterator[Parameters]:
        """The path of gradient descent on the support loss of the predictions `outputs`."""
        parameters = self.start(len(support.x))
        gradient = gradient_of(lambda values: self.objective.support_loss(outputs(values), support))
        yield parameters
        for step in range(steps):
            parameters = adapt(parameters, [gradient], [self.config.step_size(step)], first_order=self.first_order)
            yield parameters

    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        """Takes one step down the meta-gradient, which is accumulated over chunks of tasks."""
        self.optimizer.zero_grad()
        generator, metrics = self.generator("fit", seed), dict[str, float]()
        for chunk in self.chunks(episodes):
            predictor = self.adapt(chunk.support, training=True)
            losses, outputs = self.objective.query_loss(predictor, chunk.query, generator)
            (losses.sum() / len(episodes)).backward()
            self.note(metrics, losses, outputs, chunk.query, len(chunk) / len(episodes))
        self.apply_gradients()
        return metrics


class FirstOrderMAMLLearner(MAMLLearner):
    """MAML with the gradient at the adapted parameters instead of the meta-gradient.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.maml import FirstOrderMAMLLearner, MAMLConfig
    >>> spec = open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2))
    >>> learner = FirstOrderMAMLLearner(MAMLConfig(inner_lr=0.1), spec)
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    first_order = True


class ANIL(MAMLLearner):
    """MAML that adapts only the last layer. The body runs once per episode, with the same parameters for all tasks.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.maml import ANIL, MAMLConfig
    >>> learner = ANIL(MAMLConfig(inner_lr=0.1), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    def start(self, num_tasks: int) -> Parameters:
        return stack({name: self.parameters[name] for name in self.network.head_names()}, num_tasks)

    def path(self, support: Samples, steps: int) -> Iterator[Parameters]:
        features = self.network.body(self.parameters, support.x)
        return self.descend(lambda head: self.network.head(head, features), support, steps)

    def predictor(self, parameters: Parameters, support: Samples) -> Predictor:
        reference = support.x.shape[1]
        if self.normalisation != "support-statistics":
            return lambda x: self.network.head(parameters, self.network.body(self.parameters, x))

        def predict(x: Float[Tensor, "E n ..."]) -> Float[Tensor, "E n O"]:
            both = torch.cat([support.x, x], 1)
            features = self.network.body(self.parameters, both, Statistics(reference=reference))
            return self.network.head(parameters, features[:, reference:])

        return predict

    def embed(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n D"]:
        return self.network.body(self.parameters, inputs[None], DEFAULT)[0]

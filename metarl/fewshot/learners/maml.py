"""Learners that adapt by gradient steps from a learned initialisation, on the inner loop that MAML-RL uses, too.

MAML (Finn, Abbeel, Levine, ICML 2017), algorithm 2 and equation 1:

    θ'_i = θ − α ∇_θ L_support_i(θ),        θ ← θ − β ∇_θ Σ_i L_query_i(θ'_i),

the second gradient through the first (MAML) or with ∂θ'/∂θ = 1 (first-order MAML, section 5.2). ANIL (Raghu et al.,
ICLR 2020) adapts the last linear layer alone, in training and at test time.

Deviations: convolutions have no bias (batch normalisation removes it), weights are Xavier-uniform and He-normal instead
of truncated normal with standard deviation 0.01; the meta-loss is the mean over tasks, not the sum.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters, adapt, gradient_of, stack
from metarl.fewshot.episodes import Episodes, Samples, TaskSpec
from metarl.fewshot.learners.gradient import GradientConfig, GradientLearner
from metarl.fewshot.networks import DEFAULT, Statistics
from metarl.fewshot.objectives.plain import Predictor


class MAML(GradientLearner):
    """Differentiates through adaptation."""

    first_order: ClassVar[bool] = False

    @classmethod
    def default_config(cls, spec: TaskSpec) -> GradientConfig:
        """The paper's appendix A for the sinusoid and for Omniglot, 5-way and 20-way; near to them for other data."""
        if spec.kind == "regression":
            return GradientConfig(
                iterations=70_000,
                num_tasks=25,
                hidden=(40, 40),
                inner_lr=0.01,
                test_steps=10,
                train_queries=spec.shape.shots,
            )
        if len(spec.input_shape) == 1:
            return GradientConfig(num_tasks=25, hidden=(64, 64), inner_lr=0.1, inner_steps=5, test_steps=5)
        if spec.shape.ways > 5:
            return GradientConfig(num_tasks=16, inner_lr=0.1, inner_steps=5, test_steps=5, train_queries=5)
        return GradientConfig(num_tasks=32, inner_lr=0.4, inner_steps=1, test_steps=3, train_queries=5)

    def descend(self, parameters: Parameters, support: Samples, steps: int) -> Parameters:
        gradient = gradient_of(lambda values: self.objective.support_loss(self.network(values, support.x), support))
        return adapt(parameters, [gradient] * steps, [self.config.inner_lr] * steps, first_order=self.first_order)

    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        """One step down the meta-gradient, which is summed up over chunks of tasks."""
        self.optimizer.zero_grad()
        generator, total, metrics = self.generator("fit", seed), 0.0, dict[str, float]()
        for chunk in self.chunks(episodes):
            predictor = self.adapt(chunk.support, training=True)
            losses, outputs = self.objective.query_loss(predictor, chunk.query, generator)
            loss = losses.sum() / len(episodes)
            loss.backward()
            total += float(loss.detach())
            share = len(chunk) / len(episodes)
            for name, value in self.score(outputs.detach(), chunk.query).items():
                metrics[name] = metrics.get(name, 0.0) + share * value
        self.apply_gradients()
        return {"loss": total, **metrics}


class FirstOrderMAML(MAML):
    """MAML with the gradient at the adapted parameters in place of the meta-gradient."""

    first_order = True


class ANIL(MAML):
    """MAML that adapts the last layer alone: the body runs once per episode, with the same parameters for all tasks."""

    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        steps = self.config.inner_steps if training else self.config.test_steps
        head = stack(self._head(), len(support.x))
        return self.predictor(self.descend(head, support, steps), support)

    def descend(self, parameters: Parameters, support: Samples, steps: int) -> Parameters:
        features = self.network.body(self.parameters, support.x)
        gradient = gradient_of(lambda head: self.objective.support_loss(self.network.head(head, features), support))
        head = {name: parameters[name] for name in self.network.head_names()}
        return adapt(head, [gradient] * steps, [self.config.inner_lr] * steps)

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

    def _head(self) -> Parameters:
        return {name: self.parameters[name] for name in self.network.head_names()}

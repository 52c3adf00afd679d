"""Robustness to small changes of the queries: adversarial querying (Goldblum, Fowl, Goldstein, NeurIPS 2020).

Support sets are not changed. Training minimises the loss on queries that an adversary has perturbed within the ball
‖δ‖_∞ ≤ ε to maximise it, by projected gradient ascent (Madry et al., ICLR 2018):

    x ← clip(x + α · sign(∇_x loss), x_0 − ε, x_0 + ε),  from a random point of the ball.

The test uses a stronger attack: more steps, and the worst of several starts for each query.

Deviation: vectors have no known range, so only the ball bounds their attack. In a table only the columns of numbers are
attacked, each in its own unit, the standard deviation: nobody changes a city by a tenth. A missing number is attacked
like one that is known, at the median that stands in for it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.episodes import Samples, TaskSpec
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig, Predictor, task_loss, task_score
from metarl.fewshot.preprocessing import Preprocessing
from metarl.tasks import check_count


@dataclass(frozen=True)
class AdversarialConfig(ObjectiveConfig):
    """Options of adversarial querying. With `attack_steps` 0, training is plain, but robustness is still measured.

    >>> from metarl.fewshot.objectives.robust import AdversarialConfig
    >>> AdversarialConfig(eps=4 / 255).attack_steps
    7
    """

    eps: float = 8 / 255
    """Radius of the ball. For images in raw values, with black 0 and white 1; for vectors in network inputs (standard
    deviations, for tables)."""
    attack_steps: int = 7
    """Steps of the attack in training."""
    attack_step_size: float | None = None
    """Length of a step (α) of both attacks, in units of `eps`; 2.5 / steps if not given, as in Madry et al."""
    random_start: bool = True
    """Start the attack in training at a random point of the ball."""
    test_attack_steps: int = 20
    """Steps of the attack at test time."""
    test_restarts: int = 3
    """Random starts of the attack at test time."""

    def __post_init__(self) -> None:
        check_count("test_restarts", self.test_restarts)
        if not self.eps > 0:
            raise UsageError(f"eps must be positive, got {self.eps}")
        if self.attack_step_size is not None and not self.attack_step_size > 0:
            raise UsageError(f"attack_step_size must be positive, got {self.attack_step_size}")
        if self.attack_steps < 0:
            raise UsageError(f"attack_steps must be at least 0, got {self.attack_steps}")
        if self.test_attack_steps <= self.attack_steps:
            raise UsageError(
                f"the test needs a stronger attack than training: test_attack_steps is {self.test_attack_steps}, "
                f"attack_steps {self.attack_steps}"
            )


class Adversarial(Objective):
    """Minimises the loss on attacked queries; measures natural and adversarial accuracy (or mse).

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.objectives.robust import Adversarial, AdversarialConfig
    >>> data = open_data("biased")
    >>> Adversarial(AdversarialConfig(eps=0.5), data.spec(data.default_shape())).ball.radius
    tensor(0.5000)
    """

    config_class = AdversarialConfig
    config: AdversarialConfig

    def __init__(self, config: AdversarialConfig, spec: TaskSpec):
        super().__init__(config, spec)
        self.ball = Ball.of(spec.preprocessing, config.eps)

    def query_loss(
        self, predictor: Predictor, query: Samples, generator: torch.Generator
    ) -> tuple[Float[Tensor, "E"], Float[Tensor, "E n O"]]:
        steps = self.config.attack_steps
        if steps == 0:
            return super().query_loss(predictor, query, generator)
        start = self.ball.sample(query.x, generator) if self.config.random_start else query.x
        attacked = self._ascend(predictor, query, start, steps)
        return super().query_loss(predictor, Samples(attacked, query.y, query.groups), generator)

    def measure(
        self, predictor: Predictor, query: Samples, outputs: Float[Tensor, "E n O"], generator: torch.Generator
    ) -> dict[str, Float[Tensor, "E"]]:
        attacked = self.strongest(predictor, query, outputs, generator)
        metric = "mse" if query.y.is_floating_point() else "accuracy"
        return {
            f"natural_{metric}": task_score(outputs, query),
            f"adversarial_{metric}": task_score(predictor(attacked), query),
        }

    def strongest(
        self, predictor: Predictor, query: Samples, outputs: Float[Tensor, "E n O"], generator: torch.Generator
    ) -> Float[Tensor, "E n ..."]:
        """Each query after the most harmful of all restarts, or unchanged if none did harm.

        The caller must predict the combined queries again, which matters if a predictor normalises by all queries.
        """
        worst_x, worst = query.x, harm(outputs, query)
        for _ in range(self.config.test_restarts):
            start = self.ball.sample(query.x, generator)
            attacked = self._ascend(predictor, query, start, self.config.test_attack_steps)
            harmed = harm(predictor(attacked), query)
            chosen = (harmed > worst).reshape(*harmed.shape, *[1] * (query.x.ndim - 2))
            worst_x, worst = torch.where(chosen, attacked, worst_x), torch.maximum(harmed, worst)
        return worst_x

    def _ascend(
        self, predictor: Predictor, query: Samples, start: Float[Tensor, "E n ..."], steps: int
    ) -> Float[Tensor, "E n ..."]:
        share = self.config.attack_step_size or 2.5 / steps
        return pgd(predictor, query, start, self.ball, steps=steps, step_size=share)


@dataclass(frozen=True)
class Ball:
    """The ball ‖x − x_0‖_∞ ≤ radius with low ≤ x ≤ high, in network inputs: `[*shape]` or one number each.

    >>> from metarl.fewshot.objectives.robust import Ball
    >>> ball = Ball(torch.tensor(0.1), low=torch.tensor(0.0), high=torch.tensor(1.0))
    >>> ball.project(torch.tensor([[0.7, 0.3]]), centre=torch.tensor([[0.5, 0.3]]))
    tensor([[0.6000, 0.3000]])
    """

    radius: Float[Tensor, "..."]
    low: Float[Tensor, "..."]
    high: Float[Tensor, "..."]

    @classmethod
    def of(cls, preprocessing: Preprocessing, eps: float) -> "Ball":
        """The ball of radius `eps`: in raw values of images, which lie in [0, 1], or in network inputs of vectors.

        Only the numbers of a vector can move. Of a table, each is in units of its column's own standard deviation.
        """
        if not preprocessing.is_image:
            can_move = torch.tensor(preprocessing.scale) != 0  # a column that is constant in training has no effect
            radius = (torch.tensor(preprocessing.numeric) & can_move if preprocessing.numeric else can_move).float()
            radius = radius.reshape(-1, *[1] * (len(preprocessing.shape) - 1)) if len(radius) > 1 else radius[0]
            return cls(eps * radius, torch.tensor(-torch.inf), torch.tensor(torch.inf))
        ends = preprocessing(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, *preprocessing.shape))
        return cls(eps * (ends[1] - ends[0]).abs(), ends.amin(0), ends.amax(0))

    def project(self, x: Float[Tensor, "E n ..."], centre: Float[Tensor, "E n ..."]) -> Float[Tensor, "E n ..."]:
        """The point nearest to `x` in the ball around `centre` and in the range."""
        radius, low, high = (value.to(x.device) for value in (self.radius, self.low, self.high))
        return x.clamp(centre - radius, centre + radius).clamp(low, high)

    def sample(self, centre: Float[Tensor, "E n ..."], generator: torch.Generator) -> Float[Tensor, "E n ..."]:
        """A uniformly random point of the ball around `centre`, clipped to the range."""
        noise = 2 * torch.rand(centre.shape, generator=generator, device=centre.device) - 1
        return self.project(centre + noise * self.radius.to(centre.device), centre)


def pgd(
    predictor: Predictor,
    query: Samples,
    start: Float[Tensor, "E n ..."],
    ball: Ball,
    *,
    steps: int,
    step_size: float,
) -> Float[Tensor, "E n ..."]:
    """Takes `steps` steps up the loss from `start`, each `step_size` radii long, within the ball around `query.x`."""
    centre = query.x.detach()
    x = start.detach()
    for _ in range(steps):
        x.requires_grad_()
        with torch.enable_grad():
            loss = task_loss(predictor(x), query).sum()
        gradient = torch.autograd.grad(loss, x)[0]
        x = ball.project(x.detach() + step_size * ball.radius.to(x.device) * gradient.sign(), centre)
    return x


def harm(outputs: Float[Tensor, "E n O"], query: Samples) -> Float[Tensor, "E n"]:
    """The error of each prediction: the best wrong score minus the right one (> 0: misclassified), or squared error."""
    if query.y.is_floating_point():
        return (outputs - query.y).square().mean(-1)
    right = outputs.gather(-1, query.y[..., None])
    wrong = outputs.scatter(-1, query.y[..., None], -torch.inf)
    return wrong.amax(-1) - right[..., 0]

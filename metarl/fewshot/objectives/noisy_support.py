"""Robustness to a bad support set: labels that are wrong, and examples that somebody has poisoned.

    flipped     a share of the support labels is changed to other classes, uniformly (symmetric label noise)
    poisoned    a share of the support inputs is moved within the ball ‖δ‖_∞ ≤ ε; the labels stay

Both need nothing of the learner but its predictions, so every learner can be tested and trained. The poison of the test
is the worst of several tries: half of them move the inputs towards another class, half to random corners of the ball.
An adversary who knows the gradients can do more harm. Training draws one try for each step.

Deviation from independent flips: their number is fixed, and one label of each class stays right, since a class whose
labels are all wrong cannot be learned by anybody. Queries are never changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.episodes import Samples, TaskSpec
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig
from metarl.fewshot.objectives.robust import Ball
from metarl.tasks import check_count


@dataclass(frozen=True)
class NoisySupportConfig(ObjectiveConfig):
    """Options of noisy supports. `train` says whether training sees them too; the test always does.

    >>> from metarl.fewshot.objectives.noisy_support import NoisySupportConfig
    >>> NoisySupportConfig(flip_rate=0.4).poison_rate
    0.2
    """

    flip_rate: float = 0.2
    """Share of the support labels that are flipped; 0 for none."""
    poison_rate: float = 0.2
    """Share of the support examples that are poisoned; 0 for none."""
    poison_eps: float = 0.5
    """Radius of the ball (ε). For images in raw values, with black 0 and white 1; for vectors in network inputs
    (standard deviations, for tables)."""
    test_tries: int = 10
    """Poisoned support sets that the test takes the worst of."""
    train: bool = True
    """Train on flipped and poisoned support sets."""

    def __post_init__(self) -> None:
        check_count("test_tries", self.test_tries)
        for name in ("flip_rate", "poison_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.poison_eps > 0:
            raise UsageError(f"poison_eps must be positive, got {self.poison_eps}")
        if self.flip_rate == self.poison_rate == 0:
            raise UsageError("flip_rate and poison_rate are both 0: nothing is corrupted")


class NoisySupport(Objective):
    """Trains on corrupted support sets; measures the score with flipped and with poisoned ones beside the plain score.

    >>> from metarl.fewshot import EpisodeShape
    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.objectives.noisy_support import NoisySupport, NoisySupportConfig
    >>> data = open_data("biased")
    >>> objective = NoisySupport(NoisySupportConfig(), data.spec(data.default_shape()))
    >>> support = data.episodes("train", 4, data.default_shape(), seed=0).support
    >>> (objective.corrupt(support, torch.Generator()).y != support.y).sum(1)
    tensor([4, 4, 4, 4])
    """

    config_class = NoisySupportConfig
    config: NoisySupportConfig

    def __init__(self, config: NoisySupportConfig, spec: TaskSpec):
        super().__init__(config, spec)
        if spec.kind != "classification" and config.flip_rate > 0:
            raise UsageError("a regression has no labels to flip: set flip_rate to 0")
        self.ball = Ball.of(spec.preprocessing, config.poison_eps)

    def corrupt(self, support: Samples, generator: torch.Generator) -> Samples:
        if not self.config.train:
            return support
        if self.config.poison_rate > 0:
            aimed = bool(torch.rand((), generator=generator, device=generator.device) < 0.5)
            support = self._poisoned(support, generator, aimed)
        return self._flipped(support, generator) if self.config.flip_rate > 0 else support

    def corruptions(self, support: Samples, generator: torch.Generator) -> Mapping[str, Sequence[Samples]]:
        config, found = self.config, dict[str, Sequence[Samples]]()
        if config.flip_rate > 0:
            found["flipped"] = [self._flipped(support, generator)]
        if config.poison_rate > 0:
            tries = [self._poisoned(support, generator, place % 2 == 0) for place in range(config.test_tries)]
            found["poisoned"] = [support, *tries]  # whoever poisons need not, if it does no harm
        return found

    def _flipped(self, support: Samples, generator: torch.Generator) -> Samples:
        return Samples(support.x, flip_labels(support.y, self.config.flip_rate, generator), support.groups)

    def _poisoned(self, support: Samples, generator: torch.Generator, aimed: bool) -> Samples:
        """Some inputs moved to a corner of the ball: that nearest to the mean of another class, or a random one."""
        size = support.x.shape[1]
        count = _rounded(self.config.poison_rate, size, "poison_rate", "poisons")
        keys = torch.rand(len(support.x), size, generator=generator, device=support.x.device)
        chosen = _largest(keys, count)
        if aimed and self.spec.kind == "classification":
            direction = self._to_another_class(support, generator)
        else:
            direction = 2 * torch.rand(support.x.shape, generator=generator, device=support.x.device) - 1
        moved = self.ball.project(support.x + self.ball.radius.to(support.x.device) * direction.sign(), support.x)
        mask = chosen.reshape(*chosen.shape, *[1] * (support.x.ndim - 2))
        return Samples(torch.where(mask, moved, support.x), support.y, support.groups)

    def _to_another_class(self, support: Samples, generator: torch.Generator) -> Float[Tensor, "E S ..."]:
        """From each example to the mean of a random other class of its episode."""
        members = F.one_hot(support.y).to(support.x.dtype)
        means = members.mT @ support.x.flatten(2) / members.sum(1)[..., None]
        other = _other_labels(support.y, members.shape[-1], generator)
        aims = means.gather(1, other[..., None].expand(-1, -1, means.shape[-1]))
        return aims.reshape(support.x.shape) - support.x


def flip_labels(labels: Int[Tensor, "E S"], rate: float, generator: torch.Generator) -> Int[Tensor, "E S"]:
    """Labels of which round(`rate` · S) in each episode are changed, but never all of a class.

    Raises `UsageError` if the rate flips no label, or more than S − N.
    """
    ways, size = int(labels.max()) + 1, labels.shape[1]
    count = _rounded(rate, size, "flip_rate", "flips")
    if count > size - ways:
        raise UsageError(
            f"flip_rate {rate} flips {count} of {size} support labels, but one of each of {ways} classes stays right: "
            f"lower it or give more shots"
        )
    keys = torch.rand(labels.shape, generator=generator, device=labels.device)
    of_class = torch.where(F.one_hot(labels, ways).bool(), keys[..., None], -1.0)
    flipped = _largest(keys.scatter(1, of_class.argmax(1), -1.0), count)  # the first of each class stays
    return torch.where(flipped, _other_labels(labels, ways, generator), labels)


def _other_labels(labels: Int[Tensor, "E S"], ways: int, generator: torch.Generator) -> Int[Tensor, "E S"]:
    """For each label another one, uniformly."""
    return (labels + torch.randint(1, ways, labels.shape, generator=generator, device=labels.device)) % ways


def _largest(keys: Float[Tensor, "E S"], count: int) -> Bool[Tensor, "E S"]:
    """The mask of the `count` largest keys of each episode."""
    return torch.zeros_like(keys, dtype=torch.bool).scatter(1, keys.topk(count).indices, True)


def _rounded(rate: float, size: int, name: str, verb: str) -> int:
    count = round(rate * size)
    if count == 0:
        raise UsageError(f"{name} {rate} {verb} none of {size} support examples: raise it or give more shots")
    return count

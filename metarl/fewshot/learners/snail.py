"""SNAIL (Mishra, Rohaninejad, Chen, Abbeel, ICLR 2018) as a few-shot learner.

The sequence is the support set, as pairs [x_i, y_i], followed by one query [x, 0], whose final features give the scores
(`SequenceMapping`). `metarl.nn.snail` has the blocks. All blocks are causal, so the support set is read once, and each
query costs one further element; the result equals that of E·Q whole sequences. What `adapt` makes depends on the order
of the support set. Training shows random orders.

Deviation: `filters` and `keys` are smaller by default than the paper's 128 and 64, to be affordable on a CPU core.
"""

from dataclasses import dataclass
from typing import ClassVar

from metarl.errors import UsageError
from metarl.fewshot.episodes import TaskSpec
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.mapping import MappingConfig, SequenceMapping
from metarl.nn.snail import SNAILCore
from metarl.tasks import check_count


@dataclass(frozen=True)
class SNAILConfig(MappingConfig):
    """Options of SNAIL.

    >>> from metarl.fewshot.learners.snail import SNAILConfig
    >>> SNAILConfig(filters=32).keys
    32
    """

    filters: int = 64
    """Filters of each dense block; 128 in the paper."""
    keys: int = 32
    """Size of the first attention's keys, twice its values'; it grows fourfold, then twofold. 64 in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("filters", self.filters)
        if self.keys < 2:
            raise UsageError(f"keys must be at least 2, got {self.keys}")


class SNAIL(SequenceMapping):
    """A Simple Neural AttentIve Learner. `adapt` depends on the order of the support set.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.snail import SNAIL, SNAILConfig
    >>> learner = SNAIL(SNAILConfig(filters=32), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = SNAILConfig
    config: SNAILConfig

    @classmethod
    def default_config(cls, spec: TaskSpec) -> SNAILConfig:
        if spec.kind == "regression":
            return SNAILConfig(iterations=10_000, num_tasks=64, halve_every=2500, train_queries=20)
        return SNAILConfig(iterations=4000, num_tasks=16, halve_every=1500, train_queries=5)

    def core(self, length: int) -> SNAILCore:
        """The core for `length` elements. The reach of its convolutions is that of the test, for any `length`."""
        shape, config = self.spec.shape, self.config
        reach = shape.ways * shape.shots + 1
        return SNAILCore(self.features + self.targets, config.filters, config.keys, length, reach)

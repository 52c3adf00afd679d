"""A recurrent network that learns to learn (Hochreiter, Younger, Conwell, ICANN 2001; the LSTM of Santoro et al. 2016).

It reads the pairs of the support set one after the other, then a query with a blank label, and predicts
(`SequenceMapping`). What `adapt` makes depends on the order of the support set. Training with random orders makes the
network less sensitive to the order, but not invariant.

Deviation: Santoro et al. present a label together with the next input; here it comes with its own input.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from metarl.fewshot.episodes import TaskSpec
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.mapping import MappingConfig, SequenceMapping
from metarl.nn.recurrent import GRU, LSTM
from metarl.nn.sequence import SequenceCore
from metarl.tasks import check_count

CELLS = {"lstm": LSTM, "gru": GRU}


@dataclass(frozen=True)
class RNNConfig(MappingConfig):
    """Options of the recurrent mapping model.

    >>> from metarl.fewshot.learners.rnn import RNNConfig
    >>> RNNConfig(cell="gru").units
    256
    """

    cell: Literal["lstm", "gru"] = "lstm"
    """Kind of recurrent cell."""
    units: int = 256
    """Units of the cell."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("units", self.units)


class RecurrentMapping(SequenceMapping):
    """A mapping learner with one layer of LSTM or GRU. `adapt` depends on the order of the support set.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.rnn import RecurrentMapping, RNNConfig
    >>> learner = RecurrentMapping(RNNConfig(cell="gru"), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = RNNConfig
    config: RNNConfig

    @classmethod
    def default_config(cls, spec: TaskSpec) -> RNNConfig:
        if spec.kind == "regression":
            return RNNConfig(iterations=20_000, num_tasks=64, halve_every=5000, train_queries=20)
        return RNNConfig(
            iterations=4000, num_tasks=16, learning_rate=2e-3, halve_every=1500, train_queries=5, readings=8
        )

    def core(self, length: int) -> SequenceCore:
        return CELLS[self.config.cell](self.features + self.targets, self.config.units)

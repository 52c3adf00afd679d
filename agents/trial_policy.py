"""What policies have in common that remember the trial of each environment."""

import torch

from metarl.rollout.policy import DrawingPolicy, check_batch
from metarl.spaces import Observations, batch_shape


class TrialPolicy(DrawingPolicy):
    """A policy that remembers something about the trial of each of `M` tasks times `N` environments.

    >>> from metarl.agents.recurrent import RecurrentPolicy
    >>> from metarl.agents.trial_policy import TrialPolicy
    >>> issubclass(RecurrentPolicy, TrialPolicy)
    True
    """

    def __init__(self, generator: torch.Generator):
        super().__init__(generator)
        self.batch: tuple[int, ...] | None = None
        """The `(M, N)` of its first action, which all others have."""

    def known_batch(self, observations: Observations) -> tuple[int, ...]:
        """The `(M, N)` of `observations`; raises `UsageError` if they are not those that the policy remembers.

        2 tasks x 3 environments are not 3 x 2: the memory of one task would act in another.
        """
        shape = batch_shape(observations)
        self.batch = self.batch or shape
        check_batch("tasks x environments", self.batch, shape)
        return shape

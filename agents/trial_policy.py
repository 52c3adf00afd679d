"""What policies have in common that remember the trial of each environment."""

import copy

import torch

from metarl.rollout import Policy
from metarl.rollout.policy import check_batch
from metarl.spaces import Observations, batch_shape


class TrialPolicy(Policy):
    """A policy that remembers something about the trial of each of `M` tasks times `N` environments.

    A subclass keeps it in tensors that it replaces and never writes to, so that a fork can share them.

    >>> from metarl.agents.recurrent import RecurrentPolicy
    >>> from metarl.agents.trial_policy import TrialPolicy
    >>> issubclass(RecurrentPolicy, TrialPolicy)
    True
    """

    def __init__(self, generator: torch.Generator):
        self.generator = generator
        """What it draws from."""
        self.batch: tuple[int, int] | None = None
        """The `(M, N)` of its first action, which all others have."""

    def fork(self) -> "TrialPolicy":
        """A copy that shares the networks, which acting does not change, and what it remembers."""
        return self.drawing_from(copy.deepcopy(self.generator))

    def drawing_from(self, generator: torch.Generator) -> "TrialPolicy":
        """A copy as `fork` makes it, with another generator."""
        copied = copy.copy(self)
        copied.generator = generator
        return copied

    def count(self, observations: Observations) -> int:
        """The number of environments M · N; raises `UsageError` if they are not those that the policy remembers.

        2 tasks x 3 environments are not 3 x 2: the memory of one task would act in another.
        """
        tasks, envs = batch_shape(observations)[:2]
        self.batch = self.batch or (tasks, envs)
        check_batch("tasks x environments", self.batch, (tasks, envs))
        return tasks * envs

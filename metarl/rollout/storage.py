"""Memory for a running rollout: allocated once for all steps, with last observations of ended episodes only."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.rollout.policy import PolicyStep, Transition
from metarl.rollout.trajectories import Trajectories


class RolloutStorage:
    """Memory for `room` steps, allocated at the first step, which shows shapes and dtypes, and doubled if it runs out.

    On the CPU the true last observations are kept only for steps that end an episode. On a GPU, finding these steps
    would make the host wait, so the true next observations of all steps are kept until the rollout is over.

    >>> from metarl.rollout.storage import RolloutStorage
    >>> storage, x, no = RolloutStorage(room=100), torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
    >>> transition = metarl.Transition(x, x, torch.zeros(2, 3), no, no, x)
    >>> storage.put(transition, metarl.PolicyStep(x), episode_starts=~no, trial_starts=~no)
    >>> storage.trajectories(after=x).num_steps
    1
    """

    def __init__(self, room: int):
        self._room = room
        self._steps = 0
        self._arrays: dict[str, Tensor] = {}
        self._extras: set[str] = set()
        self._last_observations: list[Tensor] = []

    def put(self, transition: Transition, step: PolicyStep, **more: Tensor) -> None:
        """Copies one step into the storage."""
        self._write("observations", transition.observations)
        self._write("actions", step.actions)
        for name in ("rewards", "terminated", "truncated"):
            self._write(name, getattr(transition, name))
        if step.log_probs is not None:
            self._write("log_probs", step.log_probs)
        for name, value in more.items():
            self._write(name, value)
        for name, value in step.extras.items():
            self._extras.add(name)
            self._write(f"extras.{name}", value)
        if transition.next_observations.device.type == "cpu":
            ended = transition.ended
            if ended.any():
                self._last_observations.append(transition.next_observations[ended])
        else:
            self._write("next_observations", transition.next_observations)
        self._steps += 1

    def trajectories(self, after: Float[Tensor, "M N D"]) -> Trajectories:
        """The steps written so far; `after` holds the current observations of the environments."""
        arrays = {name: array[: self._steps] for name, array in self._arrays.items()}
        extras = {name: arrays.pop(f"extras.{name}") for name in sorted(self._extras)}
        if "next_observations" in arrays:
            last = arrays.pop("next_observations")[arrays["terminated"] | arrays["truncated"]]
        else:
            last = torch.cat([after.new_zeros(0, *after.shape[2:]), *self._last_observations])
        return Trajectories(last_observations=last, after=after.clone(), extras=extras, **arrays)

    def _write(self, name: str, value: Tensor) -> None:
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = value.new_empty(self._room, *value.shape)
        elif self._steps == len(array):
            array = self._arrays[name] = torch.cat([array, torch.empty_like(array)])
        array[self._steps] = value

"""Where a rollout is written while it runs: memory for all steps at once, and of last observations only what ended."""

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.rollout.policy import PolicyStep, Transition
from metarl.rollout.trajectories import Trajectories


class RolloutStorage:
    """Room for `room` steps, taken when the first one shows sizes and types; doubled if more come.

    On the CPU the true last observations are kept only for steps that end an episode. A GPU would have to be waited for
    to say which these are: there they are kept for every step until the rollout is over.
    """

    def __init__(self, room: int):
        self._room = room
        self._steps = 0
        self._arrays: dict[str, Tensor] = {}
        self._extras: set[str] = set()
        self._last_observations: list[Tensor] = []

    def put(self, transition: Transition, step: PolicyStep, **more: Tensor) -> None:
        """Copies one step."""
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
        """What has been written; `after` is what the environments show now."""
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

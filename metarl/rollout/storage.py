"""Memory for a running rollout: allocated once for all steps, with last observations of ended episodes only."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.rollout.policy import PolicyStep, Transition
from metarl.rollout.trajectories import Trajectories


class RolloutStorage:
    """Memory for `room` steps, allocated at the first step, which shows shapes and dtypes, and doubled if it runs out.

    On the CPU the true last observations are kept only for steps that end an episode. On a GPU, finding these steps
    would make the host wait, so the true next observations of all steps are kept until the rollout is over.

    >>> from metarl.rollout.storage import RolloutStorage
    >>> storage, x, no = RolloutStorage(room=100), torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
    >>> storage.put(metarl.Transition(x, x, torch.zeros(2, 3), no, no, x), metarl.PolicyStep(x), ended=no)
    >>> storage.trajectories(after=x).num_steps
    1
    """

    def __init__(self, room: int):
        self._room = room
        self._steps = 0
        self._arrays: dict[str, Tensor] = {}
        self._rows: dict[str, tuple[Tensor, ...]] = {}
        """The steps of each array: making these views once is cheaper than one in every step."""
        self._last_observations: list[Tensor] = []

    def put(self, transition: Transition, step: PolicyStep, ended: Bool[Tensor, "M N"], **more: Tensor) -> None:
        """Copies one step into the storage; `ended` is `transition.ended`."""
        self._write("observations", transition.observations)
        self._write("actions", step.actions)
        self._write("rewards", transition.rewards)
        self._write("terminated", transition.terminated)
        self._write("truncated", transition.truncated)
        if step.log_probs is not None:
            self._write("log_probs", step.log_probs)
        for name, value in more.items():
            self._write(name, value)
        for name, value in step.extras.items():
            self._write(f"extras.{name}", value)
        if ended.device.type != "cpu":
            self._write("next_observations", transition.next_observations)
        elif ended.any():
            self._last_observations.append(transition.next_observations[ended])
        self._steps += 1

    def trajectories(self, after: Float[Tensor, "M N D"], episodes_per_trial: int | None = None) -> Trajectories:
        """The steps written so far; `after` holds the current observations of the environments."""
        arrays = {name: array[: self._steps] for name, array in self._arrays.items()}
        extras = {
            name.removeprefix("extras."): arrays.pop(name) for name in sorted(arrays) if name.startswith("extras.")
        }
        ended = arrays["terminated"] | arrays["truncated"]
        if "next_observations" in arrays:
            last = arrays.pop("next_observations")[ended]
        else:
            last = torch.cat([after.new_zeros(0, *after.shape[2:]), *self._last_observations])
        starts = torch.cat([torch.ones_like(ended[:1]), ended[:-1]])
        trial_starts = torch.zeros_like(starts)
        trial_starts[0] = True
        if episodes_per_trial is not None:
            trial_starts = starts & ((starts.long().cumsum(0) - 1) % episodes_per_trial == 0)
        return Trajectories(
            episode_starts=starts,
            trial_starts=trial_starts,
            last_observations=last,
            after=after.clone(),
            extras=extras,
            **arrays,
        )

    def _write(self, name: str, value: Tensor) -> None:
        rows = self._rows.get(name)
        if rows is None or len(rows) == self._steps:
            rows = self._make_room(name, value)
        rows[self._steps].copy_(value)

    def _make_room(self, name: str, value: Tensor) -> tuple[Tensor, ...]:
        array = self._arrays.get(name)
        new = (
            value.new_empty(self._room, *value.shape) if array is None else torch.cat([array, torch.empty_like(array)])
        )
        self._arrays[name], self._rows[name] = new, new.unbind(0)
        return self._rows[name]

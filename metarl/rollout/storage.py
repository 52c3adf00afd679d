"""Memory for a running rollout: allocated once for all steps, with last observations of ended episodes only."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.rollout.policy import PolicyStep
from metarl.rollout.trajectories import Trajectories
from metarl.spaces import Observations, map_tensors

_FROM_INFO = {"success": "success", "fault": "fault", "dense_reward": "dense_rewards"}
"""Entries of `info` that are kept if there are any, and under which names."""
_FROM_ENV = {"rewards", "terminated", "truncated", *_FROM_INFO.values()}
_EXTRA = "extras."
_SEEN, _REACHED = "observations", "final_obs"
"""Observations are written under one of these names, or under names that start with it if they are a dictionary."""


class RolloutStorage:
    """Memory for `room` steps, allocated at the first step, which shows shapes and dtypes, and doubled if it runs out.

    On the CPU the true last observations are kept only for steps that end an episode. On a GPU, finding these steps
    would make the host wait, so the true next observations of all steps are kept until the rollout is over.

    Steps come as flat batches, `[B, ...]` from the environments and `[M, N, ...]` from the policy.

    >>> from metarl.rollout.storage import RolloutStorage
    >>> storage, x, no = RolloutStorage(100, shape=(2, 3)), torch.zeros(6, 4), torch.zeros(6, dtype=torch.bool)
    >>> storage.put(metarl.PolicyStep(torch.zeros(2, 3, 1)), x, torch.zeros(6), no, no, no, {"final_obs": x})
    >>> storage.trajectories(after=x).rewards.shape
    torch.Size([1, 2, 3])
    """

    def __init__(self, room: int, shape: tuple[int, int]):
        self._room = room
        self._shape = shape
        self._steps = 0
        self._arrays: dict[str, Tensor] = {}
        self._rows: dict[str, tuple[Tensor, ...]] = {}
        """The steps of each array: making these views once is cheaper than one in every step."""
        self._last_observations: list[Observations] = []

    def put(
        self,
        step: PolicyStep,
        observations: Observations,
        rewards: Float[Tensor, "B"],
        terminated: Bool[Tensor, "B"],
        truncated: Bool[Tensor, "B"],
        ended: Bool[Tensor, "B"],
        info: dict[str, Any],
    ) -> None:
        """Copies one step into the storage; `ended` is `terminated | truncated`."""
        self._write_observations(_SEEN, observations)
        self._write("actions", step.actions)
        self._write("rewards", rewards)
        self._write("terminated", terminated)
        self._write("truncated", truncated)
        if step.log_probs is not None:
            self._write("log_probs", step.log_probs)
        for key, name in _FROM_INFO.items():
            if key in info:
                self._write(name, info[key])
        for name, value in step.extras.items():
            self._write(_EXTRA + name, value)
        if ended.device.type != "cpu":
            self._write_observations(_REACHED, info["final_obs"])
        elif ended.any():
            self._last_observations.append(map_tensors(lambda value: value[ended], info["final_obs"]))
        self._steps += 1

    def trajectories(self, after: Observations, episodes_per_trial: int | None = None) -> Trajectories:
        """The steps written so far; `after` holds the current observations of the environments, `[B, ...]`."""
        arrays = {name: array[: self._steps] for name, array in self._arrays.items()}
        observations, reached = self._take_observations(_SEEN, arrays), self._take_observations(_REACHED, arrays)
        assert observations is not None
        for name in _FROM_ENV & arrays.keys():
            arrays[name] = arrays[name].unflatten(1, self._shape)
        extras = {name.removeprefix(_EXTRA): arrays.pop(name) for name in sorted(arrays) if name.startswith(_EXTRA)}
        ended = arrays["terminated"] | arrays["truncated"]
        if reached is not None:
            last = map_tensors(lambda value: value[ended], reached)
        else:
            last = map_tensors(lambda none, *parts: torch.cat([none[:0], *parts]), after, *self._last_observations)
        starts = torch.cat([torch.ones_like(ended[:1]), ended[:-1]])
        trial_starts = torch.zeros_like(starts)
        trial_starts[0] = True
        if episodes_per_trial is not None:
            trial_starts = starts & ((starts.long().cumsum(0) - 1) % episodes_per_trial == 0)
        return Trajectories(
            observations=observations,
            episode_starts=starts,
            trial_starts=trial_starts,
            last_observations=last,
            after=map_tensors(lambda value: value.clone().unflatten(0, self._shape), after),
            extras=extras,
            **arrays,
        )

    def _write_observations(self, name: str, observations: Observations) -> None:
        if isinstance(observations, dict):
            for entry, value in observations.items():
                self._write(f"{name}.{entry}", value)
        else:
            self._write(name, observations)

    def _take_observations(self, name: str, arrays: dict[str, Tensor]) -> Observations | None:
        """Moves observations `[T, M, N, ...]` out of `arrays`; None if none were written under `name`."""
        if name in arrays:
            return arrays.pop(name).unflatten(1, self._shape)
        entries = [entry for entry in arrays if entry.startswith(f"{name}.")]
        return {e.removeprefix(f"{name}."): arrays.pop(e).unflatten(1, self._shape) for e in entries} or None

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

"""The scene groups that an environment has made: those in use, and a bounded number of spare ones."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from metarl.envs.metaworld.group import SceneGroup


class GroupKey(NamedTuple):
    """What tells scene groups apart.

    >>> GroupKey("sawyer_reach_v3.xml", num_worlds=40, threads=2)
    """

    file: str
    """The scene's XML file in the package."""
    num_worlds: int
    threads: int
    """CPU threads; without effect on other engines."""


class GroupStore:
    """Makes scene groups and keeps those that may be asked for again.

    Tasks that shift from one `set_tasks` to the next come back to scenes used before. An engine takes some 50 ms
    to make and 15 MB. At most as many spare groups are kept as are in use; beyond that, the least recently used are
    closed. What a group does depends on the tasks that it is given, not on what it ran before.

    >>> store = GroupStore("mujoco", torch.device("cpu"))
    >>> (group,) = store.take([GroupKey("sawyer_reach_v3.xml", 40, 2)])
    """

    def __init__(self, backend: str, device: torch.device):
        self._backend = backend
        self._device = device
        self._groups: dict[GroupKey, SceneGroup] = {}
        """The least recently used first."""

    def __len__(self) -> int:
        return len(self._groups)

    def take(self, keys: Sequence[GroupKey]) -> list[SceneGroup]:
        """The groups of `keys`, which must differ: the only ones in use until the next call."""
        found = {key: self._groups.pop(key) for key in keys if key in self._groups}
        spare = list(self._groups)
        for key in spare[: max(len(spare) - len(keys), 0)]:  # before others are made, so that memory is bounded, too
            self._groups.pop(key).close()
        for key in keys:
            self._groups[key] = found[key] if key in found else self._make(key)
        return [self._groups[key] for key in keys]

    def close(self) -> None:
        """Closes all groups."""
        while self._groups:
            self._groups.popitem()[1].close()

    def _make(self, key: GroupKey) -> SceneGroup:
        options = {"threads": key.threads} if self._backend == "mujoco" else {}
        return SceneGroup(key.file, key.num_worlds, backend=self._backend, device=self._device, **options)

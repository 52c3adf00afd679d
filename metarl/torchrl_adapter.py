"""metarl's environments in TorchRL (Bou et al. 2024), an extra: `pip install 'metarl-kit[torchrl]'`."""

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from metarl.adapters import check_first_observations, checked_step
from metarl.errors import UsageError
from metarl.spaces import Observations, entries, explored_range, is_picture, named
from metarl.vector_env import TaskVectorEnv

try:
    from tensordict import TensorDict, TensorDictBase
    from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, TensorSpec, Unbounded
    from torchrl.envs import EnvBase
except ImportError:
    raise UsageError("metarl.to_torchrl needs TorchRL: pip install 'metarl-kit[torchrl]'") from None

SUCCESS = "success"


def to_torchrl(env: TaskVectorEnv) -> "TorchRLEnv":
    """`env` as an environment of TorchRL with the batch size `[B]`, on the device of `env`.

    Observations have the names of their dictionary, or `observation`; if the family defines it, `success` `[B, 1]` is
    among them: whether the step just taken was one. Rewards and ends are `[B, 1]`. Choices count from 0. Boxes of
    actions without bounds are as in `metarl.spaces.explored_range`.

    TorchRL resets the environments whose episode has ended, which have started the next one by then: such a reset
    returns its first observation, and a step of an environment that should have been reset raises `UsageError`.

    Set the tasks before the first reset, and again at any time. Raises `UsageError` for actions that are a `Tuple` and
    for an observation of the family that is called `success`, `action`, `reward` or like an end.

    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> metarl.to_torchrl(env).rollout(20, break_when_any_done=False)["next", "reward"].shape
    torch.Size([6, 20, 1])
    """
    return TorchRLEnv(env)


class TorchRLEnv(EnvBase):
    """A `TaskVectorEnv`, `env`, as TorchRL's environments are. `to_torchrl` makes one and says the rest.

    >>> from metarl.torchrl_adapter import TorchRLEnv
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> env = family.make_env(num_tasks=2)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> TorchRLEnv(env).reset()["observation"].shape
    torch.Size([2, 1])
    """

    def __init__(self, env: TaskVectorEnv):
        self.env = env
        super().__init__(device=env.device, batch_size=torch.Size([env.num_envs]))
        self._seed: int | None = None
        """The seed of the next reset of all environments."""
        self._ended: Tensor = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        """`[B]`: the environments that have to be reset before the next step."""
        self._first: Observations = {}
        """What they see then, in their rows."""
        self._has_success = bool(getattr(env.distribution, "has_success", False))
        batch = (env.num_envs,)
        self.action_spec = _action_spec(env.single_action_space, batch, env.device, env.distribution.id)
        self._action_start = _start(env.single_action_space, env.device)
        self.observation_spec = Composite(self._observation_specs(batch), shape=batch, device=env.device)
        self.reward_spec = Unbounded((*batch, 1), device=env.device)
        flag = Binary(1, shape=(*batch, 1), dtype=torch.bool, device=env.device)
        ends = {name: flag.clone() for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=batch, device=env.device)

    def close(self, *, raise_if_closed: bool = False) -> None:
        """Closes `env`."""
        self.env.close()
        super().close(raise_if_closed=raise_if_closed)

    def _observation_specs(self, batch: tuple[int, ...]) -> dict[str, TensorSpec]:
        specs: dict[str, TensorSpec] = {}
        for name, space in entries(self.env.single_observation_space).items():
            if name in (SUCCESS, "action", "reward", "done", "terminated", "truncated"):
                raise UsageError(f"{self.env.distribution.id}: TorchRL has another use for an observation {name!r}")
            shape = (*batch, *space.shape)
            if is_picture(space):
                specs[name] = Bounded(0, 255, shape=shape, dtype=torch.uint8, device=self.env.device)
            else:
                specs[name] = Unbounded(shape, device=self.env.device)
        if self._has_success:
            specs[SUCCESS] = Binary(1, shape=(*batch, 1), dtype=torch.bool, device=self.env.device)
        return specs

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        chosen = None if tensordict is None else tensordict.get("_reset", None)
        wanted = torch.ones_like(self._ended) if chosen is None else chosen.reshape(self.env.num_envs)
        if chosen is not None and self._seed is None and not bool((wanted & ~self._ended).any()):
            self._ended = self._ended & ~wanted
            observations = self._first
        elif bool(wanted.all()):
            observations, _ = self.env.reset(seed=self._seed, **kwargs)
            check_first_observations(self.env, observations)
            self._seed = None
            self._ended = torch.zeros_like(self._ended)
        else:
            raise UsageError(
                f"{self.env.distribution.id}: an environment is reset at the end of its episode or together with all "
                "others, not in the middle of an episode"
            )
        return self._tensordict(observations, None)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        if bool(self._ended.any()):
            raise UsageError("an episode has ended: reset its environment before the next step")
        actions = tensordict["action"]
        taken = actions if self._action_start is None else actions.long() + self._action_start
        returned, rewards, terminated, truncated, info = checked_step(self.env, taken)
        self._first, self._ended = returned, terminated | truncated
        result = self._tensordict(info["final_obs"], info.get("success"))
        result["reward"] = rewards[:, None]
        ends = {"done": self._ended, "terminated": terminated, "truncated": truncated}
        for name, value in ends.items():
            result[name] = value[:, None].clone()
        return result

    def _set_seed(self, seed: int | None) -> None:
        self._seed = seed

    def _tensordict(self, observations: Observations, success: Tensor | None) -> TensorDictBase:
        # Copies: TorchRL keeps what it is given, and environments may reuse their tensors.
        values = {name: value.clone() for name, value in named(observations).items()}
        if self._has_success:
            seen = torch.zeros_like(self._ended) if success is None else success.bool()
            values[SUCCESS] = seen[:, None].clone()
        return TensorDict(values, batch_size=self.batch_size, device=self.env.device)


def _action_spec(space: gym.Space, batch: tuple[int, ...], device: torch.device, id: str) -> TensorSpec:
    if isinstance(space, gym.spaces.Box):
        bounds = explored_range(torch.as_tensor(space.low), torch.as_tensor(space.high))
        low, high = (bound.to(device).expand(*batch, *space.shape).clone() for bound in bounds)
        return Bounded(low, high, shape=(*batch, *space.shape), dtype=torch.float32, device=device)
    if isinstance(space, gym.spaces.Discrete):
        return Categorical(int(space.n), shape=batch, dtype=torch.int64, device=device)
    if isinstance(space, gym.spaces.MultiDiscrete):
        count = len(space.nvec)
        return MultiCategorical(space.nvec.tolist(), shape=(*batch, count), dtype=torch.int64, device=device)
    if isinstance(space, gym.spaces.MultiBinary):
        return Binary(space.shape[0], shape=(*batch, *space.shape), dtype=torch.int64, device=device)
    raise UsageError(f"{id}: TorchRL has no actions like {space}: make them one Box or discrete space")


def _start(space: gym.Space, device: torch.device) -> Tensor | None:
    """The numbers that stand for TorchRL's choices 0; None for boxes."""
    if isinstance(space, gym.spaces.Box):
        return None
    return torch.as_tensor(getattr(space, "start", 0), dtype=torch.int64, device=device)

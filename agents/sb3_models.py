"""What a Stable-Baselines3 (SB3) model needs to live in an agent: its training, its state, its memory, its policy."""

import contextlib
import copy
import operator
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.replay import ReplayBuffer
from metarl.rollout import Policy, PolicyStep, Transition
from metarl.rollout.policy import check_batch
from metarl.sb3 import SB3Actions, sb3_arrays, to_sb3
from metarl.spaces import Observations, batch_shape, map_tensors
from metarl.vector_env import TaskVectorEnv

NOT_MEASURED = {"learning_rate", "n_updates", "clip_range"}
"""What SB3 logs of an update although it follows from the options."""


@contextlib.contextmanager
def borrowed_random_state(device: torch.device) -> Iterator[None]:
    """Inside, the global random numbers of Python, NumPy and torch are SB3's; afterwards they go on as if unused."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark  # a seeded model on a GPU sets them
    cuda = device.type == "cuda" or torch.cuda.is_initialized()
    with torch.random.fork_rng(list(range(torch.cuda.device_count())) if cuda else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


class SpacesOnly(VecEnv):
    """The spaces and the number of environments: what SB3 makes a model of before there is an environment.

    >>> import gymnasium
    >>> from metarl.agents.sb3_models import SpacesOnly
    >>> box = gymnasium.spaces.Box(-1, 1, (2,))
    >>> SpacesOnly(3, box, box).num_envs
    3
    """

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs  # SB3 asks for the render mode

    def reset(self) -> Any:
        raise NotImplementedError

    step_async = step_wait = close = set_attr = env_method = env_is_wrapped = reset  # type: ignore[assignment]


class StoredReplay(BaseBuffer):
    """SB3's replay buffer as a `metarl.ReplayBuffer`, `rows`, which a run folder stores.

    Like SB3's own, it tells episodes that were cut off from those that terminated. Draws with torch's global numbers.

    >>> import gymnasium
    >>> from metarl.agents.sb3_models import StoredReplay
    >>> box = gymnasium.spaces.Box(-1, 1, (2,))
    >>> replay = StoredReplay(100, box, box, n_envs=3)
    >>> infos = [{"TimeLimit.truncated": True}] * 3
    >>> replay.add(*[torch.zeros(3, 2).numpy()] * 3, torch.ones(3).numpy(), (torch.ones(3) > 0).numpy(), infos)
    >>> replay.sample(4).dones.flatten()
    tensor([0., 0., 0., 0.])
    """

    def __init__(
        self, buffer_size: int, observation_space: gym.Space, action_space: gym.Space, *args: Any, **options: Any
    ):
        options.pop("optimize_memory_usage", None)
        super().__init__(buffer_size, observation_space, action_space, *args, **options)
        self.rows = ReplayBuffer(buffer_size)

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        cut = np.array([info["TimeLimit.truncated"] for info in infos])
        rows = {
            "actions": np.reshape(action, (self.n_envs, self.action_dim)),
            "rewards": reward,
            "terminated": done & ~cut,
        }
        rows |= _entries("observations", obs) | _entries("next_observations", next_obs)
        self.rows.append({name: torch.as_tensor(np.asarray(value)) for name, value in rows.items()})

    def sample(self, batch_size: int, env: Any = None) -> Any:
        rows = self.rows.sample(batch_size, torch.default_generator)
        rows = {name: value.to(self.device) for name, value in rows.items()}
        seen, reached = (_join(name, rows) for name in ("observations", "next_observations"))
        kind: Any = DictReplayBufferSamples if isinstance(seen, dict) else ReplayBufferSamples
        ended, rewards = rows["terminated"].float()[:, None], rows["rewards"][:, None]
        return kind(seen, rows["actions"], reached, ended, rewards)

    def _get_samples(self, batch_inds: Any, env: Any = None) -> Any:
        raise NotImplementedError


def learn(
    model: BaseAlgorithm, env: TaskVectorEnv, parts: Sequence[int], batch_size: int, seed: int
) -> dict[str, int | float]:
    """Trains `model` on `env` from fresh episodes, for each number of steps in `parts`; returns metrics.

    An on-policy model makes one rollout of each part, which must be a multiple of the number of environments, and takes
    it in minibatches of equal size, `batch_size` at most. Raises `NumericalFault` if a parameter is no longer finite.
    """
    before = model.num_timesteps
    model.set_logger(Logger(None, []))
    model.ep_info_buffer = model.ep_success_buffer = None  # SB3 makes new ones
    with borrowed_random_state(model.device):
        model.set_env(to_sb3(env, rescale_actions=True))
        model.set_random_seed(seed)
        for steps in parts:
            _set_rollout(model, steps // env.num_envs, batch_size)
            model.learn(steps, reset_num_timesteps=False, log_interval=None)  # type: ignore[arg-type]
    check_finite("a parameter of Stable-Baselines3's model", *model.policy.parameters())
    model.env, model._last_obs = None, None  # the next training starts with fresh episodes of its own environment
    ended: Iterable[Any] = model.ep_info_buffer or ()
    returns = [episode["r"] for episode in ended]
    logged = {name.removeprefix("train/"): float(value) for name, value in model.logger.name_to_value.items()}
    metrics: dict[str, int | float] = {
        "env_steps": model.num_timesteps - before,
        "return_mean": float(np.mean(returns)) if returns else float("nan"),
        "episodes": len(returns),
    }
    if model.ep_success_buffer:
        metrics["success_mean"] = float(np.mean(model.ep_success_buffer))
    return metrics | {name: value for name, value in logged.items() if name not in NOT_MEASURED}


def _set_rollout(model: Any, length: int, batch_size: int) -> None:
    """Makes the next rollouts of an on-policy model `length` steps long; leaves an off-policy model alone."""
    buffer = getattr(model, "rollout_buffer", None)
    if buffer is None:
        return
    model.n_steps = buffer.buffer_size = length  # its memory is made anew at the start of each rollout
    if hasattr(buffer, "hidden_state_shape"):
        buffer.hidden_state_shape = (length, *buffer.hidden_state_shape[1:])
    size = length * model.n_envs
    model.batch_size = -(-size // -(-size // batch_size))


def model_tensors(model: BaseAlgorithm) -> dict[str, Tensor]:
    """Copies of everything that training changes in a model, except its replay buffer and `num_timesteps`."""
    tensors: dict[str, Tensor] = {}
    for name in model.get_parameters():
        part = operator.attrgetter(name)(model)
        found = optimizer_tensors(part) if isinstance(part, torch.optim.Optimizer) else part.state_dict()
        tensors |= {f"{name}/{key}": value.detach().cpu().clone() for key, value in found.items()}
    temperature = getattr(model, "log_ent_coef", None)
    return tensors if temperature is None else tensors | {"log_ent_coef": temperature.detach().cpu().clone()}


def load_model_tensors(model: BaseAlgorithm, tensors: Mapping[str, Tensor]) -> None:
    """Restores what `model_tensors` returned; raises `UsageError` if it belongs to another model."""
    for name in model.get_parameters():
        part = operator.attrgetter(name)(model)
        found = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        if isinstance(part, torch.optim.Optimizer):
            load_optimizer_tensors(part, found)
            continue
        try:
            part.load_state_dict(found)
        except RuntimeError as error:
            raise UsageError(f"the saved parameters are not of this agent: {' '.join(str(error).split())}") from None
    temperature = getattr(model, "log_ent_coef", None)
    if (temperature is None) != ("log_ent_coef" not in tensors):
        raise UsageError("the saved parameters are not of this agent: one of the two learns its ent_coef")
    if temperature is not None:
        temperature.data.copy_(tensors["log_ent_coef"])


def copy_training(model: Any, twin: Any) -> Any:
    """Makes `twin`, an untrained model with the same options, go on as `model` would; returns it.

    Models are not to be copied as Python's objects: those of SB3 keep tensors of their last gradient.
    """
    load_model_tensors(twin, model_tensors(model))
    twin.num_timesteps = model.num_timesteps
    if isinstance(getattr(model, "replay_buffer", None), StoredReplay):
        rows = model.replay_buffer.rows
        twin.replay_buffer.rows.restore(rows.count, rows.rows(0, rows.count) if len(rows) else {})
    return twin


class SB3Policy(Policy):
    """Acts as `networks`, policies of SB3, say: one for all tasks, or one for each. Takes the most likely action.

    That is how SB3's `evaluate_policy` measures by default. A recurrent network forgets at the end of each episode, as
    SB3's do. `models` are those that go on learning if adaptation continues.

    >>> from metarl.agents.sb3 import SB3PPO
    >>> from metarl.agents.sb3_config import SB3PPOConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> policy = SB3PPO(SB3PPOConfig(), metarl.EnvSpec.of(family)).adapt(env, 0)
    >>> metarl.collect(env, policy, episodes=1).actions.shape
    torch.Size([5, 2, 3, 2])
    """

    def __init__(self, networks: Sequence[Any], actions: SB3Actions, models: Sequence[BaseAlgorithm] = ()):
        self.networks, self.actions, self.models = networks, actions, models
        self.states: list[Any] = [None] * len(networks)
        """The memory of each recurrent network."""
        self.starts: Bool[np.ndarray, "M N"] | None = None
        """Whether an episode starts, where the memory is blank; None before the first step."""

    @torch.no_grad()
    def act(self, observations: Observations) -> PolicyStep:
        num_tasks, num_envs = batch_shape(observations)
        if len(self.networks) > 1:
            check_batch("tasks", (len(self.networks),), (num_tasks,))
        if self.starts is not None and any(state is not None for state in self.states):
            check_batch("tasks x environments", self.starts.shape, (num_tasks, num_envs))
        if self.starts is None or self.starts.shape != (num_tasks, num_envs):
            self.starts = np.ones((num_tasks, num_envs), dtype=bool)
        share = num_tasks // len(self.networks)
        taken = []
        for i, network in enumerate(self.networks):
            rows = slice(i * share, (i + 1) * share)
            seen = sb3_arrays(map_tensors(lambda value, rows=rows: value[rows].flatten(0, 1), observations))
            starts = self.starts[rows].flatten()
            actions, self.states[i] = network.predict(seen, self.states[i], starts, deterministic=True)
            taken.append(actions)
        device = next(iter(observations.values())).device if isinstance(observations, dict) else observations.device
        return PolicyStep(self.actions.decode(np.concatenate(taken), device).unflatten(0, (num_tasks, num_envs)))

    def begin_rollout(self) -> None:
        if self.starts is not None:
            self.starts = np.ones_like(self.starts)

    def observe(self, transition: Transition) -> None:
        ended, active = transition.ended, transition.active
        # Who has ended all episodes goes on for the others alone: its next episode starts afresh.
        self.starts = (ended if active is None else ended | ~active).cpu().numpy()

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        if self.starts is not None:
            self.starts = self.starts | mask.cpu().numpy()

    def fork(self) -> "SB3Policy":
        """Networks are shared: nothing changes them."""
        twin = copy.copy(self)
        twin.states = list(self.states)
        return twin


def _entries(name: str, observations: Any) -> dict[str, Any]:
    if isinstance(observations, dict):
        return {f"{name}.{entry}": value for entry, value in observations.items()}
    return {name: observations}


def _join(name: str, rows: Mapping[str, Tensor]) -> Observations:
    """What `_entries` took apart."""
    if name in rows:
        return rows[name]
    return {key.removeprefix(f"{name}."): value for key, value in rows.items() if key.startswith(f"{name}.")}

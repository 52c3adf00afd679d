"""What one would otherwise use: PPO, SAC and recurrent PPO of Stable-Baselines3 (SB3, Raffin et al. 2021) as agents.

By default one model is trained across tasks, by SB3's own code, and does not adapt: the tasks of an iteration are
environments of one batch. With `from_scratch` nothing is learned across tasks; a fresh model is trained on each test
task instead, with as many steps of it as a meta-learner's adaptation may take, and measured by the same protocol.

Options have SB3's names and SB3's defaults; whatever SB3 has beyond them is as SB3 has it. Deviations: actions are
rescaled to [-1, 1], which SB3 recommends; if `batch_size` does not divide a rollout, minibatches are equal and smaller,
instead of a small last one; replay draws with torch's random numbers instead of NumPy's.
"""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from metarl.agent import Agent, EnvSpec
from metarl.agents.sb3_config import SB3Config, SB3PPOConfig, SB3RecurrentPPOConfig, SB3SACConfig
from metarl.agents.sb3_models import (
    SB3Policy,
    SpacesOnly,
    StoredReplay,
    borrowed_random_state,
    copy_training,
    learn,
    load_model_tensors,
    model_tensors,
)
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.parallel import Ranks
from metarl.randomness import derive_seed
from metarl.replay import ReplayBuffer
from metarl.rollout import Policy, collect, success_metrics
from metarl.rollout.policy import check_batch
from metarl.sb3 import SB3Actions, sb3_observations
from metarl.spaces import entries, is_picture
from metarl.vector_env import TaskVectorEnv

CNN_SIDE = 36
"""Pixels that SB3's network for pictures needs at least."""
SHARED = ("learning_rate", "gamma", "batch_size")
ON_POLICY = ("n_steps", "n_epochs", "gae_lambda", "clip_range", "ent_coef", "vf_coef", "max_grad_norm")
OFF_POLICY = ("buffer_size", "learning_starts", "tau", "train_freq", "gradient_steps")
"""Options that go to SB3 by the same names."""
WINDOW = 1_000_000
"""Episodes that the mean return of an iteration is taken over, at most: all."""


class SB3Agent(Agent):
    """What the agents from SB3 share: one model for all tasks or, from scratch, one for each test task.

    An iteration of one model for all tasks resets the environments and takes `n_steps` steps of each (SAC: an
    episode's), and more rollouts until an episode fits. Adaptation changes nothing.

    From scratch, `adapt(env, episodes)` gives a model exactly `episodes` times the horizon steps of its task, in an
    environment of its own: if episodes end early, more episodes than a meta-learner is given. On-policy rollouts are of
    equal length, `n_steps` at most. Training iterations then only measure untrained models.

    >>> from metarl.agents.sb3 import SB3PPO, SB3Agent
    >>> issubclass(SB3PPO, SB3Agent)
    True
    """

    config: SB3Config
    algorithm: ClassVar[str]
    """The id of the agent."""

    def __init__(
        self,
        config: SB3Config,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        if self.ranks.world_size > 1:
            raise UsageError(f"{self.algorithm} trains in one process: Stable-Baselines3 knows no others")
        self.actions = SB3Actions(spec.action_space, rescale=True)
        self.model: Any = self._make_model(1 if config.from_scratch else config.num_tasks * config.envs_per_task, seed)

    @property
    def from_scratch(self) -> bool:
        return self.config.from_scratch

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        if self.config.from_scratch:
            trajectories = collect(env, self.adapt(env, 0, seed=seed), episodes=1, seed=seed)
            returns = float(trajectories.episode_returns().mean())
            return {
                "env_steps": trajectories.num_transitions,
                "return_mean": returns,
                **success_metrics(trajectories),
            }
        if env.num_envs != self.model.n_envs:
            raise UsageError(f"{self.algorithm} was made for {self.model.n_envs} environments, got {env.num_envs}")
        steps = self._steps_per_update()
        rollouts = -(-env.horizon // steps)
        return learn(self.model, env, [steps * env.num_envs] * rollouts, self.config.batch_size, seed)

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> SB3Policy:
        """From scratch, trains the model of each task; otherwise, returns the trained policy."""
        self.check_adaptation(env, episodes, policy, SB3Policy)
        assert policy is None or isinstance(policy, SB3Policy)
        if not self.config.from_scratch:
            networks = [self._copy(self.model).policy] if policy is None else policy.networks
            return SB3Policy(networks, self.actions)
        seeds = [derive_seed("sb3", seed, task) for task in range(env.num_tasks)]
        models = [self._make_model(1, one) for one in seeds] if policy is None else policy.models
        check_batch("tasks", (len(models),), (env.num_tasks,))
        if episodes > 0:
            models = [self._copy(model) for model in models]
            self._train_each(models, env, episodes, seeds)
        return SB3Policy([model.policy for model in models], self.actions, models)

    def stages(self, episodes: int | None = None) -> list[int]:
        """From scratch: after every `scratch_episodes` episodes; by default, three times."""
        if not self.config.from_scratch:
            return super().stages(episodes)
        each = self.config.scratch_episodes
        total = 3 * each if episodes is None else episodes
        return [*range(0, total, each), total]

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        if self.config.from_scratch:
            return {}, {}
        return model_tensors(self.model), {"num_timesteps": self.model.num_timesteps}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        if not self.config.from_scratch:
            load_model_tensors(self.model, tensors)
            self.model.num_timesteps = int(values["num_timesteps"])

    def _train_each(self, models: list[Any], env: TaskVectorEnv, episodes: int, seeds: list[int]) -> None:
        """Trains one model after the other on its task, in one environment of the same kind as those of `env`."""
        family, steps = env.distribution, episodes * env.horizon
        if not isinstance(family, TaskDistribution):
            raise UsageError(f"{family.id} cannot make the environments that {self.algorithm} trains in")
        if steps % getattr(self.config, "train_freq", 1):
            raise UsageError(
                f"train_freq must divide the {steps} steps of a test task: {self.algorithm} takes them all"
            )
        count = -(-steps // self._steps_per_update())
        parts = [steps * (i + 1) // count - steps * i // count for i in range(count)]
        with contextlib.closing(family.make_env(1, 1, backend=env.backend, device=env.device)) as own:
            for model, task, seed in zip(models, env.tasks, seeds, strict=True):
                own.set_tasks(task)
                learn(model, own, parts, self.config.batch_size, seed)
            env.add_faults(own.fault_count)

    def _copy(self, model: Any) -> Any:
        return copy_training(model, self._make_model(model.n_envs, 0))

    def _make_model(self, num_envs: int, seed: int) -> BaseAlgorithm:
        space = self.spec.observation_space
        for name, entry in entries(space).items():
            if is_picture(entry) and min(entry.shape[:2]) < CNN_SIDE:
                raise UsageError(
                    f"{self.algorithm} needs pictures of {CNN_SIDE} x {CNN_SIDE} or more, {name!r} has "
                    f"{entry.shape[0]} x {entry.shape[1]}: make them larger"
                )
        kind = "MultiInput" if isinstance(space, gym.spaces.Dict) else "Cnn" if is_picture(space) else "Mlp"
        env = SpacesOnly(num_envs, sb3_observations(space), self.actions.space)
        with borrowed_random_state(self.device), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are trying to run")  # small networks on a GPU: as asked
            warnings.filterwarnings("ignore", message="You have specified a mini-batch")  # they are made equal
            return self._new_model(kind, env, derive_seed("sb3", "model", seed))

    def _new_model(self, kind: str, env: SpacesOnly, seed: int) -> BaseAlgorithm:
        """The model with the policy class of `kind`, a word that starts the names of SB3's policy classes."""
        raise NotImplementedError

    def _steps_per_update(self) -> int:
        """Steps of each environment that an iteration consists of."""
        raise NotImplementedError

    def _network(self, kind: str) -> dict[str, Any]:
        hidden = getattr(self.config, "hidden", ())
        return {} if kind == "Cnn" else {"net_arch": list(hidden)}


class SB3PPO(SB3Agent):
    """PPO of SB3 (Schulman et al. 2017).

    >>> from metarl.agents.sb3 import SB3PPO
    >>> from metarl.agents.sb3_config import SB3PPOConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=20)
    >>> agent = SB3PPO(SB3PPOConfig(from_scratch=True, scratch_episodes=5), metarl.EnvSpec.of(family))
    >>> metarl.evaluate(agent, family, num_tasks=2, episodes=10).episodes_used
    [0, 5, 10]
    """

    algorithm = "sb3-ppo"
    config_class = SB3PPOConfig
    config: SB3PPOConfig

    def _new_model(self, kind: str, env: SpacesOnly, seed: int) -> BaseAlgorithm:
        return PPO(f"{kind}Policy", env, policy_kwargs=self._network(kind), **self._options(), seed=seed)

    def _options(self) -> dict[str, Any]:
        shared = {f: getattr(self.config, f) for f in SHARED} | {f: getattr(self.config, f) for f in ON_POLICY}
        return shared | {"device": self.device, "stats_window_size": WINDOW}

    def _steps_per_update(self) -> int:
        return self.config.n_steps


class SB3RecurrentPPO(SB3PPO):
    """Recurrent PPO of sb3-contrib, an extra: `pip install 'metarl-kit[sb3]'`.

    Its memory lasts for an episode: it is blank at the start of each, also within a trial, which `rl2` differs in.

    >>> from metarl.agents.sb3 import SB3RecurrentPPO
    >>> SB3RecurrentPPO.algorithm
    'sb3-recurrent-ppo'
    """

    algorithm = "sb3-recurrent-ppo"
    config_class = SB3RecurrentPPOConfig
    config: SB3RecurrentPPOConfig

    def _new_model(self, kind: str, env: SpacesOnly, seed: int) -> BaseAlgorithm:
        try:
            from sb3_contrib import RecurrentPPO
        except ImportError:
            raise UsageError(f"{self.algorithm} needs sb3-contrib: pip install 'metarl-kit[sb3]'") from None
        lstm = {name: getattr(self.config, name) for name in ("lstm_hidden_size", "n_lstm_layers")}
        network = self._network(kind) | lstm
        return RecurrentPPO(f"{kind}LstmPolicy", env, policy_kwargs=network, **self._options(), seed=seed)


class SB3SAC(SB3Agent):
    """SAC of SB3 (Haarnoja et al. 2018). Takes boxes of actions alone.

    >>> from metarl.agents.sb3 import SB3SAC
    >>> from metarl.agents.sb3_config import SB3SACConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=20)
    >>> agent = SB3SAC(SB3SACConfig(num_tasks=2), metarl.EnvSpec.of(family))
    >>> env = family.make_env(num_tasks=2)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> agent.improve(env, seed=0)["env_steps"], len(agent.buffers()["replay"])
    (40, 40)
    """

    algorithm = "sb3-sac"
    config_class = SB3SACConfig
    config: SB3SACConfig

    def __init__(self, config: SB3SACConfig, spec: EnvSpec, **options: Any):
        if not isinstance(spec.action_space, gym.spaces.Box):
            raise UsageError(f"sb3-sac takes a Box of actions, not {spec.action_space}: use sb3-ppo")
        super().__init__(config, spec, **options)

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        return {} if self.config.from_scratch else {"replay": self.model.replay_buffer.rows}

    def _new_model(self, kind: str, env: SpacesOnly, seed: int) -> BaseAlgorithm:
        options = {name: getattr(self.config, name) for name in (*SHARED, *OFF_POLICY)}
        return SAC(
            f"{kind}Policy",
            env,
            ent_coef="auto" if self.config.ent_coef is None else self.config.ent_coef,
            policy_kwargs=self._network(kind),
            replay_buffer_class=StoredReplay,  # type: ignore[arg-type]
            device=self.device,
            stats_window_size=WINDOW,
            seed=seed,
            **options,
        )

    def _steps_per_update(self) -> int:
        return self.spec.horizon

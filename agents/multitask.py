"""Two baselines without memory, trained by PPO on all tasks at once: `multitask` and `oracle`.

`multitask` is one policy π(a | o) for all tasks. It does not adapt: an agent that adapts has to beat it. `oracle` is
π(a | o, task), which is told the parameters of its task: an upper bound, because it has nothing to find out (the
"oracle" of Finn et al. 2017, section 5.3, and of Zintgraf et al. 2020, section 5).

Advantages are generalised advantage estimates within episodes (Schulman et al. 2016, equation 16). An episode that is
truncated bootstraps from the value of its true last observation. Defaults are those of PPO on MuJoCo's robots (Schulman
et al. 2017, table 3: two tanh layers of 64 units, γ 0.99, λ 0.95, clip 0.2, Adam 3e-4, minibatches of single steps),
with the iteration of RL² (about 20,000 steps) in 16 minibatches, ten passes and the entropy bonus of RL².

Deviation: observations, returns and parameters of tasks are normalised by running statistics.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.agent import EnvSpec
from metarl.agents.actor_critic import VALUES, MemorylessActorCritic
from metarl.agents.ppo import PPO, Columns, PPOAgent, PPOConfig, default_num_tasks
from metarl.agents.task_features import check_parameters, check_readable, feature_width, task_features
from metarl.errors import UsageError
from metarl.parallel import Ranks
from metarl.randomness import make_generator
from metarl.rollout import Policy, PolicyStep, Trajectories, collect, gae, standardize, success_metrics, used_fraction
from metarl.rollout.policy import DrawingPolicy, check_batch
from metarl.spaces import Observations, batch_shape, map_tensors
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class MultitaskConfig(PPOConfig):
    """Options of the multi-task policy and of the oracle.

    >>> from metarl.agents.multitask import MultitaskConfig
    >>> MultitaskConfig(hidden=(256, 256)).lr
    0.0003
    """

    envs_per_task: int = 1
    """Environments per task (N)."""
    lr: float = 3e-4
    """Adam's step size."""
    epochs: int = 10
    """Passes over the experience of an iteration."""
    minibatches: int = 16
    """Minibatches per pass. Each holds single steps of all environments."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the tanh layers of the policy and of the value."""
    initial_std: float = 1.0
    """Standard deviation of the untrained Gaussian policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.hidden:
            check_count("a size in hidden", size)


class MemorylessPolicy(DrawingPolicy):
    """Acts with a `MemorylessActorCritic` that is told `extra` `[M, E]` about each task.

    >>> from metarl.agents.actor_critic import MemorylessActorCritic
    >>> from metarl.agents.multitask import MemorylessPolicy
    >>> family = metarl.make("PointNavigation-v0")
    >>> network = MemorylessActorCritic(family.observation_space, family.action_space, (64,), 1.0, extra_size=2)
    >>> network.initialize(torch.Generator())
    >>> policy = MemorylessPolicy(network, torch.Generator(), family.sample(3, seed=0).parameters["goal"])
    >>> policy.act(torch.zeros(3, 5, 2)).actions.shape
    torch.Size([3, 5, 2])
    """

    def __init__(self, network: MemorylessActorCritic, generator: torch.Generator, extra: Float[Tensor, "M E"]):
        super().__init__(generator)
        self.network, self.extra = network, extra

    @torch.no_grad()
    def act(self, observations: Observations) -> PolicyStep:
        network = self.network
        check_batch("tasks", self.extra.shape[:1], batch_shape(observations)[:1])
        phi, values = network(network.inputs(observations, _for_each(self.extra, observations)))
        actions = network.head.sample(phi, self.generator)
        return PolicyStep(actions, network.head.log_prob(phi, actions), {VALUES: values})


class Multitask(PPOAgent):
    """One policy for all tasks, without memory and without adaptation.

    >>> from metarl.agents.multitask import Multitask, MultitaskConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> agent = Multitask(MultitaskConfig(num_tasks=4), metarl.EnvSpec.of(family), seed=0)
    >>> env = family.make_env(num_tasks=4)
    >>> env.set_tasks(family.sample(4, seed=0))
    >>> agent.improve(env, seed=1)["env_steps"]
    20
    """

    config_class = MultitaskConfig
    config: MultitaskConfig
    network: MemorylessActorCritic
    shares_tasks = True

    def __init__(
        self,
        config: MultitaskConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        self.network = MemorylessActorCritic(
            spec.observation_space, spec.action_space, config.hidden, config.initial_std, self._extra_size()
        )
        self.network.initialize(make_generator("multitask", seed))
        self.network.to(self.device)
        self.ppo = PPO(config, self.network, ranks=self.ranks, after_step=self.network.keep_in_range)

    @classmethod
    def default_config(cls, spec: EnvSpec) -> MultitaskConfig:
        """The number of tasks of `metarl.agents.ppo.default_num_tasks`."""
        return cls.config_class(num_tasks=default_num_tasks(spec, spec.horizon))

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        generator = self.ranks.generator("multitask", "improve", seed, device=self.device)
        extra = self._extra(env)
        trajectories = collect(env, MemorylessPolicy(self.network, generator, extra), env.horizon, seed=seed)
        valid = trajectories.in_sound_steps
        columns = self._columns(trajectories, extra)
        losses = self.ppo.update(self.network, self.network.head, columns, generator, num_envs=env.num_envs)
        # After the update, which must improve the policy that acted.
        self.network.observation_norm.update(trajectories.observations, valid, self.ranks)
        self.network.extra_norm.update(extra, torch.ones(len(extra), dtype=torch.bool), self.ranks)
        return {
            "env_steps": trajectories.num_transitions,
            "return_mean": float(trajectories.episode_returns().mean()),
            "used_fraction": used_fraction(valid),
            **success_metrics(trajectories),
            **losses,
        }

    def adapt(
        self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None
    ) -> MemorylessPolicy:
        """The policy for the tasks that `env` runs. It runs no episodes: there is nothing to learn from them."""
        self.check_adaptation(env, episodes, policy, MemorylessPolicy)
        generator = make_generator("multitask", "adapt", seed, device=self.device)
        if policy is None:  # a copy: training changes the agent's own
            return MemorylessPolicy(copy.deepcopy(self.network), generator, self._extra(env))
        assert isinstance(policy, MemorylessPolicy)
        return MemorylessPolicy(policy.network, generator, self._extra(env))

    def _extra_size(self) -> int:
        """How many numbers the policy is told about its task."""
        return 0

    def _extra(self, env: TaskVectorEnv) -> Float[Tensor, "M E"]:
        """What the policy is told about each task that `env` runs."""
        return torch.zeros(env.num_tasks, 0, device=self.device)

    def _columns(self, trajectories: Trajectories, extra: Float[Tensor, "M E"]) -> Columns:
        """One column per step, so that a minibatch holds steps of all environments."""
        network, config, ended = self.network, self.config, trajectories.ended
        values = network.denormalize(trajectories.extras[VALUES])
        advantages = gae(
            trajectories.rewards,
            values,
            self._next_values(trajectories, values, extra),
            trajectories.terminated,
            ended,
            discount=config.discount,
            gae_lambda=config.gae_lambda,
        )
        valid, returns = trajectories.in_sound_steps, values + advantages
        assert trajectories.log_probs is not None
        told = extra[None, :, None].expand(*ended.shape, -1)
        by_step = {
            "inputs": network.inputs(trajectories.observations, told),
            "actions": trajectories.actions,
            "log_probs": trajectories.log_probs,
            "advantages": standardize(advantages, valid, ranks=self.ranks),
            "targets": network.targets(returns, valid, self.ranks),
            "valid": valid,
        }
        flat = {n: map_tensors(lambda value: value.flatten(0, 2)[None], values) for n, values in by_step.items()}
        return Columns(starts=None, **flat)

    @torch.no_grad()
    def _next_values(
        self, trajectories: Trajectories, values: Float[Tensor, "T M N"], extra: Float[Tensor, "M E"]
    ) -> Float[Tensor, "T M N"]:
        """The value of what each step led to, before any autoreset."""
        network = self.network

        def value(observations: Observations, told: Tensor) -> Tensor:
            return network.denormalize(network(network.inputs(observations, told))[1])

        following = torch.cat([values[1:], value(trajectories.after, _for_each(extra, trajectories.after))[None]])
        tasks = trajectories.ended.nonzero()[:, 1]
        following[trajectories.ended] = value(trajectories.last_observations, extra[tasks])
        return following


class Oracle(Multitask):
    """One policy for all tasks, without memory, that is told the parameters of its task.

    It reads them from the environments, in training as in the test. Parameters that name one of several things (those
    of `Discrete` and named `Choice` spaces, and the `task_index` of mixed sets) are one-hot, all others plain numbers.
    Raises `UsageError` for a family whose tasks have other parameters than those that it was trained with, and for
    parameters that it cannot read (`metarl.agents.task_features.check_readable`).

    >>> from metarl.agents.multitask import MultitaskConfig, Oracle
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> agent = Oracle(MultitaskConfig(num_tasks=4), metarl.EnvSpec.of(family), seed=0)
    >>> metarl.evaluate(agent, family, num_tasks=10).episodes_used
    [0]
    """

    def _extra_size(self) -> int:
        if not self.spec.task_space:
            raise UsageError("the oracle needs EnvSpec.task_space, the parameters of tasks: make it by EnvSpec.of")
        check_readable(self.spec.task_space)
        return sum(feature_width(name, space) for name, space in self.spec.task_space.items())

    def _extra(self, env: TaskVectorEnv) -> Float[Tensor, "M E"]:
        check_parameters(self.spec.task_space, env.distribution)
        return task_features(self.spec.task_space, env.tasks).to(self.device)


def _for_each(extra: Float[Tensor, "M E"], observations: Observations) -> Float[Tensor, "M N E"]:
    """`extra` for each environment of each task."""
    return extra[:, None].expand(*batch_shape(observations), -1)

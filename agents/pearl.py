"""PEARL (Rakelly et al. 2019, "Efficient off-policy meta-RL via probabilistic context variables", ICML).

    q(z | c) ∝ Π_n N(z; f_μ(c_n), f_σ²(c_n)) over the transitions c_n = (o, a, r) of a task            (equation 2)
    L_φ = L_Q(z) + β KL(q(z | c) ‖ N(0, I)),  z ~ q(z | c),  per task                                (algorithm 1)

Policy and critics are those of SAC and see (o, z). The encoder f learns from the critics' loss and the KL divergence
alone: the policy's loss sees z as a constant. Batches to learn from are drawn from all transitions of a task, contexts
from the most recent ones. A trial acts by posterior sampling: z is drawn at the start of each episode from the belief
so far, which is N(0, I) before the first, and held through the episode.

Defaults: 16 tasks × 256 transitions a step, contexts of 100, latent size 5, encoder of 3 × 200 units and β 0.1, as in
the authors' code; networks of 3 × 128 units and 500 steps an iteration, for a CPU; SAC's own for the rest.

Deviations: SAC without the separate value network (`metarl.agents.sac`). The KL divergence is weighted per task as in
algorithm 1; the authors' code sums it over the tasks of a batch. An iteration acts in whole trials, as at test time;
the authors' code draws the contexts of training from the prior's episodes alone. Statistics of the random steps before
training, which then stay, give the units of rewards and of large observations. The presets `paper` have rewards as they
are and a fixed temperature. With `resample_steps`, z is drawn anew within an episode, which is not in the paper: one
episode then searches several places. In adaptation, actions are drawn from the policy (algorithm 2); an adapted policy
acts with the mean of its Gaussian, as the authors' code does in both.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.actions import ActionFormat
from metarl.agent import Agent, EnvSpec
from metarl.agents.posterior_sampling import PEARLNetwork, PEARLPolicy, RandomSteps
from metarl.agents.sac import METRICS, SAC, SACConfig
from metarl.distribution import TaskDistribution
from metarl.errors import EnvironmentFault, UsageError
from metarl.faults import check_finite
from metarl.nn.gaussian_product import kl_to_standard
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.parallel import Ranks, normal_like
from metarl.randomness import derive_seed, make_generator
from metarl.ranges import check_range
from metarl.replay import ReplayBuffer
from metarl.rollout import Policy, Trajectories, collect, success_metrics
from metarl.task_replay import TaskReplay
from metarl.tasks import TaskList, check_count
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class PEARLConfig(SACConfig):
    """Options of PEARL.

    >>> from metarl.agents.pearl import PEARLConfig
    >>> PEARLConfig(latent=8).meta_batch
    16
    """

    num_tasks: int = 5
    """Tasks that an iteration acts in (M), of the `train_tasks`."""
    envs_per_task: int = 2
    """Environments per task (N). Each runs one trial an iteration."""
    hidden: tuple[int, ...] = (128, 128, 128)
    train_tasks: int = 100
    """Tasks to train on."""
    episodes_per_trial: int = 2
    """Episodes of a trial. The first acts with z from the prior, the others with z from the belief so far."""
    initial_episodes: int = 1
    """Episodes of random actions in each environment of each training task, before training."""
    initial_hold: int = 1
    """Steps for which such an action is held. Long ones carry further where rewards are far away."""
    resample_steps: int | None = None
    """Steps after which z is drawn anew within an episode, to search several places in one; None holds z throughout, as
    the paper does."""
    updates: int = 500
    """Gradient steps per iteration."""
    meta_batch: int = 16
    """Tasks of a gradient step."""
    batch_size: int = 256
    """Transitions of each of them to learn from."""
    context_size: int = 100
    """Transitions of each of them to infer z from."""
    context_window: int | None = None
    """The last transitions of a task, from which these are drawn; if None, as many as an iteration adds to a task."""
    context_next_observations: bool = False
    """Whether the encoder sees the next observation as well, for tasks that differ in their dynamics."""
    latent: int = 5
    """Size of z."""
    encoder_hidden: tuple[int, ...] = (200, 200, 200)
    """Units of the encoder's hidden layers."""
    reward_scale: float = 5.0
    normalize_rewards: bool = True
    """Whether SAC has rewards in units of their root mean square in the random steps before training, which makes
    `reward_scale` and `kl_weight` mean the same in every family."""
    dense_rewards: bool = False
    """Whether SAC learns from the dense rewards of a family that has sparse ones. z is still inferred from the sparse
    ones, since a test task has no others."""
    kl_weight: float = 0.1
    """Weight of the KL divergence in the encoder's loss (β)."""
    replay_capacity: int = 1_000_000
    """Transitions to keep, of all tasks together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in fields(PEARLConfig):
            value = getattr(self, option.name)
            if option.type is int or (option.type == int | None and value is not None):
                check_count(option.name, value)
        for size in self.encoder_hidden:
            check_count("a hidden layer's size", size)
        check_range("kl_weight", self.kl_weight, least=0)

    def check_beginning(self, spec: EnvSpec, *, steps: int | None = None) -> None:
        super().check_beginning(spec, steps=steps)
        if self.resample_steps is not None and self.resample_steps >= spec.horizon:
            raise UsageError(
                f"resample_steps of {self.resample_steps} draws no z within episodes of {spec.horizon} steps: make it "
                "smaller or leave it out"
            )


class PEARL(Agent):
    """Meta-trains SAC with a latent task variable on a fixed list of tasks.

    An iteration runs one trial in each environment, adds all transitions to the replay buffer, and takes `updates`
    gradient steps over batches of all training tasks. The first iteration begins with random episodes of each of them.

    >>> from metarl.agents.pearl import PEARL, PEARLConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> agent = PEARL(PEARLConfig(train_tasks=6, num_tasks=3, updates=1, hidden=(8,)), metarl.EnvSpec.of(family))
    >>> tasks = agent.task_source(family, seed=0)
    >>> env = family.make_env(num_tasks=3, envs_per_task=2)
    >>> env.set_tasks(tasks.draw(3, seed=0))
    >>> agent.improve(env, seed=0)["env_steps"]
    120
    """

    config_class = PEARLConfig
    config: PEARLConfig
    shares_tasks = True

    def __init__(
        self,
        config: PEARLConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        if config.dense_rewards and not spec.has_dense_reward:
            raise UsageError("dense_rewards: the family has none (has_dense_reward), leave it out")
        self.network = PEARLNetwork(
            config,
            spec,
            config.encoder_hidden,
            config.latent,
            sees_next=config.context_next_observations,
            normalizes_rewards=config.normalize_rewards,
            learns_dense=config.dense_rewards,
            device=self.device,
        )
        self.network.initialize(make_generator("pearl", seed))
        self.sac = SAC(config, self.network.sac, self.network.encoder.parameters(), ranks=self.ranks)
        self.replay = TaskReplay(config.replay_capacity, config.train_tasks, self.device)
        self.train_tasks: TaskList | None = None

    def task_source(self, distribution: TaskDistribution, *, seed: int) -> TaskList:
        """`train_tasks` tasks, the same in all iterations; all of the train split if it has no more."""
        try:
            tasks = distribution.all_tasks("train")
        except UsageError:  # the family does not list its tasks
            tasks = None
        if tasks is None or len(tasks) > self.config.train_tasks:
            tasks = distribution.sample(self.config.train_tasks, seed=seed)
        self.ranks.share("meta_batch", min(self.config.meta_batch, len(tasks)))
        self.train_tasks = TaskList(tasks)
        return self.train_tasks

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        generator = self.ranks.generator("pearl", "improve", seed, device=self.device)
        steps = 0 if len(self.replay.buffer) else self._explore(env, generator, seed)
        count = self.config.episodes_per_trial
        actor = PEARLPolicy(self.network, generator, explores=True, resample_steps=self.config.resample_steps)
        trajectories = collect(env, actor, episodes=count, seed=seed)
        self._store(trajectories, env)
        return {
            "env_steps": steps + trajectories.num_transitions,
            "return_mean": float(trajectories.episode_returns(count - 1).mean()),
            "return_first_episode": float(trajectories.episode_returns(0).mean()),
            **success_metrics(trajectories, count - 1),
            **self._update(env.horizon, generator),
        }

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> PEARLPolicy:
        """Runs `episodes` episodes, which add to the belief. Every environment of `env` is a separate trial.

        Actions are drawn from the policy, as in training; those of the policy that is returned are its mean.
        """
        self.check_adaptation(env, episodes, policy, PEARLPolicy)
        generator = make_generator("pearl", "adapt", seed, device=self.device)
        assert policy is None or isinstance(policy, PEARLPolicy)
        # A copy, because training changes the agent's own.
        network, belief = (policy.network, policy.belief) if policy else (copy.deepcopy(self.network), None)
        every = self.config.resample_steps
        if episodes > 0:
            learner = PEARLPolicy(network, generator, belief, explores=True, resample_steps=every)
            collect(env, learner, episodes=episodes, seed=seed)
            belief = learner.belief
        return PEARLPolicy(network, generator, belief, resample_steps=every)

    def stages(self, episodes: int | None = None) -> list[int]:
        """After every episode; by default, up to the end of a training trial."""
        return list(range((self.config.episodes_per_trial if episodes is None else episodes) + 1))

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return self.network.tensors() | optimizer_tensors(self.sac.optimizer), {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        try:
            self.network.load_tensors(tensors)
        except (RuntimeError, KeyError) as error:
            raise UsageError(f"the saved parameters are not of this agent: {' '.join(str(error).split())}") from None
        load_optimizer_tensors(self.sac.optimizer, tensors)

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        return {"replay": self.replay.buffer}

    def _explore(self, env: TaskVectorEnv, generator: torch.Generator, seed: int) -> int:
        """Random episodes of every training task, and the scales of inputs from them; returns the number of steps."""
        if self.train_tasks is None:
            raise UsageError("pearl trains on a fixed list of tasks: draw them from its task_source")
        drawn, listed, count, steps = env.tasks, self.train_tasks.tasks, self.config.initial_episodes, 0
        first, every = self.ranks.rank * env.num_tasks, self.ranks.world_size * env.num_tasks
        for start in range(0, len(listed), every):
            env.set_tasks(listed[(start + first + torch.arange(env.num_tasks)) % len(listed)])
            policy = RandomSteps(ActionFormat(self.spec.action_space), self.config.initial_hold, generator)
            trajectories = collect(env, policy, episodes=count, seed=derive_seed("explore", seed, start))
            self._store(trajectories, env)
            self.network.update_scales(trajectories, self.ranks)
            steps += trajectories.num_transitions
        env.set_tasks(drawn)
        if self.replay.buffer.count > self.config.replay_capacity and not bool(
            self.replay.counts()[: len(listed)].all()
        ):
            raise UsageError(
                f"replay_capacity of {self.config.replay_capacity} does not hold the random episodes of {len(listed)} "
                f"tasks, which are {self.replay.buffer.count} steps: make it larger"
            )
        if not len(self.replay.buffer):
            raise EnvironmentFault(
                f"pearl has nothing to learn from: every random step was a fault, the first {env.fault_report}"
            )
        return steps

    def _store(self, trajectories: Trajectories, env: TaskVectorEnv) -> None:
        """Adds all transitions of all ranks but faults to the replay buffer."""
        if env.tasks.ids is None:
            raise UsageError("pearl keeps the transitions of each task: draw tasks with ids from its task_source")
        tasks = env.tasks.ids.to(self.device)[:, None].expand_as(trajectories.rewards)
        rows: dict[str, Any] = {
            "observations": trajectories.observations,
            "actions": self.network.head.from_box(trajectories.actions),
            "rewards": trajectories.rewards,
            "terminated": trajectories.terminated,
            "next_observations": trajectories.final_observations,
        }
        if self.config.dense_rewards:
            rows["dense_rewards"] = trajectories.dense_rewards
        sound = torch.ones_like(tasks, dtype=torch.bool) if trajectories.fault is None else ~trajectories.fault
        tasks, sound, *values = (self.ranks.gather(value, 1) for value in (tasks, sound, *rows.values()))
        self.replay.append(tasks[sound], {name: value[sound] for name, value in zip(rows, values, strict=True)})

    def _update(self, horizon: int, generator: torch.Generator) -> dict[str, float]:
        """All gradient steps of an iteration; returns the means of their metrics."""
        config = self.config
        window = config.context_window or config.envs_per_task * config.episodes_per_trial * horizon
        means = torch.stack([self.gradient_step(window, generator) for _ in range(config.updates)]).mean(0)
        check_finite("a loss of PEARL", means)
        return dict(zip((*METRICS, "kl"), means.tolist(), strict=True))

    def gradient_step(self, window: int, generator: torch.Generator) -> Float[Tensor, "6"]:
        """`learn` from `meta_batch` tasks that have been seen, with contexts of their last `window` transitions."""
        config, seen = self.config, self.replay.counts().nonzero()[:, 0]
        tasks = seen[torch.randperm(len(seen), generator=generator, device=self.device)[: config.meta_batch]]
        share = self.ranks.share("the meta_batch", len(tasks))
        part = slice(share * self.ranks.rank, share * (self.ranks.rank + 1))
        context = self.replay.sample(tasks, config.context_size, generator, recent=window, part=part)
        return self.learn(context, self.replay.sample(tasks, config.batch_size, generator, part=part), generator)

    def learn(
        self, context: Mapping[str, Tensor], batch: Mapping[str, Tensor], generator: torch.Generator
    ) -> Float[Tensor, "6"]:
        """Takes one gradient step, from transitions `[m, n, ...]` of `m` tasks and others to infer their z from.

        Returns the metrics of SAC and the KL divergence.
        """
        network = self.network
        mean, variance = network.infer(context)
        kl = kl_to_standard(mean, variance).mean()
        z = mean + variance.sqrt() * normal_like(mean, generator)
        metrics = self.sac.update(network.transitions(batch, z), generator, self.config.kl_weight * kl)
        return torch.cat([metrics, kl.detach()[None]])

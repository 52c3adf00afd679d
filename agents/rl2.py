"""RL² (Duan et al. 2016; Wang et al. 2016): a recurrent policy whose learning algorithm is its own dynamics."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.agent import EnvSpec
from metarl.agents.actor_critic import VALUES, trial_advantages
from metarl.agents.heads import HeadName
from metarl.agents.ppo import PPO, Columns, Inputs, PPOAgent, default_num_tasks
from metarl.agents.recurrent import CoreName, RecurrentActorCritic, RecurrentPolicy
from metarl.agents.trials import TrialAgent, TrialConfig
from metarl.nn.heads import Phi
from metarl.parallel import Ranks
from metarl.randomness import make_generator
from metarl.rollout import Trajectories, standardize
from metarl.spaces import map_tensors
from metarl.tasks import check_count


@dataclass(frozen=True)
class RL2Config(TrialConfig):
    """Options of RL².

    >>> from metarl.agents.rl2 import RL2Config
    >>> RL2Config(episodes_per_trial=3).core
    'gru'
    """

    core: CoreName = "gru"
    """Recurrent core. snail and transformer refuse trials longer than those of training."""
    head: HeadName = "plain"
    """What makes policy and value from the core's output: a linear layer (plain), a network that reads the observation
    again (state-again), or such a network whose weights are made from the memory (hypernetwork)."""
    hidden: int = 128
    """Units of the core. For snail, the size of the last keys and four times the number of filters."""
    initial_std: float = 1.0
    """Standard deviation of the untrained Gaussian policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("hidden", self.hidden)


class RL2(TrialAgent, PPOAgent):
    """A recurrent policy trained by PPO (Schulman et al. 2017) over whole trials.

    The recurrent state is blank at the start of a trial and kept across the episodes of the trial (`TrialAgent`).
    Returns and advantages run over the whole trial, across episodes.

    >>> from metarl.agents.rl2 import RL2, RL2Config
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> agent = RL2(RL2Config(num_tasks=4, episodes_per_trial=1), metarl.EnvSpec.of(family), seed=0)
    >>> env = family.make_env(num_tasks=4)
    >>> env.set_tasks(family.sample(4, seed=0))
    >>> agent.improve(env, seed=1)["env_steps"]
    40
    """

    config_class = RL2Config
    config: RL2Config
    stream = "rl2"
    shares_tasks = True
    network: RecurrentActorCritic

    def __init__(
        self,
        config: RL2Config,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        self.network = RecurrentActorCritic(
            spec.observation_space,
            spec.action_space,
            config.hidden,
            config.initial_std,
            config.core,
            config.head,
            trial_length=config.episodes_per_trial * spec.horizon,
        )
        self.network.initialize(make_generator("rl2", seed))
        self.network.to(self.device)
        self.ppo = PPO(config, self.network, ranks=self.ranks, after_step=self.network.keep_in_range)

    @classmethod
    def default_config(cls, spec: EnvSpec) -> RL2Config:
        """The number of tasks of `metarl.agents.ppo.default_num_tasks`."""
        return RL2Config(num_tasks=default_num_tasks(spec, spec.horizon * RL2Config.episodes_per_trial))

    def _actor(self, generator: torch.Generator) -> RecurrentPolicy:
        return RecurrentPolicy(self.network, generator)

    def _update(
        self, trajectories: Trajectories, valid: Bool[Tensor, "T M N"], generator: torch.Generator
    ) -> dict[str, float]:
        """PPO over the complete trials of one iteration."""
        columns = self._columns(trajectories, valid)
        metrics = self.ppo.update(self._evaluate, self.network.head, columns, generator)
        # After the update, which must improve the policy that acted.
        self.network.observation_norm.update(trajectories.observations, valid, self.ranks)
        self.network.reward_norm.update(trajectories.rewards[..., None], valid, self.ranks)
        return metrics

    def _columns(self, trajectories: Trajectories, valid: Bool[Tensor, "T M N"]) -> Columns:
        """One column of trials per environment, with advantages and targets over whole trials."""
        network = self.network
        starts = trajectories.trial_starts.flatten(1)
        columns = valid.flatten(1)
        inputs = map_tensors(lambda values: values.flatten(1, 2), network.trial_inputs(trajectories))
        middle = starts if bool(starts[1:].any()) else None
        values = network.denormalize(trajectories.extras[VALUES].flatten(1))
        advantages = trial_advantages(trajectories, values, self.config)
        assert trajectories.log_probs is not None
        return Columns(
            inputs=inputs,
            starts=middle,
            actions=trajectories.actions.flatten(1, 2),
            log_probs=trajectories.log_probs.flatten(1),
            advantages=standardize(advantages, columns, ranks=self.ranks),
            targets=network.targets(values + advantages, columns, self.ranks),
            valid=columns,
        )

    def _evaluate(self, inputs: Inputs, starts: Bool[Tensor, "T b"] | None) -> tuple[Phi, Float[Tensor, "T b"]]:
        phi, values, _ = self.network(inputs, starts)
        return phi, values

"""RL² (Duan et al. 2016; Wang et al. 2016): a recurrent policy whose learning algorithm is its own dynamics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.agent import EnvSpec
from metarl.agents.actor_critic import trial_advantages
from metarl.agents.ppo import PPO, Columns, Inputs
from metarl.agents.recurrent import VALUES, CoreName, RecurrentActorCritic, RecurrentPolicy
from metarl.agents.trials import TrialAgent, TrialConfig, tasks_per_iteration
from metarl.nn.heads import Phi
from metarl.nn.module_state import load_module_tensors, module_tensors
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.parallel import Ranks
from metarl.randomness import make_generator
from metarl.rollout import Policy, Trajectories, standardize
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
    """Recurrent core: gru, lstm or snail. snail refuses trials longer than those of training."""
    hidden: int = 128
    """Units of the core. For snail, the size of the last keys and four times the number of filters."""
    initial_std: float = 1.0
    """Standard deviation of the untrained Gaussian policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("hidden", self.hidden)


class RL2(TrialAgent):
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
            trial_length=config.episodes_per_trial * spec.horizon,
        )
        self.network.initialize(make_generator("rl2", seed))
        self.network.to(self.device)
        self.ppo = PPO(config, self.network, ranks=self.ranks, after_step=self.network.keep_in_range)

    @classmethod
    def default_config(cls, spec: EnvSpec) -> RL2Config:
        """About 20,000 steps per iteration, of `tasks_per_iteration`."""
        return RL2Config(num_tasks=tasks_per_iteration(spec, RL2Config.episodes_per_trial))

    def _actor(self, generator: torch.Generator, like: Policy | None = None) -> RecurrentPolicy:
        if like is None:
            return RecurrentPolicy(self.network, generator)
        assert isinstance(like, RecurrentPolicy)
        return RecurrentPolicy(like.network, generator, like.memory)

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return module_tensors("network", self.network) | optimizer_tensors(self.ppo.optimizer), {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        load_module_tensors("network", self.network, tensors)
        load_optimizer_tensors(self.ppo.optimizer, tensors)

    def _update(
        self, trajectories: Trajectories, valid: Bool[Tensor, "T M N"], generator: torch.Generator
    ) -> dict[str, float]:
        """PPO over the complete trials of one iteration."""
        columns = self._columns(trajectories, valid)
        metrics = self.ppo.update(self._evaluate, self.network.head, columns, generator)
        # After the update, which must improve the policy that acted.
        self.network.observation_norm.update(trajectories.observations, valid)
        self.network.reward_norm.update(trajectories.rewards[..., None], valid)
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
        targets = network.targets(values + advantages, columns)
        assert trajectories.log_probs is not None
        return Columns(
            inputs=inputs,
            starts=middle,
            actions=trajectories.actions.flatten(1, 2),
            log_probs=trajectories.log_probs.flatten(1),
            advantages=standardize(advantages, columns),
            targets=targets,
            valid=columns,
        )

    def _evaluate(self, inputs: Inputs, starts: Bool[Tensor, "T b"] | None) -> tuple[Phi, Float[Tensor, "T b"]]:
        phi, values, _ = self.network(inputs, starts)
        return phi, values

"""Options of the agents from Stable-Baselines3 (SB3), with its names and its defaults."""

import math
from dataclasses import dataclass, fields

from metarl.agent import AgentConfig, EnvSpec
from metarl.errors import UsageError
from metarl.ranges import check_range
from metarl.spaces import is_picture
from metarl.tasks import check_count


@dataclass(frozen=True)
class SB3Config(AgentConfig):
    """Options of every agent from SB3.

    >>> from metarl.agents.sb3_config import SB3Config
    >>> SB3Config(from_scratch=True).scratch_episodes
    20
    """

    num_tasks: int = 10
    envs_per_task: int = 1
    """Environments per task (N)."""
    from_scratch: bool = False
    """Learn nothing across tasks; train a fresh model on each test task."""
    scratch_episodes: int = 20
    """Episodes of a test task from one measurement of its model to the next."""
    learning_rate: float = 3e-4
    """Step size of Adam."""
    gamma: float = 0.99
    """Discount factor."""
    batch_size: int = 64
    """Transitions per minibatch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in fields(self):
            if option.type is int and option.name != "learning_starts":
                check_count(option.name, getattr(self, option.name))
        for size in getattr(self, "hidden", ()):
            check_count("a size in hidden", size)
        check_range("learning_rate", self.learning_rate, above=0)
        check_range("gamma", self.gamma, least=0, most=1)

    @property
    def default_iterations(self) -> int:
        return 1 if self.from_scratch else super().default_iterations

    def check_beginning(self, spec: EnvSpec, *, steps: int | None = None) -> None:
        super().check_beginning(spec, steps=steps)
        if not self.from_scratch:
            self._refuse_unless_usual("is for from_scratch", "scratch_episodes")
        elif steps is not None:
            raise UsageError(
                "from_scratch trains on test tasks alone, for as many episodes as metarl evaluate RUN --episodes gives "
                "them: leave --steps out"
            )
        if is_picture(spec.observation_space):
            self._refuse_unless_usual("is not for pictures alone: SB3 has no layers after its convolutions", "hidden")


@dataclass(frozen=True)
class SB3PPOConfig(SB3Config):
    """Options of SB3's PPO.

    >>> from metarl.agents.sb3_config import SB3PPOConfig
    >>> SB3PPOConfig(n_steps=512).batch_size
    64
    """

    n_steps: int = 2048
    """Steps of each environment per rollout. Iterations shorter than an episode take several rollouts."""
    n_epochs: int = 10
    """Passes over a rollout."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation."""
    clip_range: float = 0.2
    """How far the ratio of probabilities counts, from 1."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Bound of the gradient's norm."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers. For pictures alone SB3 has none after its convolutions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("gae_lambda", self.gae_lambda, least=0, most=1)
        for name in ("ent_coef", "vf_coef"):
            check_range(name, getattr(self, name), least=0)
        for name in ("clip_range", "max_grad_norm"):
            check_range(name, getattr(self, name), above=0, most=math.inf)
        if self.batch_size < 2:
            raise UsageError("batch_size must be at least 2: advantages are standardised within it")
        envs = 1 if self.from_scratch else self.num_tasks * self.envs_per_task
        if self.n_steps * envs < 2:
            raise UsageError("n_steps must be at least 2 for one environment: advantages are standardised within them")


@dataclass(frozen=True)
class SB3RecurrentPPOConfig(SB3PPOConfig):
    """Options of sb3-contrib's recurrent PPO.

    >>> from metarl.agents.sb3_config import SB3RecurrentPPOConfig
    >>> SB3RecurrentPPOConfig().lstm_hidden_size
    256
    """

    n_steps: int = 128
    batch_size: int = 128
    lstm_hidden_size: int = 256
    """Units of the LSTM."""
    n_lstm_layers: int = 1
    """Layers of the LSTM."""


@dataclass(frozen=True)
class SB3SACConfig(SB3Config):
    """Options of SB3's SAC.

    >>> from metarl.agents.sb3_config import SB3SACConfig
    >>> SB3SACConfig().batch_size
    256
    """

    buffer_size: int = 1_000_000
    """Transitions in the replay buffer."""
    learning_starts: int = 100
    """Steps of uniformly random actions before learning starts."""
    batch_size: int = 256
    """Transitions per gradient step."""
    tau: float = 0.005
    """Share of the critics that moves into the target critics at each step."""
    train_freq: int = 1
    """Steps of each environment between trainings."""
    gradient_steps: int = 1
    """Gradient steps per training."""
    ent_coef: float | None = None
    """Weight of the entropy; None learns it."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers. For pictures alone SB3 has none after its convolutions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("tau", self.tau, above=0, most=1)
        check_range("learning_starts", self.learning_starts, least=0)
        if self.ent_coef is not None:
            check_range("ent_coef", self.ent_coef, least=0)

    def check_beginning(self, spec: EnvSpec, *, steps: int | None = None) -> None:
        super().check_beginning(spec, steps=steps)
        if steps is not None and steps <= self.learning_starts:
            raise UsageError(
                f"nothing is learned in {steps} steps: learning_starts says that learning begins after "
                f"{self.learning_starts}"
            )

"""The recurrent actor-critic of RL²: its inputs, its memory and its policy."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import gymnasium as gym
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from metarl.agents.actor_critic import VALUES, ObservingActorCritic
from metarl.agents.heads import HEADS, HeadName
from metarl.agents.ppo import Inputs
from metarl.agents.trial_policy import TrialPolicy
from metarl.nn.entries import EntryEncoder
from metarl.nn.heads import Phi
from metarl.nn.normalization import RunningNorm
from metarl.nn.recurrent import GRU, LSTM
from metarl.nn.sequence import BoundedCore, SequenceCore, State, choose_state, orthogonal
from metarl.nn.snail import SNAILCore
from metarl.nn.transformer import Transformer
from metarl.rollout import PolicyStep, Trajectories, Transition
from metarl.spaces import Observations, map_tensors, named

CoreName = Literal["gru", "lstm", "snail", "transformer"]


def make_core(name: CoreName, inputs: int, hidden: int, trial_length: int) -> SequenceCore:
    """A GRU or an LSTM of `hidden` units; a SNAIL or a transformer that remembers the `trial_length` steps of a trial.

    The dense blocks of SNAIL have `hidden` / 4 filters each; the keys of its attentions have the sizes `hidden` / 8,
    `hidden` / 2 and `hidden`. The transformer has two layers of width `hidden` with four heads.
    """
    if name == "snail":
        return SNAILCore(inputs, filters=max(1, hidden // 4), keys=max(2, hidden // 8), length=trial_length)
    if name == "transformer":
        return Transformer(inputs, hidden, length=trial_length)
    return GRU(inputs, hidden) if name == "gru" else LSTM(inputs, hidden)


class RecurrentActorCritic(ObservingActorCritic):
    """A recurrent core over [o, a₋₁, r₋₁, ended₋₁] with a policy and a value on top (Duan et al. 2016, section 2.2).

    Rewards are normalised as observations are. `trial_length` is the number of steps in a trial: the cores SNAIL and
    transformer refuse longer ones. `head` makes policy and value from the core's output (`metarl.agents.heads`).

    >>> from metarl.agents.recurrent import RecurrentActorCritic
    >>> family = metarl.make("Bandit-v0", arms=5)
    >>> network = RecurrentActorCritic(family.observation_space, family.action_space, 32, 1.0, trial_length=20)
    >>> network.initialize(torch.Generator())
    >>> (logits,), values, state = network(torch.zeros(20, 3, 1 + 5 + 2))
    >>> logits.shape, values.shape
    (torch.Size([20, 3, 5]), torch.Size([20, 3]))
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        hidden: int,
        initial_std: float,
        core: CoreName = "gru",
        head: HeadName = "plain",
        *,
        trial_length: int,
    ):
        super().__init__(observation_space, action_space, initial_std)
        self.reward_norm = RunningNorm(1)
        self.core = make_core(core, self.observation_size + self.head.size + 2, hidden, trial_length)
        self.core_parameters = nn.ParameterDict()
        self.actor_critic = HEADS[head](self.core.outputs, self.observation_size, self.head.size)
        self.register_load_state_dict_pre_hook(_name_plain_head)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Orthogonal weights and zero biases; the policy starts near uniform, the value near zero."""
        self.core_parameters.update(self.core.initialize(generator, orthogonal))
        if isinstance(self.observation_norm, EntryEncoder):
            self.observation_norm.initialize(generator)
        self.actor_critic.initialize(generator)

    def inputs(
        self,
        observations: Observations,
        actions: Shaped[Tensor, "..."],
        rewards: Float[Tensor, "..."],
        ended: Bool[Tensor, "..."],
        first: Bool[Tensor, "..."],
    ) -> Float[Tensor, "... I"]:
        """What the core reads: the observation, and the last action with its outcome, which is zero if `first`."""
        return torch.cat([self.observation_norm(observations), self._before(actions, rewards, ended, first)], dim=-1)

    def trial_inputs(self, trajectories: Trajectories) -> Inputs:
        """`inputs` `[T, M, N, I]` for trajectories in which each environment runs one trial after another.

        If there are pictures, they have to be encoded with the parameters of the moment: then this is a dictionary of
        the observations as they are and of the rest of the inputs, `before`, and `forward` makes the inputs from it.
        """

        def shifted(values: Tensor) -> Tensor:
            return torch.cat([values[:1], values[:-1]])  # the first of a trial is hidden

        actions, rewards, ended = map(shifted, (trajectories.actions, trajectories.rewards, trajectories.ended))
        outcome = (actions, rewards, ended, trajectories.trial_starts)
        if not self.has_pictures:
            return self.inputs(trajectories.observations, *outcome)
        raw = {f"observation.{name}": value for name, value in named(trajectories.observations).items()}
        return {"before": self._before(*outcome), **raw}

    def forward(
        self, inputs: Inputs, starts: Bool[Tensor, "T B"] | None = None
    ) -> tuple[Phi, Float[Tensor, "T B"], State]:
        """φ of the action distribution and the normalised value at every step, and the state after the last step.

        `inputs` is `[T, B, I]`, or the dictionary of `trial_inputs`. Memory is blank at the first step and at each step
        in `starts`.
        """
        if isinstance(inputs, dict):
            raw = {name.removeprefix("observation."): value for name, value in inputs.items() if name != "before"}
            inputs = torch.cat([self.observation_norm(raw), inputs["before"]], dim=-1)
        features, state = self.core.sequence(dict(self.core_parameters), inputs, None, starts)
        return *self.answers(features, inputs), state

    def answers(
        self, features: Float[Tensor, "*n H"], inputs: Float[Tensor, "*n I"]
    ) -> tuple[Phi, Float[Tensor, "*n"]]:
        """φ of the action distribution and the normalised value, from outputs and inputs of the core."""
        output = self.actor_critic(features, inputs[..., : self.observation_size])
        return self.phi(output[..., :-1]), output[..., -1]

    def _before(
        self,
        actions: Shaped[Tensor, "..."],
        rewards: Float[Tensor, "..."],
        ended: Bool[Tensor, "..."],
        first: Bool[Tensor, "..."],
    ) -> Float[Tensor, "... E"]:
        """The last action with its outcome, which is zero if `first`."""
        reward = self.reward_norm(rewards[..., None])
        before = torch.cat([self.head.features(actions), reward, ended[..., None].float()], dim=-1)
        return before.masked_fill(first[..., None], 0.0)

    def rescale_value(self, scale: Float[Tensor, "1"], shift: Float[Tensor, "1"]) -> None:
        self.actor_critic.rescale_value(scale, shift)


def _name_plain_head(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Gives the layers of the plain head the names they have; run folders before 0.5 have `actor` and `critic`."""
    old = [name for name in state if name.startswith((f"{prefix}actor.", f"{prefix}critic."))]
    for name in old:
        state[f"{prefix}actor_critic.{name.removeprefix(prefix)}"] = state.pop(name)


@dataclass(frozen=True)
class Memory:
    """The memory of a recurrent policy between two steps of `M · N` trials: core state and last transition.

    >>> from metarl.agents.recurrent import Memory
    >>> no = torch.zeros(2, dtype=torch.bool)
    >>> one = Memory((torch.zeros(2, 8),), torch.zeros(2, 1), torch.zeros(2), ended=no, first=~no)
    >>> other = Memory((torch.ones(2, 8),), torch.ones(2, 1), torch.ones(2), ended=no, first=no)
    >>> one.chosen(torch.tensor([True, False]), other).reward
    tensor([0., 1.])
    """

    hidden: State
    """The state of the core, each tensor `[M · N, ...]`."""
    action: Shaped[Tensor, "B ..."]
    reward: Float[Tensor, "B"]
    ended: Bool[Tensor, "B"]
    first: Bool[Tensor, "B"]
    """Whether nothing has happened yet."""
    steps: int = 0
    """The most steps that a trial can have had: counted on the host, which so knows without waiting for a GPU."""

    def chosen(self, mask: Bool[Tensor, "B"], other: "Memory") -> "Memory":
        """This memory in the mask, `other` elsewhere."""
        own, its = ((m.action, m.reward, m.ended, m.first) for m in (self, other))
        hidden = choose_state(mask, self.hidden, other.hidden)
        action, reward, ended, first = choose_state(mask, own, its)
        return Memory(hidden, action, reward, ended, first, max(self.steps, other.steps))


class RecurrentPolicy(TrialPolicy):
    """Acts with a `RecurrentActorCritic`, starting from a blank memory.

    >>> from metarl.agents.recurrent import RecurrentActorCritic, RecurrentPolicy
    >>> family = metarl.make("Bandit-v0", arms=5)
    >>> network = RecurrentActorCritic(family.observation_space, family.action_space, 32, 1.0, trial_length=20)
    >>> network.initialize(torch.Generator())
    >>> RecurrentPolicy(network, torch.Generator()).act(torch.zeros(3, 4, 1)).actions.shape
    torch.Size([3, 4])
    """

    def __init__(self, network: RecurrentActorCritic, generator: torch.Generator):
        super().__init__(generator)
        self.network = network
        self.memory: Memory | None = None

    @torch.no_grad()
    def act(self, observations: Observations) -> PolicyStep:
        network, shape = self.network, self.known_batch(observations)
        observations = map_tensors(lambda values: values.flatten(0, 1), observations)
        memory = self.memory = self.memory or self._blank(network.log_std.new_zeros(math.prod(shape)))
        if isinstance(network.core, BoundedCore) and memory.steps >= network.core.length:
            # Rarely so: trials may have begun anew or ended early since. Only their own lengths tell.
            memory = self.memory = replace(memory, steps=network.core.check(memory.hidden))
        inputs = network.inputs(observations, memory.action, memory.reward, memory.ended, memory.first)
        features, self._hidden = network.core.step(dict(network.core_parameters), inputs, memory.hidden)
        phi, values = network.answers(features[None], inputs[None])
        actions = network.head.sample(phi, self.generator)
        log_probs = network.head.log_prob(phi, actions)
        chosen, *known = (value[0].unflatten(0, shape) for value in (actions, log_probs, values))
        return PolicyStep(chosen, known[0], {VALUES: known[1]})

    def begin_rollout(self) -> None:
        if self.memory is not None:
            self.memory = replace(self.memory, ended=torch.ones_like(self.memory.ended))

    def observe(self, transition: Transition) -> None:
        assert self.memory is not None
        ended = transition.ended.flatten()
        new = Memory(
            hidden=self._hidden,
            action=transition.actions.flatten(0, 1),
            reward=transition.rewards.flatten(),
            ended=ended,
            first=torch.zeros_like(ended),
            steps=self.memory.steps + 1,
        )
        self.memory = new if transition.active is None else new.chosen(transition.active.flatten(), self.memory)

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        if self.memory is None or (mask.device.type == "cpu" and not mask.any()):
            return
        self.memory = self._blank(self.memory.reward).chosen(mask.flatten(), self.memory)

    def _blank(self, like: Float[Tensor, "B ..."]) -> Memory:
        """A blank memory for as many environments as `like` has rows."""
        zeros = like.new_zeros(len(like))
        hidden = self.network.core.initial(len(like), like)
        return Memory(hidden, self.network.head.blank(like), reward=zeros, ended=zeros.bool(), first=~zeros.bool())

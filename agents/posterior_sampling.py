"""The networks of PEARL (Rakelly et al. 2019), and its policy, which acts by posterior sampling."""

from collections.abc import Mapping

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.actions import ActionFormat
from metarl.agent import EnvSpec
from metarl.agents.sac import SACConfig, SoftActorCritic, Transitions
from metarl.agents.trial_policy import TrialPolicy
from metarl.errors import UsageError
from metarl.nn.gaussian_product import Natural, gaussian_factors, gaussian_product
from metarl.nn.normalization import RunningScale
from metarl.nn.squashed_gaussian import SquashedGaussian
from metarl.nn.stacked_mlp import StackedMLP
from metarl.parallel import Ranks, any_rank, normal_like
from metarl.rollout import Policy, PolicyStep, Trajectories, Transition
from metarl.spaces import Observations, batch_shape, is_vector


class PEARLNetwork(nn.Module):
    """Encoder, policy and critics, and the scales of what they read.

    The encoder has `encoder_hidden` units, and `latent` is the size of z. If `sees_next`, it reads the next observation
    of a transition as well. It reads rewards in units of their root mean square at the time when `scales` were updated,
    and so does SAC if `normalizes_rewards`. If `learns_dense`, SAC has dense rewards in place of those the encoder
    reads. Raises `UsageError` for actions that are no box, and for observations that are no vectors.

    >>> from metarl.agents.posterior_sampling import PEARLNetwork
    >>> from metarl.agents.sac import SACConfig
    >>> spec = metarl.EnvSpec.of(metarl.make("PointNavigation-v0"))
    >>> network = PEARLNetwork(SACConfig(), spec, encoder_hidden=(64,), latent=3)
    >>> observations = torch.zeros(4, 7, 2)
    >>> precision, _ = network.factors(observations, torch.zeros(4, 7, 2), torch.zeros(4, 7), observations)
    >>> precision.shape
    torch.Size([4, 7, 3])
    """

    def __init__(
        self,
        config: SACConfig,
        spec: EnvSpec,
        encoder_hidden: tuple[int, ...],
        latent: int,
        sees_next: bool = False,
        normalizes_rewards: bool = True,
        learns_dense: bool = False,
        *,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        if not isinstance(spec.action_space, gym.spaces.Box):
            raise UsageError(
                f"pearl acts in boxes of numbers (its SAC has a Gaussian policy), not in {spec.action_space}: "
                "use rl2, maml or varibad"
            )
        if not is_vector(spec.observation_space):
            raise UsageError(
                f"pearl reads float32 vectors [D], not {spec.observation_space}: flatten them "
                "(gymnasium.wrappers.FlattenObservation), or use rl2 or maml, which have encoders"
            )
        self.head = SquashedGaussian(spec.action_space)
        size = spec.observation_space.shape[0]
        self.latent, self.sees_next, self.normalizes_rewards = latent, sees_next, normalizes_rewards
        context = (2 if self.sees_next else 1) * size + self.head.size + 1
        self.encoder = StackedMLP((context, *encoder_hidden, 2 * latent))
        self.sac = SoftActorCritic(config, size + latent, self.head)
        self.scales = {"observation": RunningScale(size, device), "reward": RunningScale(1, device)}
        if learns_dense:
            self.scales["dense_reward"] = RunningScale(1, device)
        self.to(device)

    def factors(
        self,
        observations: Float[Tensor, "*b D"],
        actions: Float[Tensor, "*b A"],
        rewards: Float[Tensor, "*b"],
        next_observations: Float[Tensor, "*b D"],
    ) -> Natural:
        """The factor of each transition in q(z | c), `[*b, L]` each; `actions` in the unit box."""
        scale = self.scales["observation"]
        parts = [scale(observations), actions, self._in_units("reward", rewards)[..., None]]
        parts += [scale(next_observations)] if self.sees_next else []
        inputs = torch.cat(parts, dim=-1)
        return gaussian_factors(self.encoder(inputs.flatten(0, -2))[0].unflatten(0, rewards.shape))

    def infer(self, context: Mapping[str, Tensor]) -> tuple[Float[Tensor, "m L"], Float[Tensor, "m L"]]:
        """Mean and variance of q(z | c), for `n` stored transitions of each of `m` tasks, each field `[m, n, ...]`."""
        fields = (context[name] for name in ("observations", "actions", "rewards", "next_observations"))
        precision, weighted_mean = self.factors(*fields)
        return gaussian_product(precision.sum(1), weighted_mean.sum(1))

    def transitions(self, batch: Mapping[str, Tensor], z: Float[Tensor, "m L"]) -> Transitions:
        """What SAC learns from: `n` stored transitions of each of `m` tasks, seen together with the z of their task."""
        each = z[:, None].expand(-1, batch["rewards"].shape[1], -1)
        kind = "dense_reward" if "dense_reward" in self.scales else "reward"
        rewards = batch[f"{kind}s"]
        return Transitions(
            observations=self.inputs(batch["observations"], each),
            actions=batch["actions"].flatten(0, 1),
            rewards=(self._in_units(kind, rewards) if self.normalizes_rewards else rewards).flatten(),
            terminated=batch["terminated"].flatten(),
            next_observations=self.inputs(batch["next_observations"], each.detach()),
        )

    def update_scales(self, trajectories: Trajectories, ranks: Ranks) -> None:
        """Counts what the trajectories of all ranks hold."""
        assert isinstance(trajectories.observations, Tensor)
        self.scales["observation"].update(trajectories.observations, ranks)
        self.scales["reward"].update(trajectories.rewards[..., None], ranks)
        if "dense_reward" in self.scales:
            assert trajectories.dense_rewards is not None
            self.scales["dense_reward"].update(trajectories.dense_rewards[..., None], ranks)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draws the first weights of all networks."""
        self.encoder.initialize(generator)
        self.sac.initialize(generator)

    def tensors(self) -> dict[str, Tensor]:
        """Copies on the CPU of all that training changes."""
        parts = {"network": self.state_dict()} | {f"scale.{n}": scale.state_dict() for n, scale in self.scales.items()}
        return {f"{part}.{name}": v.cpu().clone() for part, values in parts.items() for name, v in values.items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `tensors` returned; ignores other names. Raises as `torch.nn.Module.load_state_dict` does."""

        def under(part: str) -> dict[str, Tensor]:
            return {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}

        self.load_state_dict(under("network."))
        for name, scale in self.scales.items():
            scale.load_state_dict(under(f"scale.{name}."))

    def inputs(self, observations: Float[Tensor, "*b D"], z: Float[Tensor, "*b L"]) -> Float[Tensor, "R I"]:
        """What policy and critics read, one row for each observation."""
        return torch.cat([self.scales["observation"](observations), z], dim=-1).flatten(0, -2)

    def _in_units(self, kind: str, rewards: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Rewards divided by their root mean square, or as they are if there were none but 0."""
        mean_square = self.scales[kind].mean_square
        return rewards * torch.where(mean_square > 0, mean_square, 1.0).rsqrt()


class PEARLPolicy(TrialPolicy):
    """Acts by posterior sampling, starting from `belief`: sums of natural parameters `[M, N, L]`, or None for no data.

    Every environment is a trial of its own. z is drawn when an episode begins, and anew after every `resample_steps`
    steps of it if that is given. If `explores`, actions are drawn from the policy, else they are its mean.

    >>> from metarl.agents.posterior_sampling import PEARLNetwork, PEARLPolicy
    >>> from metarl.agents.sac import SACConfig
    >>> spec = metarl.EnvSpec.of(metarl.make("PointNavigation-v0"))
    >>> network = PEARLNetwork(SACConfig(), spec, encoder_hidden=(64,), latent=5)
    >>> policy = PEARLPolicy(network, torch.Generator())
    >>> policy.act(torch.zeros(3, 4, 2)).actions.shape, policy.z.shape
    (torch.Size([3, 4, 2]), torch.Size([3, 4, 5]))
    """

    def __init__(
        self,
        network: PEARLNetwork,
        generator: torch.Generator,
        belief: Natural | None = None,
        *,
        explores: bool = False,
        resample_steps: int | None = None,
    ):
        super().__init__(generator)
        self.network, self.explores, self.resample_steps = network, explores, resample_steps
        self.belief = belief
        if belief is not None:
            self.batch = tuple(belief[0].shape[:2])
        self.z: Tensor | None = None
        self._due: Tensor | None = None
        """Where z is to be drawn: an episode begins, or z has acted for long enough."""
        self._age: Tensor | None = None
        """Steps that the current episode has had; counted if z is drawn within episodes."""

    @torch.no_grad()
    def act(self, observations: Observations) -> PolicyStep:
        assert isinstance(observations, Tensor)  # the network refuses other spaces
        shape, head = self.known_batch(observations), self.network.head
        outputs = self.network.sac.policy(self.network.inputs(observations, self._current_z(observations)))
        actions = head.sample(outputs, self.generator)[0] if self.explores else head.mode(outputs)
        return PolicyStep(head.to_box(actions).unflatten(0, shape))

    def begin_rollout(self) -> None:
        if self._due is not None:
            self._due, self._age = torch.ones_like(self._due), None

    @torch.no_grad()
    def observe(self, transition: Transition) -> None:
        assert self.belief is not None
        assert self._due is not None
        before, after = transition.observations, transition.next_observations
        assert isinstance(before, Tensor)
        assert isinstance(after, Tensor)
        actions = self.network.head.from_box(transition.actions)
        new = self.network.factors(before, actions, transition.rewards, after)
        ended = transition.ended
        if transition.active is not None:
            ended = ended & transition.active
            new = (new[0] * transition.active[..., None], new[1] * transition.active[..., None])
        self.belief = (self.belief[0] + new[0], self.belief[1] + new[1])
        self._due = self._due | ended
        if self.resample_steps is not None:
            age = torch.ones_like(ended, dtype=torch.int64) if self._age is None else self._age + 1
            self._age = age.masked_fill(ended, 0)
            self._due = self._due | (self._age % self.resample_steps == 0)

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        if self.belief is None or self._due is None:
            return
        precision, weighted_mean = (sums.masked_fill(mask[..., None], 0.0) for sums in self.belief)
        self.belief = (precision, weighted_mean)
        self._due = self._due | mask

    def _current_z(self, observations: Float[Tensor, "M N D"]) -> Float[Tensor, "M N L"]:
        blank = observations.new_zeros(*observations.shape[:2], self.network.latent)
        self.belief = self.belief or (blank, blank)
        due = torch.ones_like(blank[..., 0], dtype=torch.bool) if self._due is None else self._due
        if self.z is None or due.device.type != "cpu" or any_rank(bool(due.any()), self.generator):
            mean, variance = gaussian_product(*self.belief)
            drawn = mean + variance.sqrt() * normal_like(mean, self.generator)
            self.z = torch.where(due[..., None], drawn, blank if self.z is None else self.z)
        self._due = torch.zeros_like(due)
        return self.z


class RandomSteps(Policy):
    """Uniformly random actions, each held for `hold` steps.

    >>> from metarl.actions import ActionFormat
    >>> from metarl.agents.posterior_sampling import RandomSteps
    >>> policy = RandomSteps(ActionFormat(metarl.make("PointNavigation-v0").action_space), 2, torch.Generator())
    >>> first, second, third = (policy.act(torch.zeros(3, 4, 2)).actions for _ in range(3))
    >>> torch.equal(first, second), torch.equal(second, third)
    (True, False)
    """

    def __init__(self, actions: ActionFormat, hold: int, generator: torch.Generator):
        self.actions, self.hold, self.generator = actions, hold, generator
        self._steps = 0

    def act(self, observations: Observations) -> PolicyStep:
        if self._steps % self.hold == 0:
            self._held = self.actions.draw(batch_shape(observations), self.generator)
        self._steps += 1
        return PolicyStep(self._held)

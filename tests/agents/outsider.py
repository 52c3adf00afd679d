"""An agent as an outsider writes it: off-policy, a buffer for each of a fixed list of tasks, public contract alone.

DDPG (Lillicrap et al. 2016) whose actor and critic see a context: the mean of what an encoder makes of transitions of
the task, as in PEARL (Rakelly et al. 2019), without its probabilities.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

import metarl
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors


@dataclass(frozen=True)
class OutsiderConfig(metarl.AgentConfig):
    num_tasks: int = 8
    envs_per_task: int = 2
    train_tasks: int = 30
    updates: int = 60


class ContextPolicy(metarl.Policy):
    def __init__(self, networks, noise, generator):
        self.networks, self.noise, self.generator = networks, noise, generator
        self.total = self.count = torch.zeros(1, 1, 1)

    @torch.no_grad()
    def act(self, observations):
        context = self.total.sum(1, keepdim=True) / self.count.sum(1, keepdim=True).clamp(min=1)
        actions = self.networks["actor"](join(4 * observations, context.expand(*observations.shape[:2], 8)))
        noise = self.noise * torch.randn(actions.shape, generator=self.generator)
        return metarl.PolicyStep(0.1 * (actions + noise).clamp(-1, 1))

    @torch.no_grad()
    def observe(self, t):
        rows = scaled(t.observations, t.actions, t.rewards, t.next_observations)
        active = torch.ones_like(t.rewards) if t.active is None else t.active.float()
        self.total = self.total + active[..., None] * self.networks["encoder"](join(*rows))
        self.count = self.count + active[..., None]

    def begin_trial(self, mask):
        self.total, self.count = (value * ~mask[..., None] for value in (self.total, self.count))


class Outsider(metarl.Agent):
    config_class = OutsiderConfig

    def __init__(self, config, spec, *, device="cpu", seed=0, ranks=None):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        sizes = {"encoder": (7, 8), "actor": (10, 2), "critic": (12, 1), "target": (12, 1)}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            networks = {k: nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, o)) for k, (i, o) in sizes.items()}
        self.networks = nn.ModuleDict(networks | {"actor": networks["actor"].append(nn.Tanh())})
        self.networks["target"].load_state_dict(self.networks["critic"].state_dict())
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=3e-3)
        self.replay = {f"task-{i}": metarl.ReplayBuffer(capacity=150) for i in range(config.train_tasks)}

    def task_source(self, distribution, *, seed):
        return metarl.TaskList(distribution.sample(self.config.train_tasks, seed=seed))

    def adapt(self, env, episodes, *, seed=0, policy=None):
        generator = torch.Generator().manual_seed(seed)
        adapted = policy.fork() if policy else ContextPolicy(copy.deepcopy(self.networks), 0.0, generator)
        if episodes:
            adapted.noise = 1.0  # explores while it adapts
            metarl.collect(env, adapted, episodes=episodes, seed=seed)
        adapted.noise = 0.0
        return adapted

    def improve(self, env, *, seed):
        generator = torch.Generator().manual_seed(seed)
        data = metarl.collect(env, ContextPolicy(self.networks, 1.0, generator), episodes=2, seed=seed)
        names = ("observations", "actions", "rewards", "final_observations")
        for m, task in enumerate(env.tasks.ids.tolist()):
            self.replay[f"task-{task}"].append({name: getattr(data, name)[:, m].flatten(0, 1) for name in names})
        filled = [buffer for buffer in self.replay.values() if len(buffer)]
        for _ in range(self.config.updates):
            chosen = torch.randperm(len(filled), generator=generator)[:8].tolist()
            batches = [filled[i].sample(64, generator) for i in chosen]
            error = self.update(*scaled(*(torch.stack([batch[name] for batch in batches]) for name in names)))
        returns = float(data.episode_returns(1).mean())
        return {"env_steps": data.num_transitions, "return_mean": returns, "critic_error": error}

    def update(self, o, a, r, o2):
        n = self.networks
        context = n["encoder"](join(o, a, r, o2)).mean(1, keepdim=True).expand(-1, o.shape[1], -1)
        with torch.no_grad():
            target = r + 0.5 * n["target"](join(o2, n["actor"](join(o2, context)), context))
        error = (n["critic"](join(o, a, context)) - target).square().mean()
        known = context.detach()
        gain = n["critic"](join(o, n["actor"](join(o, known)), known)).mean()
        for loss, keys in ((error, ("encoder", "critic")), (-gain, ("actor",))):
            parameters = [p for key in keys for p in n[key].parameters()]
            for p, slope in zip(parameters, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True):
                p.grad = slope
        self.optimizer.step()
        for slow, fast in zip(n["target"].parameters(), n["critic"].parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.05)
        return float(error.detach())

    def state(self):
        tensors = {f"networks.{name}": value.clone() for name, value in self.networks.state_dict().items()}
        return tensors | optimizer_tensors(self.optimizer), {}

    def load_state(self, tensors, values):
        self.networks.load_state_dict({k[9:]: v for k, v in tensors.items() if k.startswith("networks.")})
        load_optimizer_tensors(self.optimizer, tensors)

    def buffers(self):
        return self.replay


def join(*parts):
    return torch.cat(parts, -1)


def scaled(o, a, r, o2):
    """Of order one; the distance instead of its square, which the reward is."""
    return 4 * o, 10 * a, -4 * (-r).clamp(min=0).sqrt()[..., None], 4 * o2

"""The agents from Stable-Baselines3: SB3's own learning, resumed exactly, counted exactly, and leaving no trace."""

import random
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from pictures import Quarters, SeenOrTold
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer
from stable_baselines3.common.utils import set_random_seed

import metarl
from metarl.agents.sb3 import SB3PPO, SB3SAC, SB3RecurrentPPO
from metarl.agents.sb3_config import SB3PPOConfig, SB3RecurrentPPOConfig, SB3SACConfig
from metarl.agents.sb3_models import StoredReplay, borrowed_random_state
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.metrics import read_metrics
from metarl.registry import agent_class, presets_of
from metarl.spaces import map_tensors
from metarl.vector_env import TaskVectorEnv

AGENTS = {
    "sb3-ppo": (SB3PPO, SB3PPOConfig, {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "hidden": (8,)}),
    "sb3-sac": (SB3SAC, SB3SACConfig, {"learning_starts": 8, "batch_size": 8, "hidden": (8,)}),
    "sb3-recurrent-ppo": (
        SB3RecurrentPPO,
        SB3RecurrentPPOConfig,
        {"n_steps": 8, "batch_size": 16, "n_epochs": 2, "hidden": (8,), "lstm_hidden_size": 8},
    ),
}


def point(horizon=5):
    return metarl.make("PointNavigation-v0", horizon=horizon)


def make_agent(name, family=None, *, seed=0, **options):
    cls, config, usual = AGENTS[name]
    if name == "sb3-recurrent-ppo":
        pytest.importorskip("sb3_contrib")
    return cls(config(**{"num_tasks": 2, **usual, **options}), metarl.EnvSpec.of(family or point()), seed=seed)


def make_env(family, num_tasks=2, envs_per_task=1, seed=0):
    env = family.make_env(num_tasks, envs_per_task)
    env.set_tasks(family.sample(num_tasks, seed=seed))
    return env


def copy_of(tensors):
    return {name: value.clone() for name, value in tensors.items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", AGENTS)
def test_it_is_registered(name):
    assert agent_class(name) is AGENTS[name][0]
    assert agent_class(name).algorithm == name
    for preset in presets_of(name):  # as they stand, they can be trained
        metarl.TrainConfig(
            name, preset.env, preset.env_options, agent_options=preset.config, iterations=preset.iterations
        ).resolve()


def test_an_iteration_is_sb3s_own_learning():
    """The same model, made and trained by hand on the same environments, has the same parameters."""
    family, options = point(), AGENTS["sb3-ppo"][2]
    agent, env = make_agent("sb3-ppo", family), make_env(family)
    before = copy_of(agent.state()[0])
    metrics = agent.improve(env, seed=7)
    with borrowed_random_state(torch.device("cpu")):
        vec_env = metarl.to_sb3(env, rescale_actions=True)
        model = PPO("MlpPolicy", vec_env, n_steps=16, batch_size=16, n_epochs=2, policy_kwargs={"net_arch": [8]})
        model.set_parameters(
            {
                "policy": {key.removeprefix("policy/"): v for key, v in before.items() if key.startswith("policy/")},
                "policy.optimizer": model.policy.optimizer.state_dict(),
            }
        )
        model.set_random_seed(7)
        model.learn(2 * options["n_steps"])
    assert metrics["env_steps"] == model.num_timesteps == 32
    assert metrics["return_mean"] == np.mean([episode["r"] for episode in model.ep_info_buffer])
    assert metrics["episodes"] == 6
    learned = {f"policy/{name}": value for name, value in model.policy.state_dict().items()}
    assert all(torch.equal(agent.state()[0][name], value) for name, value in learned.items())
    assert not equal(agent.state()[0], before)


@pytest.mark.parametrize("name", AGENTS)
def test_stopped_in_the_middle_it_goes_on_exactly(name, tmp_path, monkeypatch):
    cls, _, options = AGENTS[name]
    if name == "sb3-recurrent-ppo":
        pytest.importorskip("sb3_contrib")

    def config(folder):
        return metarl.TrainConfig(
            agent=name,
            env="PointNavigation-v0",
            env_options={"horizon": 5},
            agent_options={**options, "num_tasks": 2},
            iterations=5,
            output=tmp_path / folder,
        )

    metarl.train(config("straight"), progress=False)
    real, count = cls.improve, iter(range(10))

    def stopped(self, env, *, seed):
        metrics = real(self, env, seed=seed)
        if next(count) == 3:
            raise KeyboardInterrupt
        return metrics

    monkeypatch.setattr(cls, "improve", stopped)
    with pytest.raises(KeyboardInterrupt):
        metarl.train(config("run"), progress=False)
    monkeypatch.setattr(cls, "improve", real)
    assert load_checkpoint(tmp_path / "run").iteration == 3
    metarl.resume(tmp_path / "run", progress=False)
    expected, found = (load_checkpoint(tmp_path / folder) for folder in ("straight", "run"))
    assert equal(expected.tensors, found.tensors)
    assert expected.values == found.values
    drop = {"wall_seconds", "steps_per_second"}
    rows = [
        [{k: v for k, v in row.items() if k not in drop} for row in read_metrics(tmp_path / folder)]
        for folder in ("straight", "run")
    ]
    assert rows[0] == rows[1]
    agent = metarl.load_agent(tmp_path / "run")
    assert metarl.evaluate(agent, point(), num_tasks=5).episodes_used == [0]


def numpy_and_torch():
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    return *map(str, np.random.get_state()), str(torch.random.get_rng_state().tolist()), flags  # noqa: NPY002


@pytest.mark.parametrize("name", AGENTS)
def test_the_global_random_numbers_are_left_alone(name):
    before, family = numpy_and_torch(), point()
    make_agent(name, family).improve(make_env(family), seed=0)
    scratch = make_agent(name, family, from_scratch=True)
    metarl.collect(make_env(family), scratch.adapt(make_env(family), 2), episodes=1)
    assert numpy_and_torch() == before


def test_random_numbers_are_borrowed():
    """Python's own are compared here alone: the checks of types draw from them when agents run."""
    before, python = numpy_and_torch(), random.getstate()
    with borrowed_random_state(torch.device("cpu")):
        set_random_seed(1, using_cuda=True)
        assert random.getstate() != python
        assert numpy_and_torch() != before
    assert (random.getstate(), numpy_and_torch()) == (python, before)


@pytest.mark.parametrize("name", AGENTS)
def test_what_adapt_returns_shares_nothing_with_training(name):
    family = point()
    agent, env = make_agent(name, family), make_env(family)
    policy = agent.adapt(env, 3)
    first = metarl.collect(env, policy.fork(), episodes=1, seed=0).actions
    agent.improve(env, seed=0)
    assert torch.equal(metarl.collect(env, policy.fork(), episodes=1, seed=0).actions, first)
    trained = metarl.collect(env, agent.adapt(env, 0), episodes=1, seed=0).actions
    assert not torch.equal(trained, first)


# From scratch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_from_scratch_takes_exactly_the_steps_it_may(name, monkeypatch):
    family, taken, real = point(horizon=7), [], TaskVectorEnv.step
    agent, env = make_agent(name, family, from_scratch=True), make_env(family, 3, 2)

    def counted(self, actions):
        taken.append(self.num_envs)
        return real(self, actions)

    monkeypatch.setattr(TaskVectorEnv, "step", counted)
    policy = agent.adapt(env, 5)
    assert taken == [1] * (3 * 5 * 7)
    assert [model.num_timesteps for model in policy.models] == [5 * 7] * 3
    agent.adapt(env, 0, policy=policy)
    assert len(taken) == 3 * 5 * 7
    further = agent.adapt(env, 2, policy=policy)
    assert [model.num_timesteps for model in further.models] == [7 * 7] * 3
    assert [model.num_timesteps for model in policy.models] == [5 * 7] * 3


@pytest.mark.parametrize("name", AGENTS)
def test_going_on_leaves_the_earlier_result_alone(name):
    family = point()
    agent, env = make_agent(name, family, from_scratch=True), make_env(family)
    policy = agent.adapt(env, 4)
    networks = [copy_of(network.state_dict()) for network in policy.networks]
    buffers = [getattr(model, "replay_buffer", None) for model in policy.models]
    further = agent.adapt(env, 4, policy=policy, seed=1)
    assert all(equal(network.state_dict(), kept) for network, kept in zip(policy.networks, networks, strict=True))
    assert not equal(further.networks[0].state_dict(), networks[0])
    if name == "sb3-sac":
        assert [buffer.rows.count for buffer in buffers] == [20, 20]
        assert [model.replay_buffer.rows.count for model in further.models] == [40, 40]


def test_each_task_has_a_model_of_its_own():
    family = point()
    agent, tasks = make_agent("sb3-ppo", family, from_scratch=True), family.sample(2, seed=0)
    both, one = family.make_env(2), family.make_env(1)
    both.set_tasks(tasks)
    one.set_tasks(tasks[0])
    together, alone = agent.adapt(both, 4, seed=3), agent.adapt(one, 4, seed=3)
    assert equal(together.networks[0].state_dict(), alone.networks[0].state_dict())
    assert not equal(together.networks[1].state_dict(), alone.networks[0].state_dict())
    actions = metarl.collect(both, together, episodes=1).actions
    assert torch.equal(actions[0, 0], metarl.collect(one, alone, episodes=1).actions[0, 0])


def test_from_scratch_learns_a_task():
    """A bandit whose arms differ: 400 pulls are enough to find the best one."""
    family = metarl.make("Bandit-v0", arms=3, pulls=10)
    agent = make_agent("sb3-ppo", family, from_scratch=True, n_steps=40, batch_size=20, n_epochs=10, learning_rate=1e-2)
    tasks = family.task(probabilities=[0.1, 0.9, 0.1])
    env = family.make_env(1, 50)
    env.set_tasks(tasks)
    actions = metarl.collect(env, agent.adapt(env, 40), episodes=1).actions
    assert (actions == 1).all()


def test_stages_are_every_so_many_episodes(tmp_path):
    agent = make_agent("sb3-ppo", from_scratch=True, scratch_episodes=2)
    assert agent.stages() == [0, 2, 4, 6]
    assert agent.stages(5) == [0, 2, 4, 5]
    assert make_agent("sb3-ppo").stages() == [0]
    config = metarl.TrainConfig(
        agent="sb3-ppo",
        env="PointNavigation-v0",
        env_options={"horizon": 5},
        agent_options={"from_scratch": True, "num_tasks": 2, "scratch_episodes": 2},
        iterations=2,
        output=tmp_path / "run",
    )
    run = metarl.train(config, progress=False)
    assert [row["env_steps"] for row in read_metrics(run)] == [10, 20], "an untrained model is measured"
    evaluation = metarl.evaluate(metarl.load_agent(run), point(), num_tasks=2, episodes=3)
    assert evaluation.episodes_used == [0, 2, 3]


def test_its_faults_count_as_those_of_the_environment(monkeypatch):
    family = point()
    agent, env = make_agent("sb3-ppo", family, from_scratch=True), make_env(family)
    nothing = lambda self, distance: torch.full_like(distance, torch.nan)  # noqa: E731
    monkeypatch.setattr(type(family), "reward", nothing)
    agent.adapt(env, 2)
    assert env.fault_count == 2 * 2 * 5


# Parts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2,), (2, 2)])
@pytest.mark.parametrize("kind", ["vectors", "dictionary"])
def test_the_replay_buffer_holds_what_sb3s_own_holds(kind, shape):
    box = gym.spaces.Box(-1, 1, (3,))
    space = box if kind == "vectors" else gym.spaces.Dict({"here": box, "there": box})
    actions, generator = gym.spaces.Box(-1, 1, shape), np.random.default_rng(0)
    theirs = (SB3ReplayBuffer if kind == "vectors" else DictReplayBuffer)(40, space, actions, n_envs=2)
    ours = StoredReplay(40, space, actions, n_envs=2)

    def seen():
        draw = [generator.normal(size=(2, 3)).astype(np.float32) for _ in range(2)]
        return draw[0] if kind == "vectors" else dict(zip(("here", "there"), draw, strict=True))

    for _ in range(30):
        done = generator.random(2) < 0.5
        infos = [{"TimeLimit.truncated": bool(d and generator.random() < 0.5)} for d in done]
        action = generator.normal(size=(2, *shape)).astype(np.float32)
        row = (seen(), seen(), action, generator.normal(size=2).astype(np.float32), done, infos)
        theirs.add(*row)
        ours.add(*row)

    def table(samples):
        parts = [part for part in samples if part is not None]
        flat = [value for part in parts for value in (part.values() if isinstance(part, dict) else [part])]
        return {tuple(row) for row in torch.cat(flat, 1).tolist()}

    with borrowed_random_state(torch.device("cpu")):
        assert table(ours.sample(4000)) == table(theirs.sample(4000))
    assert len(ours.rows) == 40


def test_a_recurrent_memory_is_blank_when_an_episode_starts():
    pytest.importorskip("sb3_contrib")
    family = point()
    agent, env = make_agent("sb3-recurrent-ppo", family), make_env(family)
    with torch.no_grad():  # an untrained memory hardly matters
        for parameter in agent.model.policy.parameters():
            parameter.mul_(30)
    actions = metarl.collect(env, agent.adapt(env, 0), episodes=3, seed=0).actions.unflatten(0, (3, 5))
    assert torch.equal(actions[0], actions[1])
    assert torch.equal(actions[0], actions[2])
    assert not torch.equal(actions[0, 0], actions[0, 1])


@pytest.mark.parametrize("family", [Quarters(size=36), SeenOrTold(size=36)], ids=["pictures", "dictionary"])
def test_pictures_and_dictionaries_reach_the_network_as_it_wants_them(family):
    agent, env = make_agent("sb3-ppo", family, n_epochs=1), make_env(family)
    agent.improve(env, seed=0)
    observations, _ = env.reset(seed=1)
    actions = agent.adapt(env, 0).act(map_tensors(lambda value: value.unflatten(0, (2, 1)), observations)).actions
    if family.id == "Quarters-v0":
        wanted = observations.permute(0, 3, 1, 2)
    else:
        wanted = {"view_camera": observations["view.camera"].permute(0, 3, 1, 2), "told": observations["told"]}
    network = agent.model.policy
    assert torch.equal(actions.flatten(), network.get_distribution(wanted).mode())
    spaces = network.observation_space if family.id == "Quarters-v0" else network.observation_space["view_camera"]
    assert spaces.shape == (3, 36, 36)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: make_agent("sb3-sac", metarl.make("Bandit-v0")), "sb3-sac takes a Box of actions.*use sb3-ppo"),
        (lambda: make_agent("sb3-ppo", Quarters(size=12)), "needs pictures of 36 x 36 or more"),
        (lambda: SB3PPOConfig(batch_size=1), "batch_size must be at least 2"),
        (lambda: SB3PPOConfig(n_steps=1, num_tasks=1), "n_steps must be at least 2 for one environment"),
        (lambda: SB3PPOConfig(n_steps=1, from_scratch=True), "n_steps must be at least 2 for one environment"),
        (lambda: SB3PPOConfig(n_steps=0), "n_steps must be a whole number of at least 1"),
        (lambda: SB3SACConfig(hidden=(0,)), "a size in hidden must be"),
        (
            lambda: make_agent("sb3-sac", from_scratch=True, train_freq=2).adapt(make_env(point()), 1),
            "train_freq must divide the 5 steps",
        ),
        (lambda: make_agent("sb3-ppo").improve(make_env(point(), 3), seed=0), "made for 2 environments, got 3"),
        (lambda: make_agent("sb3-ppo").load_state(make_agent("sb3-sac").state()[0], {}), "not of this agent"),
    ],
)
def test_a_mistake_is_one_line(call, complaint):
    with pytest.raises(metarl.UsageError, match=complaint) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_without_sb3_contrib_a_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(metarl.UsageError, match=r"needs sb3-contrib: pip install 'metarl-kit\[sb3\]'"):
        SB3RecurrentPPO(SB3RecurrentPPOConfig(), metarl.EnvSpec.of(point()))

"""Both agents on pictures, and on dictionaries of a picture and a vector: they learn, adapt, save and resume."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from pictures import Quarters, SeenOrTold
from practice import assert_goes_on_exactly, train

import metarl
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.recurrent import RecurrentPolicy
from metarl.agents.rl2 import RL2, RL2Config
from metarl.randomness import make_generator

FOLDER = Path(__file__).parent
FAMILIES = [Quarters, SeenOrTold]


class Glimpses(Quarters):
    """Nothing but vectors, in a dictionary."""

    id = "Glimpses-v0"

    def __init__(self, **options):
        super().__init__(**options)
        box = gym.spaces.Box(0, 1, (2,), np.float32)
        self.observation_space = gym.spaces.Dict({"row": box, "column": box})

    def observe(self, state):
        one_hot = torch.nn.functional.one_hot
        return {"row": one_hot(state["quarter"] // 2, 2).float(), "column": one_hot(state["quarter"] % 2, 2).float()}


def make_maml(family, seed=0, **options):
    config = MAMLConfig(**({"num_tasks": 3, "envs_per_task": 4, "hidden": (16,)} | options))
    return MAML(config, metarl.EnvSpec.of(family), seed=seed)


def make_rl2(family, seed=0, **options):
    config = RL2Config(**({"num_tasks": 6, "hidden": 16, "episodes_per_trial": 2} | options))
    return RL2(config, metarl.EnvSpec.of(family), seed=seed)


@pytest.mark.parametrize("family", [*FAMILIES, Glimpses])
def test_the_family_keeps_the_contract(family):
    metarl.check_distribution(family(size=6, horizon=4))


@pytest.mark.parametrize(("family", "reward"), [(Quarters, 5.5), (SeenOrTold, 4.0)])
def test_maml_learns_to_adapt_to_what_it_sees(family, reward):
    """Of the 8 steps of an episode, a policy that knows nothing of the task gets 2 right."""
    family = family(size=8)
    agent = make_maml(family, num_tasks=8, envs_per_task=10, hidden=(32,), inner_lr=1.0, discount=0.5)
    train(agent, family, 16)
    evaluation = metarl.evaluate(agent, family, num_tasks=20, seed=1)
    before, after = evaluation.returns.mean(0)[:2].tolist()
    assert before < 3
    assert after > reward


@pytest.mark.parametrize("family", FAMILIES)
def test_rl2_learns_from_what_it_sees(family):
    family = family(size=8, shifts=1)
    agent = make_rl2(family, num_tasks=64, hidden=32, lr=3e-3, episodes_per_trial=1, discount=0.5, minibatches=2)
    train(agent, family, 16)
    assert metarl.evaluate(agent, family, num_tasks=20, seed=1).returns.mean() > 7  # of 8


@pytest.mark.parametrize("core", ["gru", "lstm", "snail"])
@pytest.mark.parametrize("family", [*FAMILIES, Glimpses])
def test_the_update_sees_what_the_policy_acted_on(family, core):
    """The encoder, core and head give the probabilities that were recorded while acting, one step at a time."""
    family = family(size=6, horizon=4)
    agent = make_rl2(family, core=core)
    train(agent, family, 1)
    env = family.make_env(3, 2)
    env.set_tasks(family.sample(3, seed=0))
    actor = RecurrentPolicy(agent.network, make_generator("test"))
    trajectories = metarl.collect(env, actor, 8, episodes_per_trial=2, seed=0)
    columns = agent._columns(trajectories, trajectories.in_complete_trials(2))
    phi, _ = agent._evaluate(columns.inputs, columns.starts)
    torch.testing.assert_close(agent.network.head.log_prob(phi, columns.actions), columns.log_probs)


@pytest.mark.parametrize("options", [{}, {"outer": "promp"}, {"inner_steps": 2, "curvature_fraction": 0.5}], ids=str)
@pytest.mark.parametrize("family", [*FAMILIES, Glimpses])
def test_maml_goes_on_exactly_from_a_saved_state(family, options):
    made = family(size=6, horizon=4)
    assert_goes_on_exactly(lambda seed: make_maml(made, seed, **options), made, before=2)


@pytest.mark.parametrize("family", [*FAMILIES, Glimpses])
def test_rl2_goes_on_exactly_from_a_saved_state(family):
    made = family(size=6, horizon=4)
    assert_goes_on_exactly(lambda seed: make_rl2(made, seed), made, before=2)


@pytest.mark.parametrize("make", [make_maml, make_rl2])
def test_statistics_are_those_of_all_pictures_and_later_training_changes_no_adapted_policy(make):
    family = SeenOrTold(size=6, horizon=4)
    agent = make(family)
    train(agent, family, 1)
    env = family.make_env(2, 3)
    env.set_tasks(family.sample(2, seed=0))
    policy = agent.adapt(env, 2, seed=1)
    before = metarl.collect(env, policy.fork(), 4, seed=2).log_probs
    statistics = {name: v for name, v in agent.state()[0].items() if name.endswith(("mean", "variance", "mean_square"))}
    train(agent, family, 2)
    assert torch.equal(metarl.collect(env, policy.fork(), 4, seed=2).log_probs, before)
    assert any(not torch.equal(agent.state()[0][name], value) for name, value in statistics.items())


@pytest.mark.parametrize("make", [make_maml, make_rl2])
def test_all_parameters_of_the_encoder_learn(make):
    family = SeenOrTold(size=12, horizon=4)
    agent = make(family)
    train(agent, family, 1)  # while the statistics are still unknown
    before = agent.state()[0]
    train(agent, family, 1, first=1)
    weights = {name: v for name, v in agent.state()[0].items() if "weight" in name and "optimizer" not in name}
    assert sum(value.ndim == 2 and value.shape[1] == 3 * 3 * 3 for value in weights.values()) == 1
    assert not [name for name, value in weights.items() if torch.equal(value, before[name])]


def test_pictures_stay_small_numbers_in_a_rollout():
    family = SeenOrTold(size=6, horizon=3)
    env = family.make_env(2, 2)
    env.set_tasks(family.sample(2, seed=0))
    policy = make_maml(family).adapt(env, 0)
    trajectories = metarl.collect(env, policy, 7, seed=0)
    for part in (trajectories, trajectories.select_envs(slice(0, 1))):
        for observations in (part.observations, part.final_observations, part.after, part.last_observations):
            assert observations["view.camera"].dtype == torch.uint8
            assert observations["told"].dtype == torch.float32
    final = trajectories.final_observations["view.camera"]
    going_on = ~trajectories.ended[:-1]
    assert torch.equal(final[:-1][going_on], trajectories.observations["view.camera"][1:][going_on])


def test_a_state_of_a_picture_of_another_kind_is_refused():
    grey = Quarters(size=6)
    grey.observation_space = gym.spaces.Box(0, 255, (6, 6, 1), np.uint8)
    for make in (make_maml, make_rl2):
        with pytest.raises(metarl.UsageError, match="not of this agent"):
            make(grey).load_state(*make(Quarters(size=6)).state())


@pytest.mark.parametrize("space", [gym.spaces.Discrete(3), gym.spaces.Box(0, 1, (4, 4, 3), np.float32)], ids=str)
@pytest.mark.parametrize("make", [make_maml, make_rl2])
def test_a_space_outside_the_contract_is_refused(make, space):
    family = Quarters()
    family.observation_space = space
    with pytest.raises(metarl.UsageError, match="observations must be float32 vectors"):
        make(family)


def test_default_batches_of_large_pictures_are_bounded():
    def tasks(shape, horizon):
        family = Quarters(horizon=horizon)
        family.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        return RL2.default_config(metarl.EnvSpec.of(family)).num_tasks

    assert tasks((7, 7, 3), 100) == 100  # 20,000 steps
    assert tasks((84, 84, 4), 100) == 2**28 // (200 * 84 * 84 * 4)
    assert tasks((210, 160, 3), 1000) == 4


class WrongPictures(SeenOrTold):
    """Returns what `change` makes of its observations."""

    def __init__(self, change):
        super().__init__(size=6, horizon=4)
        self.change = change

    def observe(self, state):
        return self.change(super().observe(state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o["told"], "reset observations: expected a dictionary of tensors, found Tensor"),
        (lambda o: {"told": o["told"]}, "observations: expected the entries told, view.camera, found told"),
        (
            lambda o: o | {"view.camera": o["view.camera"].float()},
            r"info\['final_obs'\]\['view.camera'\]: expected a torch.uint8 .* on cpu, found torch.float32",
        ),
        (
            lambda o: o | {"view.camera": o["view.camera"][:, :5]},
            r"observations\['view.camera'\]: expected .* \[6, 6, 6, 3\] on cpu, found torch.uint8 \[6, 5, 6, 3\]",
        ),
        (lambda o: o | {"told": torch.rand(len(o["told"]), 4)}, r"determinism: .* final_obs\['told'\] that differ by"),
    ],
)
def test_broken_pictures_are_found(change, message):
    with pytest.raises(metarl.contract.ContractError, match=message):
        metarl.check_distribution(WrongPictures(change))


@pytest.mark.parametrize("agent", ["random", "maml", "rl2"])
def test_a_run_from_training_to_evaluation(agent, tmp_path):
    size = {} if agent == "random" else {"num_tasks": 3}
    config = metarl.TrainConfig(
        agent=agent,
        env="pictures:SeenOrTold",
        env_options={"size": 6, "horizon": 4},
        agent_options=size,
        iterations=2,
        output=tmp_path / "run",
    )
    run = metarl.train(config, progress=False)
    evaluation = metarl.evaluate(metarl.load_agent(run), SeenOrTold(size=6, horizon=4), num_tasks=4, seed=1)
    assert evaluation.returns.isfinite().all()


MEMORY = """
from pictures import Quarters
import gymnasium as gym, numpy as np, torch, metarl
from metarl.agents.rl2 import RL2, RL2Config

class Screens(Quarters):
    def __init__(self):
        super().__init__(horizon=128)
        self.observation_space = gym.spaces.Box(0, 255, (210, 160, 3), np.uint8)
    def observe(self, state):
        return state["quarter"].to(torch.uint8)[:, None, None, None].expand(-1, 210, 160, 3).contiguous()

family = Screens()
agent = RL2(RL2Config(num_tasks=8, episodes_per_trial=1, epochs=1), metarl.EnvSpec.of(family))
env = family.make_env(8)
env.set_tasks(family.sample(8, seed=0))
agent.improve(env, seed=0)
with open("/proc/self/status") as status:  # ru_maxrss would count what the parent held at the fork
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def test_screens_of_an_arcade_game_fit_into_a_gigabyte():
    """8 · 128 screens are 103 MB; as floating-point numbers, with all maps, they would be 1.2 GB."""
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False, cwd=FOLDER)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 1_000_000  # kilobytes

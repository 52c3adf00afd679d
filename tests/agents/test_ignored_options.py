"""Options that a training would ignore are refused when it begins, and not when its run is read."""

import dataclasses

import pytest
from pictures import Quarters

import metarl
from metarl.agents.maml import MAMLConfig
from metarl.experiment.config_file import read_entries, write_entries

POINT = "PointNavigation-v0"
PPO = "is for outer ppo and promp, not trpo: leave it at"
IGNORED = [
    ("maml", POINT, {"outer_lr": 0.01}, f"outer_lr {PPO} 0.001 instead of 0.01"),
    ("maml", POINT, {"outer_epochs": 7}, f"outer_epochs {PPO} 5"),
    ("maml", POINT, {"clip": 0.1}, f"clip {PPO} 0.3"),
    ("maml", POINT, {"outer": "ppo", "curvature_fraction": 0.5}, "curvature_fraction is for outer trpo, not ppo"),
    ("maml", POINT, {"outer": "promp", "trust_region": {"max_kl": 0.1}}, "trust_region is for outer trpo, not promp"),
    ("maml", POINT, {"outer": "ppo", "inner_kl_penalty": 0.1}, "inner_kl_penalty is for outer promp, not ppo"),
    ("maml", POINT, {"exploration": True, "num_tasks": 1}, "needs num_tasks of 2 or more"),
    ("maml", POINT, {"curvature_fraction": 0.1, "envs_per_task": 4}, "less than one of 4 episodes: take 0.25 or more"),
    ("reptile", POINT, {"inner_steps": 1}, "does not learn to adapt: take 2 or more, or train maml"),
    ("sb3-ppo", POINT, {"scratch_episodes": 5}, "scratch_episodes is for from_scratch: leave it at 20 instead of 5"),
    ("pearl", POINT, {"resample_steps": 100}, "draws no z within episodes of 100 steps: make it smaller"),
    ("sb3-ppo", Quarters(size=36), {"hidden": (8,)}, "hidden is not for pictures alone"),
    *(
        (agent, "Bandit-v0", {"initial_std": 0.5}, "initial_std is for actions in a Box, not in Discrete")
        for agent in ("maml", "reptile", "rl2", "varibad", "multitask", "oracle")
    ),
]


@pytest.mark.parametrize(
    ("agent", "env", "options", "message"), IGNORED, ids=lambda value: getattr(value, "id", str(value))
)
def test_an_option_that_would_be_ignored_is_refused(agent, env, options, message):
    with pytest.raises(metarl.UsageError, match=message):
        metarl.TrainConfig(agent, env, agent_options=options).resolve()


@pytest.mark.parametrize(
    ("agent", "options"),
    [
        ("maml", {"outer": "ppo", "outer_lr": 0.01, "outer_epochs": 3, "clip": 0.1}),
        ("maml", {"outer": "promp", "inner_kl_penalty": 0.01}),
        ("maml", {"trust_region": {"max_kl": 0.1}, "curvature_fraction": 0.5}),
        ("maml", {"exploration": True, "num_tasks": 2, "initial_std": 0.5}),
        ("sb3-ppo", {"from_scratch": True, "scratch_episodes": 5, "hidden": (8,)}),
    ],
    ids=str,
)
def test_options_that_count_are_taken(agent, options):
    metarl.TrainConfig(agent, POINT, agent_options=options).resolve()


def test_steps_of_a_training_from_scratch_are_those_of_its_evaluation():
    config = metarl.TrainConfig("sb3-ppo", POINT, agent_options={"from_scratch": True}, steps=1000)
    with pytest.raises(metarl.UsageError, match=r"from_scratch trains on test tasks alone.*leave --steps out"):
        config.resolve()
    dataclasses.replace(config, steps=None, iterations=1).resolve()


def test_a_training_that_ends_before_learning_starts_is_refused():
    config = metarl.TrainConfig("sb3-sac", POINT, agent_options={"learning_starts": 500}, steps=500)
    with pytest.raises(metarl.UsageError, match=r"nothing is learned in 500 steps: learning_starts .* after 500"):
        config.resolve()
    dataclasses.replace(config, steps=501).resolve()


def test_a_run_that_has_ignored_an_option_can_be_read(tmp_path):
    options = MAMLConfig(num_tasks=2, envs_per_task=2, hidden=(4,), outer="ppo")
    config = metarl.TrainConfig(
        "maml", POINT, {"horizon": 4}, options, iterations=1, checkpoint_every=1, output=tmp_path / "run"
    )
    run = metarl.train(config, progress=False)
    entries = read_entries(run)
    assert metarl.load_run(run).experiment.options == options
    entries["agent_options"]["curvature_fraction"] = 0.5  # as earlier versions would have written it
    write_entries(run, entries)
    with pytest.warns(UserWarning, match="curvature_fraction"):  # which says that the file has been edited
        read = metarl.load_run(run)
    assert read.agent.config == dataclasses.replace(options, curvature_fraction=0.5)


@pytest.mark.parametrize(
    ("id", "options", "count"),
    [
        ("random", {}, 1),
        ("ucb1", {}, 1),
        ("sb3-ppo", {"from_scratch": True}, 1),
        ("sb3-ppo", {}, 500),
        ("rl2", {}, 500),
    ],
)
def test_an_agent_that_learns_nothing_in_training_runs_one_iteration(id, options, count):
    config = metarl.TrainConfig(id, "Bandit-v0", agent_options=options)
    assert config.resolve().config.iterations == count
    assert dataclasses.replace(config, iterations=7).resolve().config.iterations == 7

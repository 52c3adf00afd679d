"""Meta-World's families on the official package, beside the package used by hand."""

import pickle
import subprocess
import sys

import metaworld
import mujoco
import numpy as np
import pytest
import torch
from metaworld import env_dict
from metaworld.sawyer_xyz_env import SawyerXYZEnv

import metarl
from metarl import Tasks, UsageError
from metarl.contract import check_distribution
from metarl.envs.metaworld import task_sets


def test_names_are_those_of_the_package_in_its_order():
    assert tuple(env_dict.ALL_V3_ENVIRONMENTS) == task_sets.TASKS
    for name, splits in task_sets.SETS.items():
        official = getattr(env_dict, f"{name}_V3")
        assert splits == {split: tuple(official[split]) for split in ("train", "test")}


def test_all_families_are_registered_without_the_package():
    code = (
        "import sys, metarl\n"
        "ids = [id for id in metarl.list_distributions() if id.startswith(('ML', 'MT'))]\n"
        "spaces = {metarl.make(id).observation_space.shape[0] for id in ids}\n"
        "print(len(ids), sorted(spaces), 'metaworld' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=True)
    assert done.stdout.strip() == "106 [39, 49, 89] False"


def test_spaces_are_the_packages():
    distribution, env = metarl.make("ML1-push-v3"), env_dict.ALL_V3_ENVIRONMENTS["push-v3"]()
    for ours, theirs in (
        (distribution.observation_space, env.sawyer_observation_space),
        (distribution.action_space, env.action_space),
    ):
        assert np.array_equal(ours.low, theirs.low.astype(np.float32))
        assert np.array_equal(ours.high, theirs.high.astype(np.float32))
    env.close()


def unpacked(task):
    return pickle.loads(task.data)["rand_vec"]


def assert_same_goals(tasks, official, all_names):
    assert len(tasks) == len(official)
    assert [all_names[i] for i in tasks.parameters["task_index"]] == [task.env_name for task in official]
    for ours, theirs in zip(tasks.parameters["rand_vec"].numpy(), map(unpacked, official), strict=True):
        assert np.array_equal(ours[: len(theirs)], theirs)
        assert not ours[len(theirs) :].any()


def test_goals_of_one_task_are_the_packages():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state, to be left alone
    for name, seed in (("reach-v3", 7), ("door-open-v3", 3)):
        distribution = metarl.make(f"ML1-{name}", goals_seed=seed)
        train, test = (distribution.all_tasks(split) for split in ("train", "test"))
        assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
        official = metaworld.ML1(name, seed=seed)
        assert_same_goals(train, official.train_tasks, [name])
        assert_same_goals(test, official.test_tasks, [name])


def test_goals_of_a_task_to_be_learned_are_the_packages():
    distribution, official = metarl.make("MT1-push-v3", goals_seed=2), metaworld.MT1("push-v3", seed=2)
    assert_same_goals(distribution.all_tasks("train"), official.train_tasks, ["push-v3"])
    assert distribution.all_tasks("test") == distribution.all_tasks("train")
    assert official.test_tasks == []


@pytest.fixture
def still_arm(monkeypatch):
    """Lets the package draw its goals without settling the arm, which takes it minutes for the large sets."""
    monkeypatch.setattr(SawyerXYZEnv, "do_simulation", lambda env, *_: mujoco.mj_forward(env.model, env.data))


def test_goals_of_a_set_are_the_packages(still_arm):
    distribution, official = metarl.make("ML10-v3", goals_seed=5), metaworld.ML10(seed=5)
    assert_same_goals(distribution.all_tasks("train"), official.train_tasks, distribution.names)
    assert_same_goals(distribution.all_tasks("test"), official.test_tasks, distribution.names)


def test_goals_of_tasks_to_be_learned_together_are_the_packages(still_arm):
    distribution, official = metarl.make("MT10-v3", goals_seed=5), metaworld.MT10(seed=5)
    assert distribution.names == tuple(official.train_classes)
    assert_same_goals(distribution.all_tasks("train"), official.train_tasks, distribution.names)


@pytest.mark.slow
@pytest.mark.parametrize("name", task_sets.TASKS)
def test_goals_of_every_task_are_the_packages(name):
    for seed in (0, 11):
        distribution, official = metarl.make(f"ML1-{name}", goals_seed=seed), metaworld.ML1(name, seed=seed)
        assert_same_goals(distribution.all_tasks("train"), official.train_tasks, [name])
        assert_same_goals(distribution.all_tasks("test"), official.test_tasks, [name])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ML25-v3")
@pytest.mark.parametrize("set_name", task_sets.SETS)
def test_goals_of_every_set_are_the_packages(set_name):
    distribution, official = metarl.make(f"{set_name}-v3"), getattr(metaworld, set_name)(seed=0)
    assert_same_goals(distribution.all_tasks("train"), official.train_tasks, distribution.names)
    assert_same_goals(distribution.all_tasks("test"), official.test_tasks, distribution.names)


def test_the_task_in_both_splits_of_ml25_is_told():
    distribution = metarl.make("ML25-v3")
    with pytest.warns(UserWarning, match="basketball-v3 is in both splits"):
        tasks = distribution.all_tasks("test")
    assert tasks.parameters["task_index"].unique().tolist() == [25, 26, 27, 28, 29]


def by_hand(name, rand_vec, actions, horizon):
    """The package's environment: what every step yields, as float32."""
    cls = env_dict.ALL_V3_ENVIRONMENTS[name]
    env = cls()
    size = env._random_reset_space.low.size
    data = {"rand_vec": rand_vec[:size], "env_cls": cls, "partially_observable": True}
    env.set_task(metaworld.Task(name, pickle.dumps(data)))
    obs, _ = env.reset()
    rows = [obs]
    for t, action in enumerate(actions, 1):
        final, reward, _, _, info = env.step(action)
        obs = env.reset()[0] if t % horizon == 0 else final
        rows.append(np.array([*obs, *final, reward, info["success"], t % horizon == 0]))
    env.close()
    return [row.astype(np.float32) for row in rows]


def assert_steps_as_by_hand(env, tasks, all_names, actions, horizon):
    expected = [
        by_hand(all_names[index], vector, actions[:, i].numpy(), horizon)
        for i, (index, vector) in enumerate(
            zip(tasks.parameters["task_index"].tolist(), tasks.parameters["rand_vec"].numpy(), strict=True)
        )
    ]
    env.set_tasks(tasks)
    obs, _ = env.reset(seed=0)
    assert np.array_equal(obs.numpy(), np.stack([rows[0] for rows in expected]))
    for t, action in enumerate(actions, 1):
        obs, reward, terminated, truncated, info = env.step(action)
        found = torch.cat(
            [obs, info["final_obs"], reward[:, None], info["success"][:, None], truncated[:, None]], dim=1
        )
        assert np.array_equal(found.numpy(), np.stack([rows[t] for rows in expected]))
        assert not terminated.any()


def random_actions(steps, count, seed=0):
    return 2 * torch.rand(steps, count, 4, generator=torch.Generator().manual_seed(seed)) - 1


def test_a_task_steps_as_the_packages_environment():
    distribution = metarl.make("ML1-push-v3", horizon=15, workers=2)
    env = distribution.make_env(3, backend="gymnasium")
    tasks = distribution.sample(3, seed=0)
    assert_steps_as_by_hand(env, tasks, distribution.names, random_actions(35, 3), 15)
    env.close()


def test_a_set_steps_as_the_packages_environments_and_changes_tasks():
    distribution = metarl.make("ML10-v3", horizon=12, workers=2)
    env = distribution.make_env(4, backend="gymnasium")
    for split, seed in (("train", 0), ("test", 0), ("train", 1)):
        tasks = distribution.sample(4, split=split, seed=seed)
        assert len(set(tasks.parameters["task_index"].tolist())) > 1
        assert_steps_as_by_hand(env, tasks, distribution.names, random_actions(14, 4, seed), 12)
    env.close()


OPTIONS = [
    {},
    {"goal_observable": True, "reward": "v1"},
    {"goal_observable": True, "one_hot": True, "terminate_on_success": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["hidden", "v1", "one-hot"])
def test_batches_step_as_the_packages_environments(options):
    """Within float32."""
    mine = ["drawer-close-v3", "door-close-v3", "window-open-v3", "bin-picking-v3", "sweep-v3"]
    distribution = metarl.make("ML-custom", train=mine, test=["reach-v3"], horizon=12, vectorization="sync", **options)
    tasks, runs = distribution.sample(5, seed=1), []
    actions = random_actions(20, 5)
    actions[:, tasks.parameters["task_index"] == 0, 1] = 1.0  # towards the drawer, which a push or two closes
    for backend in ("mujoco", "gymnasium"):
        env = distribution.make_env(5, backend=backend)
        env.set_tasks(tasks)
        first, _ = env.reset(seed=0)
        steps = [env.step(action) for action in actions]
        env.close()
        rows = [[*step[:4], step[4]["final_obs"], step[4]["_final_obs"], step[4]["success"]] for step in steps]
        runs.append([first, *(torch.stack(part) for part in zip(*rows, strict=True))])
    for ours, theirs in zip(*runs, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_full_horizon_is_reached_and_not_passed():
    distribution = metarl.make("ML1-button-press-v3", vectorization="sync")
    env = distribution.make_env(1, backend="gymnasium")
    env.set_tasks(distribution.sample(1, seed=0))
    env.reset(seed=0)
    ends = [t for t in range(1, 503) if env.step(torch.zeros(1, 4))[3]]
    assert ends == [500]


def test_a_new_task_under_way_places_its_scene_at_the_next_step():
    distribution = metarl.make("ML1-reach-v3", horizon=6, vectorization="sync")
    env, fresh = (distribution.make_env(1, backend="gymnasium") for _ in range(2))
    first, second = distribution.sample(2, seed=0)
    env.set_tasks(first)
    fresh.set_tasks(second)
    env.reset(seed=0)
    fresh.reset(seed=0)
    action = torch.ones(1, 4)
    for _ in range(4):
        env.step(action)
    env.set_tasks(second)
    found, expected = env.step(action), fresh.step(action)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert not found[3].any()
    assert env.step(action)[3].all()  # the sixth step of the episode


@pytest.mark.parametrize("name", ["ML1-bin-picking-v3", "ML1-basketball-v3", "ML10-v3"])
def test_a_restored_state_repeats_its_steps(name):
    distribution = metarl.make(name, horizon=20, vectorization="sync")
    one, other = (distribution.make_env(3, backend="gymnasium") for _ in range(2))
    tasks, actions = distribution.sample(3, seed=2), random_actions(20, 3)
    for env in (one, other):
        env.set_tasks(tasks)
    one.reset(seed=0)
    for action in actions[:12]:
        one.step(action)
    state = one.get_state()
    assert {"qpos", "qvel"} <= state.keys()
    expected = [one.step(action) for action in actions[12:]]
    for env in (other, one):
        env.set_state(state)
        for action, step in zip(actions[12:], expected, strict=True):
            found = env.step(action)
            assert torch.equal(found[0], step[0])
            assert torch.equal(found[1], step[1])
            assert torch.equal(found[3], step[3])
    assert expected[-1][3].all()


def test_the_contract_holds():
    check_distribution(metarl.make("ML1-drawer-open-v3", horizon=10, vectorization="sync"), backend="gymnasium")
    check_distribution(metarl.make("ML10-v3", horizon=5, vectorization="sync"), backend="gymnasium", num_tasks=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 501}, "horizon must be at most 500"),
        ({"goals_seed": -1}, "goals_seed must be a whole number"),
        ({"workers": 0}, "number of workers"),
        ({"vectorization": "fork"}, "unknown vectorization 'fork'"),
        ({"goal_seed": 1}, "goals_seed"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(UsageError, match=message):
        metarl.make("ML1-reach-v3", **options)


def test_tasks_that_are_not_of_the_family_are_refused():
    distribution = metarl.make("ML1-reach-v3")
    good = distribution.all_tasks("train")[0].parameters
    with pytest.raises(UsageError, match="'task_index': 1 is out of range"):
        distribution.validate(Tasks({**good, "task_index": torch.tensor([1])}))
    with pytest.raises(UsageError, match=r"'rand_vec': .* is out of range for reach-v3"):
        distribution.validate(Tasks({**good, "rand_vec": 0 * good["rand_vec"]}))
    with pytest.raises(UsageError, match="'rand_vec'"):
        distribution.task(task_index=0, rand_vec=[0.0, 0.6, float("nan"), 0, 0.8, 0.1])

"""`metarl.to_gymnasium` and `metarl/ID`: environments as Gymnasium, its wrappers and its checks expect them."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

import metarl
from metarl.adapters import as_actions
from metarl.gymnasium_adapter import make_vec

KINDS = {
    "native": lambda: metarl.make("PointNavigation-v0", horizon=7),
    "choices": lambda: metarl.make("Bandit-v0", arms=5, pulls=7),
    "gymnasium": lambda: metarl.make("CartPoleParams-v0", horizon=30),
    "locomotion": lambda: metarl.make("HopperRandParams-v0", horizon=30),
    "meta-world": lambda: metarl.make("ML1-reach-v3", horizon=7),
}


def make(family, mode="NextStep", num_tasks=2, envs_per_task=2, **options):
    env = family.make_env(num_tasks, envs_per_task, **options)
    env.set_tasks(family.sample(num_tasks, seed=0))
    return metarl.to_gymnasium(env, autoreset_mode=mode)


def episodes(envs, actions):
    """What each environment goes through, step by step: (observation, reward, terminated, truncated), resets apart."""
    observations, _ = envs.reset(seed=3)
    seen = [[("first", row)] for row in observations.copy()]
    waiting = np.zeros(envs.num_envs, bool)
    for _ in range(60):
        taken = np.stack([actions[i][len(seen[i])] for i in range(envs.num_envs)])
        observations, rewards, terminated, truncated, info = envs.step(taken)
        for i in range(envs.num_envs):
            if waiting[i]:
                assert (rewards[i], terminated[i], truncated[i]) == (0, False, False)
                seen[i].append(("first", observations[i].copy()))
                actions[i].insert(len(seen[i]) - 1, actions[i][0])  # no action was taken
                continue
            ended = terminated[i] or truncated[i]
            same = envs.autoreset_mode is AutoresetMode.SAME_STEP
            reached = info["final_obs"][i] if same and ended else observations[i]
            seen[i].append((reached.copy(), rewards[i], terminated[i], truncated[i]))
            if same and ended:
                seen[i].append(("first", observations[i].copy()))
                actions[i].insert(len(seen[i]) - 1, actions[i][0])
        waiting = (terminated | truncated) & (envs.autoreset_mode is AutoresetMode.NEXT_STEP)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_are_the_same_in_both_modes(kind):
    family = KINDS[kind]()
    found = []
    for mode in AutoresetMode.NEXT_STEP, "SameStep":
        envs = make(family, mode)
        envs.single_action_space.seed(1)
        actions = [[envs.single_action_space.sample() for _ in range(100)] for _ in range(4)]
        found.append(episodes(envs, actions))
        envs.close()
    for one, other in zip(*found, strict=True):
        count = min(len(one), len(other))
        assert sum(step[0] is not None and len(step) == 2 for step in one[:count]) > 2
        for mine, theirs in zip(one[:count], other[:count], strict=True):
            assert len(mine) == len(theirs)
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


def test_it_is_gymnasiums_own_vector_of_cart_poles():
    """The same seeds and actions give the same numbers, masks and ends as `SyncVectorEnv`, in both modes."""
    task = {"gravity": 9.8, "mass": 0.1, "length": 0.5}
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        theirs = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 3, autoreset_mode=mode)
        ours = gym.make_vec("metarl/CartPoleParams-v0", num_envs=3, task=task, autoreset_mode=mode)
        assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
        assert ours.action_space == theirs.action_space
        np.testing.assert_array_equal(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
        rng, ends = np.random.default_rng(0), 0
        for _ in range(120):
            action = rng.integers(2, size=3)
            mine, other = ours.step(action), theirs.step(action)
            for one, two in zip(mine[:4], other[:4], strict=True):
                np.testing.assert_array_equal(one, two)
                assert one.dtype == two.dtype
            assert ("final_obs" in mine[4]) == ("final_obs" in other[4])
            if "final_obs" in mine[4]:
                np.testing.assert_array_equal(mine[4]["_final_obs"], other[4]["_final_obs"])
                for one, two in zip(mine[4]["final_obs"], other[4]["final_obs"], strict=True):
                    np.testing.assert_array_equal(one, two)
            ends += int((mine[2] | mine[3]).sum())
        assert ends > 5


def test_a_single_cart_pole_is_gymnasiums():
    ours = gym.make("metarl/CartPoleParams-v0", task={"gravity": 9.8, "mass": 0.1, "length": 0.5})
    theirs = gym.make("CartPole-v1")
    seed, rng = 2, np.random.default_rng(0)
    for _ in range(5):  # later episodes go on with the same random numbers
        np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        seed, ended = None, False
        while not ended:
            action = rng.integers(2)
            mine, other = ours.step(action), theirs.step(action)
            np.testing.assert_array_equal(mine[0], other[0])
            assert mine[1:4] == other[1:4]
            ended = mine[2] or mine[3]
        with pytest.raises(metarl.UsageError, match="call reset before step"):
            ours.step(action)


def test_gymnasiums_wrappers_take_it():
    chains = [
        lambda e: wrappers.RecordEpisodeStatistics(e),
        lambda e: wrappers.NormalizeObservation(e),
        lambda e: wrappers.NormalizeReward(e),
        lambda e: wrappers.ClipReward(e, -1, 1),
        lambda e: wrappers.TransformObservation(
            e, lambda o: o * 2, single_observation_space=e.single_observation_space
        ),
        lambda e: wrappers.RescaleAction(e, np.float32(-1), np.float32(1)),
        lambda e: wrappers.DictInfoToList(e),
    ]
    for wrap in chains:
        envs = wrap(make(KINDS["native"]()))
        envs.action_space.seed(0)
        observations, _ = envs.reset(seed=0)
        for _ in range(17):
            observations, rewards, _, _, _ = envs.step(envs.action_space.sample())
        assert observations.shape == (4, 2)
        assert rewards.shape == (4,)


def test_recorded_returns_are_the_sums_of_rewards():
    for mode in ("NextStep", "SameStep"):
        envs = wrappers.RecordEpisodeStatistics(make(KINDS["native"](), mode))
        envs.reset(seed=0)
        total, found = np.zeros(4), []
        while len(found) < 2:
            _, rewards, _, truncated, info = envs.step(np.full((4, 2), 0.01, np.float32))
            total += rewards
            if truncated.all():
                np.testing.assert_allclose(info["episode"]["r"], total)
                found.append(info["episode"]["l"].tolist())
                total[:] = 0
        assert found == [[7] * 4] * 2


def test_seeds_choose_the_environments_numbers():
    envs = make(KINDS["gymnasium"]())
    first = envs.reset(seed=4)[0]
    np.testing.assert_array_equal(envs.reset(seed=[4, 5, 6, 7])[0], first)
    assert not np.array_equal(envs.reset()[0], first)
    assert envs.np_random_seed == 4


@pytest.mark.filterwarnings("ignore:.*Box observation space")
@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("PointNavigation-v0", {"task": {"goal": [0.3, 0.1]}}),
        ("Bandit-v0", {}),
        ("ML1-reach-v3", {"task": 3, "horizon": 20}),
        ("HalfCheetahVel-v0", {"task": {"velocity": 1.0}, "horizon": 20}),
    ],
)
def test_gymnasiums_checker_takes_single_environments(id, options):
    env = gym.make(f"metarl/{id}", **options)
    check_env(env.unwrapped, skip_render_check=True)


def test_tasks_are_chosen_by_name_by_number_or_drawn():
    family = metarl.make("ML1-reach-v3")
    assert gym.make("metarl/ML1-reach-v3", task=3).unwrapped.task == family.all_tasks("train")[3]
    assert gym.make("metarl/ML1-reach-v3", task=3, split="test").unwrapped.task == family.all_tasks("test")[3]
    drawn = gym.make_vec("metarl/PointNavigation-v0", num_envs=4, split="test", seed=2, horizon=9)
    assert drawn.tasks == metarl.make("PointNavigation-v0").sample(4, split="test", seed=2)
    assert drawn.env.horizon == 9
    two = metarl.make("PointNavigation-v0").sample(2, seed=0)
    assert make_vec("PointNavigation-v0", num_envs=6, task=two).env.envs_per_task == 3


def test_both_imports_in_either_order_are_cheap():
    for order in ("import gymnasium, metarl", "import metarl, gymnasium"):
        program = (
            f"import sys; {order}; assert 'metarl/HalfCheetahVel-v0' in gymnasium.registry;"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
    alone = "import sys, metarl; assert not {'gymnasium', 'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", alone], check=True)


def test_every_built_in_family_is_known_by_its_id():
    program = "import metarl; from metarl.envs.ids import IDS; assert sorted(IDS) == metarl.list_distributions()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_family_of_ones_own_is_registered_too(monkeypatch):
    from metarl import registry

    monkeypatch.setitem(registry._KINDS, "environment", {**registry._KINDS["environment"]})
    metarl.register_distribution("OwnBandit-v0", lambda arms=3: metarl.make("Bandit-v0", arms=arms))
    try:
        assert gym.make_vec("metarl/OwnBandit-v0", num_envs=2, arms=4).single_action_space.n == 4
    finally:
        del gym.registry["metarl/OwnBandit-v0"]
    metarl.register_distribution("an id that Gymnasium does not allow", "nowhere:Nothing")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["mujoco", "warp", "gymnasium"])
def test_every_backend_behind_every_adapter(backend):
    family = metarl.make("HalfCheetahDir-v0", horizon=4)
    for adapt in (metarl.to_gymnasium, metarl.to_sb3):
        env = family.make_env(2, 2, backend=backend)
        env.set_tasks(family.sample(2, seed=0))
        envs = adapt(env)
        envs.reset()
        for _ in range(9):
            result = envs.step(np.zeros((4, 6), np.float32))
        assert result[0].shape == (4, 17)
        envs.close()


def test_actions_of_a_tuple_lie_side_by_side():
    space = gym.spaces.Tuple((gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3)))
    found = as_actions((np.float32([[0.5, 1.0]] * 2), np.array([0, 2])), space, 2)
    assert found.tolist() == [[0.5, 1.0, 0.0], [0.5, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: make(KINDS["native"](), "Disabled"), "must be 'NextStep' or 'SameStep'"),
        (lambda: make(KINDS["native"]()).reset(seed=[1, 3, 5, 7]), "seeds must count up"),
        (lambda: make(KINDS["native"]()).reset(options={"reset_mask": np.ones(4, bool)}), "leave out options"),
        (
            lambda: make_vec("PointNavigation-v0", 3, task=metarl.make("PointNavigation-v0").sample(2, seed=0)),
            "multiple",
        ),
        (lambda: make_vec("ML1-reach-v3", task=50), "a number in [0, 49]"),
        (lambda: make_vec("PointNavigation-v0", task=0), "too many"),
        (lambda: make(KINDS["choices"]()).step(np.full(4, 0.5)), "must be whole numbers"),
    ],
)
def test_mistakes_are_told_in_a_line(call, complaint):
    with pytest.raises(metarl.UsageError) as caught:
        call()
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [[], [1, 2], [None, 1, None, None], True, -1, 2**70])
def test_wrong_seeds_are_told_in_a_line(seed):
    envs, env = make(metarl.make("PointNavigation-v0")), gym.make("metarl/PointNavigation-v0").unwrapped
    for one in [envs] if isinstance(seed, list) else [envs, env]:
        with pytest.raises(metarl.UsageError, match=r"seeds? must"):
            one.reset(seed=seed)


def test_a_list_of_none_is_no_seed_and_numpys_numbers_are_seeds():
    envs = make(metarl.make("HalfCheetahVel-v0", horizon=3))
    assert envs.reset(seed=[None] * 4)[0].shape == (4, 17)
    first, again = envs.reset(seed=np.int64(3))[0], envs.reset(seed=[3, 4, 5, 6])[0]
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("actions", [None, "a", [[1], [1, 2], [1, 2], [1, 2]], np.zeros((4, 2), complex)])
def test_what_is_no_array_of_numbers_is_no_action(actions):
    envs = make(metarl.make("PointNavigation-v0"))
    envs.reset(seed=0)
    with pytest.raises(metarl.UsageError, match="must be an array of numbers"):
        envs.step(actions)


def test_an_episode_that_has_ended_takes_no_step_under_another_task():
    family = metarl.make("PointNavigation-v0", horizon=1)
    env = gym.make("metarl/PointNavigation-v0", horizon=1).unwrapped
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.set_tasks(family.task(goal=[0.2, 0.2]))
    with pytest.raises(metarl.UsageError, match="call reset before step"):
        env.step(env.action_space.sample())
    env.reset()
    env.step(env.action_space.sample())


def test_environments_that_cannot_wait_say_so(monkeypatch):
    """Without its state, an environment cannot wait: only if all end at once need none."""
    family = metarl.make("PointNavigation-v0", horizon=4)
    env = family.make_env(2, 1)
    env.set_tasks(metarl.Tasks({"goal": torch.tensor([[0.1, 0.0], [0.0, 0.5]])}))
    monkeypatch.setattr(type(env), "get_state", metarl.TaskVectorEnv.get_state)
    envs, action = metarl.to_gymnasium(env), np.float32([[0.1, 0.0], [0.05, 0.0]])
    envs.reset(seed=0)
    assert envs.step(action)[2].tolist() == [True, False]
    with pytest.raises(metarl.UsageError, match="use autoreset_mode='SameStep'"):
        envs.step(action)

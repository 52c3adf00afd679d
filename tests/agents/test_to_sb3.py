"""`metarl.to_sb3`: every kind of environment as Stable-Baselines3 expects it."""

import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from pictures import Quarters, SeenOrTold
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecFrameStack, VecMonitor, VecNormalize

import metarl
from metarl.sb3 import SB3Actions, sb3_observations

KINDS = {
    "native, steps": lambda: metarl.make("PointNavigation-v0", horizon=5),
    "native, choices": lambda: metarl.make("Bandit-v0", arms=5, pulls=5),
    "pictures": lambda: Quarters(size=40, horizon=5),
    "dictionary": lambda: SeenOrTold(size=40, horizon=5),
    "gymnasium": lambda: metarl.make("CartPoleParams-v0", horizon=5),
    "locomotion": lambda: metarl.make("HalfCheetahDir-v0", horizon=5),
    "meta-world": lambda: metarl.make("ML1-reach-v3", horizon=5),
}


def make(family, num_tasks=2, envs_per_task=2, **options):
    env = family.make_env(num_tasks, envs_per_task, **options)
    env.set_tasks(family.sample(num_tasks, seed=0))
    return env


@pytest.fixture(params=KINDS)
def env(request):
    made = make(KINDS[request.param]())
    yield made
    made.close()


def rows(observations):
    """The observation of each environment."""
    if isinstance(observations, dict):
        return [{name: value[i] for name, value in observations.items()} for i in range(4)]
    return list(observations)


def test_it_keeps_to_the_interface(env):
    vec_env = metarl.to_sb3(env)
    vec_env.action_space.seed(0)
    vec_env.seed(3)
    assert all(vec_env.observation_space.contains(row) for row in rows(vec_env.reset()))
    for t in range(1, 7):
        actions = np.array([vec_env.action_space.sample() for _ in range(4)])
        observations, rewards, dones, infos = vec_env.step(actions)
        assert all(vec_env.observation_space.contains(row) for row in rows(observations))
        assert (rewards.dtype, rewards.shape, dones.dtype, dones.shape) == (np.float32, (4,), bool, (4,))
        if t == 5:  # the horizon
            assert dones.all()
            assert all(vec_env.observation_space.contains(info["terminal_observation"]) for info in infos)
            assert all(info["TimeLimit.truncated"] for info in infos)
            assert [info["episode"]["l"] for info in infos] == [5] * 4
            assert all(("is_success" in info) == env.distribution.has_success for info in infos)
        else:
            assert not dones.any()
            assert all("terminal_observation" not in info and "is_success" not in info for info in infos)


def test_what_it_returns_is_no_ones_buffer(env):
    vec_env = metarl.to_sb3(env)

    def arrays(step):
        return [*step[0].values(), *step[1:]] if isinstance(step[0], dict) else list(step)

    vec_env.action_space.seed(0)
    vec_env.reset()
    kept = []
    for _ in range(7):
        step = vec_env.step(np.array([vec_env.action_space.sample() for _ in range(4)]))[:3]
        kept.append((arrays(step), [array.copy() for array in arrays(step)]))
    assert all(np.array_equal(one, other) for pair in kept for one, other in zip(*pair, strict=True))
    for step, _ in kept:
        step[-2] += 100  # as SB3 does to bootstrap
    assert vec_env.step(np.array([vec_env.action_space.sample() for _ in range(4)]))[1].max() < 100


def test_ends_and_last_observations_by_hand():
    """The first goal is one step away: that episode terminates at once; the second is cut off after four steps."""
    family = metarl.make("PointNavigation-v0", horizon=4)
    env = family.make_env(2, 1)
    env.set_tasks(metarl.Tasks({"goal": torch.tensor([[0.1, 0.0], [0.0, 0.5]])}))
    vec_env = metarl.to_sb3(env)
    vec_env.reset()
    action, seen = np.array([[0.1, 0.0], [0.05, 0.0]], np.float32), []
    for t in range(1, 5):
        observations, _, dones, infos = vec_env.step(action)
        seen.append((dones.tolist(), [info["TimeLimit.truncated"] for info in infos]))
        np.testing.assert_allclose(infos[0]["terminal_observation"], [0.1, 0.0])
        np.testing.assert_allclose(observations[0], [0.0, 0.0])
        np.testing.assert_allclose(observations[1], [0.05 * (t % 4), 0.0], atol=1e-7)
    assert seen == [([True, False], [False, False])] * 3 + [([True, True], [False, True])]
    np.testing.assert_allclose(infos[1]["terminal_observation"], [0.2, 0.0])
    assert infos[1]["episode"]["l"] == 4
    assert infos[1]["episode"]["r"] == pytest.approx(-sum((0.05 * t) ** 2 + 0.25 for t in range(1, 5)), rel=1e-5)


def test_success_is_that_of_the_whole_episode():
    env = make(Quarters(size=12, horizon=3))
    vec_env = metarl.to_sb3(env)
    vec_env.reset()
    succeeded = np.zeros(4, bool)
    for _ in range(2):
        for _ in range(3):
            _, rewards, _, infos = vec_env.step(np.zeros(4, int))
            succeeded |= rewards > 0
        assert [info["is_success"] for info in infos] == succeeded.tolist()
        succeeded[:] = False


class OriginalCartPole(metarl.GymnasiumDistribution):
    def __init__(self):
        super().__init__(
            "CartPole-v0",
            "CartPole-v1",
            parameters={"length": {"train": [0.5], "test": [0.5]}},
            apply=lambda env, task: setattr(env.unwrapped, "length", task["length"]),
            vectorization="sync",
        )


def test_ppo_learns_exactly_what_it_learns_in_the_original_environment():
    states = []
    with torch.random.fork_rng():
        python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
        for vec_env in (
            metarl.to_sb3(make(OriginalCartPole(), 1, 3)),
            VecMonitor(DummyVecEnv([lambda: gym.make("CartPole-v1")] * 3)),
        ):
            model = PPO("MlpPolicy", vec_env, n_steps=64, batch_size=96, n_epochs=2, seed=4, device="cpu").learn(400)
            states.append((model.policy.state_dict(), [episode["r"] for episode in model.ep_info_buffer]))
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
    (ours, our_returns), (theirs, their_returns) = states
    assert our_returns == their_returns
    assert len(our_returns) > 5
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [(PPO, "native, steps"), (A2C, "native, choices"), (SAC, "meta-world"), (DQN, "gymnasium"), (PPO, "dictionary")],
)
def test_their_algorithms_and_wrappers_take_it(algorithm, kind):
    options = {PPO: {"n_steps": 8, "batch_size": 16}, SAC: {"learning_starts": 8}, DQN: {"learning_starts": 8}}
    env = make(KINDS[kind]())
    vec_env = VecCheckNan(metarl.to_sb3(env), raise_exception=True)
    with torch.random.fork_rng():
        policy = "MultiInputPolicy" if kind == "dictionary" else "MlpPolicy"
        model = algorithm(policy, vec_env, seed=0, device="cpu", **options.get(algorithm, {})).learn(32)
        mean, _ = evaluate_policy(model, vec_env, n_eval_episodes=4)
    assert np.isfinite(mean)
    if policy == "MlpPolicy":
        assert VecFrameStack(VecNormalize(metarl.to_sb3(env)), 2).reset().shape == (4, 2 * vec_env.reset().shape[1])
    vec_env.close()


def test_seeds_choose_the_first_observations():
    env = make(KINDS["gymnasium"]())
    first = []
    for seed in (1, 1, 2):
        vec_env = metarl.to_sb3(env)
        assert vec_env.seed(seed) == [seed + i for i in range(4)]
        first.append(vec_env.reset())
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    assert np.array_equal(first[0], env.reset(seed=1)[0].numpy())
    assert not np.array_equal(vec_env.reset(), first[2]), "a seed counts once"
    env.close()


def test_attributes_and_methods_are_those_of_all_environments():
    env = make(KINDS["native, steps"]())
    vec_env = metarl.to_sb3(env)
    assert vec_env.get_attr("horizon") == [5] * 4
    assert vec_env.get_attr("num_tasks", [0, 3]) == [2, 2]
    assert [task == env.tasks[i] for task, i in zip(vec_env.get_attr("task"), (0, 0, 1, 1), strict=True)] == [True] * 4
    assert vec_env.has_attr("backend")
    assert not vec_env.has_attr("nothing_like_it")
    vec_env.set_attr("note", 7)
    assert env.note == 7
    assert vec_env.env_method("describe_fault", 1, "a step")[3] == env.describe_fault(1, "a step")
    assert vec_env.env_is_wrapped(gym.Wrapper) == [False] * 4
    for call in (lambda: vec_env.set_attr("note", 1, 0), lambda: vec_env.env_method("own_faults", indices=[1, 2])):
        with pytest.raises(metarl.UsageError, match="leave out indices"):
            call()
    vec_env.set_options({"anything": 1})
    with pytest.raises(metarl.UsageError, match="takes no reset options, got 'anything'"):
        vec_env.reset()
    with pytest.raises(metarl.UsageError, match="call step_async before"):
        vec_env.step_wait()


def test_it_draws_all_environments_in_one_picture():
    env = make(KINDS["native, steps"](), render_mode="rgb_array")
    vec_env = metarl.to_sb3(env)
    vec_env.reset()
    (height, width, _), pictures = env.render()[0].shape, vec_env.get_images()
    assert vec_env.render_mode == "rgb_array"
    assert vec_env.render().shape == (2 * height, 2 * width, 3)
    assert np.array_equal(pictures[3], env.render()[3])


def test_actions_are_decoded():
    box = gym.spaces.Box(np.float32([0.0, -np.inf]), np.float32([4.0, 5.0]))
    assert SB3Actions(box).space == gym.spaces.Box(np.float32([0.0, 3.0]), np.float32([4.0, 5.0]))
    scaled = SB3Actions(box, rescale=True)
    assert scaled.space == gym.spaces.Box(-1, 1, (2,))
    assert scaled.decode([[-1.0, 0.0], [0.5, 7.0]]).tolist() == [[0.0, 4.0], [3.0, 5.0]]
    shifted = SB3Actions(gym.spaces.Discrete(3, start=-1))
    assert shifted.space == gym.spaces.Discrete(3)
    assert shifted.decode(np.array([0, 2])).tolist() == [-1, 1]
    several = SB3Actions(gym.spaces.MultiDiscrete([2, 3], start=[0, 10]))
    assert several.decode([[1, 2]]).tolist() == [[1, 12]]
    switches = SB3Actions(gym.spaces.MultiBinary(2))
    assert switches.decode(np.float32([[0, 1]])).tolist() == [[0, 1]]
    with pytest.raises(metarl.UsageError, match="whole numbers"):
        switches.decode([[0.5, 1.0]])
    space = gym.spaces.Discrete(3)
    assert SB3Actions(space).space is not space, "SB3 seeds it"


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: SB3Actions(gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Discrete(2)))), "has no actions like"),
        (lambda: sb3_observations(gym.spaces.Box(0, 255, (3, 40, 40), np.uint8)), "above the number of channels"),
        (
            lambda: sb3_observations(gym.spaces.Dict({name: gym.spaces.Box(-1, 1, (2,)) for name in ("a.b", "a_b")})),
            "a.b, a_b collide",
        ),
    ],
)
def test_what_sb3_lacks_is_refused(call, complaint):
    with pytest.raises(metarl.UsageError, match=complaint):
        call()


def test_a_fault_ends_an_episode_and_one_that_cannot_start_again_raises(monkeypatch):
    env = make(KINDS["native, steps"]())
    monkeypatch.setattr(
        type(env.distribution), "reward", lambda self, distance: distance.index_fill(0, torch.tensor([1]), torch.nan)
    )
    vec_env = metarl.to_sb3(env)
    before = vec_env.reset()
    _, rewards, dones, infos = vec_env.step(np.full((4, 2), 0.1, np.float32))
    assert dones.tolist() == [False, True, False, False]
    assert rewards[1] == 0
    assert infos[1]["TimeLimit.truncated"]
    np.testing.assert_array_equal(infos[1]["terminal_observation"], before[1])
    assert env.fault_count == 1
    monkeypatch.setattr(type(env), "restarts_faults", False)
    with pytest.raises(metarl.errors.EnvironmentFault, match="a step of environment 1 of task 0"):
        vec_env.step(np.full((4, 2), 0.1, np.float32))

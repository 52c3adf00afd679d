"""The base of physics environments, by a small one that is made of nothing else."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

import metarl
from metarl import Tasks, UsageError
from metarl.distribution import TaskDistribution
from metarl.envs.physics import PhysicsEnv, RawStep, SceneBuilder, make_physics

SLIDER = """
<mujoco>
  <worldbody><body><joint type="slide" axis="1 0 0"/><geom size=".1" mass="1"/></body></worldbody>
  <actuator><motor joint="" ctrlrange="-1 1"/></actuator>
</mujoco>
""".replace("<joint type", '<joint name="rail" type').replace('joint=""', 'joint="rail"')
LIMIT = 0.5  # metres, where an episode terminates


class Slider(TaskDistribution):
    """A mass on a rail that starts at its task's `start` (m) and is paid its position."""

    id, backends, horizon = "Slider-v0", ("mujoco",), 6
    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    task_space = {"start": Box(-0.1, 0.1, (), np.float32)}

    def _sample(self, num_tasks, split, generator):
        return {"start": 0.2 * torch.rand(num_tasks, generator=generator) - 0.1}

    def _make_env(self, num_tasks, envs_per_task, backend, device, seed, render_mode):
        return SliderEnv(self, num_tasks, envs_per_task, backend=backend, device=device, render_mode=render_mode)


class SliderEnv(PhysicsEnv):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        scene = SceneBuilder(SLIDER).build()
        self.physics = make_physics(scene, self.num_envs, backend="mujoco", frames=50)

    @property
    def engines(self):
        return [self.physics]

    def _set_tasks(self, tasks):
        self.start = tasks.parameters["start"].double().repeat_interleave(self.envs_per_task)[:, None]

    def _advance(self, actions):
        self.physics.step(actions.double().clamp(-1, 1))
        place = self.physics.qpos[:, 0].clone()
        info = {"far": place.abs() > 0.2, "place": place}
        return RawStep(self.observe(), place, place.abs() > LIMIT, self.physics.faults.clone(), info)

    def _start_episodes(self, chosen):
        self.physics.reset(chosen.mask, self.start, torch.zeros_like(self.start))
        return chosen.take(self.observe())

    def _read_state(self):
        return self.physics.get_state()

    def _write_state(self, state):
        self.physics.set_state(state)
        return self.observe()

    def observe(self):
        return self.physics.qpos.float()


@pytest.fixture
def env():
    made = Slider().make_env(2, 2)
    made.set_tasks(Tasks({"start": torch.tensor([0.0, 0.1])}))
    made.reset(seed=0)
    yield made
    made.close()


def test_six_methods_make_an_environment_that_keeps_the_contract():
    metarl.check_distribution(Slider())


def test_termination_truncation_and_first_observations(env):
    ends = []
    for _ in range(6):
        observation, reward, terminated, truncated, info = env.step(torch.tensor([[0.0], [1.0], [0.0], [1.0]]) * 4)
        ended = terminated | truncated
        assert torch.equal(info["_final_obs"], ended)
        torch.testing.assert_close(reward, info["final_obs"][:, 0])
        torch.testing.assert_close(observation, torch.where(ended[:, None], env.start.float(), info["final_obs"]))
        ends.append((terminated.tolist(), truncated.tolist()))
    assert ends[-1][1] == [True, False, True, False] or ends[-1][1] == [True] * 4
    assert not any(row for terminated, _ in ends for row in (terminated[0], terminated[2]))


def test_whatever_a_broken_simulation_says_is_replaced(env):
    before = env.step(torch.ones(4, 1))[0]
    state = env.get_state()
    state["qvel"][1] = 1e14
    env.set_state(state)
    observation, reward, terminated, truncated, info = env.step(torch.ones(4, 1))
    fault = torch.tensor([False, True, False, False])
    assert torch.equal(info["fault"], fault)
    assert torch.equal(truncated, fault)
    assert not terminated.any()
    assert torch.equal(info["final_obs"][1], before[1])
    assert torch.equal(observation[1], env.start[1].float())
    assert (float(reward[1]), float(info["place"][1]), bool(info["far"][1])) == (0.0, 0.0, False)
    assert (reward[[0, 2, 3]] != 0).all()
    assert torch.equal(info["place"][[0, 2, 3]].float(), reward[[0, 2, 3]])
    assert env.fault_count == 1
    assert env.get_state()["elapsed_steps"].tolist() == [2, 0, 2, 2]


def test_a_state_of_another_shape_is_refused(env):
    state = env.get_state()
    wrong = {name: value[:1] for name, value in state.items()}
    with pytest.raises(UsageError, match=r"not the state of 4 environments of Slider-v0: '\w+' has shape \[1"):
        env.set_state(wrong)
    for name, value in env.get_state().items():
        assert torch.equal(value, state[name]), name


def test_a_state_needs_tasks():
    env = Slider().make_env(1)
    with pytest.raises(UsageError, match="no tasks yet"):
        env.set_state({"elapsed_steps": torch.zeros(1, dtype=torch.int64)})
    env.close()


def test_without_pictures_it_says_so(env):
    with pytest.raises(UsageError, match="cannot be rendered"):
        env.render()
    drawn = Slider().make_env(1, render_mode="rgb_array")
    with pytest.raises(UsageError, match="cannot be rendered"):
        drawn.render()
    drawn.close()


@pytest.mark.gpu
@pytest.mark.parametrize("id", ["AntGoal-v0", "HopperRandParams-v0", "ML10-v3"])
def test_no_step_waits_for_the_gpu(id):
    family = metarl.make(id, horizon=4)
    env = family.make_env(10, 2, device="cuda")
    env.set_tasks(family.sample(10, seed=0))
    env.reset(seed=0)
    actions = torch.zeros(20, *family.action_space.shape, device="cuda")
    for _ in range(5):  # compiles, captures graphs, ends an episode
        env.step(actions)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            env.step(actions)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert env.get_state()["elapsed_steps"].max() < 4
    env.close()

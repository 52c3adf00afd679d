"""The robot and the family of docs/A_ROBOT_OF_YOUR_OWN.md, against MuJoCo used by hand; mistakes in such a robot."""

import ctypes.util
import os
import re
import subprocess
import sys
from pathlib import Path

import mujoco
import pytest
import torch

import metarl
from metarl import Tasks, UsageError
from metarl.envs.locomotion.family import LocomotionDistribution
from metarl.envs.locomotion.robot import Robot
from metarl.envs.locomotion.robots import Ant
from metarl.envs.physics.fields import scale_body

PAGE = Path(__file__).parents[2] / "docs" / "A_ROBOT_OF_YOUR_OWN.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
TASKS = Tasks({"target": torch.tensor([1.0, -0.5]), "mass": torch.tensor([0.5, 5.0])})


@pytest.fixture(scope="module")
def guide():
    """What the page defines, the contract's check included, in a module of its own."""
    names = {"__name__": "guide"}
    for block in BLOCKS[:-1]:  # the last one uses the family
        exec(block, names)
    return names


def by_hand(xml, mass, qpos, qvel, controls):
    """What MuJoCo makes of each control, five frames each: joints and the load's position along the rail."""
    model = mujoco.MjModel.from_xml_string(xml)
    load = model.body("load").id
    model.body_inertia[load] *= mass / model.body_mass[load]
    model.body_mass[load] = mass
    data = mujoco.MjData(model)
    mujoco.mj_setConst(model, data)
    data.qpos[:], data.qvel[:] = qpos, qvel
    for control in controls:
        data.ctrl[:] = control
        mujoco.mj_step(model, data, nstep=5)
        mujoco.mj_forward(model, data)
        yield data.qpos.copy(), data.geom("load").xpos[0]


def made(family, backend="mujoco", tasks=TASKS):
    env = family.make_env(len(tasks), backend=backend, seed=0)
    env.set_tasks(tasks)
    env.reset(seed=0)
    return env


def test_sixty_lines_are_enough():
    assert sum(bool(line.strip()) for block in BLOCKS for line in block.splitlines()) <= 60


def test_motion_and_reward_are_those_of_mujoco_used_by_hand(guide):
    env = made(guide["CraneTasks"]())
    start = env.get_state()
    controls = 2 * torch.rand(30, 2, 1, generator=torch.Generator().manual_seed(0)) - 1
    steps = [env.step(control) for control in controls]
    for row in range(2):
        mass, target = (float(TASKS.parameters[name][row]) for name in ("mass", "target"))
        official = by_hand(guide["CRANE"], mass, start["qpos"][row], start["qvel"][row], controls[:, row].numpy())
        for control, step, (qpos, load) in zip(controls[:, row], steps, official, strict=True):
            torch.testing.assert_close(step[0][row, :2], torch.from_numpy(qpos).float(), atol=1e-6, rtol=0)
            reward = -abs(load - target) - 0.01 * float(control.square())
            assert float(step[1][row]) == pytest.approx(reward, abs=1e-6)
    env.close()


def test_the_episode_ends_if_the_load_swings_too_high(guide):
    env = made(guide["CraneTasks"]())
    state = env.get_state()
    state["qpos"][:, 1] = torch.tensor([1.5, 1.7])  # rad, below and above the horizontal
    state["qvel"].zero_()
    env.set_state(state)
    _, _, terminated, truncated, info = env.step(torch.zeros(2, 1))
    assert terminated.tolist() == [False, True]
    assert not truncated.any()
    assert info["_final_obs"].tolist() == [False, True]
    env.close()


def test_only_gymnasiums_robots_run_on_gymnasium(guide):
    family = guide["CraneTasks"]()
    assert family.backends == ("mujoco", "warp")
    with pytest.raises(UsageError, match="Crane-v0 has no backend 'gymnasium': choose from mujoco, warp"):
        family.make_env(1, backend="gymnasium")


class OtherReward(LocomotionDistribution):
    """Rewards standing high, which Gymnasium's environment does not compute."""

    progress = staticmethod(lambda velocity, position, task: velocity[:, 0])

    def __init__(self):
        super().__init__("AntHigh-v0", Ant(), metarl.make("AntVel-v0").task_space, horizon=5)

    def score(self, reading, observation, position, velocity, action, task):
        return reading.qpos[:, 2], torch.zeros(len(reading.qpos), dtype=torch.bool)


def test_another_form_of_reward_is_not_offered_on_gymnasium():
    """Its environments would return their own."""
    family = OtherReward()
    assert "gymnasium" in metarl.make("AntVel-v0").backends
    assert family.backends == ("mujoco", "warp")
    env = made(family, tasks=Tasks({"velocity": torch.zeros(2)}))
    height = env.step(torch.zeros(2, 8))[1]
    torch.testing.assert_close(height.double(), env.physics.qpos[:, 2])
    env.close()


@pytest.mark.slow
def test_warp_steps_it_too(guide):
    family, action = guide["CraneTasks"](), torch.tensor([[1.0], [-0.5]])
    observations = []
    for backend in ("mujoco", "warp"):
        env = made(family, backend)
        observations.append(torch.stack([env.step(action)[0] for _ in range(5)]))
        env.close()
    torch.testing.assert_close(*observations, atol=1e-4, rtol=1e-4)


def cart(actuator):
    class Cart(Robot):
        mjcf = f"""<mujoco><worldbody><body name="cart"><joint name="rail" type="slide"/>
            <geom size=".1"/></body></worldbody>{actuator}</mujoco>"""
        frames = 1

        def position(self, reading):
            return reading.qpos[:, :1]

    return Cart()


@pytest.mark.parametrize(
    ("actuator", "message"),
    [
        ("", "has no actuator"),
        (
            '<actuator><motor name="push" joint="rail"/></actuator>',
            "actuator 'push' has no bounds: give it a ctrlrange",
        ),
        ('<actuator><motor joint="road"/></actuator>', "'scene' does not compile"),
        ("<actuator>", "'scene' does not load"),
    ],
)
def test_a_model_that_cannot_be_used_is_named(actuator, message):
    with pytest.raises(UsageError, match=message) as caught:
        _ = cart(actuator).action_space
    assert "\n" not in str(caught.value)


def test_an_unknown_body_is_named():
    model = cart('<actuator><motor joint="rail" ctrlrange="-1 1"/></actuator>').scene.model
    with pytest.raises(UsageError, match="no body 'card': it has cart"):
        scale_body(model, "card", torch.ones(1))


LOOK = """
import sys, metarl
source = open(sys.argv[1]).read().split("```python")
names = {}
for block in source[1:-1]:
    exec(block.split("```")[0].replace("metarl.check_distribution", "id"), names)
family = names["CraneTasks"]()
env = family.make_env(2, render_mode="rgb_array")
env.set_tasks(family.sample(2, seed=0))
env.reset()
one, other = env.render()
print(one.shape, one.std() > 5, (one != other).any())
"""


def test_it_can_be_drawn_without_a_camera_of_its_own():
    engine = next(
        (name for name in ("egl", "osmesa") if ctypes.util.find_library({"egl": "EGL"}.get(name, "OSMesa"))), None
    )
    if engine is None:
        pytest.skip("neither libEGL nor libOSMesa is installed")
    command = [sys.executable, "-W", "error", "-c", LOOK, str(PAGE)]
    found = subprocess.run(command, env=os.environ | {"MUJOCO_GL": engine}, capture_output=True, text=True)
    assert not found.returncode, found.stderr
    assert found.stdout.split("\n")[0] == "(256, 256, 3) True True"

"""The CPU engine: what a step depends on, warm starts, and worlds that break."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
import torch

from metarl import UsageError
from metarl.envs.physics import SceneBuilder, SensorTime, make_physics
from metarl.envs.physics.callbacks import SetAside

BOXES = """
<mujoco model="boxes">
  <size memory="{memory}"/>
  <option timestep="0.004" integrator="{integrator}" solver="{solver}" iterations="{iterations}"/>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body name="shelf" pos="0 0 -1" mocap="true"><geom type="box" size=".2 .2 .05"/></body>
    <body name="box" pos="0 0 .2"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
    <body name="other" pos=".05 0 .45"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
    <body pos="1 0 .5"><joint name="swing" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .4 0 0" size=".05"/></body>
  </worldbody>
  <actuator><motor joint="swing" gear="5" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


def boxes(integrator="Euler", solver="Newton", memory="1M", iterations=100, sensors="contact_wrench"):
    xml = BOXES.format(integrator=integrator, solver=solver, memory=memory, iterations=iterations)
    return SceneBuilder(xml).sense("read", sensors, ["box", "other"]).build()


def start(scene, worlds, **options):
    physics = make_physics(scene, worlds, backend="mujoco", **options)
    qpos = torch.as_tensor(scene.model.qpos0).repeat(worlds, 1)
    physics.reset(torch.ones(worlds, dtype=torch.bool), qpos, torch.zeros(worlds, scene.model.nv, dtype=qpos.dtype))
    return physics


def controls(steps, worlds, seed=0):
    return 2 * torch.rand(steps, worlds, 1, generator=torch.Generator().manual_seed(seed)) - 1


def outcome(physics):
    return torch.cat([*physics.get_state().values(), physics.sensordata], 1)


@pytest.mark.parametrize("solver", ["Newton", "PGS"])
def test_euler_steps_are_those_of_mj_step_to_the_last_bit(solver):
    """Two boxes fall on each other; a search of three iterations does not converge, so where it starts matters."""
    scene = boxes(solver=solver, iterations=3)
    physics = start(scene, 3, frames=2, sensor_time=SensorTime.EVALUATION)
    references = [mujoco.MjData(scene.model) for _ in range(3)]
    for control in controls(150, 3):
        physics.step(control)
        for world, data in enumerate(references):
            data.ctrl[:] = control[world]
            mujoco.mj_step(scene.model, data, nstep=2)
    for world, data in enumerate(references):
        assert data.ncon > 4
        for found, expected in (
            (physics.qpos, data.qpos),
            (physics.qvel, data.qvel),
            (physics.sensordata, data.sensordata),
        ):
            np.testing.assert_array_equal(found[world], expected)


@pytest.mark.parametrize("time", list(SensorTime))
@pytest.mark.parametrize(("integrator", "solver"), [("Euler", "Newton"), ("RK4", "Newton"), ("RK4", "PGS")])
def test_a_step_depends_on_the_state_alone(integrator, solver, time):
    """The state of one engine in another of other threads, worlds and past goes on as in the first, bit by bit."""
    scene, options = boxes(integrator, solver, iterations=3), {"frames": 2, "sensor_time": time}
    one, other = start(scene, 2, threads=1, **options), start(scene, 6, threads=3, **options)
    for number, control in enumerate(controls(70, 6)):
        one.step(control[:2], torch.full((2, 1, 3), -0.01 * number))
        other.step(-control)
    state = other.get_state()
    for name, value in one.get_state().items():
        state[name][[4, 1]] = value
    other.set_state(state)
    for control in controls(40, 6, seed=1):
        one.step(control[[4, 1]])
        other.step(control)
    assert torch.equal(outcome(one), outcome(other)[[4, 1]])


def test_a_reset_world_is_as_a_new_one():
    scene, given = boxes(), torch.tensor([False, True, False])
    used, fresh = start(scene, 3, frames=2), start(scene, 3, frames=2)
    for control in controls(80, 3):
        used.step(control)
    qpos = torch.as_tensor(scene.model.qpos0).repeat(3, 1)
    used.reset(given, qpos, torch.zeros(3, scene.model.nv))
    for control in controls(80, 3, seed=1):
        used.step(control)
        fresh.step(control)
    assert torch.equal(outcome(used)[1], outcome(fresh)[1])


def test_a_reset_with_a_warm_start_goes_on_as_where_it_comes_from():
    scene = boxes(iterations=3)
    one, other, cold = (start(scene, 2) for _ in range(3))
    for control in controls(100, 2):
        one.step(control)
    state, everywhere = one.get_state(), torch.ones(2, dtype=torch.bool)
    other.reset(everywhere, state["qpos"], state["qvel"], state["warmstart"])
    cold.reset(everywhere, state["qpos"], state["qvel"])
    for physics in (one, other, cold):
        physics.step(torch.zeros(2, 1))
    assert torch.equal(outcome(one), outcome(other))
    assert not torch.equal(outcome(one), outcome(cold))


@pytest.mark.parametrize("evil", [torch.nan, 1e15])
def test_a_broken_world_keeps_its_mocap_poses(evil):
    physics = start(boxes(), 3)
    place, turn = torch.full((3, 1, 3), -0.5), torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat(3, 1, 1)
    physics.step(torch.zeros(3, 1), place, turn)
    state = physics.get_state()
    state["qvel"][1] = evil
    physics.set_state(state)
    physics.step(torch.zeros(3, 1))
    assert physics.faults.tolist() == [False, True, False]
    for name in ("mocap_pos", "mocap_quat"):
        assert torch.equal(physics.get_state()[name], state[name])


def test_a_control_may_be_a_part_of_a_tensor_in_single_precision_that_wants_gradients():
    one, other = (start(boxes(), 2, frames=2) for _ in range(2))
    for wide in controls(3, 4):
        one.step(wide[::2].double().contiguous())
        other.step(wide.clone().requires_grad_()[::2])
    assert torch.equal(outcome(one), outcome(other))


def test_a_bad_control_is_a_fault_of_its_world_and_of_its_step():
    physics = start(boxes(), 3)
    control = torch.zeros(3, 1)
    control[2] = torch.nan
    physics.step(control)
    assert physics.faults.tolist() == [False, False, True]
    physics.step(torch.zeros(3, 1))
    assert not physics.faults.any()


@pytest.mark.parametrize("time", list(SensorTime))
@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
def test_worlds_out_of_memory_are_faults_wherever_it_runs_out(integrator, time):
    """There is memory for boxes in the air. Two worlds hit the floor: in a frame or only in the reading after it."""
    scene = boxes(integrator, memory="14K")
    small, large = (start(scene, 4, sensor_time=time) for scene in (scene, boxes(integrator)))
    qpos = torch.as_tensor(scene.model.qpos0).repeat(4, 1)
    qpos[:, 2], qpos[:, 9] = 2.0, 3.0
    qpos[1, 2] = qpos[3, 2] = 0.19  # beyond the reach of a box turned any way, until a frame later
    qvel = torch.zeros(4, scene.model.nv, dtype=qpos.dtype)
    qvel[[1, 3], 2] = -25.0
    for physics in (small, large):
        physics.reset(torch.ones(4, dtype=torch.bool), qpos, qvel)
        physics.step(torch.zeros(4, 1))
    if time is SensorTime.END or integrator == "RK4":
        assert small.faults.tolist() == [False, True, False, True]
    else:
        assert not small.faults.any()
        small.step(torch.zeros(4, 1))
        large.step(torch.zeros(4, 1))
        assert small.faults.tolist() == [False, True, False, True]
    assert not large.faults.any()
    assert torch.equal(outcome(small)[[0, 2]], outcome(large)[[0, 2]])


def test_fields_that_are_not_given_again_are_the_models():
    scene = boxes()
    physics, plain = start(scene, 4), start(scene, 4)
    mass = torch.as_tensor(np.array(scene.model.body_mass)).repeat(2, 1)
    physics.set_fields({"body_mass": 3 * mass}, 2)
    physics.set_fields({"geom_friction": torch.as_tensor(np.array(scene.model.geom_friction)).repeat(4, 1, 1)}, 1)
    for control in controls(50, 4):
        physics.step(control)
        plain.step(control)
    assert torch.equal(outcome(physics), outcome(plain))


def test_what_cannot_be_stepped_is_named():
    option = '<option><flag sleep="enable"/></option>'
    sleepy = f'<mujoco>{option}<worldbody><body><freejoint/><geom size=".1"/></body></worldbody></mujoco>'
    with pytest.raises(UsageError, match=r"scene 'scene' under backend 'mujoco': sleep is not supported"):
        make_physics(SceneBuilder(sleepy).build(), 2, backend="mujoco")


def test_nothing_is_logged_and_the_callbacks_come_back(tmp_path):
    code = (
        "import mujoco, torch\n"
        "from metarl.envs.physics import SceneBuilder, make_physics\n"
        "mujoco.set_mju_user_warning(heard := [].append)\n"
        "xml = '<mujoco><worldbody><body><freejoint/><geom size=\".1\"/></body></worldbody></mujoco>'\n"
        "physics = make_physics(SceneBuilder(xml).build(), 2, backend='mujoco')\n"
        "physics.set_state({'qvel': torch.full((2, 6), float('nan'))})\n"
        "physics.step(torch.zeros(2, 0))\n"
        "print(physics.faults.tolist(), heard.__self__, mujoco.get_mju_user_warning() is heard)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[True, True] [] True"
    assert done.stderr == ""
    assert os.listdir(tmp_path) == []


def test_the_clock_stands_still_only_inside():
    model = boxes().model
    data = mujoco.MjData(model)

    def seconds():
        mujoco.mj_step(model, data)
        timer = data.timer[mujoco.mjtTimer.mjTIMER_STEP]
        spent, timer.duration = timer.duration, 0
        return spent

    assert seconds() > 0
    with SetAside():
        with SetAside():
            assert seconds() == 0
        assert seconds() == 0
    assert seconds() > 0

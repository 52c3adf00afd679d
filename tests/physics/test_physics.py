"""Both engines against MuJoCo's own `mj_step`, one world at a time."""

import mujoco
import numpy as np
import pytest
import torch

from metarl import UsageError
from metarl.envs.physics import SceneBuilder, SensorTime, make_physics

ARM = """
<mujoco model="arm">
  <option timestep="0.005" integrator="{integrator}"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>
    <body name="table" pos="0 0 0.05" mocap="true"><geom type="box" size=".3 .3 .05"/></body>
    <body name="ball" pos="0 0 0.35"><freejoint/><geom size=".1" mass="1"/></body>
    <body name="arm" pos="1 0 1">
      <joint name="shoulder" axis="0 1 0" damping=".1"/><geom type="capsule" fromto="0 0 0 .5 0 0" size=".05"/>
      <body name="hand" pos=".5 0 0"><joint axis="0 1 0" damping=".1"/>
        <geom type="capsule" fromto="0 0 0 .3 0 0" size=".04"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="shoulder" gear="5" ctrlrange="-1 1"/></actuator>
</mujoco>
"""

WARP = pytest.param("warp", marks=pytest.mark.slow)  # compiling the kernels of a scene takes half a minute
ENGINES = ["mujoco", WARP]
TOLERANCE = {"mujoco": 1e-9, "warp": 2e-4}


def arm(integrator="Euler"):
    builder = SceneBuilder(ARM.format(integrator=integrator))
    return builder.sense("ball", "body_position", ["ball"]).sense("hand", "inertial_position", ["hand"]).build()


def rest(scene, worlds):
    qpos = torch.as_tensor(scene.model.qpos0).repeat(worlds, 1)
    return qpos, torch.zeros(worlds, scene.model.nv, dtype=qpos.dtype)


def everywhere(worlds):
    return torch.ones(worlds, dtype=torch.bool)


def start(scene, worlds, backend, **options):
    physics = make_physics(scene, worlds, backend=backend, **options)
    physics.reset(everywhere(worlds), *rest(scene, worlds))
    return physics


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
@pytest.mark.parametrize("time", list(SensorTime))
def test_steps_as_mj_step_does(backend, integrator, time):
    scene, frames, worlds = arm(integrator), 3, 3
    physics = start(scene, worlds, backend, frames=frames, sensor_time=time)
    references = [mujoco.MjData(scene.model) for _ in range(worlds)]
    rng = np.random.default_rng(0)
    for number in range(25):
        controls = rng.uniform(-1, 1, (worlds, 1))
        tables = np.zeros((worlds, 1, 3))
        tables[:, 0, 2] = 0.05 + 0.002 * number * np.arange(worlds)
        physics.step(torch.as_tensor(controls), torch.as_tensor(tables))
        for world, data in enumerate(references):
            data.ctrl[:], data.mocap_pos[:] = controls[world], tables[world]
            mujoco.mj_step(scene.model, data, nstep=frames)
            np.testing.assert_allclose(physics.qpos[world], data.qpos, atol=TOLERANCE[backend])
            np.testing.assert_allclose(physics.qvel[world], data.qvel, atol=100 * TOLERANCE[backend])
            if time is SensorTime.NONE:
                continue
            if time is SensorTime.END:
                after = mujoco.MjData(scene.model)
                after.qpos[:], after.qvel[:] = data.qpos, data.qvel
                after.mocap_pos[:] = data.mocap_pos
                mujoco.mj_forward(scene.model, after)
                data = after
            ball = scene.read(physics.sensordata, "ball")[world, 0]
            hand = scene.read(physics.sensordata, "hand")[world, 0]
            np.testing.assert_allclose(ball, data.body("ball").xpos, atol=TOLERANCE[backend])
            np.testing.assert_allclose(hand, data.body("hand").xipos, atol=TOLERANCE[backend])
    physics.close()


@pytest.mark.parametrize("backend", ENGINES)
def test_reset_and_forward_touch_chosen_worlds_only(backend):
    scene = arm()
    physics = start(scene, 4, backend)
    for _ in range(5):
        physics.step(torch.full((4, 1), 0.5))
    before, readings = physics.qpos.clone(), physics.sensordata.clone()
    chosen = torch.tensor([False, True, False, True])
    qpos, qvel = rest(scene, 4)
    physics.reset(chosen, qpos, qvel)
    physics.forward(chosen)
    assert torch.equal(physics.qpos[~chosen], before[~chosen])
    assert torch.equal(physics.sensordata[~chosen], readings[~chosen])
    torch.testing.assert_close(physics.qpos[chosen].double(), qpos[chosen])
    torch.testing.assert_close(scene.read(physics.sensordata, "ball")[1, 0].double(), qpos.new_tensor([0, 0, 0.35]))


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
def test_state_restores_the_future(backend, integrator):
    physics = start(arm(integrator), 3, backend, frames=2, sensor_time=SensorTime.EVALUATION)
    controls = torch.linspace(-1, 1, 30).reshape(10, 3, 1)
    for control in controls[:5]:
        physics.step(control, torch.rand(3, 1, 3) * 0.05)
    state = physics.get_state()
    futures = []
    for _ in range(2):
        physics.set_state(state)
        for control in controls[5:]:
            physics.step(control)
        futures.append(torch.cat([physics.qpos, physics.qvel, physics.sensordata], dim=1).clone())
    assert torch.equal(*futures)


@pytest.mark.parametrize("backend", ENGINES)
def test_doubled_mass_behaves_as_a_model_compiled_with_it(backend):
    scene = arm()
    heavy = scene.spec.copy()
    for geom in heavy.body("arm").geoms + heavy.body("hand").geoms:
        geom.density *= 2
    fields = {}
    for name in ("body_mass", "body_inertia"):
        original = torch.as_tensor(np.array(getattr(scene.model, name)))
        doubled = original.clone()
        for body in ("arm", "hand"):
            doubled[scene.model.body(body).id] *= 2
        fields[name] = torch.stack([original, doubled])
    physics = start(scene, 4, backend, frames=2)
    physics.set_fields(fields, worlds_per_row=2)
    compiled = heavy.compile()
    plain, twice = mujoco.MjData(scene.model), mujoco.MjData(compiled)
    for number in range(40):
        control = np.sin(number / 5)
        physics.step(torch.full((4, 1), control))
        for model, data in ((scene.model, plain), (compiled, twice)):
            data.ctrl[:] = control
            mujoco.mj_step(model, data, nstep=2)
    for world, data in enumerate([plain, plain, twice, twice]):
        np.testing.assert_allclose(physics.qpos[world], data.qpos, atol=10 * TOLERANCE[backend])
    assert abs(plain.qpos[-1] - twice.qpos[-1]) > 0.01


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
@pytest.mark.parametrize("evil", [torch.nan, torch.inf, 1e15])
def test_a_broken_world_is_marked_and_leaves_its_neighbours_alone(backend, integrator, evil):
    scene, options = arm(integrator), {"frames": 2, "sensor_time": SensorTime.EVALUATION}
    broken, healthy = (start(scene, 4, backend, **options) for _ in range(2))
    state = broken.get_state()
    state["qvel"][2, 0] = evil
    broken.set_state(state)
    others = torch.tensor([True, True, False, True])
    for number in range(6):
        for physics in (broken, healthy):
            physics.step(torch.full((4, 1), 0.3))
        assert broken.faults.tolist() == ([False, False, True, False] if number == 0 else [False] * 4)
        assert not healthy.faults.any()
        broken.reset(broken.faults, *rest(scene, 4))
        assert torch.equal(broken.qpos[others], healthy.qpos[others])
        assert torch.equal(broken.qvel[others], healthy.qvel[others])
    assert broken.qpos.isfinite().all()
    broken.reset(~others, *rest(scene, 4))
    fresh = start(scene, 4, backend, **options)
    for physics in (broken, fresh):
        physics.step(torch.full((4, 1), 0.3))
    assert torch.equal(broken.qpos[2], fresh.qpos[2])


@pytest.mark.parametrize("backend", ENGINES)
def test_contact_overflow_is_a_fault_of_its_own_world(backend):
    """Room for a world with 4 contacts, not for one with 24."""
    boxes = "".join(f'<body name="b{i}"><freejoint/><geom type="box" size=".1 .1 .1"/></body>' for i in range(6))
    memory = "40K" if backend == "mujoco" else "1M"
    scene = SceneBuilder(
        f'<mujoco><size memory="{memory}"/><worldbody><geom type="plane" size="5 5 1"/>{boxes}</worldbody></mujoco>'
    ).build()
    options = {} if backend == "mujoco" else {"contacts_per_world": 11}
    qpos, qvel = rest(scene, 3)
    qpos[:, 0::7] = torch.arange(6.0, dtype=qpos.dtype)
    qpos[:, 2::7] = 3.0
    qpos[:, 2] = 0.099
    full = qpos.clone()
    full[1, 2::7] = 0.099
    crowded, roomy = (make_physics(scene, 3, backend=backend, frames=3, **options) for _ in range(2))
    crowded.reset(everywhere(3), full, qvel)
    roomy.reset(everywhere(3), qpos, qvel)
    for physics in (crowded, roomy):
        physics.step(torch.zeros(3, 0))
    assert crowded.faults.tolist() == [False, True, False]
    assert not roomy.faults.any()
    assert torch.equal(crowded.qpos[[0, 2]], roomy.qpos[[0, 2]])


def test_trajectories_depend_neither_on_threads_nor_on_the_batch():
    scene = arm("RK4")
    options = {"backend": "mujoco", "frames": 2, "sensor_time": SensorTime.EVALUATION}
    one, many = start(scene, 1, **options, threads=1), start(scene, 9, **options, threads=3)
    for number in range(20):
        control = torch.linspace(-1, 1, 9)[:, None] * np.cos(number)
        many.step(control)
        one.step(control[4:5])
    assert torch.equal(one.qpos[0], many.qpos[4])
    assert torch.equal(one.sensordata[0], many.sensordata[4])


@pytest.mark.parametrize("evil_frame", ["first", "last"])
def test_a_world_that_breaks_in_a_frame_taken_apart_is_marked(evil_frame):
    """One frame is all that the step has, or the last of two."""
    frames = {"first": 1, "last": 2}[evil_frame]
    physics = start(arm("RK4"), 3, "mujoco", frames=frames, sensor_time=SensorTime.EVALUATION)
    physics.step(torch.tensor([[0.1], [0.1], [0.1]]))
    assert not physics.faults.any()
    state = physics.get_state()
    state["qvel"][1] = 9e9  # below MuJoCo's limit of 1e10, which it exceeds on the way
    physics.set_state(state)
    physics.step(torch.zeros(3, 1))
    assert physics.faults.tolist() == [False, True, False]


def test_fields_that_cannot_vary_are_named():
    physics = start(arm(), 4, "mujoco")
    mass = torch.ones(2, physics.scene.model.nbody)
    with pytest.raises(UsageError, match="'geom_size' cannot differ"):
        physics.set_fields({"geom_size": mass}, 2)
    with pytest.raises(UsageError, match=r"'body_mass' .* want \[2, 5\], got \[2, 4\]"):
        physics.set_fields({"body_mass": mass[:, 1:]}, 2)
    with pytest.raises(UsageError, match="'body_mass'"):
        physics.set_fields({"body_mass": mass}, 3)


def test_warp_names_what_it_lacks():
    scene = SceneBuilder(
        '<mujoco><option noslip_iterations="2"/><worldbody><body><joint/><geom size=".1"/></body></worldbody></mujoco>'
    ).build()
    with pytest.raises(UsageError, match=r"'warp': noslip solver not implemented.* use backend 'mujoco'"):
        make_physics(scene, 2, backend="warp")


@pytest.mark.gpu
@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
@pytest.mark.parametrize("time", list(SensorTime))
def test_graphs_on_a_gpu_step_as_the_cpu_does(integrator, time):
    scene, worlds = arm(integrator), 64
    reference = start(scene, worlds, "mujoco", frames=3, sensor_time=time)
    physics = make_physics(scene, worlds, backend="warp", device="cuda", frames=3, sensor_time=time)
    physics.reset(everywhere(worlds).cuda(), *(part.cuda() for part in rest(scene, worlds)))
    for number in range(25):
        control = torch.linspace(-1, 1, worlds)[:, None] * np.cos(number)
        reference.step(control)
        physics.step(control.cuda())
        torch.testing.assert_close(physics.qpos.cpu().double(), reference.qpos, atol=1e-3, rtol=0)
        if time is not SensorTime.NONE:
            torch.testing.assert_close(physics.sensordata.cpu().double(), reference.sensordata, atol=1e-3, rtol=0)
    chosen = torch.arange(worlds, device="cuda") % 2 == 0
    qpos, qvel = (part.cuda() for part in rest(scene, worlds))
    physics.reset(chosen, qpos, qvel)
    torch.testing.assert_close(physics.qpos[chosen], qpos[chosen].float())

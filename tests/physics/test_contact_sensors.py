"""Forces of contacts between two geoms: read where they can touch, looked past where they cannot."""

import mujoco
import pytest
import torch

from metarl import UsageError
from metarl.envs.physics import SceneBuilder, make_physics

BALLS = """
<mujoco model="balls">
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>
    <body name="table" pos="0 0 0.05" mocap="true"><geom name="top" type="box" size=".3 .3 .05"/></body>
    <body name="ball" pos="0 0 0.25"><freejoint/><geom name="ball" size=".1" mass="1"/></body>
    <body name="other" pos="0 0 1.5"><freejoint/><geom name="other" size=".1" mass="2"/></body>
  </worldbody>
</mujoco>
"""
WARP = pytest.param("warp", marks=pytest.mark.slow)


def balls(pairs=(("ball", "top"), ("ball", "other"))):
    return SceneBuilder(BALLS).sense("places", "body_position", ["ball", "other"]).sense_contact("touch", pairs).build()


def reference(scene, qpos, steps):
    """Sensor data of `mj_forward` at the states that `mj_step` reaches, 5 frames a step."""
    data = mujoco.MjData(scene.model)
    data.qpos[:] = qpos
    for _ in range(steps):
        mujoco.mj_step(scene.model, data, nstep=5)
        mujoco.mj_forward(scene.model, data)
        yield torch.from_numpy(data.sensordata.copy())


@pytest.mark.parametrize("backend", ["mujoco", WARP])
def test_readings_are_those_of_a_forward_at_the_end(backend):
    scene, worlds, steps = balls(), 3, 80
    physics = make_physics(scene, worlds, backend=backend, frames=5)
    qpos = torch.from_numpy(scene.model.qpos0).repeat(worlds, 1)
    qpos[:, 2] = torch.tensor([0.2, 0.25, 3.0])  # at rest on the table, above it, and above the other
    physics.reset(torch.ones(worlds, dtype=torch.bool), qpos, torch.zeros(worlds, scene.model.nv))
    expected = [list(reference(scene, row.numpy(), steps)) for row in qpos]
    touched = torch.zeros(worlds, 2, dtype=torch.bool)
    for step in range(steps):
        physics.step(torch.zeros(worlds, 0))
        theirs = torch.stack([row[step] for row in expected])
        ours = physics.sensordata.double()
        close = {"mujoco": 1e-6, "warp": 1e-3}[backend]
        places = scene.read(ours, "places"), scene.read(theirs, "places")
        torch.testing.assert_close(*places, rtol=0, atol=close)
        forces, official = (scene.read(values, "touch")[:, :, 0] for values in (ours, theirs))
        if backend == "mujoco":
            torch.testing.assert_close(forces, official, rtol=1e-4, atol=1e-4)
            assert ((forces > 1e-6) == (official > 1e-6)).all()
        touched |= official > 0
    physics.close()
    assert touched.tolist() == [[True, True], [True, True], [False, True]]


def test_geoms_can_touch_only_within_their_bounds():
    scene = balls()
    ball_and_top, ball_and_other = scene.touches.values()
    assert ball_and_other.reach == pytest.approx(0.2)
    physics = make_physics(scene, 2, backend="mujoco")
    qpos = torch.from_numpy(scene.model.qpos0).repeat(2, 1)
    qpos[1, 9] = 0.44  # the other ball's height: 0.19 above the first
    physics.reset(torch.ones(2, dtype=torch.bool), qpos, torch.zeros(2, scene.model.nv))
    physics.forward(torch.ones(2, dtype=torch.bool))
    assert ball_and_other.possible(physics.sensordata.numpy()).tolist() == [False, True]
    assert ball_and_top.possible(physics.sensordata.numpy()).all()
    physics.close()


def test_a_plane_is_always_near():
    (touch,) = balls([("ball", "floor")]).touches.values()
    assert touch.reach == float("inf")


def test_a_missing_geom_is_named():
    with pytest.raises(UsageError, match="no geom 'moon'"):
        balls([("ball", "moon")])

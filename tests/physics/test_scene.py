import mujoco
import pytest
import torch

from metarl import UsageError
from metarl.envs.physics import SceneBuilder, make_physics
from metarl.envs.physics.capacity import contact_capacity

BALL = """
<mujoco model="ball">
  <asset>
    <texture name="checker" type="2d" builtin="checker" width="512" height="512"/>
    <material name="shiny" texture="checker"/>
  </asset>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" material="shiny"/>
    <body name="ball" pos="0 0 1"><freejoint/><geom name="skin" size=".1" material="shiny"/>
      <geom name="stripe" type="box" size=".1 .1 .01" contype="0" conaffinity="0" mass="0"/>
      <body pos=".2 0 0"><geom size=".05"/></body>
    </body>
  </worldbody>
</mujoco>
"""


SHAPELESS = "<mujoco><worldbody><geom/></worldbody></mujoco>"


def test_pictures_leave_the_simulation_model_and_dynamics_stay():
    whole = mujoco.MjModel.from_xml_string(BALL)
    scene = SceneBuilder(BALL).build()
    assert scene.model.ntex == scene.model.nmat == 0
    assert scene.model.ngeom == whole.ngeom - 1
    assert scene.rendering_model().ntex == 1
    for field in ("body_mass", "body_inertia", "body_ipos", "body_iquat"):
        assert (getattr(scene.model, field) == getattr(whole, field)).all()


def test_sensor_groups_are_laid_out_by_object():
    builder = SceneBuilder(BALL)
    assert builder.bodies == ["ball", "body2"]
    scene = (
        builder.sense("where", "body_position", builder.bodies)
        .sense("turned", "body_quaternion", ["body2"])
        .sense("touch", "contact_wrench", builder.bodies)
        .build()
    )
    assert scene.model.nsensordata == 2 * 3 + 4 + 2 * 9
    assert {name: (group.start, group.count, group.size) for name, group in scene.sensors.items()} == {
        "where": (0, 2, 3),
        "turned": (6, 1, 4),
        "touch": (10, 2, 9),
    }


def test_sensors_of_the_file_are_read_by_their_names():
    sensors = '<sensor><framepos name="skin" objtype="geom" objname="skin"/><clock/></sensor></mujoco>'
    scene = SceneBuilder(BALL.replace("</mujoco>", sensors)).sense("where", "body_position", ["ball"]).build()
    assert scene.model.nsensordata == 3 + 1 + 3
    physics = make_physics(scene, 2, backend="mujoco")
    physics.step(torch.zeros(2, 0))
    height = scene.read(physics.sensordata, "skin")[:, 0, 2]
    assert torch.equal(height, scene.read(physics.sensordata, "where")[:, 0, 2])
    assert torch.equal(height, physics.qpos[:, 2])
    physics.close()


NOWHERE = '<actuator><motor joint="road"/></actuator></mujoco>'
"""MuJoCo's copy of a specification leaves this out without a word."""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SceneBuilder(SHAPELESS).build(), ["scene", "compile", "size"]),
        (lambda: SceneBuilder(BALL.replace("</mujoco>", NOWHERE)).build(), ["scene", "compile", "'road'"]),
        (lambda: SceneBuilder("<mujoco><broken></mujoco>"), ["scene", "load"]),
        (lambda: SceneBuilder("nowhere/robot.xml"), ["nowhere/robot.xml", "not there"]),
        (lambda: SceneBuilder(BALL).sense("a", "body_position", ["bal"]), ["no body 'bal'", "ball"]),
        (lambda: SceneBuilder(BALL).sense("a", "site_position", ["tip"]), ["no site 'tip'", "none with a name"]),
        (lambda: SceneBuilder(BALL).sense("a", "smell", ["ball"]), ["'smell'", "body_position"]),
        (lambda: SceneBuilder(BALL).build().read(torch.zeros(1, 0), "touch"), ["no sensors 'touch'"]),
        (lambda: make_physics(SceneBuilder(BALL).build(), 0, backend="mujoco"), ["number of worlds", "0"]),
        (lambda: make_physics(SceneBuilder(BALL).build(), 2, backend="mujoco", frames=0), ["number of frames"]),
        (lambda: make_physics(SceneBuilder(BALL).build(), 2, backend="mujoco", threads=0), ["number of threads", "0"]),
        (lambda: make_physics(SceneBuilder(BALL).build(), 2, backend="bullet"), ["'bullet'", "mujoco, warp"]),
        (lambda: make_physics(SceneBuilder(BALL).build(), 2, backend="mujoco", device="cuda"), ["CPU threads", "warp"]),
    ],
)
def test_mistakes_are_named_in_one_line(make, words):
    with pytest.raises(UsageError) as caught:
        make()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_capacity_counts_what_may_touch():
    # Floor and ball, floor and the welded small ball; the two balls are one rigid body.
    assert contact_capacity(SceneBuilder(BALL).build().model).contacts == 8  # the least room there is
    dominoes = "".join(
        f'<body name="d{i}" pos="{i} 0 1"><freejoint/><geom type="capsule" size=".1 .2"/></body>' for i in range(6)
    )
    scene = SceneBuilder(f'<mujoco><worldbody><geom type="plane" size="9 9 1"/>{dominoes}</worldbody></mujoco>').build()
    capacity = contact_capacity(scene.model)
    assert capacity.contacts == 6 * 2 + (6 * 5 // 2) * 2  # two ends of each on the floor, two where parallel
    assert capacity.rows_per_contact == 4  # pyramidal, sliding friction

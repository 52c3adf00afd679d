"""Fixtures that can be placed world by world, against the package's own models, where each stands in the model."""

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs.metaworld.episode_starts import episode_starts
from metarl.envs.metaworld.family import random_space
from metarl.envs.metaworld.package import scene_file
from metarl.envs.metaworld.scenes import task_scene
from metarl.envs.metaworld.task_sets import TASKS
from metarl.envs.metaworld.tasks import definition

FRAMES = 200
PLACED = [name for name in TASKS if definition(name).fixture]
UNTOUCHED = {"dial-turn-v3", "door-lock-v3", "door-unlock-v3", "faucet-open-v3", "faucet-close-v3", "window-open-v3"}
"""Tasks whose hand meets the fixture's moving parts first."""
JAMMED = {"button-press-v3"}
"""The contacts come in another order, and where 25 of them jam the hand in the box this is 1e-17 m once, then 1e-10."""
WELD = [0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5]  # what the package's `reset_mocap_welds` and its scenes come to


def stock_model(name, vector):
    """The package's model with the fixture where the task has it."""
    task, model = definition(name), mujoco.MjModel.from_xml_path(str(scene_file(definition(name).scene)))
    model.body(task.fixture).pos[:] = task.fixture_position(torch.from_numpy(vector)[None])[0]
    model.eq_data[model.eq_type == mujoco.mjtEq.mjEQ_WELD, : len(WELD)] = WELD
    return model


def our_data(name, start):
    data = mujoco.MjData(task_scene(definition(name).scene).scene.model)
    data.mocap_pos[:], data.mocap_quat[:] = start.mocap_pos[0], start.mocap_quat[0]
    return data


def put(model, data, start, hand):
    """Both at the start of the task, the commanded hand at `hand`, the gripper closing."""
    data.qpos[:], data.qvel[:] = start.qpos[0], start.qvel[0]
    number = model.body("mocap").mocapid[0]
    data.mocap_pos[number], data.mocap_quat[number] = hand, [1.0, 0.0, 1.0, 0.0]
    data.ctrl[:] = 1.0, -1.0


def attached(model, body):
    """The numbers of the body and of what is rigidly fixed to it."""
    fixed = {model.body(body).id}
    for number in range(model.nbody):  # parents come before their children
        if model.body_parentid[number] in fixed and not model.body_jntnum[number]:
            fixed.add(number)
    return fixed


def nearest(model, data, bodies, place):
    """The place of the nearest geom of `bodies` that can be touched; None where there is none."""
    mujoco.mj_forward(model, data)
    geoms = [
        g
        for g in range(model.ngeom)
        if model.geom_bodyid[g] in bodies and model.geom_contype[g] | model.geom_conaffinity[g]
    ]
    return min(
        (data.geom_xpos[geom] for geom in geoms), key=lambda position: np.linalg.norm(position - place), default=None
    )


def contacts(data):
    """Depths of all contacts, in order: geoms have other numbers in the two models."""
    return np.sort(data.contact.dist[: data.ncon])


@pytest.mark.parametrize("name", PLACED)
def test_a_placed_fixture_moves_the_world_as_the_packages_model(name):
    low, high = (bound[: len(definition(name).random_low)] for bound in random_space(name))
    vector = np.random.default_rng(0).uniform(low, high)
    start = episode_starts(name, torch.from_numpy(vector)[None])
    stock, ours = stock_model(name, vector), task_scene(definition(name).scene).scene.model
    pairs = [(stock, mujoco.MjData(stock)), (ours, our_data(name, start))]
    fixture = attached(ours, definition(name).fixture)
    begin = np.array(definition(name).hand_start)
    aim = nearest(ours, our_data(name, start), fixture, begin)
    aim = start.observed[0, 4:7].numpy() if aim is None else aim
    tolerance, touched = 1e-8 if name in JAMMED else 1e-12, False
    for frame in range(FRAMES):
        hand = begin + 1.3 * (aim - begin) * frame / FRAMES
        for model, data in pairs:
            if frame == 0:
                put(model, data, start, hand)
            data.mocap_pos[model.body("mocap").mocapid[0]] = hand
            mujoco.mj_step(model, data)
        (_, theirs), (_, own) = pairs
        assert own.ncon == theirs.ncon, f"frame {frame}"
        np.testing.assert_allclose(contacts(own), contacts(theirs), rtol=0, atol=tolerance)
        touched |= any(fixture & set(pair) for pair in ours.geom_bodyid[own.contact.geom].tolist())
    print(f"{name}: {abs(own.qpos - theirs.qpos).max():.1e} after {FRAMES} frames, touched: {touched}")
    assert touched or name in UNTOUCHED
    np.testing.assert_allclose(own.qpos, theirs.qpos, rtol=0, atol=tolerance)
    np.testing.assert_allclose(own.qvel, theirs.qvel, rtol=0, atol=1000 * tolerance)

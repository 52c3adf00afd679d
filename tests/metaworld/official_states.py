"""The official environments as an oracle: their states as views of ours, their rewards and info beside them."""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from metarl.envs.metaworld.definition import TaskDefinition
from metarl.envs.metaworld.views import ARM_FRAMES, Layout, View

INFO = ("near_object", "grasp_success", "grasp_reward", "in_place_reward", "obj_to_target")
SETTLING_STEPS = 50  # of the official `_reset_hand`


def layout_of(definition: TaskDefinition, model: Any) -> Layout:
    joints = {model.joint(number).name: int(model.jnt_qposadr[number]) for number in range(model.njnt)}
    return Layout.in_order([*ARM_FRAMES, *definition.frames], joints)


def view_of(data: Any, layout: Layout) -> View:
    """What MuJoCo's data hold now."""
    readings = np.concatenate([_read(data, *frame.split(":")) for frame in layout.frames])
    return View(layout, torch.from_numpy(readings)[None], torch.from_numpy(data.qpos.copy())[None])


def _read(data: Any, kind: str, name: str) -> np.ndarray:
    import mujoco

    if kind in ("body", "site", "geom"):
        return getattr(data, kind)(name).xpos
    if kind == "body_quat":
        return data.body(name).xquat
    if kind == "geom_quat":
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, data.geom(name).xmat.ravel())
        return quaternion
    pads = [data.geom(f"{side}pad_geom").id for side in ("left", "right")]
    geom = data.geom(name).id
    return np.array([_force(data, {pad, geom}) for pad in pads])


def _force(data: Any, pair: set[int]) -> float:
    contacts = [contact for contact in data.contact if {contact.geom1, contact.geom2} == pair]
    return float(sum(data.efc_force[contact.efc_address] for contact in contacts))


@dataclass
class Beginning:
    """An official episode's start."""

    vector: torch.Tensor
    settled: View
    placed: View
    settled_qpos: np.ndarray
    qpos: np.ndarray
    observation: np.ndarray


@dataclass
class Moment:
    """One official step: the view after it, the action, and what the official environment said."""

    view: View
    action: torch.Tensor
    observation: np.ndarray
    reward: float
    info: dict[str, float]
    first: bool


def make_official(name: str, version: str = "v2") -> Any:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = ALL_V3_ENVIRONMENTS[name](reward_function_version=version)
    env.max_path_length = 10**9
    if name == "button-press-topdown-wall-v3" and version == "v2":
        env.compute_reward = _as_of_3_1_1(env.compute_reward)
    return env


def _as_of_3_1_1(compute_reward: Any) -> Any:
    """Metaworld 3.1.1 rewards the open gripper where 3.0 rewards the closed one, and uses it for nothing else."""

    def changed(action: np.ndarray, observation: np.ndarray) -> tuple[float, ...]:
        mirrored = observation.copy()
        mirrored[3] = 1 - observation[3]
        reward, reach, _, *rest = compute_reward(action, mirrored)
        return reward, reach, observation[3], *rest

    return changed


def random_vector(env: Any, seed: int) -> np.ndarray:
    """A random vector that the official environment draws: some want objects and targets apart."""
    env.seed(seed)
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    env.reset()
    return env._last_rand_vec.copy()


def quiet_policy(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """The package's scripted policy, without its warnings that the environment will clip what it asks for."""
    from metaworld.policies import ENV_POLICY_MAP

    policy = ENV_POLICY_MAP[name]()

    def act(observation: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return policy.get_action(observation)

    return act


def begin(env: Any, definition: TaskDefinition, vector: np.ndarray) -> Beginning:
    """Starts an episode of the task that `vector` makes, goal observable."""
    import mujoco
    from metaworld.types import Task

    data = {"rand_vec": vector.copy(), "env_cls": type(env), "partially_observable": False}
    env.set_task(Task(definition.name, pickle.dumps(data)))
    layout = layout_of(definition, env.model)
    seen: dict[str, Any] = {}
    reset_hand = env._reset_hand

    def recorded(*args: Any, **kwargs: Any) -> None:
        reset_hand(*args, **kwargs)
        seen["settled"], data = view_of(env.data, layout), copy.copy(env.data)
        for _ in range(env.frame_skip * (definition.settling_steps - SETTLING_STEPS)):
            mujoco.mj_step(env.model, data)
        seen["qpos"] = data.qpos.copy()

    env._reset_hand = recorded
    observation, _ = env.reset()
    env._reset_hand = reset_hand
    return Beginning(
        torch.from_numpy(vector.copy())[None],
        seen["settled"],
        view_of(env.data, layout),
        seen["qpos"],
        env.data.qpos.copy(),
        observation,
    )


def play(env: Any, beginning: Beginning, actions: Any, num_steps: int) -> Iterator[Moment]:
    """Steps with `actions(observation)`."""
    layout, observation = beginning.settled.layout, beginning.observation
    for step in range(num_steps):
        action = np.asarray(actions(observation.copy()), np.float64)  # some policies write into what they are given
        observation, reward, _, _, info = env.step(action)
        info = {name: float(value) for name, value in info.items()}
        view = view_of(env.data, layout)
        yield Moment(view, torch.from_numpy(action)[None], observation, float(reward), info, step == 0)

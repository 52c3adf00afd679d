"""How a step is scored: a task's reward, observation and memory as one function of tensors, on the CPU compiled."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.metaworld.compiled import CompiledRows
from metarl.envs.metaworld.definition import Start, TaskDefinition
from metarl.envs.metaworld.scenes import task_scene
from metarl.envs.metaworld.tasks import definition
from metarl.envs.metaworld.views import View

OUTCOMES = (
    "reward",
    "success",
    "near_object",
    "grasp_success",
    "grasp_reward",
    "in_place_reward",
    "obj_to_target",
)
HAND_STEP = 0.01
"""Metres that an action of 1 moves the commanded hand."""
_MEMORY = "memory."

Tensors = Mapping[str, Tensor]


def score(task: TaskDefinition, version: str, inputs: Tensors) -> dict[str, Tensor]:
    """What a step is worth under reward `version`.

    `inputs`: the engine's `sensordata` and `qpos` in the state reached, the `action` `[R, 4]` that led there, whether
    the step was the `first` of its episode `[R]`, and the tensors of `Start`, as `scoring_inputs` names them. Returns
    `outcomes` `[R, 7]`, columns as `OUTCOMES` names them, what is `observed` `[R, 18]`, and new values for entries of
    the memory, under their names among the inputs.
    """
    view = View(task_scene(task.scene).layout, inputs["sensordata"], inputs["qpos"])
    extra = {name.removeprefix(_MEMORY): value for name, value in inputs.items() if name.startswith(_MEMORY)}
    memory = Start(inputs["target"], inputs["object"], inputs["tcp"], extra)
    new = task.remember(view, memory, inputs["first"])
    memory = replace(memory, extra={**extra, **new})
    evaluate = task.evaluate if version == "v2" else task.evaluate_v1
    outcome = evaluate(view, memory, inputs["action"])
    outcomes = torch.stack([getattr(outcome, name) for name in OUTCOMES], 1)  # marks become 0 and 1
    return {
        "outcomes": outcomes,
        "observed": task.observe(view),
        **{_MEMORY + name: value for name, value in new.items()},
    }


def command(inputs: Tensors) -> dict[str, Tensor]:
    """Where the `hand` `[R, 3]` is commanded next, between `low` and `high`, and the fingers' `control` `[R, 2]`."""
    action = inputs["action"]
    moved = inputs["hand"] + HAND_STEP * action[:, :3].clamp(-1, 1)
    control = torch.stack([action[:, 3], -action[:, 3]], 1)
    return {"control": control, "hand": moved.clamp(inputs["low"], inputs["high"])}


def scoring_inputs(
    sensordata: Float[Tensor, "R S"],
    qpos: Float[Tensor, "R nq"],
    action: Float[Tensor, "R 4"],
    first: Bool[Tensor, "R"],
    memory: Start,
) -> dict[str, Tensor]:
    """The inputs of `score` by name."""
    points = {"target": memory.target, "object": memory.object, "tcp": memory.tcp}
    return {
        "sensordata": sensordata,
        "qpos": qpos,
        "action": action,
        "first": first,
        **points,
        **_remembered(memory),
    }


def scoring_results(
    outcomes: Float[Tensor, "R 7"], observed: Float[Tensor, "R 18"], memory: Start
) -> dict[str, Tensor]:
    """Where the results of `score` belong, by name: what is to be remembered goes into `memory` itself."""
    return {"outcomes": outcomes, "observed": observed, **_remembered(memory)}


def _remembered(memory: Start) -> dict[str, Tensor]:
    return {_MEMORY + name: value for name, value in memory.extra.items()}


def bind_score(
    task: TaskDefinition, version: str, inputs: Tensors, results: Tensors, *, compiled: bool
) -> Callable[[], object]:
    """A call of `score` on what `inputs` hold by then that puts its results into `results`.

    All of these tensors stay where they are. Results may be inputs, too.
    """
    if compiled:
        return _compiled_score(task.name, version, _shapes(inputs)).bind(inputs, results)
    return functools.partial(_put, functools.partial(score, task, version), inputs, results)


def bind_command(inputs: Tensors, results: Tensors, *, compiled: bool) -> Callable[[], object]:
    """A call of `command`, as `bind_score` makes one of `score`."""
    if compiled:
        return _compiled_command(_shapes(inputs)).bind(inputs, results)
    return functools.partial(_put, command, inputs, results)


def _put(function: Callable[[Tensors], Tensors], inputs: Tensors, results: Tensors) -> None:
    for name, value in function(inputs).items():
        results[name].copy_(value)


_Shapes = tuple[tuple[str, int | None, torch.dtype], ...]


def _shapes(inputs: Tensors) -> _Shapes:
    return tuple((name, value.shape[1] if value.ndim > 1 else None, value.dtype) for name, value in inputs.items())


@functools.cache
def _compiled_score(name: str, version: str, shapes: _Shapes) -> CompiledRows:
    function = functools.partial(score, definition(name), version)
    return CompiledRows(f"{name.replace('-', '_')}_{version}", function, shapes)


@functools.cache
def _compiled_command(shapes: _Shapes) -> CompiledRows:
    return CompiledRows("command", command, shapes)

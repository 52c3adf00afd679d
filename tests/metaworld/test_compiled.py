"""Compiled functions of rows: the numbers of the torch functions that they are made of."""

import pytest
import torch

from metarl import UsageError
from metarl.envs.metaworld.compiled import CompiledRows
from metarl.envs.metaworld.definition import Start
from metarl.envs.metaworld.episode_starts import episode_starts
from metarl.envs.metaworld.family import random_space
from metarl.envs.metaworld.scenes import task_scene
from metarl.envs.metaworld.scoring import bind_score, score, scoring_inputs, scoring_results
from metarl.envs.metaworld.task_sets import TASKS
from metarl.envs.metaworld.tasks import definition

ROW, MARK = ("x", 3, torch.float64), ("mark", None, torch.bool)


def shaken(start: Start, rows: int, generator: torch.Generator) -> Start:
    """The start in so many rows, all different, so that no number passes for a constant."""
    return start.map(
        lambda value: (
            value.expand(rows, *value.shape[1:])
            + 0.05 * torch.rand(rows, *value.shape[1:], generator=generator, dtype=torch.float64)
        )
    )


def draw(inputs, generator: torch.Generator, rows: slice = slice(None)) -> None:
    """New readings in the same memory: anywhere in the scene, half of the time within centimetres of each other."""
    for name, low, high in (("sensordata", -0.1, 0.3), ("qpos", -0.5, 0.5), ("action", -1.5, 1.5)):
        part = inputs[name][rows]
        near = torch.rand(len(part), 1, generator=generator, dtype=torch.float64).gt(0.5) & (name == "sensordata")
        drawn = torch.rand(part.shape, generator=generator, dtype=torch.float64)
        part.copy_(torch.where(near, 0.2 + 0.05 * drawn, low + (high - low) * drawn))
    inputs["first"].copy_(torch.rand(len(inputs["first"]), generator=generator) > 0.5)


@pytest.mark.parametrize("name", TASKS)
def test_compiled_scores_are_those_of_the_definition(name: str) -> None:
    """For both rewards, with rows that are not numbers, and again after everything in memory has changed."""
    task, generator, rows = definition(name), torch.Generator().manual_seed(0), 40
    model = task_scene(task.scene).scene.model
    vector = torch.from_numpy(random_space(name)[0])[None, : len(task.random_low)]
    memory = shaken(episode_starts(name, vector).memory, rows, generator)
    inputs = scoring_inputs(
        torch.zeros(rows, model.nsensordata, dtype=torch.float64),
        torch.zeros(rows, model.nq + model.nv, dtype=torch.float64)[:, : model.nq],  # part of a larger array
        torch.zeros(rows, 4, dtype=torch.float64),
        torch.zeros(rows, dtype=torch.bool),
        memory,
    )
    for version in ("v2", "v1"):
        found = {key: torch.zeros_like(value) for key, value in score(task, version, inputs).items()}
        compiled = bind_score(task, version, inputs, found, compiled=True)
        for broken in (False, True):
            draw(inputs, generator)
            if broken:
                inputs["sensordata"][::3] = torch.nan
                inputs["sensordata"][1::3] = torch.inf
            compiled()
            for key, value in score(task, version, inputs).items():
                torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_a_row_depends_on_no_other() -> None:
    wide = torch.rand(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    compiled = CompiledRows("alone", lambda at: {"y": torch.linalg.vector_norm(at["x"], dim=-1).exp()}, [ROW])
    whole, one = compiled.bind({"x": wide})(), compiled.bind({"x": wide[7:8]})()
    assert torch.equal(whole["y"][7:8], one["y"])


def test_constants_keep_all_their_digits() -> None:
    compiled = CompiledRows("digits", lambda at: {"y": at["x"] * 0.1 + 1 / 3}, [ROW])
    x = torch.ones(2, 3, dtype=torch.float64)
    assert torch.equal(compiled.bind({"x": x})()["y"], x * 0.1 + 1 / 3)


def test_results_may_be_written_over_inputs() -> None:
    """All of a row's inputs are read before any of its results is written."""
    swapped = CompiledRows("swapped", lambda at: {"y": at["x"] + 1, "x": at["y"]}, [ROW, ("y", 3, torch.float64)])
    x, y = torch.rand(2, 50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))[..., 1:4]
    before = x.clone(), y.clone()
    swapped.bind({"x": x, "y": y}, {"x": x, "y": y})()
    assert torch.equal(x, before[1])
    assert torch.equal(y, before[0] + 1)


@pytest.mark.parametrize("compiled", [True, False])
def test_what_a_reward_remembers_is_written_where_it_is_read(compiled: bool) -> None:
    task, rows = definition("bin-picking-v3"), 6
    vector = torch.from_numpy(random_space(task.name)[0])[None, : len(task.random_low)]
    memory = shaken(episode_starts(task.name, vector).memory, rows, torch.Generator().manual_seed(0))
    model = task_scene(task.scene).scene.model
    inputs = scoring_inputs(
        torch.rand(rows, model.nsensordata, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        torch.zeros(rows, model.nq, dtype=torch.float64),
        torch.zeros(rows, 4, dtype=torch.float64),
        torch.arange(rows) % 2 == 0,
        memory,
    )
    expected = score(task, "v2", inputs)
    outcomes, observed = torch.zeros(2, rows, 18, dtype=torch.float64)
    results = scoring_results(outcomes[:, :7], observed, memory)
    new = [name for name in expected if name in inputs]
    assert new
    assert not any(torch.equal(expected[name], inputs[name]) for name in new)
    bind_score(task, "v2", inputs, results, compiled=compiled)()
    for name, value in expected.items():
        torch.testing.assert_close(results[name], value, rtol=1e-12, atol=1e-12)
    assert all(inputs[name] is results[name] for name in new)


@pytest.mark.parametrize("wrong", [torch.zeros(4, 2).double(), torch.zeros(4, 3), torch.zeros(5, 3).double()])
def test_results_of_a_wrong_shape_or_type_are_refused(wrong: torch.Tensor) -> None:
    compiled = CompiledRows("doubled", lambda at: {"y": 2 * at["x"]}, [ROW])
    with pytest.raises(UsageError, match=r"'y' is torch.float64 \[4, 3\]: cannot write it into torch"):
        compiled.bind({"x": torch.zeros(4, 3, dtype=torch.float64)}, {"y": wrong})


def rows_meet(at):
    return {"y": at["x"] @ at["x"].T}


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (lambda at: {"y": at["x"].add_(1)}, "in place"),
        (lambda at: {"y": at["x"] + torch.rand(13, 3, dtype=torch.float64)}, "random"),
        (lambda at: {"y": at["x"] if at["x"].sum() > 0 else -at["x"]}, "value|no rule"),
        (lambda at: {"y": at["x"][at["mark"]]}, "value|no rule"),
        (lambda at: {"y": torch.erf(at["x"])}, "no rule"),
        (lambda at: {"y": at["x"].sum(0)}, "no rule"),
        (lambda at: {"y": at["x"].prod(0)}, "last one, or over the batch"),
        (lambda at: {"y": at["x"].square().prod(-1) ** 3}, "power of 3"),
        (lambda at: {"y": at["x"] - at["x"].flip(0)}, "no rule"),
        (lambda at: {"y": torch.sub(at["x"], at["x"], alpha=2)}, "options"),
        (lambda at: {"y": at["x"][:1] + at["x"]}, "rows"),
        (lambda at: {"y": at["x"] + at["x"][3]}, "rows"),
        (lambda at: {"y": at["x"].float()}, "float32"),
        (lambda at: {"y": at["x"].long()}, "int64 made from"),
        (lambda at: {"y": at["mark"] * at["mark"]}, "truth values"),
        (lambda at: {"y": at["x"] * torch.arange(13.0)[:, None].double()}, "rows"),
        (rows_meet, "no rule|rows"),
    ],
)
def test_what_cannot_be_compiled_is_refused(function, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        CompiledRows("refused", function, [ROW, MARK])

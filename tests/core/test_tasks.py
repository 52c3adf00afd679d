"""Batches of tasks: immutable, indexable, exact in JSON; and how a family answers wrong ones."""

import copy
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import metarl
from metarl import TaskDistribution, Tasks, UsageError

DTYPES = [np.float32, np.float64, np.int64, np.int32, np.bool_]


@st.composite
def batches(draw) -> Tasks:
    rows = draw(st.integers(1, 5))
    names = draw(st.lists(st.text(min_size=1, max_size=8).filter(str.isprintable), min_size=1, max_size=4, unique=True))
    parameters = {}
    for name in names:
        dtype = draw(st.sampled_from(DTYPES))
        shape = (rows, *draw(st.sampled_from([(), (1,), (3,), (0,), (2, 2)])))
        elements = {"allow_nan": False} if np.dtype(dtype).kind == "f" else None
        array = draw(npst.arrays(dtype, shape, elements=npst.from_dtype(np.dtype(dtype), **(elements or {}))))
        parameters[name] = torch.as_tensor(array)
    return Tasks(parameters)


@given(batches())
def test_json_gives_equal_tasks_back(tasks):
    again = Tasks.from_json(tasks.to_json())
    assert again == tasks
    assert all(again.parameters[name].shape == value.shape for name, value in tasks.parameters.items())
    assert Tasks.from_json(json.loads(tasks.to_json())) == tasks


@given(batches(), st.data())
def test_indexing_is_that_of_each_parameter(tasks, data):
    i = data.draw(st.integers(-len(tasks), len(tasks) - 1))
    mask = torch.as_tensor(data.draw(st.lists(st.booleans(), min_size=len(tasks), max_size=len(tasks))))
    chosen = data.draw(st.lists(st.integers(0, len(tasks) - 1), min_size=1, max_size=6))
    for name, value in tasks.parameters.items():
        assert torch.equal(tasks[i].parameters[name][0], value[i])
        assert torch.equal(tasks[1:].parameters[name], value[1:])
        assert torch.equal(tasks[mask].parameters[name], value[mask])
        assert torch.equal(tasks[mask.numpy()].parameters[name], value[mask])
        assert torch.equal(tasks[chosen].parameters[name], value[chosen])
        assert torch.equal(tasks.repeat_interleave(2).parameters[name][1::2], value)
    assert len(tasks[i]) == 1
    assert [one == tasks[k] for k, one in enumerate(tasks)] == [True] * len(tasks)


@pytest.mark.parametrize("number", [1, np.int64(1), np.uint8(1), torch.tensor(1), torch.tensor(-2), np.array(1)])
def test_whole_numbers_of_every_kind_pick_one_task(number):
    tasks = Tasks({"goal": torch.arange(6.0).reshape(3, 2), "mass": torch.arange(3)})
    assert len(tasks[number]) == 1
    assert tasks[number] == tasks[1:2]


@pytest.mark.parametrize(
    "index",
    [1.0, torch.tensor(1.0), [[0, 1]], torch.zeros(2, 2, dtype=torch.long), True, np.bool_(True), "goal", [0.5], None],
    ids=repr,
)
def test_what_is_no_index_of_tasks_is_refused(index):
    tasks = Tasks({"goal": torch.zeros(3, 2)})
    with pytest.raises(UsageError, match="tasks"):
        tasks[index]


def test_numbers_and_masks_that_do_not_fit_are_refused():
    tasks = Tasks({"goal": torch.zeros(3, 2)})
    for index in (3, -4, np.int64(3), [0, 5], torch.tensor([True, False])):
        with pytest.raises(IndexError):
            tasks[index]
    assert len(tasks[[]]) == 0


def test_ids_go_along():
    tasks = Tasks({"goal": torch.zeros(4, 2)}, torch.tensor([7, 8, 9, 10]))
    assert tasks[1].ids.tolist() == [8]
    assert tasks[[2, 0]].ids.tolist() == [9, 7]
    assert tasks[:2].repeat_interleave(2).ids.tolist() == [7, 7, 8, 8]
    assert tasks.to("cpu").ids.tolist() == tasks.ids.tolist()
    assert tasks == Tasks({"goal": torch.zeros(4, 2)}), "ids do not make tasks different"
    with pytest.raises(UsageError, match="as many ids"):
        Tasks({"goal": torch.zeros(4, 2)}, torch.arange(3))


def test_fresh_tasks_are_those_of_the_distribution():
    family = metarl.make("PointNavigation-v0")
    assert metarl.FreshTasks(family.sample).draw(5, seed=3) == family.sample(5, split="train", seed=3)


def test_a_task_list_gives_ids_and_comes_round_evenly():
    listed = metarl.make("PointNavigation-v0").sample(4, seed=0)
    source = metarl.TaskList(listed)
    drawn = source.draw(10, seed=1)
    assert drawn == listed[drawn.ids]
    assert sorted(torch.bincount(drawn.ids).tolist()) == [2, 2, 3, 3]
    assert torch.equal(source.draw(10, seed=1).ids, drawn.ids)
    assert not torch.equal(source.draw(10, seed=2).ids, drawn.ids)
    assert sorted(source.draw(4, seed=5).ids.tolist()) == [0, 1, 2, 3]


def test_tasks_can_be_copied_and_pickled():
    tasks = Tasks({"goal": torch.arange(6.0).reshape(3, 2)}, torch.tensor([4, 5, 6]))
    for again in (copy.deepcopy(tasks), pickle.loads(pickle.dumps(tasks))):
        assert again == tasks
        assert again.ids.tolist() == [4, 5, 6]


def test_tasks_are_immutable():
    goal = torch.zeros(2, 3)
    tasks = Tasks({"goal": goal})
    goal += 1
    part = tasks[:1]
    part.parameters["goal"][:] = 7
    tasks.to("cpu").parameters["goal"][:] = 8
    assert not tasks.parameters["goal"].any()
    with pytest.raises(TypeError):
        tasks.parameters["goal"] = goal
    with pytest.raises(AttributeError):
        tasks.parameters = {}


def test_equality_looks_at_names_values_and_dtypes():
    tasks = Tasks({"a": torch.zeros(2)})
    assert tasks == Tasks({"a": torch.zeros(2)})
    assert tasks != Tasks({"b": torch.zeros(2)})
    assert tasks != Tasks({"a": torch.ones(2)})
    assert tasks != Tasks({"a": torch.zeros(2, dtype=torch.float64)})
    assert tasks != "tasks"


@pytest.mark.parametrize("parameters", [{}, {"a": torch.zeros(2), "b": torch.zeros(3)}, {"a": torch.tensor(1.0)}])
def test_parameters_need_one_leading_size(parameters):
    with pytest.raises(UsageError):
        Tasks(parameters)


def test_an_index_out_of_range_ends_iteration_and_raises():
    tasks = Tasks({"a": torch.zeros(2)})
    with pytest.raises(IndexError):
        tasks[2]
    assert len(list(tasks)) == 2


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"parameters": {"a": [[1], [1, 2]]}}',
        '{"parameters": {"a": ["x"]}}',
        '{"parameters": {"a": [1]}, "dtypes": {"a": "no_dtype"}}',
        '{"parameters": {"a": [1]}, "dtypes": {"a": "load"}}',
    ],
)
def test_wrong_json_is_one_clear_line(text):
    with pytest.raises(UsageError, match="not the JSON of tasks") as caught:
        Tasks.from_json(text)
    assert "\n" not in str(caught.value)


class Finite(TaskDistribution):
    """Five tasks a split; it cannot be stepped."""

    id = "Finite"
    task_space = {"number": gym.spaces.Box(0, 9, (), np.int64)}

    def all_tasks(self, split: str) -> Tasks:
        first = {"train": 0, "test": 5}[split]
        return Tasks({"number": torch.arange(first, first + 5)})

    def _make_env(self, *args):
        raise NotImplementedError


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_finite_family_repeats_no_task_before_all_have_come(split):
    family = Finite()
    every = family.all_tasks(split).parameters["number"]
    drawn = family.sample(12, split=split, seed=3).parameters["number"]
    assert torch.equal(drawn[:5].sort().values, every)
    assert torch.equal(drawn[5:10].sort().values, every)
    assert not torch.equal(drawn[:5], drawn[5:10])
    assert len(drawn[10:].unique()) == 2


def test_sampling_depends_on_split_and_seed_and_on_nothing_else():
    family = metarl.make("PointNavigation-v0")
    torch.manual_seed(0)
    tasks = family.sample(5, split="train", seed=1)
    torch.manual_seed(1)
    assert family.sample(5, seed=1) == tasks
    assert metarl.make("PointNavigation-v0").sample(5, seed=1) == tasks
    assert family.sample(5, split="test", seed=1) != tasks
    assert family.sample(5, seed=2) != tasks


@pytest.mark.parametrize(("num_tasks", "split"), [(0, "train"), (-1, "train"), (True, "train"), (1, "x")])
def test_wrong_sampling_is_refused(num_tasks, split):
    with pytest.raises(UsageError):
        metarl.make("PointNavigation-v0").sample(num_tasks, split=split, seed=0)


def test_all_tasks_of_an_infinite_family_is_refused():
    with pytest.raises(UsageError, match="infinitely many"):
        metarl.make("PointNavigation-v0").all_tasks("train")


def test_a_task_by_its_parameters():
    tasks = metarl.make("PointNavigation-v0").task(goal=[0.3, -0.1])
    assert tasks == Tasks({"goal": torch.tensor([[0.3, -0.1]])})
    assert Finite().task(number=3) == Tasks({"number": torch.tensor([3])})


@pytest.mark.parametrize(
    ("family", "parameters", "message"),
    [
        ("PointNavigation-v0", {}, "'goal' is missing"),
        ("PointNavigation-v0", {"gaol": [0, 0]}, "no task parameter 'gaol'"),
        ("PointNavigation-v0", {"goal": [0.1]}, "shape"),
        ("PointNavigation-v0", {"goal": [[0.1], [0.1, 0.2]]}, "want shape"),
        ("PointNavigation-v0", {"goal": [0.1, 0.6]}, "0.6.* is out of range"),
        ("PointNavigation-v0", {"goal": [0.1, float("nan")]}, "nan is out of range"),
        ("PointNavigation-v0", {"goal": "here"}, "want shape"),
        ("TabularMDP-v0", {"transitions": np.zeros((10, 5, 10)), "reward_means": np.zeros((10, 5))}, "sum to 1"),
        (Finite(), {"number": 1.5}, "want a whole number"),
    ],
)
def test_a_wrong_task_is_one_clear_line(family, parameters, message):
    family = metarl.make(family) if isinstance(family, str) else family
    with pytest.raises(UsageError, match=message) as caught:
        family.task(**parameters)
    assert len(str(caught.value).splitlines()) == 1


def test_validate_names_unknown_parameters():
    with pytest.raises(UsageError, match="has the task parameters goal, got target"):
        metarl.make("PointNavigation-v0").validate(Tasks({"target": torch.zeros(1, 2)}))

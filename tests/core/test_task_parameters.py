"""Task parameters in every spelling: what is drawn, what is listed, what is refused."""

import copy
import itertools
import math
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from scipy import stats

from metarl import LogUniform, TaskDistribution, TaskParameters, Tasks, UsageError
from metarl.task_spaces import Choice


class Family(TaskDistribution):
    """Tasks and nothing else: it cannot be stepped."""

    id = "Family-v0"

    def __init__(self, parameters, **options):
        self.task_space = TaskParameters(parameters, **options)

    def _make_env(self, *args):
        raise NotImplementedError


def both(value):
    """`value` in both splits, meant so."""
    return {"train": value, "test": value}


def drawn(family, split="train", count=200, seed=0):
    return [next(iter(v.values())) for v in family.task_values(family.sample(count, split=split, seed=seed))]


LISTED = {
    "numbers": ([0.5, 1, 2], [0.5, 1.0, 2.0], torch.float64),
    "two numbers are no range": ([5.0, 10.0], [5.0, 10.0], torch.float64),
    "whole numbers": ([3, 1, 2], [3, 1, 2], torch.int64),
    "names": (["moon", "earth"], ["moon", "earth"], torch.int64),
    "truth values": ([False, True], [False, True], torch.bool),
    "arrays": ([[1, 1], [1, 3]], [[1, 1], [1, 3]], torch.int64),
    "rows of an array": (np.eye(2), [[1.0, 0.0], [0.0, 1.0]], torch.float64),
    "a tensor": (torch.tensor([1.5, 0.5]), [1.5, 0.5], torch.float64),
    "names of NumPy": (np.array(["a", "b"]), ["a", "b"], torch.int64),
    "a range": (range(1, 5), [1, 2, 3, 4], torch.int64),
    "a range with steps": (range(0, 20, 5), [0, 5, 10, 15], torch.int64),
    "Discrete": (Discrete(3, start=-1), [-1, 0, 1], torch.int64),
    "MultiDiscrete": (MultiDiscrete([2, 2], start=[0, 5]), [[0, 5], [0, 6], [1, 5], [1, 6]], torch.int64),
    "MultiBinary": (MultiBinary(2), [[0, 0], [0, 1], [1, 0], [1, 1]], torch.int8),
}


@pytest.mark.parametrize(("spelling", "values", "dtype"), LISTED.values(), ids=LISTED)
def test_listed_values_are_all_drawn_evenly_and_in_a_fixed_order(spelling, values, dtype):
    family = Family({"x": both(spelling)})
    every = family.all_tasks("train")
    assert every.parameters["x"].dtype == dtype
    assert family.task_values(every) == [{"x": value} for value in values]
    assert [type(row["x"]) for row in family.task_values(every)] == [type(value) for value in values]
    assert sorted(drawn(family, count=len(values))) == sorted(values)
    assert family.all_tasks("test") == every
    for value in values:
        task = family.task(x=value)
        assert family.task_values(task) == [{"x": value}]
        assert Tasks.from_json(task.to_json()) == task


@pytest.mark.parametrize("bounds", [(5, 15), (5.0, 15.0), (np.int64(5), np.float32(15))])
def test_a_tuple_is_a_range_of_real_numbers_however_its_bounds_are_written(bounds):
    space = TaskParameters({"g": bounds})
    expected = 5 + 10 * torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values = space.sample(50, "train", torch.Generator().manual_seed(3))["g"]
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)
    assert space.all_tasks("train") is None


def test_boxes_are_uniform_in_their_own_dtype():
    wind = Box(np.float32([0, 5]), np.float32([1, 9]))
    boxes = {"n": Box(-1, 2, (), np.int64), "wind": wind, "b": Box(0, 255, (2,), np.uint8)}
    family = Family(boxes)
    tasks = family.sample(2000, seed=0).parameters
    assert [tasks[name].dtype for name in boxes] == [torch.int64, torch.float32, torch.uint8]
    assert torch.bincount(tasks["n"] + 1).min() > 450
    torch.testing.assert_close(tasks["wind"].mean(0), torch.tensor([0.5, 7.0]), atol=0.05, rtol=0)
    assert (tasks["b"].min(), tasks["b"].max()) == (0, 255)
    with pytest.raises(UsageError, match="infinitely many"):
        family.all_tasks("train")


def test_the_logarithm_of_a_log_uniform_number_is_uniform():
    family = Family({"rate": LogUniform(1e-3, 10.0)})
    logs = np.log(family.sample(2000, seed=0).parameters["rate"].numpy())
    assert stats.kstest(logs, stats.uniform(math.log(1e-3), math.log(1e4)).cdf).pvalue > 0.05
    assert family.task_space["rate"].contains(family.task_space["rate"].sample())
    assert family.task(rate=1e-3).parameters["rate"].item() == 1e-3
    assert LogUniform(1, 2) != Box(1.0, 2.0, (), np.float64)
    for wrong in ((0, 1), (2, 1), (1, math.inf), (1, math.nan)):
        with pytest.raises(UsageError, match=r"0 < low <= high"):
            LogUniform(*wrong)


SPLIT = {
    "ranges": ((0, 2), (2, 3), lambda x: 0 <= x <= 2, lambda x: 2 <= x <= 3),
    "lists": ([1, 2], [3], {1, 2}.__contains__, {3}.__contains__),
    "whole and real numbers": ([1, 2], [2.5], {1.0, 2.0}.__contains__, {2.5}.__contains__),
    "names": (["moon", "earth"], ["mars"], {"moon", "earth"}.__contains__, {"mars"}.__contains__),
    "whole numbers": (range(3), Discrete(2, start=7), {0, 1, 2}.__contains__, {7, 8}.__contains__),
    "boxes": (Box(0, 1, (), np.float32), Box(4, 5, (), np.float32), lambda x: x <= 1, lambda x: 4 <= x <= 5),
    "log-uniform": (LogUniform(1, 2), LogUniform(3, 4), lambda x: 1 <= x <= 2, lambda x: 3 <= x <= 4),
}


@pytest.mark.parametrize(("train", "test", "in_train", "in_test"), SPLIT.values(), ids=SPLIT)
def test_each_split_has_its_own_values(train, test, in_train, in_test):
    family = Family({"x": {"test": test, "train": train}})
    assert all(map(in_train, drawn(family, "train")))
    assert all(map(in_test, drawn(family, "test")))
    for split in ("train", "test"):
        family.validate(family.sample(20, split=split, seed=1))


def test_the_space_of_split_ranges_goes_from_the_lowest_to_the_highest_bound():
    family = Family({"x": {"train": (0.0, 1.0), "test": (0.0, 1.0 + 1e-9)}})
    assert (family.task_space["x"].low, family.task_space["x"].high) == (0.0, 1.0 + 1e-9)


def test_combinations_come_in_the_order_of_itertools_and_none_twice():
    values = {"planet": ["moon", "earth"], "level": [0, 1, 2], "wind": [[0.0, 1.0], [1.0, 0.0]]}
    family = Family(values | {"planet": {"train": values["planet"], "test": ["mars"]}})
    expected = [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]
    assert family.task_values(family.all_tasks("train")) == expected
    assert [row["planet"] for row in family.task_values(family.all_tasks("test"))] == ["mars"] * 6
    once = family.task_values(family.sample(12, seed=4))
    assert sorted(once, key=repr) == sorted(expected, key=repr)


def test_too_many_combinations_are_drawn_one_by_one():
    family = Family({"a": range(200), "b": list(range(200)), "c": MultiBinary(2000)})
    with pytest.raises(UsageError, match="too many"):
        family.all_tasks("train")
    tasks = family.sample(4000, seed=0).parameters
    for name in "ab":
        assert torch.bincount(tasks[name], minlength=200).min() > 4
    assert abs(np.corrcoef(tasks["a"], tasks["b"])[0, 1]) < 0.05


GOALS = {
    "train": [{"x": 1, "y": 2.5, "name": "a"}, {"x": 3, "y": 0.5, "name": "b"}],
    "test": [{"x": 1, "y": 0.5, "name": "a"}],
}


def test_whole_tasks_keep_their_values_together():
    family = Family(GOALS)
    for split, goals in GOALS.items():
        assert family.task_values(family.all_tasks(split)) == goals
        assert all(value in goals for value in family.task_values(family.sample(30, split=split, seed=0)))
    assert family.task_values(family.task(name="b", y=0.5, x=3)) == [GOALS["train"][1]]
    with pytest.raises(UsageError, match=r"\{'x': 3, 'y': 2.5, 'name': 'a'\} is none of the 3 listed tasks"):
        family.task(x=3, y=2.5, name="a")
    with pytest.raises(UsageError, match=r"'x': want one of 1, 3, got 2"):
        family.task(x=2, y=2.5, name="a")


def test_sampling_is_a_function_of_id_split_and_seed():
    def family():
        return Family({"planet": {"train": ["a", "b", "c"], "test": ["d", "e", "f"]}, "x": (0.0, 1.0)})

    tasks = family().sample(9, seed=1)
    assert family().sample(9, seed=1) == tasks
    assert family().sample(9, seed=2) != tasks
    assert family().sample(9, split="test", seed=1).parameters["x"].tolist() != tasks.parameters["x"].tolist()


# A sampler of one's own ----------------------------------------------------------------------------------------------


def normal(rng, split):
    return {"mass": rng.normal(2.0 if split == "train" else 9.0), "planet": "moon"}


OWN = {"mass": (-np.inf, np.inf), "planet": ["moon", "earth"]}


def test_a_sampler_draws_with_its_generator_alone():
    family = Family(OWN, sample=normal)
    train, test = (family.sample(500, split=split, seed=0).parameters["mass"] for split in ("train", "test"))
    assert stats.kstest(train.numpy(), stats.norm(2.0).cdf).pvalue > 0.05
    assert stats.kstest(test.numpy(), stats.norm(9.0).cdf).pvalue > 0.05
    assert torch.equal(Family(OWN, sample=normal).sample(500, seed=0).parameters["mass"], train)
    assert set(drawn(Family({"planet": ["moon", "earth"]}, sample=lambda rng, split: {"planet": "earth"}))) == {"earth"}
    with pytest.raises(UsageError, match="infinitely many"):
        family.all_tasks("train")
    with pytest.raises(UsageError, match="inf is out of range"):
        family.task(mass=math.inf, planet="moon")


SAMPLERS = {
    "a wrong name": ({"mess": 1.0}, "want a dict with the task parameters mass, planet"),
    "no dict": ([1.0, "moon"], "want a dict with the task parameters mass, planet"),
    "a name that is not listed": ({"mass": 1.0, "planet": "mars"}, "'planet': want one of 'moon'"),
    "a wrong shape": ({"mass": [1.0], "planet": "moon"}, "'mass': want a number"),
    "out of range": ({"mass": 6.0, "planet": "moon"}, r"train task parameter 'mass': want a number in \[0, 4\], got 6"),
    "of training": ({"mass": 1.0, "planet": "moon"}, r"test task parameter 'mass': want a number in \[5, 9\]"),
    "NaN": ({"mass": math.nan, "planet": "moon"}, "'mass': want a number"),
}


@pytest.mark.parametrize(("task", "message"), SAMPLERS.values(), ids=SAMPLERS)
def test_a_wrong_sampler_is_one_clear_line_at_once(task, message):
    masses = {"train": (0.0, 4.0), "test": (5.0, 9.0)}
    with pytest.raises(UsageError, match=message) as caught:
        TaskParameters(OWN | {"mass": masses}, sample=lambda rng, split: task)
    assert "\n" not in str(caught.value)


def test_a_sampler_that_is_no_function_of_its_generator_is_refused():
    calls = itertools.count()
    with pytest.raises(UsageError, match="draw from the generator"):
        TaskParameters(OWN, sample=lambda rng, split: {"mass": next(calls), "planet": "moon"})
    with pytest.raises(UsageError, match=r"called as sample\(rng, split\)"):
        TaskParameters(OWN, sample=lambda rng: {"mass": 1.0, "planet": "moon"})


def test_a_sampler_keeps_to_listed_tasks():
    assert len(set(drawn(Family(GOALS, sample=lambda rng, split: GOALS[split][0])))) == 1
    with pytest.raises(UsageError, match="none of the listed test tasks"):
        Family(GOALS, sample=lambda rng, split: GOALS["train"][0])
    space = TaskParameters(OWN, sample=normal)
    assert TaskParameters.of(space) is space
    with pytest.raises(UsageError, match="give sample= to TaskParameters"):
        TaskParameters.of(space, sample=normal)


# Test tasks that are training tasks ----------------------------------------------------------------------------------

SHARED = {
    "a list": ({"x": [1, 2, 3]}, r"^3 of 3 test tasks \(x\) are training tasks too"),
    "one value": ({"x": ["only"]}, "^1 of 1 test tasks"),
    "finite spaces": ({"x": Discrete(2), "y": MultiBinary(1)}, r"^4 of 4 test tasks \(x, y\)"),
    "overlapping splits": ({"x": {"train": [1, 2], "test": [2, 3]}}, "^1 of 2 test tasks"),
    "whole tasks": ([{"x": 1}, {"x": 2}], "^2 of 2 test tasks"),
}


@pytest.mark.parametrize(("parameters", "message"), SHARED.values(), ids=SHARED)
def test_shared_tasks_are_said(parameters, message):
    with pytest.warns(UserWarning, match=message):
        TaskParameters(parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"x": both([1, 2])},
        {"x": [1, 2], "y": {"train": ["a"], "test": ["b"]}},
        {"x": [1, 2], "g": (0.0, 1.0)},
        both([{"x": 1}, {"x": 2}]),
    ],
    ids=["meant", "another parameter differs", "infinitely many", "whole tasks, meant"],
)
def test_what_is_meant_or_differs_is_not_warned_of(parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TaskParameters(parameters)


# Mistakes ------------------------------------------------------------------------------------------------------------

MISTAKES = {
    "no parameter": ({}, "at least one task parameter"),
    "no task": ([], "at least one task parameter"),
    "a reversed range": ({"g": (10, 5)}, r"'g': want low <= high, got \(10, 5\)"),
    "an infinite range": ({"g": (0, np.inf)}, "'g': want finite bounds"),
    "an endless width": ({"g": (-1.7e308, 1.7e308)}, "'g': want finite bounds"),
    "a bound that is no float": ({"g": (0, 10**400)}, "'g': want finite bounds"),
    "endless whole numbers": ({"g": Box(-np.inf, np.inf, (), np.int32)}, "'g': want finite bounds"),
    "the largest float": ({"g": Box(0, np.finfo(np.float32).max, (), np.float32)}, "'g': want finite bounds"),
    "huge whole numbers in a range": ({"g": range(2**63, 2**63 + 2)}, "'g': want whole numbers below 2"),
    "an endless range of whole numbers": ({"g": range(2**63)}, "'g': want whole numbers below 2"),
    "a long range with steps": ({"g": range(0, 10**9, 2)}, "'g': want at most 10000 numbers with steps"),
    "NaN": ({"g": (0, np.nan)}, "'g': want low <= high"),
    "truth values as a range": ({"g": (False, True)}, r"'g': want two numbers \(low, high\) or a list"),
    "three numbers in a tuple": ({"g": (1.0, 2.0, 3.0)}, r"'g': want two numbers \(low, high\) or a list"),
    "texts as a range": ({"g": ("1", "2")}, "'g': want two numbers"),
    "an empty list": ({"g": []}, "'g': want at least one value"),
    "an empty range": ({"g": range(3, 3)}, "'g': want at least one value"),
    "a ragged list": ({"g": [[1, 2], [3]]}, r"'g': want values of one shape, got \(2,\) and \(1,\)"),
    "a ragged array": ({"g": [[[1, 2], [3]]]}, "'g': want numbers, names"),
    "names and numbers": ({"g": ["moon", 1.0]}, "'g': want values of one kind, got names and numbers"),
    "truth values and numbers": ({"g": [True, 2]}, "'g': want values of one kind, got numbers and truth values"),
    "a list with NaN": ({"g": [1.0, np.nan]}, "'g': want finite numbers, got nan"),
    "None": ({"g": [None, 1]}, "'g': want numbers, names.* got None"),
    "names in lists": ({"g": [["a"], ["b"]]}, "'g': want numbers, names"),
    "empty arrays": ({"g": [[], []]}, "'g': want numbers, names"),
    "huge whole numbers": ({"g": [2**63, 1]}, "'g': want whole numbers below 2"),
    "a value twice": ({"g": [1, 2, 1.0]}, "'g': a value is listed twice"),
    "a set": ({"g": {1, 2}}, "'g': a set has no order"),
    "a function": ({"g": lambda rng: rng.normal()}, "'g': .* function as sample="),
    "a word": ({"g": "lognormal"}, r"'g': want a range \(low, high\), a list of values"),
    "a number": ({"g": 9.81}, r"'g': want a range \(low, high\), a list of values"),
    "another space": ({"g": gym.spaces.Text(3)}, r"'g': want a range .* got Text"),
    "an infinite box": ({"g": Box(-np.inf, np.inf, (2,))}, "'g': want finite bounds"),
    "a dtype that tensors lack": ({"g": Box(0, 9, (), np.uint16)}, "'g': want a dtype among float32"),
    "an unknown split": ({"g": {"train": (0, 1), "valid": (1, 2)}}, "the splits are train and test, got train, valid"),
    "one split": ({"g": {"train": (0, 1)}}, "'g': the splits are train and test, got train"),
    "splits of different kinds": ({"g": {"train": (0, 1), "test": [2, 3]}}, "'g': want the same kind in both splits"),
    "splits of different values": ({"g": {"train": ["a"], "test": [3]}}, "'g': want values of one kind"),
    "splits of different shapes": ({"g": {"train": MultiBinary(2), "test": MultiBinary(3)}}, "'g': want the same kind"),
    "an error in one split": ({"g": {"train": (0, 1), "test": (3, 2)}}, "'g': want low <= high"),
    "splits without a name": ({"train": (0, 1), "test": (1, 2)}, "'train' and 'test' are splits, not parameters"),
    "a name that is no text": ({3: (0, 1)}, "task parameters have names, got 3"),
    "an empty list of tasks": ({"train": [{"x": 1}], "test": []}, "the list of test tasks is empty"),
    "a task that is no dict": ([{"x": 1}, 2], "want a dict of values for each.* got 2"),
    "tasks with other names": ([{"x": 1}, {"y": 1}], r"want the same names in each, got \['x'\] and \['y'\]"),
    "tasks of an unknown split": ({"train": [{"x": 1}], "valid": [{"x": 2}]}, "got the keys train, valid"),
    "tasks of different shapes": ([{"x": 1}, {"x": [1, 2]}], "'x': want values of one shape"),
    "a task twice": ([{"x": 1}, {"x": 2}, {"x": 1.0}], r"the train task \{'x': 1\} is listed twice"),
}  # fmt: skip


@pytest.mark.parametrize(("parameters", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_clear_line(parameters, message):
    with pytest.raises(UsageError, match=message) as caught:
        TaskParameters(parameters)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (both(["moon", "earth"]), "mars", "want one of 'moon', 'earth', got 'mars'"),
        (both(["moon", "earth"]), 1, "want one of 'moon', 'earth', got 1"),
        (both([0.5, 1.0]), 0.7, "want one of 0.5, 1.0, got 0.7"),
        (both([0.5, 1.0]), "0.5", "want one of"),
        (both([False, True]), 1, "want one of False, True, got 1"),
        (both([[1, 1], [1, 3]]), [1, 2], r"want one of \[1, 1\], \[1, 3\]"),
        (both([[1, 1], [1, 3]]), 1, "want one of"),
        (both(list(range(20))), 20, r"want one of 0, 1, 2, 3, 4, 5, 6, 7, … \(20 values\)"),
        (both(Discrete(3)), 3, r"3 is out of range, want a whole number in \[0, 2\]"),
        (both(Discrete(3)), 1.5, "want a whole number in"),
        (both(Discrete(3)), 2**70, "want a whole number in"),
        (
            both(MultiDiscrete([2, 3])),
            [1, 3],
            r"3 is out of range, want .* whole numbers between \[0, 0\] and \[1, 2\]",
        ),
        (both(MultiBinary(2)), [1, 1, 1], r"want shape \(2,\)"),
        ((0.0, 1.0), True, "want a number in"),
    ],
)
def test_a_task_that_is_not_of_the_family_is_one_clear_line(space, value, message):
    with pytest.raises(UsageError, match=f"'g': {message}") as caught:
        Family({"g": space}).task(g=value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("space", [both([4, 5]), both(["a", "b"]), Discrete(2), Box(0, 9, (), np.int64)], ids=repr)
def test_tasks_made_by_hand_need_values_of_the_space(space):
    family = Family({"g": space, "other": (0.0, 1.0)})
    for wrong in (0.5, 1.5, -1, 77, math.nan):
        with pytest.raises(UsageError, match="out of range"):
            family.validate(Tasks({"g": torch.tensor([wrong]), "other": torch.zeros(1)}))


def test_whole_numbers_that_are_stored_as_real_ones_come_out_as_whole_numbers():
    family = Family({"level": both(Discrete(3)), "planet": both(["a", "b"])})
    values = family.task_values(Tasks({"level": torch.tensor([2.0]), "planet": torch.tensor([1.0])}))
    assert values == [{"level": 2, "planet": "b"}]
    assert isinstance(values[0]["level"], int)


def test_a_parameter_may_be_called_self():
    assert Family({"self": (0.0, 1.0)}).task(self=0.5).parameters["self"].tolist() == [0.5]


def test_an_own_list_of_tasks_goes_before_the_ranges():
    class Own(Family):
        def all_tasks(self, split):
            return Tasks({"g": torch.tensor([5.0, 6.0, 7.0], dtype=torch.float64)})

    assert sorted(drawn(Own({"g": (0.0, 9.0)}), count=3)) == [5.0, 6.0, 7.0]


# Texts and copies ----------------------------------------------------------------------------------------------------


def test_the_text_tells_apart_what_draws_differently():
    parameters = [
        {"x": (0.0, 1.0)},
        {"x": (0.0, 1.0 + 1e-12)},
        {"x": {"train": (0.0, 0.5), "test": (0.5, 1.0)}},
        {"x": LogUniform(0.5, 1.0)},
        {"x": both([0, 1])},
        {"x": both([1, 0])},
        {"x": {"train": ["a", "b"], "test": ["c"]}},
        {"x": {"train": ["a"], "test": ["b", "c"]}},
        {"x": Box(np.zeros(2), np.ones(2), dtype=np.float64)},
        {"x": Box(np.zeros(2), np.ones(2) + 1e-12, dtype=np.float64)},
        {"train": [{"x": 1}], "test": [{"x": 2}]},
        {"train": [{"x": 1}, {"x": 2}], "test": [{"x": 3}]},
    ]
    texts = [repr(TaskParameters(each)) for each in parameters]
    assert len(set(texts)) == len(texts)
    assert texts == [repr(TaskParameters(each)) for each in parameters]
    assert repr(TaskParameters(OWN, sample=normal)).endswith("sample=normal)")


@pytest.mark.parametrize("rest", [{"rate": LogUniform(1.0, 2.0)}, {}], ids=["infinite", "finite"])
def test_families_can_be_copied_and_pickled(rest):
    family = Family({"planet": {"train": ["moon", "earth"], "test": ["mars"]}} | rest)
    for again in (pickle.loads(pickle.dumps(family)), copy.deepcopy(family)):
        assert repr(again.task_space) == repr(family.task_space)
        assert again.task_space == family.task_space
        assert again.sample(3, seed=0) == family.sample(3, seed=0)


def test_a_choice_is_a_space_of_gymnasium():
    choice = Choice(["moon", "earth"])
    choice.seed(0)
    assert {choice.sample() for _ in range(20)} == {"moon", "earth"}
    assert "moon" in choice
    assert "mars" not in choice
    assert 0 not in choice
    assert choice == Choice(["moon", "earth", "moon"])
    assert choice != Choice(["earth", "moon"])
    assert Choice([1, 2]) != Choice([1.0, 2.0])
    with pytest.raises(UsageError, match="mask"):
        choice.sample(mask=np.ones(2))

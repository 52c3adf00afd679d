"""Rules about what stepping an environment returns and what it depends on."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.actions import ActionFormat
from metarl.contract.examination import (
    REPLAYED_STEPS,
    Examination,
    arrays,
    difference,
    global_random_states,
    parts,
    refusal,
)
from metarl.spaces import UNBOUNDED, Observations, entries, is_picture, named
from metarl.tasks import Tasks

TOLERANCE = 1e-4
"""Relative and absolute tolerance: a batch may round differently from a single environment."""
TRIALS = 20
"""Pairs of task batches to try before concluding that tasks have no effect."""
TRIAL_STEPS = 100


def returned_arrays(exam: Examination) -> Iterator[str]:
    batch = (exam.num_envs,)
    yield from _observations(exam, "reset observations", exam.recording.observations)
    found: dict[str, None] = {}  # a set that keeps its order: a fault of every step makes one line
    for observations, rewards, terminated, truncated, info in exam.recording.steps:
        found |= dict.fromkeys(_observations(exam, "observations", observations))
        for name, value, dtype in (
            ("rewards", rewards, torch.float32),
            ("terminated", terminated, torch.bool),
            ("truncated", truncated, torch.bool),
            ("info['_final_obs']", info.get("_final_obs"), torch.bool),
        ):
            found |= dict.fromkeys(_array(name, value, batch, dtype))
        found |= dict.fromkeys(_observations(exam, "info['final_obs']", info.get("final_obs")))
        for name, dtype in (("success", torch.bool), ("dense_reward", torch.float32)):
            if getattr(exam.distribution, f"has_{name}"):
                found |= dict.fromkeys(_array(f"info[{name!r}]", info.get(name), batch, dtype))
            elif name in info:
                found |= {f"info[{name!r}]: expected none if has_{name} is False, found one": None}
    if exam.distribution.has_success and not exam.env.success_seen:
        found |= {"info['success']: expected the environments to tell whether they succeed, found that none does": None}
    yield from found


def _observations(exam: Examination, name: str, value: Any) -> Iterator[str]:
    """Checks a batch of observations against the family's observation space, entry by entry."""
    space = exam.distribution.observation_space
    if isinstance(space, gym.spaces.Dict) != isinstance(value, dict):
        wanted = "a dictionary of tensors" if isinstance(space, gym.spaces.Dict) else "a tensor"
        yield f"{name}: expected {wanted}, found {type(value).__name__}"
        return
    if isinstance(space, gym.spaces.Dict) and space.spaces.keys() != value.keys():
        yield f"{name}: expected the entries {', '.join(space.spaces)}, found {', '.join(map(str, value))}"
        return
    found = parts(name, value)
    for entry, box in parts(name, dict(space.spaces) if isinstance(space, gym.spaces.Dict) else space).items():
        dtype = torch.uint8 if is_picture(box) else torch.float32
        yield from _array(entry, found[entry], (exam.num_envs, *box.shape), dtype)


def _array(name: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[str]:
    expected = f"{name}: expected a {dtype} tensor {list(shape)} on cpu"
    if not isinstance(value, Tensor):
        yield f"{expected}, found {type(value).__name__}"
    elif (value.dtype, tuple(value.shape), value.device.type) != (dtype, shape, "cpu"):
        yield f"{expected}, found {value.dtype} {list(value.shape)} on {value.device}"
    elif not bool(value.isfinite().all()):
        yield f"{name}: expected finite numbers, found {float(value[~value.isfinite()][0])}"


def declared_range(exam: Examination) -> Iterator[str]:
    """Vectors have to lie in the box that the family declares, but for rounding."""
    found: dict[str, str] = {}
    batches = [exam.recording.observations, *(step[4]["final_obs"] for step in exam.recording.steps)]
    for name, space in entries(exam.distribution.observation_space).items():
        if is_picture(space):
            continue
        values = torch.stack([named(batch)[name] for batch in batches]).double()
        low, high = (torch.as_tensor(bound).double() for bound in (space.low, space.high))
        slack = TOLERANCE * (1 + low.abs().nan_to_num(posinf=0) + high.abs().nan_to_num(posinf=0))
        outside = (values < low - slack) | (values > high + slack)
        if bool(outside.any()):
            number = int(outside.nonzero()[0][-1])
            culprit = float(values[outside][0])
            box = f"[{float(low[number]):g}, {float(high[number]):g}]"
            found[name] = f"observations: expected number {number} in the declared {box}, found {culprit:g}"
    yield from found.values()


def faults(exam: Examination) -> Iterator[str]:
    """An environment that often breaks down trains agents on what is left."""
    marks = [step[4].get("fault", torch.zeros(exam.num_envs, dtype=torch.bool)) for step in exam.recording.steps]
    count = sum(int(mark.sum()) for mark in marks)
    if count:
        t = next(t for t, mark in enumerate(marks) if mark.any())
        first = exam.env.describe_fault(int(marks[t].nonzero()[0]), f"step {t + 1}")
        yield f"step: expected no faults under random actions, found {count}, the first {first.partition(': ')[2]}"


def own_faults(exam: Examination) -> Iterator[str]:
    """What the environments know of themselves, such as a success that nobody reads."""
    yield from exam.env.own_faults()


def arrays_stay(exam: Examination) -> Iterator[str]:
    """An environment that writes into returned arrays corrupts recorded trajectories."""
    for t, (step, original) in enumerate(zip(exam.recording.steps, exam.recording.originals, strict=True)):
        if difference([arrays(step)], [arrays(original)]):
            yield f"step: expected later steps to leave returned arrays alone, found those of step {t} changed"
            return


def ends_of_episodes(exam: Examination) -> Iterator[str]:
    """Checks `final_obs`, its mask and the horizon at every step."""
    horizon, found = exam.distribution.horizon, {}
    elapsed = torch.zeros(exam.num_envs, dtype=torch.int64)
    for t, (observations, _, terminated, truncated, info) in enumerate(exam.recording.steps):
        ended, elapsed = terminated | truncated, elapsed + 1
        if not torch.equal(info["_final_obs"], ended):
            found["mask"] = f"info['_final_obs']: expected terminated | truncated, found another mask at step {t}"
        final_obs, returned = named(info["final_obs"]), named(observations)
        if not all(torch.equal(final_obs[name][~ended], returned[name][~ended]) for name in returned):
            rule = "info['final_obs']: expected the returned observation wherever no episode ended"
            found["final_obs"] = f"{rule}, found another at step {t}"
        if bool((~ended & (elapsed >= horizon)).any()):
            longest = int(elapsed[~ended].max())
            found["horizon"] = f"horizon: expected episodes of at most {horizon} steps, found one going on at {longest}"
        elapsed[ended] = 0
    yield from found.values()


def autoreset(exam: Examination) -> Iterator[str]:
    """Finds environments that do not return first observations, unless their episodes end where they start."""
    ends = [(step, step[2] | step[3]) for step in exam.recording.steps]
    final = torch.cat([_rows(step[4]["final_obs"])[ended] for step, ended in ends])
    returned = torch.cat([_rows(step[0])[ended] for step, ended in ends])
    is_start = (final[:, None] == _rows(exam.recording.observations)).all(-1).any(1)
    if bool((~is_start).any()) and torch.equal(final[~is_start], returned[~is_start]):
        yield (
            "autoreset: expected the step that ends an episode to return the first observation of the next, "
            "found the last of the old"
        )


def _rows(observations: Observations) -> Float[Tensor, "B D"]:
    """The numbers of each observation in one row, whatever its entries."""
    return torch.cat([value.flatten(1).float() for value in named(observations).values()], 1)


def saved_state(exam: Examination) -> Iterator[str]:
    recording, state = exam.recording, exam.recording.state
    if state is None:
        return
    for name, value in state.items():
        if not (isinstance(value, Tensor) and value.shape[:1] == (exam.num_envs,)):
            what = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            yield f"get_state: expected {name!r} to be a tensor [{exam.num_envs}, ...], found {what}"
    exam.env.set_state(state)
    again = exam.take(recording.actions[recording.saved_at :])
    if found := difference([arrays(step) for step in recording.steps[recording.saved_at :]], again):
        yield f"set_state: expected the same steps from a restored state, found {found} after it"


def determinism(exam: Examination) -> Iterator[str]:
    """Without it, no other comparison of two runs says anything."""
    exam.env.set_tasks(exam.tasks)
    before = global_random_states()
    if found := difference(exam.recorded, exam.replay()):
        exam.repeats = False
        changed = [library for library, state in global_random_states().items() if state != before[library]]
        hint = f" (the global random state of {' and '.join(changed)} has changed)" if changed else ""
        yield f"determinism: expected the same seed, tasks and actions to give the same run, found {found}{hint}"


def tasks_persist(exam: Examination) -> Iterator[str]:
    exam.env.set_tasks(exam.tasks)
    exam.env.reset()
    found = difference(exam.recorded, exam.replay())
    if exam.env.tasks != exam.tasks:
        yield "set_tasks: expected env.tasks to be the tasks given, whatever is reset, found others"
    elif found:
        yield f"set_tasks: expected the tasks to stay over resets, found {found}"


def single_environment(exam: Examination) -> Iterator[str]:
    """Environment i of the batch runs task i // N and behaves like a single one seeded with seed + i."""
    env, actions = exam.make(1, 1), exam.recording.actions[:REPLAYED_STEPS]

    def departs(i: int, task: Tasks, seed: int) -> str | None:
        env.set_tasks(task)
        env.reset(seed=seed)
        alone = exam.take([action[i : i + 1] for action in actions], env)
        return difference([{k: v[i : i + 1] for k, v in step.items()} for step in exam.recorded], alone, TOLERANCE)

    for i in sorted({min(1, exam.num_envs - 1), exam.num_envs - 1}):
        m, seed = i // exam.envs_per_task, exam.seed + i
        found = departs(i, exam.tasks[m], seed)
        if found is None:
            continue
        others = [k for k in range(exam.num_tasks) if k != m and not departs(i, exam.tasks[k], seed)]
        if not departs(i, exam.earlier_tasks[m], seed):
            yield f"set_tasks: expected it to take effect, found environment {i} running the task it had before"
        elif others:
            yield f"layout: expected environment {i} to run task {m} (task-major), found it running task {others[0]}"
        elif not departs(i, exam.tasks[m], exam.seed):
            yield f"reset: expected environment {i} to be seeded with seed + {i}, found it seeded with seed"
        else:
            alone = f"a single environment with task {m} and seed + {i}"
            yield f"batch: expected environment {i} to behave as {alone}, found {found}"
        return


def wrong_actions(exam: Examination) -> Iterator[str]:
    """Wrong actions are refused and do not change the environment."""
    right = exam.recording.actions[:2]
    exam.env.set_tasks(exam.tasks)
    steps = exam.replay(right[:1])
    for what, actions in _wrong_actions(exam.action_format, right[0]).items():
        if found := refusal(partial(exam.env.step, actions)):
            yield f"step: expected a UsageError for {what}, found {found}"
    steps += exam.take(right[1:])
    if found := difference(exam.recorded[:2], steps):
        yield f"step: expected refused actions to change nothing, found {found} after them"


def _wrong_actions(format: ActionFormat, right: Tensor) -> dict[str, Tensor]:
    wrong = {"too few actions": right[:-1], "actions with a superfluous dimension": right[None]}
    if format.discrete:
        wrong["float actions"] = right.float()
    else:
        wrong["integer actions"] = right.long()
        wrong["NaN"] = right * torch.nan
    if bool(format.whole.any()):
        wrong["a choice beyond the last"] = torch.where(format.whole, format.high + 1, right)
        wrong["a choice before the first"] = torch.where(format.whole, format.low - 1, right)
        if not format.discrete:
            wrong["a choice that is no whole number"] = torch.where(format.whole, format.low + 0.5, right)
    return wrong


def actions_out_of_bounds(exam: Examination) -> Iterator[str]:
    """Moves each number that has a bound in a box beyond it, and leaves the others where they are."""
    low, high = _box_bounds(exam.distribution.action_space)
    if not bool((low.isfinite() | high.isfinite()).any()):
        return
    inside, format = exam.random_actions(1, exam.seed)[0], exam.action_format
    width = (format.high - format.low).clamp(min=1.0)
    upper = high.isfinite() & (low.isinf() | (inside > (format.low + format.high) / 2))
    beyond = torch.where(upper, high + width, torch.where(low.isfinite(), low - width, inside))
    exam.env.set_tasks(exam.tasks)
    if found := difference(exam.replay([beyond.clamp(low, high)]), exam.replay([beyond]), TOLERANCE):
        yield f"step: expected actions out of bounds to be clipped to them, found {found}"


def _box_bounds(space: gym.Space) -> tuple[Tensor, Tensor]:
    """The bounds of each number of an action, infinite if it has none or belongs to a discrete space."""
    if isinstance(space, gym.spaces.Tuple):
        bounds = [_box_bounds(part) for part in space.spaces]
        low, high = (torch.cat([pair[side].flatten() for pair in bounds]) for side in (0, 1))
        return low, high
    if not isinstance(space, gym.spaces.Box):
        free = torch.full(tuple(space.shape or ()), torch.inf)
        return -free, free
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    return torch.where(low > -UNBOUNDED, low, -torch.inf), torch.where(high < UNBOUNDED, high, torch.inf)


def tasks_immutable(exam: Examination) -> Iterator[str]:
    given = Tasks({name: value.clone() for name, value in exam.tasks.parameters.items()})
    exam.env.set_tasks(given)
    for value in exam.env.tasks.parameters.values():
        with contextlib.suppress(RuntimeError):  # raised by a read-only tensor, which is fine
            value.copy_(~value if value.dtype == torch.bool else value + 1)
    rule = "tasks: expected a change of env.tasks in place to stay there"
    if found := difference(exam.recorded, exam.replay()):
        yield f"{rule}, found {found}"
    if given != exam.tasks:
        yield f"{rule}, found it in the tasks that were given"
    if exam.distribution.sample(exam.num_tasks, split="train", seed=exam.seed) != exam.tasks:
        yield f"{rule}, found it in the tasks that are sampled"
    exam.env.set_tasks(exam.tasks)


def tasks_matter(exam: Examination) -> Iterator[str]:
    """Uses constant actions: they reach further than random ones, so sparse rewards differ sooner."""
    steps, differed = min(exam.distribution.horizon, TRIAL_STEPS), False
    for trial in range(TRIALS):
        one, other = (
            exam.distribution.sample(exam.num_tasks, split="train", seed=2 * trial + part) for part in range(2)
        )
        if one == other:
            continue
        differed = True
        actions = exam.random_actions(1, trial) * steps
        exam.env.set_tasks(one)
        run = exam.replay(actions)
        exam.env.set_tasks(other)
        if difference(run, exam.replay(actions)):
            return
    if differed:
        yield (
            f"set_tasks: expected other tasks to give other runs, found none in {TRIALS} trials "
            "(if rewards are very sparse, use a larger num_tasks)"
        )


CHECKS = (
    returned_arrays,
    declared_range,
    faults,
    arrays_stay,
    ends_of_episodes,
    autoreset,
    determinism,
    saved_state,
    tasks_persist,
    single_environment,
    wrong_actions,
    actions_out_of_bounds,
    tasks_immutable,
    tasks_matter,
    own_faults,
)

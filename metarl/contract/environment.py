"""Rules about making an environment and about the order of calls to it."""

from collections.abc import Iterator
from typing import Any

import torch
from gymnasium.vector import AutoresetMode

from metarl.contract.examination import Examination, refusal
from metarl.vector_env import TaskVectorEnv


def attributes(exam: Examination) -> Iterator[str]:
    env, family = exam.env, exam.distribution
    if not isinstance(env, TaskVectorEnv):
        yield f"make_env: expected a metarl.TaskVectorEnv, found {type(env).__name__}"
    expected = {
        "num_tasks": exam.num_tasks,
        "envs_per_task": exam.envs_per_task,
        "num_envs": exam.num_envs,
        "device": torch.device("cpu"),
        "single_observation_space": family.observation_space,
        "single_action_space": family.action_space,
    }
    for name, value in expected.items():
        if (found := getattr(env, name, None)) != value:
            yield f"make_env: expected {name} {value}, found {found}"
    if env.backend not in family.backends:
        yield f"make_env: expected a backend among {', '.join(family.backends)}, found {env.backend!r}"
    if (mode := env.metadata.get("autoreset_mode")) != AutoresetMode.SAME_STEP:
        yield f"make_env: expected autoreset mode SAME_STEP in the metadata, found {mode}"


def wrong_arguments(exam: Examination) -> Iterator[str]:
    def make(num_tasks: Any, envs_per_task: Any = 1, **options: Any) -> None:
        exam.opened.append(exam.distribution.make_env(num_tasks, envs_per_task, **options))

    for what, action in {
        "0 tasks": lambda: make(0),
        "-1 tasks": lambda: make(-1),
        "0 environments per task": lambda: make(1, 0),
        "the backend 'no-such-backend'": lambda: make(1, backend="no-such-backend"),
        "the device 'no-such-device'": lambda: make(1, device="no-such-device"),
    }.items():
        if found := refusal(action):
            yield f"make_env: expected a UsageError for {what}, found {found}"


def order_of_calls(exam: Examination) -> Iterator[str]:
    """This rule has to run before anything else uses the environment."""
    env = exam.env
    if found := refusal(lambda: env.reset(seed=0)):
        yield f"reset: expected a UsageError before set_tasks, found {found}"
    if found := refusal(lambda: env.set_tasks(exam.tasks[[0] * (exam.num_tasks + 1)])):
        yield f"set_tasks: expected a UsageError for {exam.num_tasks + 1} tasks, found {found}"
    env.set_tasks(exam.tasks)
    if found := refusal(lambda: env.step(exam.random_actions(1)[0])):
        yield f"step: expected a UsageError before reset, found {found}"


CHECKS = (attributes, order_of_calls, wrong_arguments)

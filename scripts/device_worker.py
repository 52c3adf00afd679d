"""What `metarl benchmark device` runs in a process of its own for each line.

Its input is the line's `kind` and `options` as JSON. It answers with a line of JSON for each row of figures, as soon as
there is one, so that those of a process that is ended in the middle are not lost.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import run
from typing import Any

import torch
from torch import Tensor

import metarl
from metarl.distribution import TaskDistribution
from metarl.envs.metaworld.family import MetaWorld
from metarl.envs.warp_runtime import start_warp
from metarl.randomness import make_generator
from metarl.rollout import Policy, PolicyStep
from metarl.scripts.contenders import OwnContender, takes_graph
from metarl.scripts.learn_worker import peak_memory
from metarl.scripts.scripted_policies import ScriptedPolicies
from metarl.threads import torch_threads

PEER = Path(__file__).with_name("device_peer.py")
PEER_PACKAGE = "MTCWorldMJX"
Row = dict[str, Any]


class NotAvailable(Exception):
    """What a line measures is not there; says in words what."""


def gpu_tests(device: str) -> Iterator[Row]:
    """Runs the tests with the mark `gpu`; without a GPU, only finds them."""
    places = (Path(__file__).parents[1], Path.cwd())
    root = next((place for place in places if (place / "tests" / "physics").is_dir()), None)
    if root is None:
        raise NotAvailable("the tests are not here: they are in a checkout")
    if importlib.util.find_spec("pytest") is None:
        raise NotAvailable("pytest is not installed: it is in the extra dev")
    files = [str(file) for file in sorted((root / "tests").glob("**/test_*.py")) if "mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    if device == "cpu":
        found = run([*command, "--collect-only"], cwd=root, stdout=sys.stderr, check=False)
        yield {"collected": found.returncode == 0, "run": False}
        if found.returncode:
            raise RuntimeError(f"pytest ended with {found.returncode}")
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run([*command, f"--junitxml={report}"], cwd=root, stdout=sys.stderr, check=False)
        suite = xml.etree.ElementTree.parse(report).getroot()[0]
        failing = [case.get("name") for case in suite if {"failure", "error"} & {part.tag for part in case}]
        row = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
        yield row | {"run": True, "failing": failing}


def kernels(device: str, env: str, num_tasks: int) -> Iterator[Row]:
    """Compiles what the lines on this family launch."""
    own = OwnContender(metarl.make(env), "warp", device, num_tasks, num_tasks)
    metarl.collect(own.env, own.policy, 1)
    own.close()
    yield {"env": env}


def speed(
    device: str,
    env: str,
    num_envs: Sequence[int],
    seconds: float,
    repeats: int,
    num_tasks: int | None = None,
    apart: int | None = None,
) -> Iterator[Row]:
    """Environment steps per second of `metarl.collect` for each number of environments.

    At `apart` environments also without the graph of whole steps, and by the parts of a step.
    """
    family = metarl.make(env)
    for count in num_envs:
        try:
            yield _speed(family, device, count, num_tasks, None, seconds, repeats)
        except RuntimeError as error:  # what torch and Warp raise when memory runs out
            yield {"num_envs": count, "error": str(error).splitlines()[0]}
    if apart is None:
        return
    if takes_graph(family):
        yield _speed(family, device, apart, num_tasks, False, seconds, repeats)
    yield _parts(family, device, apart, num_tasks, seconds)


def _speed(
    family: TaskDistribution,
    device: str,
    count: int,
    num_tasks: int | None,
    graph: bool | None,
    seconds: float,
    repeats: int,
) -> Row:
    begin = time.perf_counter()
    with contextlib.closing(OwnContender(family, "warp", device, count, num_tasks, graph=graph)) as own:
        own.rollout()
        first = time.perf_counter() - begin
        runs = sorted(own.run(seconds) for _ in range(repeats))
        return {
            "num_envs": count,
            "graph": "default" if graph is None else "off",
            "steps_per_second": runs[len(runs) // 2],
            "runs": runs,
            "seconds_to_first_rollout": first,
            "memory_mib": _memory(device),
            "faults": int(getattr(own.env, "fault_count", 0)),
        }


def _parts(family: TaskDistribution, device: str, count: int, num_tasks: int | None, seconds: float) -> Row:
    """Microseconds of an environment step by its parts. A graph of whole steps has none that could be timed."""
    graph = False if takes_graph(family) else None
    with contextlib.closing(OwnContender(family, "warp", device, count, num_tasks, graph=graph)) as own:
        own.rollout()
        return {"num_envs": count, "microseconds": own.parts(seconds)}


def _memory(device: str) -> dict[str, float]:
    """The peak of this process, and what is taken of the GPU, by all that runs on it."""
    memory = {"process": peak_memory()}
    if device != "cpu":
        free, total = torch.cuda.mem_get_info(device)
        memory |= {"gpu": (total - free) / 2**20, "torch": torch.cuda.max_memory_reserved(device) / 2**20}
    return memory


class Replay(Policy):
    """Takes given actions, one row a step."""

    def __init__(self, actions: Tensor):
        self._actions = iter(actions)

    def act(self, observations: Any) -> PolicyStep:
        return PolicyStep(next(self._actions).to(observations.device))


def parity(device: str, env: str, num_tasks: int, envs_per_task: int, steps: int) -> Iterator[Row]:
    """The same actions from the same starts on the CPU engine and on this device: the largest differences."""
    family = metarl.make(env)
    generator = make_generator("parity")
    low, high = (torch.as_tensor(getattr(family.action_space, bound)) for bound in ("low", "high"))
    share = torch.rand(steps, num_tasks, envs_per_task, *family.action_space.shape, generator=generator)
    tasks, seen = family.sample(num_tasks, seed=0), []
    for backend, place in (("mujoco", "cpu"), ("warp", device)):
        worlds = family.make_env(num_tasks, envs_per_task, backend=backend, device=place)
        with contextlib.closing(worlds):
            worlds.set_tasks(tasks)
            seen.append(metarl.collect(worlds, Replay(low + (high - low) * share), steps, seed=0))
    ours, theirs = seen
    for name in ("observations", "rewards"):
        error = (getattr(theirs, name).cpu() - getattr(ours, name)).abs()
        yield {
            "quantity": name,
            "max_error": float(error.max()),
            "median_error": float(error.flatten(1).amax(1).median()),
            "largest_value": float(getattr(ours, name).abs().max()),
            "steps": steps,
            "worlds": num_tasks * envs_per_task,
        }


def family(device: str, speed_options: Mapping[str, Any], parity_options: Mapping[str, Any]) -> Iterator[Row]:
    """Speed and parity of one family, in one process: a second one would start and load kernels again."""
    yield from speed(device, **speed_options)
    yield from parity(device, **parity_options)


def scripted(device: str, names: Sequence[str] | None, goals: int, steps: int) -> Iterator[Row]:
    """The share of goals that Meta-World's scripted policies reach on all tasks at once."""
    family = metarl.make("MT50-v3", one_hot=False)
    assert isinstance(family, MetaWorld)
    chosen = family.names if names is None else names
    places = [family.names.index(name) for name in chosen]
    each = family.goals_per_task
    tasks = family.all_tasks("train")[torch.cat([torch.arange(goals) + each * place for place in places])]
    env = family.make_env(len(tasks), backend="warp", device=device)
    with contextlib.closing(env):
        env.set_tasks(tasks)
        policy = ScriptedPolicies([name for name in chosen for _ in range(goals)])
        success = metarl.collect(env, policy, steps).episode_success()
    assert success is not None
    solved = success.view(len(chosen), goals)
    failed = {name: int((~row).sum()) for name, row in zip(chosen, solved, strict=True) if not row.all()}
    yield {"episodes": solved.numel(), "solved": int(solved.sum()), "failed": failed, "steps": steps}


def learning(
    device: str,
    agent: str,
    env: str,
    iterations: int,
    preset: str | None = None,
    agent_options: Mapping[str, Any] | None = None,
    env_options: Mapping[str, Any] | None = None,
    until: float | None = None,
) -> Iterator[Row]:
    """Trains as `metarl train` does, without its files; a row an iteration, and one of the whole.

    It ends when the success on the training tasks reaches `until`.
    """
    config = metarl.TrainConfig(agent, env) if preset is None else metarl.preset(agent, env, preset)
    config = dataclasses.replace(
        config,
        device=device,
        backend="warp" if "warp" in metarl.make(env).backends else "auto",
        env_options={**config.env_options, **(env_options or {})},
        agent_options=config.agent_options if agent_options is None else agent_options,
    )
    begin, env_steps, reached = time.perf_counter(), 0, False
    experiment = config.resolve()
    with experiment.training(experiment.make()) as training, torch_threads(training.threads):
        for iteration in range(1, iterations + 1):
            metrics = training.iterate(iteration)
            env_steps += int(metrics["env_steps"])
            row: Row = {"iteration": iteration, "env_steps": env_steps, "seconds": time.perf_counter() - begin}
            row |= {name: metrics[name] for name in ("return_mean", "success_mean") if name in metrics}
            yield row
            reached = until is not None and row["success_mean"] >= until
            if reached:
                break
        yield {"whole": row, "until": until, "reached": reached, "memory_mib": _memory(device)}


def peer(
    device: str, python: str | None, envs: Sequence[str], num_envs: int, steps: int, seconds: float
) -> Iterator[Row]:
    """`mtcworldmjx` beside ours, one task after the other; it runs in an interpreter that has it."""
    chosen = python or sys.executable
    probe = [chosen, "-c", f"import importlib.util as u; raise SystemExit(u.find_spec('{PEER_PACKAGE}') is None)"]
    if run(probe, check=False).returncode:
        raise NotAvailable(f"{PEER_PACKAGE.lower()} is not installed: name an interpreter that has it, --peer-python")
    for env in envs:
        request = {"env": env, "num_envs": num_envs, "steps": steps, "seconds": seconds}
        theirs = run([chosen, "-P", str(PEER), json.dumps(request)], capture_output=True, text=True, check=False)
        print(theirs.stderr, file=sys.stderr)
        if theirs.returncode:
            yield {"env": env, "error": (theirs.stderr.strip().splitlines() or ["no message"])[-1]}
            continue
        own = _speed(metarl.make(f"ML1-{env}"), device, num_envs, None, None, seconds, 3)
        found = json.loads(theirs.stdout.splitlines()[-1])
        ratio = own["steps_per_second"] / found["steps_per_second"]
        yield {"env": env, "num_envs": num_envs, "ours": own["steps_per_second"], "theirs": found, "ratio": ratio}


MEASURES: dict[str, Callable[..., Iterator[Row]]] = {
    measure.__name__: measure for measure in (gpu_tests, kernels, speed, family, scripted, learning, peer)
}


def _kernel_files(device: str) -> int:
    """How many compiled modules Warp's cache has for this kind of device."""
    import warp as wp

    start_warp()
    assert wp.config.kernel_cache_dir is not None
    suffix = "o" if device == "cpu" else "cubin"
    return sum(1 for _ in Path(wp.config.kernel_cache_dir).glob(f"**/*.{suffix}"))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what others print is output, and no answer
    request = json.loads(sys.stdin.readline())
    device = request["options"]["device"]
    before = _kernel_files(device)
    try:
        for row in MEASURES[request["kind"]](**request["options"]):
            print(json.dumps(row), file=answers)
        print(json.dumps({"kernel_modules": {"before": before, "after": _kernel_files(device)}}), file=answers)
    except NotAvailable as reason:
        print(json.dumps({"not_available": str(reason)}), file=answers)


if __name__ == "__main__":
    main()

"""`metarl precompile`: compiles the kernels of families for a GPU, on a machine that need not have one."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from metarl.errors import UsageError
from metarl.experiment.files import check_writable, write_atomically
from metarl.registry import make
from metarl.scripts.arguments import parse
from metarl.scripts.benchmark import known_versions
from metarl.scripts.device_lines import FAMILIES
from metarl.scripts.evaluate import print_table
from metarl.scripts.precompile_worker import Request, splits_to_visit
from metarl.scripts.workers import Worker
from metarl.tasks import check_count

WORKER = Path(__file__).with_name("precompile_worker.py")


@dataclass
class Arguments:
    """Compiles the kernels of task distributions for a GPU, so that their first start there compiles nothing.

    No GPU and no driver are needed. The kernels do not depend on the number of environments; they do on the versions of
    the packages, and on the scenes. Kernels that the cache has already are not compiled again.
    """

    ids: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ID ...")] = ()
    """Ids of task distributions; those of `metarl benchmark device` if none are given."""
    arch: str = "sm_90"
    """Architecture of the GPU, such as sm_80 (A100), sm_89 (L4, RTX 4090) or sm_90 (H100, H200)."""
    cache: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the kernels, which WARP_CACHE_PATH names when they are used; Warp's own if not given."""
    jobs: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Processes that compile at the same time."""
    check: bool = False
    """Compile nothing; name what would still be compiled, and fail if there is any."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write seconds and sizes to this file."""


def main(arguments: Sequence[str]) -> int:
    parsed = parse(Arguments, arguments, "metarl precompile")
    check_count("jobs", parsed.jobs)
    requests = _requests(parsed)
    if parsed.json is not None:
        check_writable(parsed.json)
    if parsed.cache is not None:
        parsed.cache.mkdir(parents=True, exist_ok=True)
    answers = []
    for request, answer in zip(requests, _ask(requests, parsed), strict=True):
        print(f"{_title(request)}: {_told(answer, parsed.check)}", file=sys.stderr)
        answers.append(answer)
    print_table(f"Kernels for {parsed.arch}", _table(requests, answers, parsed.check), _total(answers))
    for name in missing_modules(answers):
        print(f"would be compiled: {name}")
    if parsed.json is not None:
        write_atomically(parsed.json, json.dumps(_report(parsed, requests, answers), indent=2) + "\n")
    return int(any("error" in answer for answer in answers) or bool(missing_modules(answers)))


def missing_modules(answers: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({name for answer in answers for name in answer.get("missing", ())})


def _requests(parsed: Arguments) -> list[Request]:
    match = re.fullmatch(r"(?:sm_?)?(\d{2,3})", parsed.arch)
    if match is None:
        raise UsageError(f"--arch {parsed.arch}: want an architecture such as sm_90")
    requests = []
    for id in parsed.ids or FAMILIES:
        family = make(id)
        if "warp" not in family.backends:
            raise UsageError(f"{id} has no kernels to compile: its backends are {', '.join(family.backends)}")
        requests += [Request(id, split, int(match[1]), not parsed.check) for split in splits_to_visit(family)]
    return requests


def _ask(requests: Sequence[Request], parsed: Arguments) -> Iterator[dict[str, Any]]:
    """The answers in the order of the requests. Whatever happens here, the processes end with it."""
    environment = {} if parsed.cache is None else {"WARP_CACHE_PATH": str(parsed.cache.absolute())}
    with ThreadPoolExecutor(parsed.jobs) as pool, contextlib.ExitStack() as running:

        def ask(request: Request) -> dict[str, Any]:
            worker = running.enter_context(
                contextlib.closing(Worker(sys.executable, WORKER, environment=os.environ | environment))
            )
            return worker.ask(asdict(request))

        try:
            yield from pool.map(ask, requests)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _title(request: Request) -> str:
    return request.env if request.split == "train" else f"{request.env}, {request.split} tasks"


def _built(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [module for module in answer["modules"] if module["seconds"] > 0]


def _told(answer: dict[str, Any], check: bool) -> str:
    if "error" in answer:
        return answer["error"]
    found = len(answer["modules"]) - len(_built(answer))
    if check:
        return f"{found} modules found, {len(answer['missing'])} missing"
    return f"{len(_built(answer))} modules compiled, {found} found, {answer['seconds']:.0f} s"


def _table(requests: Sequence[Request], answers: Sequence[dict[str, Any]], check: bool) -> Table:
    table = Table()
    for column in ("", "modules", "kernels", "missing" if check else "compiled", "seconds", "MB", "KB a world"):
        table.add_column(column, justify="right" if column else "left")
    for request, answer in zip(requests, answers, strict=True):
        if "error" in answer:
            table.add_row(_title(request), *["–"] * 6)
            continue
        modules, changed = answer["modules"], answer["missing"] if check else _built(answer)
        counts = (len(modules), sum(module["kernels"] for module in modules), len(changed))
        size = sum(module["size"] for module in modules) / 1e6
        memory = answer["bytes_per_world"] / 1e3
        table.add_row(_title(request), *map(str, counts), f"{answer['seconds']:.0f}", f"{size:.1f}", f"{memory:.0f}")
    return table


def _all_modules(answers: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Families share modules: each once, by name, as it was first found or compiled."""
    modules: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for module in answer.get("modules", ()):
            modules.setdefault(module["name"], module)
    return modules


def _total(answers: Sequence[dict[str, Any]]) -> str:
    modules = _all_modules(answers).values()
    return f"together {len(modules)} modules, {sum(module['size'] for module in modules) / 1e6:.1f} MB"


def _report(parsed: Arguments, requests: Sequence[Request], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    modules = _all_modules(answers).values()
    families = [
        {"title": _title(request)}
        | (
            answer
            if "error" in answer
            else {
                "seconds": answer["seconds"],
                "modules": len(answer["modules"]),
                "compiled": len(_built(answer)),
                "missing": len(answer["missing"]),
                "bytes": sum(module["size"] for module in answer["modules"]),
                "bytes_per_world": answer["bytes_per_world"],
            }
        )
        for request, answer in zip(requests, answers, strict=True)
    ]
    return {
        "arch": parsed.arch,
        "jobs": parsed.jobs,
        "families": families,
        "modules": len(modules),
        "bytes": sum(module["size"] for module in modules),
        "compile_seconds": sum(module["seconds"] for module in modules),
        "versions": known_versions(("metarl-kit", "mujoco", "mujoco-warp", "warp-lang", "metaworld", "torch")),
    }

"""Files that someone has changed, by chance or on purpose, and readers that have to answer in one line of their own.

An attack changes a good file with a random generator and hands it to its reader. Half of the changes are of bytes, half
of values within JSON, YAML or safetensors; checksums are computed anew, for anyone can do so.
"""

import contextlib
import copy
import json
import math
import random
import resource
import shutil
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import metarl
from metarl.experiment.buffers import BufferFiles, restore_buffers
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.config_file import read_entries
from metarl.experiment.files import sha256
from metarl.experiment.metrics import read_any_metrics, read_metrics
from metarl.experiment.report import RunRecord, draw_curves, header, kinds_by_place
from metarl.experiment.run_folder import experiment_of, restore_state
from metarl.replay import ReplayBuffer

Attack = Callable[[random.Random], None]
VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 255, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e30, 1e308, 1e-320),
    *(math.nan, math.inf, -math.inf, "", "x", "x" * 3000, "../../etc/passwd", "os:system", "\x1b[2J\n", "$\\frac$"),
    *("[/red]", "|<b>|", "NaN", "1e999", "2020-01-01", "\x00", "ü\ud7ff", [], {}, [[[]]], [1, [2]], {"a": {"b": 1}}),
    *([0] * 1000, {"": None}, ["float32"], {"iteration": 1}, "float32", "torch", "int64", "checkpoints"),
]
TOKENS = [
    *(b"", b"\x00", b"\xff", b"{", b"}", b"[" * 5000, b"]", b'"', b",", b":", b"-", b"1e999", b"NaN", b"null"),
    *(b"\n", b"\r\n", b"\xe2\x80\xa8", b"&a [*a]", b"*a", b"? ", b"- ", b"9" * 5000),
    *(b"2001-99-99", b"0x", b"0b2", b"1:99:99", b"<<: *x", b"!!binary |", b"%YAML 9", b"--- ", b"{a: " * 200, b"true"),
    b"!!python/object/apply:os.system ['touch owned']",
]


def changed_bytes(data: bytes, draw: random.Random) -> bytes:
    """`data` with a few bytes flipped, cut, doubled or replaced by what parsers stumble over."""
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        start = draw.randrange(len(data) + 1)
        end = min(len(data), start + draw.choice([0, 1, 1, 4, 30, 1000]))
        part = data[start:end]
        new = draw.choice([draw.choice(TOKENS), draw.randbytes(1), draw.randbytes(6), part * 2, part[::-1], b""])
        data = data[:start] + new + data[end:]
    return data


def changed_value(value: Any, draw: random.Random) -> Any:
    """A copy of `value`, as JSON has it, with one or several parts replaced, removed or repeated."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(draw.choice(VALUES))
        holder, key = draw.choice(places)
        act = draw.randrange(6)
        if act == 0:
            del holder[key]
        elif act == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif act == 1:
            holder[str(draw.choice(VALUES))[:50]] = copy.deepcopy(holder[key])
        elif act == 2:
            holder[key] = copy.deepcopy(draw.choice(places)[0])
        elif act == 3 and isinstance(holder[key], int | float) and abs(holder[key]) < 1e100:
            holder[key] = draw.choice([holder[key] + 1, -holder[key], holder[key] * 10**9, holder[key] / 3])
        else:
            holder[key] = copy.deepcopy(draw.choice(VALUES))
    return value


def _places(value: Any):
    for key, part in list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from _places(part)


def text(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _lines(rows: Any) -> bytes:
    return b"".join(text(row) + b"\n" for row in (rows if isinstance(rows, list) else [rows]))


def forged(content: dict[str, Any]) -> bytes:
    """A checkpoint's JSON with its checksum."""
    return text(content | {"sha256": sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass"))})


def checkpoint_attack(run: Path) -> Attack:
    """Changes the last checkpoint and restores an agent from it."""
    agent = metarl.load_agent(run)
    path = sorted(run.glob("checkpoints/*.json"))[-1]
    for other in run.glob("checkpoints/*"):
        if other.stem != path.stem:
            other.unlink()
    content, tensors = json.loads(path.read_bytes()), path.with_suffix(".safetensors").read_bytes()
    del content["sha256"]
    length = struct.unpack("<Q", tensors[:8])[0]
    head, body = json.loads(tensors[8 : 8 + length]), tensors[8 + length :]

    def attack(draw: random.Random) -> None:
        new, data = content, tensors
        how = draw.randrange(5)
        if how == 0:
            data = changed_bytes(tensors, draw)
        elif how == 1:
            described = text(changed_value(head, draw))
            claimed = draw.choice([len(described)] * 9 + [2**62])
            data = struct.pack("<Q", claimed) + described + body
        elif how in (2, 3):
            new = changed_value(content, draw)
        if not isinstance(new, dict):
            new = {"": new}
        if how < 2 or draw.random() < 0.5:
            new = new | {"tensors_sha256": sha256(data)}
        written = changed_bytes(forged(new), draw) if how == 4 else forged(new)
        path.write_bytes(written)
        path.with_suffix(".safetensors").write_bytes(data)
        restore_state(run, agent, load_checkpoint(run))

    return attack


def config_attack(run: Path) -> Attack:
    """Changes config.yaml and makes the experiment that it describes, but neither agent nor environments."""
    path = run / "config.yaml"
    entries = yaml.safe_load(path.read_bytes())
    good = path.read_bytes()

    def attack(draw: random.Random) -> None:
        if draw.random() < 0.5:
            path.write_bytes(changed_bytes(good, draw))
        else:
            path.write_bytes(text(changed_value(entries, draw)))  # JSON is YAML
        experiment_of(run, read_entries(run), None, {})

    return attack


def tasks_attack(run: Path) -> Attack:
    """Changes the JSON of tasks and reads them."""
    family = metarl.make("PointNavigation-v0")
    good = json.loads(family.sample(2, split="test", seed=0).to_json())

    def attack(draw: random.Random) -> None:
        data = text(changed_value(good, draw)) if draw.random() < 0.6 else changed_bytes(text(good), draw)
        family.validate(metarl.Tasks.from_json(data.decode("utf-8", "replace")))

    return attack


def evaluation_attack(run: Path) -> Attack:
    """Changes the JSON of an evaluation, reads it and summarises it."""
    family = metarl.make("PointNavigation-v0")
    agent = metarl.load_agent(run)
    good = json.loads(metarl.evaluate(agent, family, num_tasks=3, episodes=1).to_json())

    def attack(draw: random.Random) -> None:
        data = text(changed_value(good, draw)) if draw.random() < 0.6 else changed_bytes(text(good), draw)
        metarl.Evaluation.from_json(data.decode("utf-8", "replace"))

    return attack


def metrics_attack(run: Path) -> Attack:
    """Changes metrics.jsonl and reads it, as a report does and as going on does."""
    path = run / "metrics.jsonl"
    good = path.read_bytes()
    rows = [json.loads(line) for line in good.splitlines()]

    def attack(draw: random.Random) -> None:
        if draw.random() < 0.5:
            path.write_bytes(changed_bytes(good, draw))
        else:
            changed = changed_value(rows, draw)
            path.write_bytes(
                b"".join(text(row) + b"\n" for row in (changed if isinstance(changed, list) else [changed]))
            )
        with contextlib.suppress(metarl.UsageError):
            read_any_metrics(run)
        read_metrics(run, iteration=4)

    return attack


def report_attack(run: Path) -> Attack:
    """Changes one of the files that a report reads, and makes its tables; one in fifty also has its curves drawn."""
    evaluation = json.loads(
        metarl.evaluate(metarl.load_agent(run), metarl.make("PointNavigation-v0"), num_tasks=3).to_json()
    )
    entries = yaml.safe_load((run / "config.yaml").read_bytes())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    for name in ("fingerprint", "agent_options"):
        entries.pop(name)  # which makes the others come up more often

    files = {"evaluation.json": (evaluation, text), "config.yaml": (entries, text), "metrics.jsonl": (rows, _lines)}
    other = shutil.copytree(run, run.with_name("other"), dirs_exist_ok=True)

    def attack(draw: random.Random) -> None:
        for folder in (run, other):
            hit = draw.choice(list(files))
            for name, (value, write) in files.items():
                (folder / name).write_bytes(write(changed_value(value, draw) if name == hit else value))
        draws = draw.random() < 0.02
        for place, kinds in kinds_by_place([RunRecord.open(run), RunRecord.open(other)]).items():
            for kind in kinds:
                assert len(kind.row()) == len(header(kind))
            if draws:
                figure = draw_curves(place, kinds)
                figure.savefig("/dev/null", format="png", dpi=20)

    return attack


def buffer_attack(run: Path) -> Attack:
    """Changes the files of a replay buffer, or its record, and restores it."""
    folder = run / "attacked"
    buffer = ReplayBuffer(6)
    files = BufferFiles(folder, {"seen": buffer}, {})
    for _ in range(4):
        buffer.append({"number": metarl.make("PointNavigation-v0").sample(2, seed=0).parameters["goal"]})
        files.append()
    record = files.record()
    good = {path: path.read_bytes() for path in (folder / "buffers" / "seen").iterdir()}

    def attack(draw: random.Random) -> None:
        hit = draw.choice([None, *good])
        for path, data in good.items():
            described = path.suffix == ".json" and draw.random() < 0.7
            new = text(changed_value(json.loads(data), draw)) if described else changed_bytes(data, draw)
            path.write_bytes(new if path == hit else data)
        told = {"seen": changed_value(record["seen"], draw)} if hit is None else record
        content = {"format": 2, "iteration": 1, "env_steps": 0, "wall_seconds": 0, "values": {}, "window": {}}
        content |= {"buffers": told, "tensors_sha256": sha256(EMPTY)}
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "iteration-000001.json").write_bytes(forged(content))
        (folder / "checkpoints" / "iteration-000001.safetensors").write_bytes(EMPTY)
        restore_buffers(folder, {"seen": ReplayBuffer(6)}, load_checkpoint(folder).buffers)

    return attack


EMPTY = struct.pack("<Q", 2) + b"{}"
"""A file of safetensors without tensors."""
ATTACKS: dict[str, Callable[[Path], Attack]] = {
    "checkpoint": checkpoint_attack,
    "config": config_attack,
    "tasks": tasks_attack,
    "evaluation": evaluation_attack,
    "metrics": metrics_attack,
    "report": report_attack,
    "buffer": buffer_attack,
}
LONGEST_LINE = 4000
"""Characters of an answer, at most."""
GROWTH = 400_000
"""KiB by which the peak of memory may grow."""


def outside(run: Path) -> set[Path]:
    """All files around the run, but for the second one of the reports."""
    home = Path.cwd()
    return {path for path in home.rglob("*") if run not in (path, *path.parents) and "other" not in path.parts}


def attack_often(name: str, run: Path, count: int, first_seed: int) -> list[str]:
    """Attacks `count` times, each from a seed of its own; returns what went wrong."""
    attack, wrong, refused = ATTACKS[name](run), [], 0
    before, peak = outside(run), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(first_seed, first_seed + count):
        try:
            attack(random.Random(f"{name} {seed}"))
        except metarl.UsageError as error:
            refused += 1
            message = str(error)
            if not message.isprintable() or len(message) > LONGEST_LINE:
                wrong.append(f"{name} {seed}: {message!r}")
        except Exception:
            wrong.append(f"{name} {seed}: {traceback.format_exc()}")
        if len(wrong) >= 5:
            break
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    wrong += [f"{name}: memory grew by {grown} KiB"] * (grown > GROWTH)
    wrong += [f"{name}: {path} was written" for path in sorted(outside(run) - before)]
    wrong += [f"{name}: only {refused} of {count} were refused"] * (refused < count / 20)
    return wrong


def main() -> None:
    """`hostile_files.py RUN FIRST_SEED NAME=COUNT ...`: in the working directory, which holds copies of RUN."""
    warnings.simplefilter("ignore")
    run, first_seed, *families = sys.argv[1:]
    failures = []
    for family in families:
        name, _, count = family.partition("=")
        place = shutil.copytree(run, Path.cwd() / name / "run")
        failures += attack_often(name, place, int(count), int(first_seed))
    print("\n".join(failures))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

"""Command lines that pages show are ones that the commands take."""

import dataclasses
import importlib
import re
import sys
from typing import Any

import pytest
from pages import GUIDES, PAGES, ROOT, command_lines, name_of, python_blocks

import metarl
from metarl.agent import AgentConfig
from metarl.experiment.named_presets import find_preset
from metarl.fewshot.data import data_class
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives import objective_class
from metarl.registry import agent_class
from metarl.scripts import benchmark, fewshot, predict, train
from metarl.scripts.arguments import key_values, parse, peek
from metarl.scripts.cli import COMMANDS

STANDS_FOR = {
    "RUN": "runs/x",
    "FILE": "x.json",
    "DIR": "x",
    "OUT": "x",
    "S": "1",
    "N": "1",
    "M": "1",
    "K": "1",
    "Q": "1",
    "ID": "PointNavigation-v0",
    "ENV": "PointNavigation-v0",
    "AGENT": "rl2",
    "LEARNER": "protonet",
    "DATA": "glyphs",
    "COLUMN": "x",
    "JSON": "{}",
}
"""Placeholders, and something of their kind."""
FORMER = ["CHANGELOG.md"]
"""Pages about commands as they were."""
COMMANDS_OF = [page for page in PAGES if name_of(page) not in FORMER and list(command_lines(page))]


def check(words: list[str]) -> None:
    """Raises `UsageError` for a command line that metarl would refuse before it does anything."""
    name, *given = [STANDS_FOR.get(word, word) for word in words] or ["COMMAND"]
    if name == "COMMAND":
        return
    assert name in COMMANDS, f"there is no command {name}"
    if not given or "--help" in given:  # the command is only named
        return
    if name == "train":
        check_train(given)
    elif given[:1] == ["predict"]:
        parse(predict.Arguments, given[1:], "metarl fewshot predict")
    elif name == "fewshot":
        check_fewshot(given)
    elif name == "benchmark":
        kind, *options = given
        if kind != "NAME" and options:
            parse(importlib.import_module(benchmark.BENCHMARKS[kind][0]).Arguments, options, "metarl benchmark")
    else:
        parse(importlib.import_module(COMMANDS[name][0]).Arguments, given, f"metarl {name}")


def check_train(given: list[str]) -> None:
    agent, options = train._split_agent(given)
    own = agent is None or ":" in agent  # a user's agent, or none
    config: Any = AgentConfig if own else agent_class(str(agent)).config_class
    named = peek(train.EnvArguments, options)
    if "--env" not in options:  # only options are named
        options = [*options, "--env", "PointNavigation-v0"]
    parse(train.Arguments[config], options, "metarl train")
    if named.env is not None and ":" not in named.env:
        metarl.make(named.env, **key_values(named.env_options, "--env-options"))
        if named.preset not in (None, "NAME"):
            find_preset(str(agent), named.env, str(named.preset))


def check_fewshot(given: list[str]) -> None:
    learner, options = fewshot._split_learner(given)
    named = peek(fewshot.Named, options)
    data = "glyphs" if named.data in (None, "NAME") else str(named.data)
    generic: Any = fewshot.Arguments
    classes = learner_class(str(learner)), data_class(data), objective_class(named.objective)
    parse(generic[tuple(cls.config_class for cls in classes)], options, "metarl fewshot")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", COMMANDS_OF, ids=name_of)
def test_commands_are_taken(page):
    for words in command_lines(page):
        program, *given = words
        if program.removeprefix(".venv/bin/") == "metarl":
            try:
                check(given)
            except metarl.UsageError as error:
                raise AssertionError(f"{name_of(page)}: {' '.join(words)}: {error}") from None
        elif program == "make" and given:
            assert given[0] in targets() or "=" in given[0], f"{name_of(page)}: {' '.join(words)}"
        elif program == "python" and given and given[0].startswith("scripts/"):
            source = (ROOT / given[0]).read_text()
            for word in given[1:]:
                assert not word.startswith("--") or f'"{word}"' in source, f"{name_of(page)}: {' '.join(words)}"


def test_options_of_the_family_of_ones_own_are_arguments_of_its_function(tmp_path, monkeypatch):
    page = ROOT / "docs" / "YOUR_OWN_ENVIRONMENT.md"
    (tmp_path / "cars.py").write_text(python_blocks(page)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    lines = [words for words in command_lines(page) if "--env-options" in words and "cars:mountain_car" in words]
    assert lines
    for words in lines:
        named = peek(train.EnvArguments, words[2:])
        family = metarl.make(str(named.env), **key_values(named.env_options, "--env-options"))
        assert family.task_space["force"].low == 0.0012
        with pytest.raises(metarl.UsageError, match=r"cars:mountain_car: .*'weakst'; it takes .weakest=0.0008."):
            metarl.make(str(named.env), weakst=1)


def test_a_wrong_option_is_found():
    for line in ("train rl2 --env Bandit-v0 --itertions 3", "evaluate RUN --task 3", "train rl2 --env Bandit-v1"):
        with pytest.raises(metarl.UsageError):
            check(line.split())


def test_the_commands_are_found():
    assert len(COMMANDS_OF) > len(GUIDES) / 2
    assert ["metarl", "evaluate", "runs/velocity", "--split", "train"] in list(
        command_lines(ROOT / "docs" / "COMMAND_LINE.md")
    )
    assert dataclasses.is_dataclass(train.Arguments)

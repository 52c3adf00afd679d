"""`metarl compare` and what `metarl evaluate` says of shifted and of single tasks."""

import json
from pathlib import Path

import pytest
import torch

import metarl
from metarl.scripts.cli import main
from metarl.scripts.task_table import task_table

FAMILY = ("--env", "HalfCheetahVel-v0", "--env-options", "horizon=5")


def evaluation(level, *, spread=0.1, seed=0, tasks=8, stages=(0, 2), **changes):
    family = metarl.make("PointNavigation-v0")
    noise = torch.randn(tasks, len(stages), generator=torch.Generator().manual_seed(seed))
    fields = {"family": family.id, "horizon": 100} | changes
    drawn = fields.pop("drawn", family.sample(tasks, seed=0))
    return metarl.Evaluation(level + spread * noise, None, list(stages), drawn, **fields)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def written(name, made):
        (tmp_path / name).write_text(made.to_json())
        return name

    return written


def test_names_group_files_and_the_statistics_are_written(write, capsys):
    for i in range(3):
        write(f"a{i}.json", evaluation(0.0, seed=i))
        write(f"b{i}.json", evaluation(1.0, seed=10 + i))
    files = [f"{name}={name}{i}.json" for name in "ab" for i in range(3)]
    assert main(["compare", *files, "--threshold", "0.5", "--target", "1", "--json", "out.json"]) == 0
    text = capsys.readouterr().out
    assert "return on PointNavigation-v0, 8 tasks, horizon 100" in text
    assert "b is compared with a on the same tasks" in text
    found = json.loads(Path("out.json").read_text())
    first, second = found["contenders"]
    assert (first["name"], second["runs"], second["episodes"]) == ("a", 3, 2)
    assert second["probability_of_improvement"]["value"] == 1.0
    assert second["difference"]["low"] < 1.0 < second["difference"]["high"]
    assert (first["episodes_to_threshold"], second["episodes_to_threshold"]) == (None, 0.0)
    assert first["optimality_gap"]["value"] == pytest.approx(1.0, abs=0.1)
    assert len(found["profiles"]["shares"]["a"]) == len(found["profiles"]["thresholds"])


def test_a_name_is_text_in_every_format(write, capsys):
    files = [f"<b>[red]={write('a.json', evaluation(0.0))}", write("b.json", evaluation(1.0))]
    assert main(["compare", *files, "--format", "markdown"]) == 0
    assert "<b>" not in capsys.readouterr().out
    assert main(["compare", *files]) == 0
    assert "<b>[red]" in capsys.readouterr().out


def test_tables_for_markdown_and_latex(write, capsys):
    files = [write("a_1.json", evaluation(0.0)), write("b.json", evaluation(1.0))]
    assert main(["compare", *files, "--format", "markdown"]) == 0
    what, _, *lines = capsys.readouterr().out.splitlines()
    assert what == "return on PointNavigation-v0, 8 tasks, horizon 100"
    assert lines[0].startswith("|  | runs | episodes used | mean | IQM |")
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert main(["compare", *files, "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("% return on PointNavigation-v0, 8 tasks, horizon 100\n\\begin{tabular}{lrrrrrrrr}")
    assert r"a\_1 & 1 & 2 &" in text
    assert "% b: 95 % interval over 8 tasks, for this run: 1 is too few for an interval over runs (want 3)" in text


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"family": "Bandit-v0"}, "family PointNavigation-v0 and Bandit-v0"),
        ({"horizon": 50}, "horizon 100 and 50"),
        ({"protocol": "other"}, "protocol per-task and other"),
        ({"family_options": {"goal_radius": 0.3}}, "goal_radius 0.3 instead of the default"),
        ({"tasks": 5}, "8 and 5 distinct tasks"),
        ({"drawn": metarl.Tasks({"goal": torch.rand(8, 2)})}, "other tasks: evaluate both with the same"),
        ({"family": None}, "does not say which family it is of"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(write, capsys, other, complaint):
    files = [write("a.json", evaluation(0.0)), write("b.json", evaluation(1.0, **other))]
    assert main(["compare", *files]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_mistakes_are_told_in_a_line(write, capsys):
    write("a.json", evaluation(0.0))
    write("b.json", evaluation(1.0, stages=(0, 5)))
    Path("no.json").write_text("{}")
    for arguments, complaint in (
        (["a.json"], "two agents or more"),
        (["a.json", "a.json"], "a.json is named twice"),
        (["x=a.json", "x=b.json", "y=no.json"], "no.json is no evaluation"),
        (["a.json", "c.json"], "cannot read c.json"),
        (["a.json", "b.json", "--metric", "success"], "has no success"),
        (["a.json", "b.json", "--episodes", "5"], "a was not measured after 5 episodes"),
    ):
        assert main(["compare", *arguments]) == 2, arguments
        assert complaint in capsys.readouterr().err


def test_runs_shifted_tasks_and_the_table_of_every_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in ("0", "1"):
        train = ["train", "random", *FAMILY, "--iterations", "1", "--num-tasks", "2", "--envs-per-task", "2"]
        assert main([*train, "--seed", seed, "--output", f"r{seed}"]) == 0
        assert main(["evaluate", f"r{seed}", "--tasks", "5"]) == 0
    assert main(["compare", "random=r0", "other=r1"]) == 0
    assert "other is compared with random on the same tasks\n" in capsys.readouterr().out
    assert main(["compare", "r0", "r1"]) == 2  # one agent
    assert main(["evaluate", "r0", "--tasks", "5", "--shift", "max_velocity=4", "--per-task", "--json", "far"]) == 0
    text = capsys.readouterr().out
    assert "5 test tasks outside the training range" in text
    assert "0 of 5 tasks fail" in text
    velocity = metarl.Evaluation.from_json((tmp_path / "far").read_text()).tasks.parameters["velocity"]
    assert bool((velocity > 2).all())
    assert main(["report", "r0"]) == 0
    assert "max_velocity 4 instead of the default" in (told := " ".join(capsys.readouterr().out.split()))
    assert "tasks outside the training range" in told
    assert main(["compare", "r1", "far"]) == 2
    assert "max_velocity 4 instead of the default" in capsys.readouterr().err
    assert main(["evaluate", "r0", "--shift", "horizon=3", "--env-options", "horizon=4"]) == 2
    assert "horizon is given by both" in capsys.readouterr().err


def test_intervals_of_shares_of_success_stay_between_0_and_1(write, capsys):
    family = metarl.make("SparsePointNavigation-v0")
    tasks = family.sample(12, seed=0)
    for name, share in (("a", 0.1), ("b", 0.9)):
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            success = (torch.rand(12, 1, generator=generator) < share).float()
            made = metarl.Evaluation(success, success, [0], tasks, family=family.id, horizon=20)
            write(f"{name}{seed}.json", made)
    files = [f"{name}={name}{seed}.json" for name in "ab" for seed in range(3)]
    assert main(["compare", *files, "--json", "out.json"]) == 0
    rows = json.loads(Path("out.json").read_text())["contenders"]
    for row in rows:
        for name in ("mean", "iqm", "median"):
            assert 0 <= row[name]["low"] <= row[name]["value"] <= row[name]["high"] <= 1
    assert -1 <= rows[1]["difference"]["low"] <= rows[1]["difference"]["high"] <= 1


def test_one_episode_is_singular_in_the_table_of_tasks():
    row = {"task": {"goal": 0.5}, "returns": [1.0, 2.0], "success": None, "fails": None}
    columns = [str(column.header) for column in task_table([row], [0, 1]).columns]
    assert columns == ["task", "return, 0 episodes", "return, 1 episode", ""]

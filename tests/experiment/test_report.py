"""Reports over real runs: what belongs together is put together, and the figures are those of the runs."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import yaml
from hill_climber import HillClimber
from run_helpers import config

import metarl
import metarl.fewshot
from metarl.agent import AgentConfig
from metarl.agents.random import RandomAgent
from metarl.experiment.metrics import read_metrics
from metarl.experiment.report import Kind, RunRecord, kinds_by_place
from metarl.experiment.report_page import PATHS, page
from metarl.experiment.report_sections import adaptation_chart, learning_chart, section
from metarl.experiment.report_tables import Table
from metarl.scripts.cli import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    found = {f"seed{seed}": metarl.train(config(folder / f"seed{seed}", seed=seed), progress=False) for seed in (1, 2)}
    found["long"] = metarl.train(config(folder / "long", iterations=20, env_options={"horizon": 7}), progress=False)
    for name in ("seed1", "seed2"):
        assert main(["evaluate", str(found[name]), "--tasks", "4"]) == 0
    options = {"iterations": 6, "hidden": (4,), "num_tasks": 2}
    for seed in (0, 1):
        few = metarl.fewshot.FewShotConfig(
            "maml", "sinusoid", learner_options=options, episodes=3, seed=seed, output=folder / f"maml{seed}"
        )
        found[f"maml{seed}"] = metarl.fewshot.train(few, progress=False)
    return found


def test_runs_that_differ_in_their_seeds_are_one_kind(runs: dict[str, Path]):
    places = kinds_by_place([RunRecord.open(path) for path in runs.values()])
    assert list(places) == ["PointNavigation-v0", "sinusoid"]
    labels = {kind.label: [run.path.name for run in kind.runs] for kind in places["PointNavigation-v0"]}
    assert labels == {
        "hill-climber, horizon 10, iterations 12": ["seed1", "seed2"],
        "hill-climber, horizon 7, iterations 20": ["long"],
    }
    (few,) = places["sinusoid"]
    assert (few.label, len(few.runs)) == ("maml", 2)


def test_how_a_run_was_carried_out_is_no_setting(runs: dict[str, Path], tmp_path: Path):
    """Run folders of 0.2 have neither `max_faults` nor `threads`."""
    paths = [runs["seed1"]]
    for name, change in (("old", None), ("other", {"max_faults": 5, "threads": 2})):
        paths.append(shutil.copytree(runs["seed1"], tmp_path / name))
        entries = yaml.safe_load((paths[-1] / "config.yaml").read_text())
        kept = {key: value for key, value in entries.items() if key not in ("max_faults", "threads")}
        (paths[-1] / "config.yaml").write_text(yaml.safe_dump(kept | (change or {})))
    ((kind,),) = kinds_by_place([RunRecord.open(path) for path in paths]).values()
    assert len(kind.runs) == 3


def test_a_row_says_what_the_runs_say(runs: dict[str, Path]):
    both = [RunRecord.open(runs[name]) for name in ("seed1", "seed2")]
    ((kind,),) = kinds_by_place(both).values()
    label, count, steps, minutes, standing, evaluated = kind.row()
    last = [row["return_mean"] for row in (read_metrics(run.path)[-1] for run in both)]
    assert (label, count, steps) == ("hill-climber", "2", f"{both[0].rows[-1]['env_steps']:,}")
    assert float(minutes) >= 0
    assert standing == f"{np.mean(last):.4g} ({min(last):.4g} … {max(last):.4g})"
    first = [json.loads((run.path / "evaluation.json").read_text())["summary"][0]["return_mean"] for run in both]
    assert f"return after 0 episodes {np.mean(first):.4g} ({min(first):.4g} … {max(first):.4g})" in evaluated


def test_curves_are_compared_where_all_runs_have_been(runs: dict[str, Path]):
    ((kind,),) = kinds_by_place([RunRecord.open(runs[name]) for name in ("seed1", "seed2")]).values()
    grid, curves = kind.curve()
    assert curves.shape == (2, len(grid))
    for curve, run in zip(curves, kind.runs, strict=True):
        assert grid[[0, -1]].tolist() == [run.rows[0]["env_steps"], run.rows[-1]["env_steps"]]
        assert curve[[0, -1]].tolist() == pytest.approx([run.rows[0]["return_mean"], run.rows[-1]["return_mean"]])


def test_the_command_writes_a_page_tables_and_curves(runs: dict[str, Path], tmp_path: Path, capsys):
    out = tmp_path / "out"
    assert main(["report", *map(str, runs.values()), "--output", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "hill-climber, horizon 7" in shown
    assert f"{runs['long']} has no evaluation: metarl evaluate {runs['long']}" in shown
    assert shown.endswith(f"{out / 'report.html'}\n")
    text = (out / "report.md").read_text()
    for name in ("PointNavigation-v0", "sinusoid"):
        assert f"![{name}]({name}.png)" in text
        assert imageio.imread(out / f"{name}.png").std() > 0
    assert "| maml | 2 | 6 |" in text
    assert "| horizon | 10 | 7 |" in text
    assert r"maml & 2 & 6 & 0.0 &" in (out / "report.tex").read_text()


def test_mean_and_band_of_a_chart_are_those_of_the_runs(runs: dict[str, Path]):
    """A kind has no values where its runs have not been, and the other axis has minutes."""
    (kinds,) = kinds_by_place([RunRecord.open(runs[name]) for name in ("seed1", "seed2", "long")]).values()
    chart = learning_chart(kinds, "env_steps")
    both, long = chart.lines
    rows = [read_metrics(runs[name]) for name in ("seed1", "seed2")]
    ends = [run[-1]["return_mean"] for run in rows]
    last = chart.x.index(rows[0][-1]["env_steps"])
    assert both.mean[last] == pytest.approx(np.mean(ends), rel=1e-5)
    assert (both.low[last], both.high[last]) == (pytest.approx(min(ends)), pytest.approx(max(ends)))
    ended, reached = rows[0][-1]["env_steps"], read_metrics(runs["long"])[-1]["env_steps"]
    assert [line.mean[-1] is None for line in (both, long)] == [reached > ended, ended > reached]
    minutes = learning_chart(kinds, "wall_seconds")
    longest = max(read_metrics(runs[name])[-1]["wall_seconds"] for name in ("seed1", "seed2", "long"))
    assert minutes.x[-1] <= longest / 60 * 1.001


def test_a_heat_map_has_every_task_once_and_the_easiest_first(runs: dict[str, Path]):
    (kinds,) = kinds_by_place([RunRecord.open(runs[name]) for name in ("seed1", "seed2", "long")]).values()
    part = section("PointNavigation-v0", kinds)
    (heat_map,) = part.heat_maps
    texts = [(runs[name] / "evaluation.json").read_text() for name in ("seed1", "seed2")]
    means = np.mean([json.loads(text)["returns"] for text in texts], axis=0)  # [tasks, stages]
    assert sorted(heat_map.values[0]) == pytest.approx(sorted(means[:, 0]))
    assert len(set(heat_map.tasks)) == len(heat_map.tasks) == 4
    assert (np.diff(heat_map.values.mean(0)) <= 0).all()
    goals = json.loads((runs["seed1"] / "evaluation.json").read_text())["tasks"]["parameters"]["goal"]
    best = goals[int(means.mean(1).argmax())]
    assert heat_map.tasks[0] == f"goal ({best[0]:.3g}, {best[1]:.3g})"


def test_a_heat_map_of_many_stages_shows_the_first_the_last_and_three_between(tmp_path: Path):
    run = metarl.train(config(tmp_path / "run"), progress=False)
    assert main(["evaluate", str(run), "--tasks", "2", "--episodes", "20"]) == 0
    ((kind,),) = kinds_by_place([RunRecord.open(run)]).values()
    (heat_map,) = section("PointNavigation-v0", [kind]).heat_maps
    used = kind.evaluations[0]["episodes_used"]
    assert len(used) > 5
    shown = [int(row.rpartition(" ")[2]) for row in heat_map.rows]
    assert (shown[0], shown[-1], len(shown)) == (used[0], used[-1], 5)
    scores = np.array(kind.evaluations[0]["returns"])
    by_hand = scores[:, [used.index(stage) for stage in shown]].T
    assert np.array_equal(np.sort(heat_map.values, axis=1), np.sort(by_hand, axis=1))


def test_agents_from_scratch_have_no_figures_of_training(runs: dict[str, Path], tmp_path: Path, capsys):
    """Their training only measures an untrained policy: that is not what they reach."""
    scratch = tmp_path / "scratch"
    options = ["--from-scratch", "--num-tasks", "1", "--scratch-episodes", "2", "--iterations", "1"]
    family = ["--env", "PointNavigation-v0", "--env-options", "horizon=10"]
    assert main(["train", "sb3-ppo", *family, *options, "--output", str(scratch)]) == 0
    assert main(["evaluate", str(scratch), "--tasks", "2", "--episodes", "2"]) == 0
    (kinds,) = kinds_by_place([RunRecord.open(path) for path in (scratch, runs["seed1"])]).values()
    assert kinds[0].row()[:5] == ["sb3-ppo from scratch", "1", "–", "–", "–"]
    assert "return after 2 episodes" in kinds[0].row()[5]
    found = section("PointNavigation-v0", kinds)
    assert [[line.label for line in chart.lines] for chart in found.charts[:2]] == [[kinds[1].label]] * 2
    assert [line.label for line in found.charts[2].lines] == [kind.label for kind in kinds]
    for folder in ([scratch], [scratch, runs["seed1"]]):
        assert main(["report", *map(str, folder), "--output", str(tmp_path / "report")]) == 0
    assert section("PointNavigation-v0", kinds[:1]).charts[0].title.startswith("Adaptation")
    capsys.readouterr()


class Untrained(HillClimber):
    from_scratch = True


@dataclass(frozen=True)
class FromScratchConfig(AgentConfig):
    num_tasks: int = 2
    envs_per_task: int = 1
    from_scratch: bool = True
    """Something else, of this name: whether its networks start at random."""


class Trained(RandomAgent):
    config_class = FromScratchConfig


def test_an_agent_of_ones_own_says_that_it_trains_on_each_test_task_alone(tmp_path: Path):
    whole = config(tmp_path / "untrained")
    runs = {"untrained": metarl.train(dataclasses.replace(whole, agent=Untrained), progress=False)}
    named_so = dataclasses.replace(whole, agent=Trained, agent_options={}, output=tmp_path / "trained")
    runs["trained"] = metarl.train(named_so, progress=False)
    assert RunRecord.open(runs["untrained"]).who.endswith("Untrained from scratch")
    assert not Kind("untrained", [RunRecord.open(runs["untrained"])]).has_curve
    assert Kind("trained", [RunRecord.open(runs["trained"])]).has_curve, "an option of this name says nothing"


def test_folders_of_earlier_versions_have_it_among_the_options(runs: dict[str, Path], tmp_path: Path):
    for said in (True, False):
        run = shutil.copytree(runs["seed1"], tmp_path / f"old-{said}")
        entries = yaml.safe_load((run / "config.yaml").read_text())
        assert entries.pop("from_scratch") is False
        entries["agent_options"]["from_scratch"] = said
        (run / "config.yaml").write_text(yaml.safe_dump(entries))
        assert RunRecord.open(run).from_scratch is said
    old = shutil.copytree(runs["seed1"], tmp_path / "old")
    (old / "config.yaml").write_text((runs["seed1"] / "config.yaml").read_text().replace("from_scratch: false\n", ""))
    ((kind,),) = kinds_by_place([RunRecord.open(old), RunRecord.open(runs["seed2"])]).values()
    assert len(kind.runs) == 2, "no setting that would tell old runs from new ones"


def test_adaptation_has_the_intervals_of_one_run_and_the_range_of_several(runs: dict[str, Path]):
    records = {name: RunRecord.open(runs[name]) for name in ("seed1", "seed2")}
    summaries = [record.evaluation["summary"] for record in records.values()]
    (alone,) = adaptation_chart([Kind("one", [records["seed1"]])], "return").lines
    assert alone.low[0] == summaries[0][0]["return_low"]
    (several,) = adaptation_chart([Kind("two", list(records.values()))], "return").lines
    means = [summary[0]["return_mean"] for summary in summaries]
    assert (several.mean[0], several.low[0], several.high[0]) == (np.mean(means), min(means), max(means))
    assert adaptation_chart([Kind("one", [records["seed1"]])], "success") is None


def test_runs_evaluated_on_other_tasks_are_told_apart(runs: dict[str, Path], tmp_path: Path):
    other = shutil.copytree(runs["seed2"], tmp_path / "other")
    assert main(["evaluate", str(other), "--tasks", "4", "--seed", "5"]) == 0
    (kinds,) = kinds_by_place([RunRecord.open(path) for path in (runs["seed1"], other)]).values()
    part = section("PointNavigation-v0", kinds)
    assert len(part.heat_maps) == 2
    assert any("not all runs were evaluated on the same tasks" in remark for remark in part.remarks)


def remarks_on(run: Path) -> str:
    (kinds,) = kinds_by_place([RunRecord.open(run)]).values()
    return "\n".join(section("PointNavigation-v0", kinds).remarks)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--env-options", "horizon=5"], "horizon 5 instead of 10"),
        (["--split", "train"], "tasks of the train split"),
        (["--env", "SparsePointNavigation-v0"], "SparsePointNavigation-v0 instead of PointNavigation-v0"),
    ],
)
def test_figures_of_other_conditions_than_the_training_say_so(runs: dict[str, Path], tmp_path: Path, arguments, told):
    """A run folder keeps its last evaluation alone: a report must not show it as the plain one."""
    run = shutil.copytree(runs["seed1"], tmp_path / "run")
    assert "unlike its training" not in remarks_on(run)
    assert main(["evaluate", str(run), "--tasks", "4", *arguments]) == 0
    assert f"{run} was evaluated unlike its training: " in remarks_on(run)
    assert told in remarks_on(run)
    assert main(["report", str(run), "--output", str(tmp_path / "report")]) == 0
    for name in ("report.html", "report.md", "report.tex"):
        assert told in (tmp_path / "report" / name).read_text().replace("\\", ""), name


def test_figures_of_an_earlier_state_say_so(runs: dict[str, Path], tmp_path: Path):
    run = shutil.copytree(runs["seed1"], tmp_path / "run")
    assert "after iteration" not in remarks_on(run)
    metarl.resume(run, iterations=13, progress=False)
    assert f"{run} was evaluated after iteration 12 of 13: metarl evaluate {run}" in remarks_on(run)
    assert main(["evaluate", str(run), "--tasks", "4"]) == 0
    assert "after iteration" not in remarks_on(run)


def test_half_a_step_in_the_metrics_is_damage(runs: dict[str, Path], tmp_path: Path):
    run = shutil.copytree(runs["seed1"], tmp_path / "run")
    *rows, last = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*rows, json.dumps(json.loads(last) | {"env_steps": 0.5}), ""]))
    with pytest.raises(metarl.UsageError, match="damaged: not every row has wall_seconds and env_steps"):
        RunRecord.open(run)


LATEX = r'\textless{}/script\textgreater{}\textless{}b onmouseover="x"\textgreater{}\&\$\_\textbar{}* & n \\'
EVIL = '</script><b onmouseover="x">&$_|*'


def test_names_from_files_are_text_everywhere(runs: dict[str, Path], tmp_path: Path):
    run = shutil.copytree(runs["seed1"], tmp_path / "run")
    entries = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(entries | {"env": EVIL, "agent": EVIL}))
    (run / "videos").mkdir()
    (run / "videos" / "<i>&film.mp4").write_bytes(b"film")
    sections = [section(place, kinds) for place, kinds in kinds_by_place([RunRecord.open(run)]).items()]
    text = page(sections, tmp_path)
    assert "<b onmouseover" not in text
    assert "<i>" not in text
    assert "&lt;i&gt;&amp;film" in text
    table = Table([EVIL, "n"], [["a", "1"]])
    assert table.latex("c").splitlines()[4] == LATEX
    assert table.markdown().startswith(r'| &lt;/script&gt;&lt;b onmouseover="x"&gt;&amp;$\_\|\* | n |')


def test_films_are_embedded_while_there_is_room(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("metarl.experiment.report_page.FILM_BYTES", 10)
    run = shutil.copytree(runs["seed1"], tmp_path / "run")
    (run / "videos").mkdir()
    for name, size in (("a", 6), ("b", 6), ("c", 4)):
        (run / "videos" / f"{name}.mp4").write_bytes(b"x" * size)
    sections = [section(place, kinds) for place, kinds in kinds_by_place([RunRecord.open(run)]).items()]
    text = page(sections, tmp_path / "report")
    assert text.count("data:video/mp4;base64,") == 2
    assert 'b is too large for this page: <a href="../run/videos/b.mp4">' in text


def test_paths_of_the_point_robot_go_from_the_start_to_where_episodes_end(runs: dict[str, Path], tmp_path: Path):
    found = json.loads((runs["seed1"] / PATHS).read_text())
    assert len(found["goals"]) == 6
    for stage in found["paths"]:
        for path in (path for task in stage for path in task):
            assert path[0] == [0, 0]
            assert len(path) <= 11
            assert np.abs(np.diff(path, axis=0)).max() <= 0.1 + 1e-6
    sections = [section(p, kinds) for p, kinds in kinds_by_place([RunRecord.open(runs["seed1"])]).items()]
    assert page(sections, tmp_path).count("<svg") == len(found["episodes_used"])


def test_mistakes_are_one_line(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    broken, begun = tmp_path / "broken", tmp_path / "begun"
    shutil.copytree(runs["seed1"], broken)
    (broken / "evaluation.json").write_text("{")
    shutil.copytree(runs["seed1"], begun)
    (begun / "metrics.jsonl").write_text("")
    halved, lost = tmp_path / "halved", tmp_path / "lost"
    shutil.copytree(runs["seed1"], halved)
    (halved / "evaluation.json").write_text('{"summary": []}')
    shutil.copytree(runs["seed1"], lost)
    (lost / PATHS).write_text('{"goals": []}')
    for arguments, message in (
        ([halved], "evaluation.json is damaged"),
        ([lost], "paths.json is damaged"),
        ([], "name the run folders"),
        ([tmp_path / "none"], "there is no run folder"),
        ([broken], "evaluation.json is damaged"),
        ([begun], "nothing to report yet"),
        ([runs["seed1"], "--output", runs["seed1"] / "config.yaml"], "config.yaml"),
    ):
        assert main(["report", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

"""The demo, with a training too short to learn anything."""

import dataclasses
from pathlib import Path

import pytest

from metarl.errors import RenderingUnavailable
from metarl.scripts import demo

SMALL = {"num_tasks": 2, "envs_per_task": 2}


def test_the_quick_demo_ends_with_a_table_a_film_and_a_page(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = demo.show(dataclasses.replace(demo.QUICK, iterations=1, agent_options=SMALL, env_options={"horizon": 5}))
    shown = capsys.readouterr().out
    assert "maml on PointNavigation-v0, 40 test tasks" in shown
    text = (path / "report" / "report.html").read_text()
    assert str(path / "report" / "report.html") in shown
    assert "data:video/mp4" in text
    assert "<svg" in text
    monkeypatch.setenv("PATH", str(tmp_path))  # as make leaves it
    monkeypatch.setattr(demo.sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    *install, watch = demo._how_to_watch(path).splitlines()
    assert watch == f"  .venv/bin/metarl watch {path}"
    assert install in ([], ["  .venv/bin/python -m pip install 'metarl-kit[viewer]'"])


def test_the_demo_goes_on_without_opengl(tmp_path: Path, monkeypatch, capsys):
    def fails(*arguments):
        raise RenderingUnavailable("nothing here can draw")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "open_film_env", fails)
    path = demo.show(dataclasses.replace(demo.QUICK, iterations=1, agent_options=SMALL, env_options={"horizon": 5}))
    assert "No film: nothing here can draw" in capsys.readouterr().out
    assert (path / "report" / "report.html").exists()


@pytest.mark.slow
def test_the_demo_of_the_robot_runs(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = demo.REACH.env_options | {"horizon": 5}
    path = demo.show(dataclasses.replace(demo.REACH, iterations=1, agent_options=SMALL, env_options=options))
    shown = capsys.readouterr().out
    assert "rl2 on ML1-reach-v3, 40 test tasks" in shown
    assert (path / "videos" / "adaptation.mp4").exists() != ("No film" in shown)

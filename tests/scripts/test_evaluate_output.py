"""What `metarl evaluate` prints of unusual scores and of a folder that has been edited."""

from pathlib import Path

import pytest
import yaml

import metarl
from metarl.experiment.report_tables import figure
from metarl.scripts.cli import main

FAMILY = """
import metarl
from metarl.envs.native.point_navigation import PointNavigation

class Tiny(PointNavigation):
    def __init__(self):
        super().__init__(5)
        self.id = "Tiny"

    def reward(self, distance):
        return 1e-6 * super().reward(distance)

def family():
    return Tiny()
"""


def test_small_returns_are_not_printed_as_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "tiny.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "random", "--env", "tiny:family", "--iterations", "1", "--output", "run"]) == 0
    assert "e-0" in capsys.readouterr().err
    assert main(["evaluate", "run", "--tasks", "6"]) == 0
    assert "e-0" in capsys.readouterr().out
    assert main(["adapt", "run", "--task", '{"goal": [0.3, 0.2]}']) == 0
    assert "e-0" in capsys.readouterr().out
    assert [figure(value) for value in (0.0, -0.05, -0.049, 1e7)] == ["0.00", "-0.05", "-0.049", "10000000.00"]


def test_an_edited_configuration_and_repeated_tasks_are_told(tmp_path: Path, capsys):
    config = metarl.TrainConfig("random", "HalfCheetahDir-v0", {"horizon": 5}, iterations=1, output=tmp_path / "run")
    run = metarl.train(config, progress=False)
    assert main(["evaluate", str(run), "--tasks", "6"]) == 0
    shown = capsys.readouterr()
    assert "random on HalfCheetahDir-v0, 6 test tasks (2 distinct)" in shown.out
    assert "edited" not in shown.err
    entries = yaml.safe_load((run / "config.yaml").read_text())
    entries["env_options"]["horizon"] = entries["fingerprint"]["horizon"] = 7
    (run / "config.yaml").write_text(yaml.safe_dump(entries))
    assert main(["evaluate", str(run), "--tasks", "2"]) == 0
    assert "config.yaml has been edited since: env_options horizon 7 instead of 5" in capsys.readouterr().err

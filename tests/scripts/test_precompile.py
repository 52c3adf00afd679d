"""`metarl precompile`."""

import json
from pathlib import Path

import pytest

import metarl
from metarl.scripts.cli import main
from metarl.scripts.precompile_worker import splits_to_visit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["HalfCheetahVel"], "did you mean HalfCheetahVel-v0"),
        (["PointNavigation-v0"], "PointNavigation-v0 has no kernels to compile: its backends are torch"),
        (["HalfCheetahVel-v0", "--arch", "hopper"], "want an architecture such as sm_90"),
        (["HalfCheetahVel-v0", "--jobs", "0"], "jobs must be"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys: pytest.CaptureFixture):
    assert main(["precompile", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_test_tasks_are_visited_if_they_have_scenes_of_their_own():
    splits = {
        id: splits_to_visit(metarl.make(id)) for id in ("HalfCheetahVel-v0", "ML1-reach-v3", "ML10-v3", "MT50-v3")
    }
    assert splits == {
        "HalfCheetahVel-v0": ("train",),
        "ML1-reach-v3": ("train",),
        "ML10-v3": ("train", "test"),
        "MT50-v3": ("train",),
    }


@pytest.mark.slow
def test_what_is_compiled_is_found_and_what_is_not_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    cache, file = tmp_path / "kernels", tmp_path / "kernels.json"
    command = ["precompile", "HalfCheetahVel-v0", "--cache", str(cache)]
    assert main([*command, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    binaries = list(cache.rglob("*.cubin"))
    assert report["modules"] == report["families"][0]["compiled"] == len(binaries)
    assert report["bytes"] == sum(binary.stat().st_size for binary in binaries)
    capsys.readouterr()
    assert main([*command, "--check"]) == 0
    binaries[0].unlink()
    assert main([*command, "--check"]) == 1
    assert f"would be compiled: {binaries[0].parent.name}" in capsys.readouterr().out

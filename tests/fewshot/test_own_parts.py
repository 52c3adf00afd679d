"""A learner, a data set and an objective of one's own: by module and name, as classes, and as an open data set."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import metarl
from metarl.fewshot import DataConfig, EpisodeShape, FewShotConfig, Pool
from metarl.fewshot.data import LabelledData, open_data
from metarl.fewshot.data.biased import BiasedTables
from metarl.fewshot.learners.protonet import ProtoNet
from metarl.fewshot.objectives.plain import Objective
from metarl.fewshot.preprocessing import Preprocessing


class Points(LabelledData):
    """Classes around points of a line."""

    preprocessing = Preprocessing((2,))

    def __init__(self, config: DataConfig, spread: float = 0.1):
        super().__init__(config)
        labels = torch.arange(60) // 6
        noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
        self.pools = {split: Pool(labels[:, None] + spread * noise, labels) for split in ("train", "test")}

    def default_shape(self):
        return EpisodeShape(ways=2, shots=1, queries=2)


class OwnNet(ProtoNet):
    pass


def config(output: Path, **options) -> FewShotConfig:
    base = FewShotConfig("protonet", "biased", learner_options={"iterations": 3}, episodes=4, checkpoint_every=2)
    return replace(base, output=output, **options)


def result(run: Path) -> list[str]:
    return [line for line in (run / "evaluation.json").read_text().splitlines() if "seconds" not in line]


def cut(run: Path) -> Path:
    for path in run.glob("checkpoints/iteration-000003.*"):
        path.unlink()
    return run


def test_classes_of_the_built_in_parts_are_their_ids(tmp_path: Path):
    by_id = metarl.train(config(tmp_path / "ids"), progress=False)
    by_class = config(tmp_path / "classes", learner=ProtoNet, data=BiasedTables, objective=Objective)
    run = metarl.train(by_class, progress=False)
    left, right = (yaml.safe_load((path / "config.yaml").read_text()) for path in (by_id, run))
    assert left == right
    assert (right["learner"], right["data"], right["objective"]) == ("protonet", "biased", "plain")
    metarl.resume(cut(run), progress=False)
    assert metarl.load_run(run).checkpoint.iteration == 3


def test_parts_without_a_name_are_given_again(tmp_path: Path):
    class Local(OwnNet):
        pass

    run = metarl.train(config(tmp_path / "run", learner=Local, data=Points(DataConfig(), 0.3)), progress=False)
    entries = yaml.safe_load((run / "config.yaml").read_text())
    assert (entries["learner"], entries["data"], entries["unnamed"]) == ("Local", "Points", ["learner", "data"])
    with pytest.raises(metarl.UsageError, match=r"'Local' as its learner, which no name makes again.*learner=\.\.\.$"):
        metarl.fewshot.load(run)
    learner = metarl.fewshot.load(run, learner=Local)  # the data are not needed
    assert learner.predict(torch.zeros(2, 2), [0, 1], torch.zeros(3, 2)).shape == (3, 2)
    whole = shutil.copytree(run, tmp_path / "whole")
    with pytest.raises(metarl.UsageError, match=r"'Points' of the run is made by no name: give it, data=\.\.\."):
        metarl.resume(cut(run), learner=Local, progress=False)
    metarl.resume(run, learner=Local, data=Points(DataConfig(), 0.3), progress=False)
    left, right = (metarl.load_run(path, learner=Local).checkpoint.tensors for path in (run, whole))
    assert all(torch.equal(left[name], right[name]) for name in right)
    with pytest.raises(metarl.UsageError, match="its examples differ"):
        metarl.resume(cut(run), learner=Local, data="biased", progress=False)


def test_a_class_of_data_without_a_name_is_given_again_with_its_options_kept(tmp_path: Path):
    class Local(BiasedTables):
        pass

    run = metarl.train(config(tmp_path / "run", data=Local, data_options={"merit": 3}), progress=False)
    expected = result(run)
    (run / "evaluation.json").unlink()
    metarl.resume(cut(run), data=Local, progress=False)
    assert result(run) == expected
    assert metarl.load_run(run, data=Local).experiment.data.config.merit == 3
    assert metarl.load_run(run).config.data_options["merit"] == 3


def test_an_open_data_set_takes_no_options():
    data = open_data("biased")
    assert open_data(data) is data
    assert open_data(data, data.config) is data
    with pytest.raises(metarl.UsageError, match="BiasedTables is open: it takes no options"):
        open_data(data, {"merit": 3})


def test_a_few_shot_run_takes_no_family(tmp_path: Path):
    run = metarl.train(config(tmp_path / "run"), progress=False)
    with pytest.raises(metarl.UsageError, match="it takes learner and data and objective, not env"):
        metarl.load_run(run, env="Bandit-v0")

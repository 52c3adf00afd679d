"""A backbone of one's own, by module and name."""

import sys
from pathlib import Path

import pytest
import torch

import metarl
from metarl import UsageError
from metarl.fewshot import EpisodeShape, FewShotConfig
from metarl.fewshot.data import open_data
from metarl.fewshot.learners import learner_class
from metarl.fewshot.networks import network_for

MODULE = """
from metarl.fewshot.networks import ReluMLP

class Wide(ReluMLP):
    def __init__(self, input_shape, outputs):
        super().__init__((*input_shape, 7, outputs or 5), has_head=outputs is not None)

class Stubborn(ReluMLP):
    def __init__(self, input_shape, outputs):
        super().__init__((*input_shape, 3))

def no_network(input_shape, outputs):
    return "no"

def other_arguments():
    pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_backbones.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_backbones", raising=False)


def test_a_run_keeps_it_by_name(module: None, tmp_path: Path) -> None:
    options = {"iterations": 2, "backbone": "my_backbones:Wide"}
    config = FewShotConfig("protonet", "biased", learner_options=options, episodes=2, output=tmp_path / "run")
    learner = metarl.fewshot.load(metarl.train(config, progress=False))
    assert learner.parameters["weight0"].shape == (7, 6)
    assert learner.embed(torch.zeros(2, 6)).shape == (2, 5)


@pytest.mark.parametrize("name", ["maml", "matching", "siamese", "metanet", "cnp"])
def test_learners_with_it_learn(module: None, name: str) -> None:
    data, shape = open_data("biased"), EpisodeShape(2, 2, 3)
    cls = learner_class(name)
    config = cls.config_class(backbone="my_backbones:Wide", num_tasks=2)
    learner = cls(config, data.spec(shape))
    learner.fit(data.episodes("train", 2, shape, seed=0), seed=0)
    assert any(tuple(value.shape) == (7, 6) for value in learner.parameters.values())


def test_others_refuse_it_and_a_wrong_one_is_refused(module: None) -> None:
    data = open_data("biased")
    for name in ("mann", "ntm"):
        cls = learner_class(name)
        with pytest.raises(UsageError, match="leave --backbone out"):
            cls(cls.config_class(backbone="my_backbones:Wide"), data.spec(data.default_shape()))
    for name, message in (
        ("my_backbones:no_network", "makes no network"),
        ("my_backbones:other_arguments", r"is to be made by NAME\(input_shape, outputs\)"),
        ("my_backbones:Wid", "did you mean Wide"),
        ("my_backbones:Stubborn", "has 3 outputs, want 2"),
    ):
        with pytest.raises(UsageError, match=message):
            network_for((6,), 2, width=1, hidden=(), backbone=name)

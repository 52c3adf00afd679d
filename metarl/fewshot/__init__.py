"""Supervised few-shot learning: episodes, data, learners and objectives, with the inner loop of MAML-RL.

run = metarl.train(metarl.fewshot.FewShotConfig("protonet", "glyphs"))
learner = metarl.fewshot.load(run)
probabilities = learner.predict(support_x, support_y, query_x)
"""

import importlib
from typing import Any

from metarl.errors import UsageError
from metarl.experiment import resume, train
from metarl.fewshot.data import DataConfig, DataSet
from metarl.fewshot.data.arrays import from_dataset
from metarl.fewshot.episodes import Episodes, EpisodeShape, Pool, Samples, TaskSpec
from metarl.fewshot.evaluation import evaluate
from metarl.fewshot.explain import Explanation, explain
from metarl.fewshot.explanation_plot import draw_explanation
from metarl.fewshot.export import export_embedding
from metarl.fewshot.learner import CalibrationWarning, Learner, LearnerConfig
from metarl.fewshot.loading import load
from metarl.fewshot.predicting import predict_files
from metarl.fewshot.report import figures
from metarl.fewshot.run import FewShotConfig, FewShotRun
from metarl.fewshot.tradeoff import fairness_curve

__all__ = [
    "CalibrationWarning",
    "DataConfig",
    "DataSet",
    "EpisodeShape",
    "Episodes",
    "Explanation",
    "FewShotClassifier",
    "FewShotConfig",
    "FewShotRun",
    "Learner",
    "LearnerConfig",
    "Pool",
    "Samples",
    "TaskSpec",
    "draw_explanation",
    "evaluate",
    "explain",
    "export_embedding",
    "fairness_curve",
    "figures",
    "from_dataset",
    "load",
    "predict_files",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """`FewShotClassifier`, which needs scikit-learn, is imported on first use."""
    if name != "FewShotClassifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module("metarl.fewshot.estimator").FewShotClassifier
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "sklearn":
            raise
        raise UsageError("FewShotClassifier needs scikit-learn: pip install 'metarl-kit[tables]'") from None

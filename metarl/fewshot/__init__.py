"""Supervised few-shot learning: episodes, data, learners and objectives, with the inner loop of MAML-RL.

run = metarl.train(metarl.fewshot.FewShotConfig("protonet", "glyphs"))
learner = metarl.fewshot.load(run)
probabilities = learner.predict(support_x, support_y, query_x)
"""

from metarl.experiment import resume, train
from metarl.fewshot.data import DataConfig, DataSet
from metarl.fewshot.episodes import Episodes, EpisodeShape, Pool, Samples, TaskSpec
from metarl.fewshot.evaluation import evaluate
from metarl.fewshot.learner import Learner, LearnerConfig
from metarl.fewshot.loading import load
from metarl.fewshot.run import FewShotConfig, FewShotRun

__all__ = [
    "DataConfig",
    "DataSet",
    "EpisodeShape",
    "Episodes",
    "FewShotConfig",
    "FewShotRun",
    "Learner",
    "LearnerConfig",
    "Pool",
    "Samples",
    "TaskSpec",
    "evaluate",
    "load",
    "resume",
    "train",
]

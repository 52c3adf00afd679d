"""Supervised few-shot learning: episodes, data, learners and objectives, on the inner loop that MAML-RL uses.

learner = metarl.fewshot.load(run)
probabilities = learner.predict(support_x, support_y, query_x)
"""

from metarl.fewshot.episodes import Episodes, EpisodeShape, Pool, Samples, TaskSpec
from metarl.fewshot.evaluation import evaluate
from metarl.fewshot.learner import Learner, LearnerConfig
from metarl.fewshot.run import FewShotConfig, load
from metarl.fewshot.training import resume, train

__all__ = [
    "EpisodeShape",
    "Episodes",
    "FewShotConfig",
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

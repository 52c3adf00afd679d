"""Experiments: the run folder, its configuration and checkpoints, and the training loop."""

from metarl.experiment.config import TrainConfig
from metarl.experiment.run_folder import Run, load_agent, load_run
from metarl.experiment.training import resume, train

__all__ = ["Run", "TrainConfig", "load_agent", "load_run", "resume", "train"]

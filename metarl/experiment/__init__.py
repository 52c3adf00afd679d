"""Experiments: configuration, run folder, checkpoints, and the training engine of agents and few-shot learners."""

from metarl.experiment.agent_run import AgentRun, TrainConfig
from metarl.experiment.experiment import Experiment, Run
from metarl.experiment.named_presets import preset
from metarl.experiment.run_folder import load_agent, load_run
from metarl.experiment.training import resume, train

__all__ = ["AgentRun", "Experiment", "Run", "TrainConfig", "load_agent", "load_run", "preset", "resume", "train"]

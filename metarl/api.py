"""The public names of metarl in one place. `import metarl` provides all of them."""

from metarl.agent import Agent, AgentConfig, EnvSpec
from metarl.contract import check_distribution
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.evaluation import Evaluation, evaluate
from metarl.experiment import TrainConfig, load_agent, load_run, preset, resume, train
from metarl.parallel import Ranks
from metarl.registry import (
    list_agents,
    list_data,
    list_distributions,
    list_learners,
    list_objectives,
    make,
    register_agent,
    register_data,
    register_distribution,
    register_learner,
    register_objective,
)
from metarl.replay import ReplayBuffer
from metarl.rollout import Policy, PolicyStep, Trajectories, Transition, collect
from metarl.task_parameters import TaskParameters
from metarl.task_spaces import LogUniform
from metarl.tasks import FreshTasks, TaskList, Tasks, TaskSource
from metarl.vector_env import TaskVectorEnv

__all__ = [
    "Agent",
    "AgentConfig",
    "EnvSpec",
    "Evaluation",
    "FreshTasks",
    "LogUniform",
    "Policy",
    "PolicyStep",
    "Ranks",
    "ReplayBuffer",
    "TaskDistribution",
    "TaskList",
    "TaskParameters",
    "TaskSource",
    "TaskVectorEnv",
    "Tasks",
    "TrainConfig",
    "Trajectories",
    "Transition",
    "UsageError",
    "check_distribution",
    "collect",
    "evaluate",
    "list_agents",
    "list_data",
    "list_distributions",
    "list_learners",
    "list_objectives",
    "load_agent",
    "load_run",
    "make",
    "preset",
    "register_agent",
    "register_data",
    "register_distribution",
    "register_learner",
    "register_objective",
    "resume",
    "train",
]

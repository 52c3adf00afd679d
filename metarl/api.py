"""The public names of metarl, in one place: `import metarl` offers all of them."""

from metarl.agent import Agent, AgentConfig, EnvSpec
from metarl.contract import check_distribution
from metarl.errors import UsageError
from metarl.evaluation import Evaluation, evaluate
from metarl.experiment import TrainConfig, load_agent, load_run, resume, train
from metarl.registry import list_agents, list_distributions, make, register_agent, register_distribution
from metarl.rollout import Policy, PolicyStep, Trajectories, collect
from metarl.tasks import TaskDistribution, Tasks
from metarl.vector_env import TaskVectorEnv

__all__ = [
    "Agent",
    "AgentConfig",
    "EnvSpec",
    "Evaluation",
    "Policy",
    "PolicyStep",
    "TaskDistribution",
    "TaskVectorEnv",
    "Tasks",
    "TrainConfig",
    "Trajectories",
    "UsageError",
    "check_distribution",
    "collect",
    "evaluate",
    "list_agents",
    "list_distributions",
    "load_agent",
    "load_run",
    "make",
    "register_agent",
    "register_distribution",
    "resume",
    "train",
]

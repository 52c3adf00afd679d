"""metarl: task distributions, one vectorized rollout engine, and agents that learn to adapt."""

from metarl.agent import Agent, AgentConfig, EnvSpec
from metarl.errors import UsageError
from metarl.evaluation import Evaluation, evaluate
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
    "Trajectories",
    "UsageError",
    "collect",
    "evaluate",
    "list_agents",
    "list_distributions",
    "make",
    "register_agent",
    "register_distribution",
]

"""The rollout engine: `collect`, the trajectories it returns, and returns and advantages computed from them."""

from metarl.rollout.collect import collect
from metarl.rollout.policy import FunctionPolicy, Policy, PolicyStep, Transition
from metarl.rollout.returns import discounted_returns, gae, standardize
from metarl.rollout.trajectories import Trajectories, success_metrics, used_fraction

__all__ = [
    "FunctionPolicy",
    "Policy",
    "PolicyStep",
    "Trajectories",
    "Transition",
    "collect",
    "discounted_returns",
    "gae",
    "standardize",
    "success_metrics",
    "used_fraction",
]

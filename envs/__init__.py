"""The built-in task distributions. `register` is what the entry-point group `metarl.plugins` calls."""

from metarl.envs.classic_control import CartPoleParams, PendulumParams
from metarl.envs.locomotion import FACTORIES
from metarl.envs.metaworld.family import factories
from metarl.envs.native.bandit import Bandit
from metarl.envs.native.point_navigation import PointNavigation, SparsePointNavigation
from metarl.envs.native.tabular_mdp import TabularMDP
from metarl.registry import register_distribution


def register() -> None:
    """Registers every built-in distribution."""
    register_distribution("Bandit-v0", Bandit)
    register_distribution("TabularMDP-v0", TabularMDP)
    register_distribution("PointNavigation-v0", PointNavigation)
    register_distribution("SparsePointNavigation-v0", SparsePointNavigation)
    register_distribution("CartPoleParams-v0", CartPoleParams)
    register_distribution("PendulumParams-v0", PendulumParams)
    for id, factory in (factories() | FACTORIES).items():
        register_distribution(id, factory)

"""The built-in task distributions. `register` is what the entry-point group `metarl.plugins` calls."""

from metarl.envs.locomotion.families import AntGoal, AntVel, HalfCheetahDir, HalfCheetahVel, HumanoidDir, ant_dir
from metarl.envs.locomotion.random_params import HopperRandParams, Walker2dRandParams
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
    register_distribution("HalfCheetahDir-v0", HalfCheetahDir)
    register_distribution("HalfCheetahVel-v0", HalfCheetahVel)
    register_distribution("AntDir-v0", ant_dir)
    register_distribution("AntVel-v0", AntVel)
    register_distribution("AntGoal-v0", AntGoal)
    register_distribution("HumanoidDir-v0", HumanoidDir)
    register_distribution("Walker2dRandParams-v0", Walker2dRandParams)
    register_distribution("HopperRandParams-v0", HopperRandParams)

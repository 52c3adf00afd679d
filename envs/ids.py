"""The ids of the built-in families, known without importing one: listing them does not wait for torch."""

from metarl.envs.locomotion import FACTORIES
from metarl.envs.metaworld.task_sets import MULTITASK_SETS, SETS, TASKS

IDS = (
    "Bandit-v0",
    "TabularMDP-v0",
    "PointNavigation-v0",
    "SparsePointNavigation-v0",
    "CartPoleParams-v0",
    "PendulumParams-v0",
    *FACTORIES,
    *(f"ML1-{name}" for name in TASKS),
    *(f"MT1-{name}" for name in TASKS),
    *(f"{name}-v3" for name in (*SETS, *MULTITASK_SETS)),
    "ML-custom",
)

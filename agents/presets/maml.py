"""Presets of MAML."""

from metarl.agents.maml import MAMLConfig
from metarl.presets import Preset

PRESETS: tuple[Preset, ...] = (
    # The paper's 40 tasks x 20 episodes are few worlds for a GPU. The trust region bounds what more of them bring to
    # the outer step, so each task has more for its inner gradient: five times the episodes.
    Preset(
        name="gpu",
        env="HalfCheetahDir-v0",
        config=MAMLConfig(num_tasks=40, envs_per_task=100, initial_std=0.5, curvature_fraction=0.25),
        iterations=100,
        source="Finn et al. 2017, section 5.3 and appendix A.2, with 100 episodes a task instead of 20",
        expected="mean return of 275 after one gradient step, as with 20 episodes on the CPU; not measured yet",
    ),
)

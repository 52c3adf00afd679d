"""What a rollout says about faults, read once at its end."""

from metarl.errors import EnvironmentFault
from metarl.faults import all_finite
from metarl.rollout.trajectories import Trajectories
from metarl.vector_env import TaskVectorEnv


def report_faults(env: TaskVectorEnv, trajectories: Trajectories) -> None:
    """Describes the first fault, if there is one, in `env.fault_report`.

    Raises `EnvironmentFault` if an environment that cannot restart single episodes had a fault, and for observations
    that are not finite: on the CPU `step` and `reset` refuse them, on a GPU they would have to wait for that.
    """
    if trajectories.fault is not None and bool(trajectories.fault.any()):
        t, task, number = trajectories.fault.nonzero()[0].tolist()
        start = int(trajectories.episode_starts[: t + 1, task, number].nonzero()[-1])
        env.fault_report = env.describe_fault(task * env.envs_per_task + number, f"step {t - start + 1} of an episode")
        if not env.restarts_faults:
            raise EnvironmentFault(
                f"{env.fault_report}. {type(env).__name__} cannot restart single environments: "
                "override TaskVectorEnv._restart to go on with the others"
            )
    if env.device.type != "cpu" and not all_finite(trajectories.observations):
        raise EnvironmentFault(f"{env.distribution.id}: the first observation of an episode is not finite")

"""`check_distribution`: every rule of the contract, one after another."""

from metarl.contract import environment, family, run
from metarl.contract.examination import Examination
from metarl.registry import Family, make
from metarl.tasks import check_count


class ContractError(AssertionError):
    """A task distribution breaks the contract. `failures` has a line for each fault.

    >>> from metarl.contract import ContractError
    >>> print(ContractError("Mine-v0", ["horizon: expected a whole number of at least 1, found 0"]))
    Mine-v0 breaks the contract of task distributions:
      - horizon: expected a whole number of at least 1, found 0
    """

    def __init__(self, id: str, failures: list[str]):
        self.failures = failures
        super().__init__("\n  - ".join([f"{id} breaks the contract of task distributions:", *failures]))


def check_distribution(
    distribution: Family,
    *,
    backend: str = "auto",
    num_tasks: int = 3,
    envs_per_task: int = 2,
    seed: int = 0,
) -> None:
    """Checks on the CPU that a distribution keeps the contract of `TaskDistribution` and `TaskVectorEnv`.

    It is given as id, `module:name`, class, function or instance.

    It samples tasks, makes `num_tasks * envs_per_task` environments and a single one, and steps them with random
    actions for a little longer than an episode. It collects all faults and raises them as one `ContractError`. If the
    check of a rule crashes, the crash is reported and the other rules are still checked; the first crash is the
    `__cause__` of the error.

    >>> metarl.check_distribution(metarl.make("PointNavigation-v0", horizon=5))
    """
    check_count("number of tasks", num_tasks)
    check_count("environments per task", envs_per_task)
    if isinstance(distribution, str) or callable(distribution):
        distribution = make(distribution)
    exam = Examination(distribution, backend, num_tasks, envs_per_task, seed)
    try:
        exam.apply(family.CHECKS)
        if exam.attempt("make_env", lambda: exam.env):
            exam.apply(environment.CHECKS)
            if exam.attempt("run", lambda: exam.recording):
                exam.apply(run.CHECKS)
    finally:
        exam.close()
    if exam.failures:
        raise ContractError(getattr(distribution, "id", type(distribution).__name__), exam.failures) from exam.crash

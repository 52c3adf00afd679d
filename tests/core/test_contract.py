"""`check_distribution`: its report, and every registered family passing."""

import pytest
from broken_families import CrashInSampling, GlobalTorch, Point, UnknownBackend, edited, put, with_attribute

import metarl
from metarl import UsageError, check_distribution, registry
from metarl.contract import ContractError
from metarl.envs.native.bandit import Bandit
from metarl.envs.native.base import NativeEnv
from metarl.envs.native.point_navigation import SparsePointNavigation


def test_sound_families_pass():
    check_distribution(Point())
    check_distribution(Bandit(pulls=3), num_tasks=1, envs_per_task=1)
    check_distribution(SparsePointNavigation(), num_tasks=2, envs_per_task=3, seed=7, backend="torch")


# The report ----------------------------------------------------------------------------------------------------------


class TwoFaults(GlobalTorch):
    env_class = edited(lambda result: put(result, 1, result[1].double()))


def test_all_faults_are_raised_together_a_line_each():
    with pytest.raises(ContractError) as caught:
        check_distribution(TwoFaults())
    assert len(caught.value.failures) == 2
    lines = str(caught.value).splitlines()
    assert lines[0] == "Broken-v0 breaks the contract of task distributions:"
    assert [line.removeprefix("  - ") for line in lines[1:]] == caught.value.failures
    assert isinstance(caught.value, AssertionError)


def test_a_crash_hides_no_other_fault_and_is_the_cause():
    with pytest.raises(ContractError) as caught:
        check_distribution(with_attribute("has_success", 1)())
    assert caught.value.__cause__ is None

    class Both(CrashInSampling):
        env_class = UnknownBackend

    with pytest.raises(ContractError) as caught:
        check_distribution(Both())
    text = str(caught.value)
    assert "found ZeroDivisionError: no test tasks" in text
    assert "found 'other'" in text
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_environments_are_closed():
    closed = []

    class Counted(NativeEnv):
        def close_extras(self, **options):
            closed.append(self)

    check_distribution(type("Counted", (Point,), {"env_class": Counted})())
    assert len(closed) == 2


def test_wrong_counts_are_a_usage_error():
    with pytest.raises(UsageError, match="number of tasks"):
        check_distribution(Point(), num_tasks=0)
    with pytest.raises(UsageError, match="environments per task"):
        check_distribution(Point(), envs_per_task=0)


# Every registered family ---------------------------------------------------------------------------------------------

# Meta-World's 107 families are one class, of which tests/metaworld checks each kind.
META_WORLD = ("ML", "MT")
FAST = {"ML1-reach-v3", "MT1-door-open-v3"}


def registered():
    for id in metarl.list_distributions():
        factory = registry._distributions[id]
        origin = factory if isinstance(factory, str) else getattr(factory, "func", factory).__module__
        if not origin.startswith("metarl."):
            continue  # another test's
        slow = id.startswith(META_WORLD) and id not in FAST
        yield pytest.param(id, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.filterwarnings("ignore:ML25-v3. basketball-v3 is in both splits")
@pytest.mark.parametrize("id", list(registered()))
def test_every_registered_family_keeps_the_contract(id):
    check_distribution(metarl.make(id))

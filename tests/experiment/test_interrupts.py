"""Signals arrive between what must not be torn apart, never within."""

import signal
import threading

import pytest

from metarl.experiment.interrupts import SIGNALS, Interrupts


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_waits_for_the_end_of_what_is_held(number: signal.Signals):
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        with interrupts.held():
            done.append("first")
            signal.raise_signal(number)
            done.append("second")
        done.append("never")
    assert done == ["first", "second"]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_elsewhere_it_comes_at_once(number: signal.Signals):
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        with interrupts.held():
            done.append("held")
        signal.raise_signal(number)
        done.append("never")
    assert done == ["held"]


def test_what_is_held_may_fail_by_itself():
    with pytest.raises(ValueError, match="mine"), Interrupts() as interrupts, interrupts.held():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("mine")


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interrupts():
        assert all(signal.getsignal(number) not in before for number in SIGNALS)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads_leave_signals_alone():
    seen: list[object] = []

    def work() -> None:
        before = [signal.getsignal(number) for number in SIGNALS]
        with Interrupts() as interrupts, interrupts.held():
            seen.append([signal.getsignal(number) for number in SIGNALS] == before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]

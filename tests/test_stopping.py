"""Signals that ask a command to stop."""

import os
import signal
from collections.abc import Iterator

import pytest

from hsiclust.errors import StoppedError
from hsiclust.stopping import StopBetweenSteps, heed_no_more, stop_on_signals


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    """What signals do otherwise, afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_sigterm_waits_for_the_end_of_a_step() -> None:
    stop = StopBetweenSteps()
    stop.check(last=False)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StoppedError):
        stop.check(last=False)


def test_sigterm_in_the_last_step_stops_at_its_end() -> None:
    stop = StopBetweenSteps()
    stop.check(last=False)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StoppedError):
        stop.check(last=True)


def test_sigterm_waits_for_nothing_behind_the_last_step() -> None:
    stop = StopBetweenSteps()
    stop.check(last=False)
    stop.check(last=True)
    with pytest.raises(StoppedError):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_nearly_done_is_not_stopped(number: signal.Signals) -> None:
    stop_on_signals()
    heed_no_more()
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_stopped_a_command_is_said(number: signal.Signals) -> None:
    stop_on_signals()
    with pytest.raises(StoppedError, match=f"stopped by {number.name}; train, predict and tile go"):
        os.kill(os.getpid(), number)


def test_a_hangup_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    stop_on_signals()
    StopBetweenSteps().check(last=False)
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

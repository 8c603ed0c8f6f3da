"""SIGTERM during a training."""

import os
import signal
from collections.abc import Iterator

import pytest

from hsiclust.errors import StoppedError
from hsiclust.stopping import StopBetweenSteps


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    """What SIGTERM does otherwise, afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


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

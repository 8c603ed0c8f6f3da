"""SIGTERM, and SIGHUP of a connection that is gone: stop in seconds, to be gone on with."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

from hsiclust.errors import StoppedError

_IMPORTER: Final = "<frozen importlib._bootstrap>"
_LOOK_AGAIN = 0.05  # seconds

_Handler = Callable[[int, FrameType | None], None]


def stop_on_signals() -> None:
    """Raise `StoppedError` in the main thread when SIGTERM or SIGHUP comes."""
    _handle_by(_stop)


def heed_no_more() -> None:
    """From now on a signal is too late: what is left takes a moment, and the run ends as done."""
    _handle_by(_too_late)
    signal.setitimer(signal.ITIMER_REAL, 0)  # nor is one heeded that waits for an import


def _handle_by(handler: _Handler) -> None:
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` ignores it
        signal.signal(signal.SIGHUP, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):  # a library that was loaded by half cannot be loaded again
        signal.signal(signal.SIGALRM, lambda _, later: _stop(number, later))
        signal.setitimer(signal.ITIMER_REAL, _LOOK_AGAIN)
        return
    raise StoppedError(
        f"stopped by {signal.Signals(number).name}; train, predict and tile go on where they were "
        "when started again"
    )


def _too_late(_number: int, _frame: FrameType | None) -> None:
    """Nothing is done."""


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTER:
            return True
        frame = frame.f_back
    return False


class StopBetweenSteps:
    """From the first step of a training to its last, signals wait for the end of a step."""

    def __init__(self) -> None:
        self._asked: int | None = None

    def check(self, last: bool) -> None:
        """Stop if that was asked for; behind the last step there is none to wait for any more."""
        _handle_by(_stop if last else self._ask)
        if self._asked is not None:
            _stop(self._asked, None)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self._asked = number

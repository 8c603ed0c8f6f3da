"""SIGTERM: stop in seconds, in a state that can be gone on with."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

from hsiclust.errors import StoppedError

_IMPORTER: Final = "<frozen importlib._bootstrap>"
_LOOK_AGAIN = 0.05  # seconds


def stop_on_sigterm() -> None:
    """Raise `StoppedError` in the main thread when SIGTERM comes."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(_number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):  # a library that was loaded by half cannot be loaded again
        signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, _LOOK_AGAIN)
        return
    raise StoppedError(
        "stopped by SIGTERM; train, predict and tile go on where they were when started again"
    )


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTER:
            return True
        frame = frame.f_back
    return False


class StopBetweenSteps:
    """From the first step of a training to its last, SIGTERM waits for the end of a step."""

    def __init__(self) -> None:
        self._asked = False

    def check(self, last: bool) -> None:
        """Stop if that was asked for; behind the last step there is none to wait for any more."""
        signal.signal(signal.SIGTERM, _stop if last else self._ask)
        if self._asked:
            _stop(signal.SIGTERM, None)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

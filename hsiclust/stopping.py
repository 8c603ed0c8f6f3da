"""SIGTERM: stop in seconds, in a state that can be gone on with."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

from hsiclust.errors import StoppedError


def stop_on_sigterm() -> None:
    """Raise `StoppedError` in the main thread when SIGTERM comes."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise StoppedError(
        "stopped by SIGTERM; train, predict and tile go on where they were when started again"
    )


class StopBetweenSteps:
    """From the first step of a training on, SIGTERM waits for the end of a step."""

    def __init__(self) -> None:
        self._asked = False

    def check(self) -> None:
        """Stop if that was asked for."""
        if self._asked:
            _stop(signal.SIGTERM, None)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

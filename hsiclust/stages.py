"""How long each part of a run took, and how much memory it needed."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from time import perf_counter

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes that a process's peak is counted in


@dataclass(frozen=True)
class Stage:
    """One part of a run.

    Attributes:
        name: What was done.
        seconds: Wall time.
        peak_bytes: Largest resident memory of the process up to its end.
    """

    name: str
    seconds: float
    peak_bytes: int


class Stopwatch:
    """Laps of a run, one stage each."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        """End the stage that began with the last lap."""
        now = perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
        self.stages.append(Stage(name, round(now - self._last, 3), peak))
        self._last = now

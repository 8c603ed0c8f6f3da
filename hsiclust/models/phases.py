"""A training of several parts, as one run of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from hsiclust.errors import UsageError


@dataclass(frozen=True)
class Phase:
    """One part of a training.

    Attributes:
        kind: What is learned.
        net: Which network learns, from 0.
        steps: For how many steps.
    """

    kind: str
    net: int
    steps: int


@dataclass(frozen=True)
class Place:
    """Where in the phases a step lies.

    Attributes:
        number: Of the phase.
        phase: The phase.
        step: Step within it, from 0.
    """

    number: int
    phase: Phase
    step: int


def place_of(phases: Sequence[Phase], step: int) -> Place:
    """The phase that a step belongs to.

    Raises:
        UsageError: There are not that many steps.
    """
    for number, (phase, end) in enumerate(
        zip(phases, accumulate(phase.steps for phase in phases), strict=True)
    ):
        if step < end:
            return Place(number, phase, step - (end - phase.steps))
    raise UsageError(f"step {step} lies behind the last phase")

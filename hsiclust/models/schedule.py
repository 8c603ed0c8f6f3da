"""Schedules: how fast a method learns at each step, and how long it goes on."""

from __future__ import annotations

import math

from hsiclust.models.base import Progress
from hsiclust.models.settings import SsccConfig

# One-cycle schedule (Smith 2018): up over the first part, then a cosine down to nearly nothing.
_WARM_UP = 0.3
_START = 1 / 25
# A fitted model goes on at a constant, gentle rate: a full cycle would forget its clusters.
_ONLINE = 0.1
_ONLINE_STEPS = 0.4
# The paper's schedule: a tenth after every so many epochs.
_DROP_EPOCHS = 20


def learning_rate(settings: SsccConfig, progress: Progress) -> float:
    """Learning rate of a step."""
    largest = settings.rate
    if progress.warm:
        return _ONLINE * largest
    if settings.optimiser == "adam":
        return float(largest * 0.1 ** (progress.epoch // _DROP_EPOCHS))
    return largest * one_cycle(progress.step, progress.steps)


def one_cycle(step: int, steps: int) -> float:
    """Part of the largest learning rate at a step, from 0, of so many."""
    done = step / max(steps - 1, 1)
    if done < _WARM_UP:
        part = 0.5 - 0.5 * math.cos(math.pi * done / _WARM_UP)
        return _START + (1 - _START) * part
    return 0.5 + 0.5 * math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))


def online_steps(settings: SsccConfig) -> int:
    """Steps of a training that goes on from a fitted model."""
    return max(1, round(_ONLINE_STEPS * settings.steps))

"""Which of several ways to compute the same labels is used: measured on the scene, once a run.

A faster way is taken only where its labels are those of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from hsiclust.components import Components
from hsiclust.labeller import Labeller

# Share of the pixels that must get the same label.
LEAST_AGREEMENT = 0.9999
# A way that is not faster by this factor is not worth another one's labels.
_WORTH = 1.1
_ROUNDS = 2


@dataclass(frozen=True)
class Trial:
    """What a trial gave.

    Attributes:
        chosen: Name of the way that is used.
        rates: Pixels a second of each, on one thread.
        agreement: Share of the pixels to which each gives the first one's label.
    """

    chosen: str
    rates: Mapping[str, float]
    agreement: Mapping[str, float]

    def __str__(self) -> str:
        ways = (
            f"{name} {rate / 1e6:.2f} Mpixel/s a thread, {self.agreement[name]:.4%} the same labels"
            for name, rate in self.rates.items()
        )
        return f"{self.chosen} is used: {'; '.join(ways)}"


def fastest(ways: Mapping[str, Labeller], blocks: Sequence[Components]) -> Trial:
    """Try ways on some blocks of a scene.

    Args:
        ways: By name, that to agree with first.
        blocks: With the halo that they need; of pixels that all ways are to label.

    Returns:
        The fastest of those that agree with the first.
    """
    rates, labels = {}, {}
    for name, way in ways.items():
        labels[name] = np.concatenate([way(block).classes.ravel() for block in blocks])
        seconds = min(_seconds(way, blocks) for _ in range(_ROUNDS))
        rates[name] = labels[name].size / seconds
    first = next(iter(ways))
    same = {name: float((found == labels[first]).mean()) for name, found in labels.items()}
    chosen = first
    for name, rate in rates.items():
        if same[name] >= LEAST_AGREEMENT and rate > _WORTH * rates[chosen]:
            chosen = name
    return Trial(chosen, rates, same)


def _seconds(way: Labeller, blocks: Sequence[Components]) -> float:
    start = perf_counter()
    for block in blocks:
        way(block)
    return perf_counter() - start

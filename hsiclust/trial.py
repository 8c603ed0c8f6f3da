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
# A way that takes so much longer than the first for some rows is given up: on a processor without
# bfloat16 all blocks took 20 s in it.
_HOPELESS = 3
_SOME_ROWS = 64


@dataclass(frozen=True)
class Trial:
    """What a trial gave.

    Attributes:
        chosen: Name of the way that is used.
        rates: Pixels a second of each, on one thread.
        agreement: Share of the pixels to which each gives the first one's label; of those that
            were not given up.
    """

    chosen: str
    rates: Mapping[str, float]
    agreement: Mapping[str, float]

    def __str__(self) -> str:
        ways = "; ".join(map(self._of, self.rates))
        return f"{self.chosen} is used: {ways}"

    def _of(self, name: str) -> str:
        rate = f"{name} {self.rates[name] / 1e6:.2f} Mpixel/s a thread"
        if name not in self.agreement:
            return rate
        return f"{rate}, {self.agreement[name]:.4%} the same labels"


def fastest(ways: Mapping[str, Labeller], blocks: Sequence[Components]) -> Trial:
    """Try ways on some blocks of a scene.

    Args:
        ways: By name, that to agree with first.
        blocks: With the halo that they need; of pixels that all ways are to label.

    Returns:
        The fastest of those that agree with the first.
    """
    first = next(iter(ways))
    rows = blocks[0].at(slice(_SOME_ROWS + 2 * ways[first].halo), slice(None))
    rates = {name: _rate(way, [rows]) for name, way in ways.items()}
    hopeful = {name: ways[name] for name, rate in rates.items() if rate * _HOPELESS >= rates[first]}
    labels = {}
    if len(hopeful) > 1:
        for name, way in hopeful.items():
            labels[name] = np.concatenate([way(block).classes.ravel() for block in blocks])
            rates[name] = _rate(way, blocks)
    same = {name: float((found == labels[first]).mean()) for name, found in labels.items()}
    chosen = first
    for name, agreement in same.items():
        if agreement >= LEAST_AGREEMENT and rates[name] > _WORTH * rates[chosen]:
            chosen = name
    return Trial(chosen, rates, same)


def _rate(way: Labeller, blocks: Sequence[Components]) -> float:
    """Pixels a second, at best."""
    seconds = []
    for _ in range(_ROUNDS):
        start = perf_counter()
        pixels = sum(way(block).classes.size for block in blocks)
        seconds.append(perf_counter() - start)
    return pixels / min(seconds)

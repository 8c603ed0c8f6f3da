"""Neighbours to one worker: a run of neighbouring indices for each, halved for who has none left.

Neighbouring strips share what was read, so that one worker should label them. No index waits for
a worker that is gone, and a worker that comes late takes its part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


class Runs:
    """Indices that are still to be given away, in runs of neighbours.

    Args:
        indices: Each is given away once.
        workers: Among whom the indices are divided at first, in this order.
    """

    def __init__(self, indices: Sequence[int], workers: Sequence[str] = ()) -> None:
        self._indices = indices
        parts = max(1, len(workers))
        edges = [len(indices) * at // parts for at in range(parts + 1)]
        runs = [range(start, stop) for start, stop in pairwise(edges)]
        self._of = dict(zip(workers, runs, strict=True)) if workers else {}
        self._nobodys = [] if workers else runs
        self._again: list[int] = []

    def __len__(self) -> int:
        """Indices that are still to be given away."""
        return sum(map(len, [*self._of.values(), *self._nobodys, self._again]))

    def give_back(self, index: int) -> None:
        """An index was lost with the worker that had it: whoever asks first shall have it."""
        self._again.append(index)

    def take(self, worker: str) -> int | None:
        """The next index for a worker, who may be new; None when all were given away."""
        if self._again:
            return self._again.pop(0)
        run = self._of.get(worker) or self._another()
        self._of[worker] = run[1:]
        return self._indices[run[0]] if run else None

    def leave(self, worker: str) -> None:
        """A worker is gone: what it was not given yet is for the others."""
        run = self._of.pop(worker, range(0))
        if run:
            self._nobodys.append(run)

    def _another(self) -> range:
        """What a gone worker left, or else the later half of the longest run."""
        if self._nobodys:
            longest = max(self._nobodys, key=len)
            self._nobodys.remove(longest)
            return longest
        owner = max(self._of, key=lambda name: len(self._of[name]), default=None)
        if owner is None:
            return range(0)
        run = self._of[owner]
        middle = len(run) // 2
        self._of[owner] = run[:middle]
        return run[middle:]

"""How much of each class is learned from, and on which ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import UsageError
from hsiclust.marks import even_shares
from hsiclust.separation import CellCounts, Halves, halve, merged

SplitKind = Literal["separated", "random", "none"]

MOST_DRAWN = 20_000
"""Pixels of a class that are learned from at most: they are kept as coordinates."""


@dataclass(frozen=True)
class SplitOptions:
    """How labels are divided.

    Attributes:
        kind: "separated": on separate ground; "random": held out is what was not drawn, next to
            it; "none": nothing is held out.
        per_class: Pixels of a class to learn from; when None, all on the ground to learn from.
        buffer: Rows and columns between a pixel that is learned from and one that is held out;
            at least what the network sees to each side.
        seed: Another seed draws other pixels.
    """

    kind: SplitKind = "separated"
    per_class: int | None = None
    buffer: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(SplitKind):
            raise UsageError(f"split {self.kind!r} is not one of {', '.join(get_args(SplitKind))}")
        if self.per_class is not None and self.per_class < 1:
            raise UsageError(f"{self.per_class} labels a class: give at least 1")
        if self.buffer < 0:
            raise UsageError(f"a buffer of {self.buffer} pixels: it must not be negative")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed {self.seed} is not within 0..{2**32 - 1}")


@dataclass(frozen=True, eq=False)
class SplitCounts:
    """Pixels of each class, `(K,)` each.

    Attributes:
        labelled: All.
        invalid: On pixels without data.
        training: Learned from.
        held_out: Scored on.
        buffer: Left out, because they lie too near to what is learned from.
    """

    labelled: NDArray[np.int64]
    invalid: NDArray[np.int64]
    training: NDArray[np.int64]
    held_out: NDArray[np.int64]
    buffer: NDArray[np.int64]

    @property
    def usable(self) -> NDArray[np.int64]:
        """On pixels with data."""
        return self.labelled - self.invalid


@dataclass(frozen=True, eq=False)
class Ground:
    """The ground of all sites, in parts.

    Attributes:
        halves: Blocks, each learned from or held out; None when all ground is learned from.
        strata: Of each site `(down, across)`, the part of the ground that a cell belongs to.
        usable: `(strata, K + 1)` labelled pixels with data.
    """

    halves: Halves | None
    strata: tuple[NDArray[np.int64], ...]
    usable: NDArray[np.int64]

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Whether each part is held out, `(strata,)`."""
        return np.zeros(len(self.usable), bool) if self.halves is None else self.halves.held_out

    def held_cells(self, site: int) -> NDArray[np.bool_] | None:
        """Cells of a site that are held out, `(down, across)`; None when no ground is."""
        return None if self.halves is None else self.halves.held_out[self.strata[site]]


@dataclass(frozen=True, eq=False)
class Allotment:
    """How much of the ground is learned from.

    Attributes:
        ground: The ground.
        whole: `(K + 1,)` classes that are learned from on any ground.
        learnable: `(strata, K + 1)` pixels that may be learned from.
        wanted: `(K + 1,)` pixels of each class to learn from, before any limit.
        quotas: `(strata, K + 1)` pixels that are learned from.
    """

    ground: Ground
    whole: NDArray[np.bool_]
    learnable: NDArray[np.int64]
    wanted: NDArray[np.int64]
    quotas: NDArray[np.int64]


def divide_ground(
    counts: Sequence[CellCounts], same: Sequence[int], classes: int, options: SplitOptions
) -> Ground:
    """Divide the ground of sites.

    Args:
        counts: Labels of each site.
        same: Of each site, the first one that lies on the very same pixels.
        classes: K.
        options: How it is divided.
    """
    halves, parts = None, 1
    strata = tuple(np.zeros((part.down, part.across), np.int64) for part in counts)
    if options.kind == "separated":
        first = sorted(set(same))
        together = [merged([counts[s] for s, f in enumerate(same) if f == one]) for one in first]
        halves = halve(together, classes, options.buffer, options.seed)
        strata = tuple(halves.blocks[first.index(one)] for one in same)
        parts = len(halves.held_out)
    usable = np.zeros((parts, classes + 1), np.int64)
    for part, stratum in zip(counts, strata, strict=True):
        np.add.at(usable, (stratum.ravel()[part.cells], part.numbers), part.counts)
    return Ground(halves, strata, usable)


def allot(ground: Ground, unscored: NDArray[np.bool_], options: SplitOptions) -> Allotment:
    """Say how much of each class is learned from, and where.

    Args:
        ground: The ground.
        unscored: `(K + 1,)` classes of which nothing is left to score on: they are learned from
            whole, as are those that lie on held-out ground alone.
        options: How much is asked for.
    """
    held = ground.held_out
    nowhere: NDArray[np.bool_] = ~np.any(ground.usable[~held], axis=0)
    whole = unscored | nowhere
    learnable = np.where(held[:, None] & ~whole, 0, ground.usable)
    wanted = _wanted(learnable.sum(axis=0), options)
    quotas = _quotas(np.minimum(wanted, MOST_DRAWN), learnable, options.seed)
    return Allotment(ground, whole, learnable, wanted, quotas)


def _wanted(learnable: NDArray[np.int64], options: SplitOptions) -> NDArray[np.int64]:
    """Pixels of each class to learn from, `(K + 1,)`."""
    wanted = learnable
    if options.kind == "random":
        # The other half is to score on; a single pixel is learned from.
        wanted = np.where(learnable > 1, learnable // 2, learnable)
    return wanted if options.per_class is None else np.minimum(wanted, options.per_class)


def _quotas(
    wanted: NDArray[np.int64], learnable: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Pixels to draw, `(strata, K + 1)`: of each class as even over the ground as it has them."""
    order = np.random.default_rng(seed).permutation(len(learnable)).tolist()
    columns = zip(wanted.tolist(), learnable.T, strict=True)
    return np.stack([even_shares(total, column, order) for total, column in columns], axis=1)

"""Which ground is learned from and which is held out: square blocks, half to each.

Blocks are assigned so that every class is as evenly divided as the ground allows. Of several sides
and places tried, the best are taken: small blocks divide more classes, large ones lose less to the
buffer between the two halves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt

# Places tried for blocks of each side, and the best of them that are improved.
_PLACES = 12
_POLISHED = 4
# Smaller blocks are taken for larger ones that are worth hardly more: what is learned from then
# comes from all over the scene.
_ENOUGH = 0.95
# Blocks are at least this many buffers wide: of a narrower one hardly a pixel is left.
_LEAST_SIDE = 2
_LEAST_CELLS = 3
# Most blocks with labels that are assigned one by one.
_MOST_BLOCKS = 1024
_SWEEPS = 8
# What an improvement may cost, in cells looked at.
_POLISH = 2_000_000
# A class that cannot be divided is worth a little more where it is learned from.
_LEARNED = 0.05


@dataclass(frozen=True, eq=False)
class CellCounts:
    """How many labels of each class lie in each cell of an area.

    Attributes:
        down: Rows of cells.
        across: Columns of cells.
        side: Pixels along a cell's side.
        cells: `(N,)` cells that hold a class, counted row by row.
        numbers: `(N,)` the class.
        counts: `(N,)` pixels of it, at least 1.
    """

    down: int
    across: int
    side: int
    cells: NDArray[np.int64]
    numbers: NDArray[np.int64]
    counts: NDArray[np.int64]


def merged(parts: Sequence[CellCounts]) -> CellCounts:
    """Labels of several scenes of one ground; a cell may then hold a class several times."""
    cells, numbers, counts = (
        np.concatenate(column)
        for column in zip(*((p.cells, p.numbers, p.counts) for p in parts), strict=True)
    )
    return replace(parts[0], cells=cells, numbers=numbers, counts=counts)


@dataclass(frozen=True, eq=False)
class Halves:
    """Ground that is learned from, and ground that is held out.

    Attributes:
        side: Pixels along a block's side.
        blocks: Of each area `(down, across)`, the block that each cell with labels belongs to;
            blocks with labels are counted through all areas.
        held_out: `(B,)`, whether each block is held out.
    """

    side: int
    blocks: tuple[NDArray[np.int64], ...]
    held_out: NDArray[np.bool_]


def halve(areas: Sequence[CellCounts], classes: int, buffer: int, seed: int) -> Halves:
    """Divide the ground of all areas.

    Args:
        areas: Labels of each scene, in cells of one side.
        classes: K.
        buffer: Pixels between what is learned from and what is scored, in rows and columns.
        seed: Another seed tries blocks at other places.
    """
    random = np.random.default_rng(seed)
    ground = _Ground.of(areas, classes, buffer)
    best = [_best_of_side(ground, side, random) for side in ground.sides()]
    enough = _ENOUGH * max(one.worth for one in best)
    chosen = next(one for one in best if one.worth >= enough)
    return chosen.blocks.halves(chosen.held, ground.cell)


class _Candidate(NamedTuple):
    """Blocks, which of them are held out, and what that is worth."""

    worth: float
    blocks: _Blocks
    held: NDArray[np.bool_]


def _best_of_side(ground: _Ground, side: int, random: np.random.Generator) -> _Candidate:
    """The best of blocks of one side at several places."""
    tried = []
    for _ in range(_PLACES):
        blocks = ground.cut(side, random)
        if len(blocks.table) > _MOST_BLOCKS and side < ground.largest:
            return _Candidate(0.0, blocks, np.zeros(len(blocks.table), bool))
        held = blocks.assigned(random)
        tried.append(_Candidate(ground.worth(blocks, held), blocks, held))
    tried.sort(key=_worth, reverse=True)
    return max((_polished(ground, one, random) for one in tried[:_POLISHED]), key=_worth)


def _worth(candidate: _Candidate) -> float:
    return candidate.worth


def _polished(ground: _Ground, candidate: _Candidate, random: np.random.Generator) -> _Candidate:
    """Let blocks change sides as long as that is worth something, buffer included."""
    worth, blocks, held = candidate
    left = _POLISH // (len(ground.labelled) + len(ground.cells))
    changed = True
    while changed and left > 0:
        changed = False
        for block in random.permutation(len(held))[:left]:
            other = held.copy()
            other[block] = not held[block]
            better = ground.worth(blocks, other)
            if better > worth + 1e-9:
                held, worth, changed = other, better, True
        left -= len(held)
    return _Candidate(worth, blocks, held)


@dataclass(frozen=True, eq=False)
class _Ground:
    """Cells of all areas in one row, the areas one after the other."""

    areas: Sequence[CellCounts]
    kinds: int
    buffer: int
    cells: NDArray[np.int64]  # (N,)
    numbers: NDArray[np.int64]  # (N,)
    shares: NDArray[np.float64]  # (N,), of all pixels of the kind
    labelled: NDArray[np.bool_]  # (cells,)

    @classmethod
    def of(cls, areas: Sequence[CellCounts], classes: int, buffer: int) -> _Ground:
        """What is to be divided: each class, and the labels of each area."""
        sizes = [area.down * area.across for area in areas]
        starts = np.cumsum([0, *sizes])
        cells = np.concatenate([at + area.cells for at, area in zip(starts, areas, strict=False)])
        counts = np.tile(np.concatenate([area.counts for area in areas]), 2)
        of_area = np.repeat(np.arange(len(areas)), [len(area.cells) for area in areas])
        numbers = np.concatenate([*(area.numbers for area in areas), classes + 1 + of_area])
        kinds = classes + 1 + len(areas)
        totals = np.bincount(numbers, counts, kinds)
        labelled = np.zeros(starts[-1], bool)
        labelled[cells] = True
        shares = counts / totals[numbers]
        return cls(areas, kinds, buffer, np.tile(cells, 2), numbers, shares, labelled)

    @property
    def cell(self) -> int:
        return self.areas[0].side

    @property
    def largest(self) -> int:
        """Cells along the largest blocks' sides: there are two in the longest area."""
        return max(1, max(max(area.down, area.across) for area in self.areas) // 2)

    def sides(self) -> Iterator[int]:
        """Sides of blocks to try, in cells."""
        largest = self.largest
        side = min(largest, max(math.ceil(_LEAST_SIDE * self.buffer / self.cell), _LEAST_CELLS))
        while side < largest:
            yield side
            side = max(side + 1, side * 3 // 2)
        yield largest

    def cut(self, side: int, random: np.random.Generator) -> _Blocks:
        """Blocks of a side at a random place."""
        parts, count = [], 0
        for area in self.areas:
            row, col = random.integers(0, side, 2)
            rows = (np.arange(area.down) + row) // side
            cols = (np.arange(area.across) + col) // side
            parts.append(count + rows[:, None] * (cols[-1] + 1) + cols)
            count = int(parts[-1].max()) + 1
        of_cell = np.concatenate([part.ravel() for part in parts])
        used, block = np.unique(of_cell[self.cells], return_inverse=True)
        codes = block * self.kinds + self.numbers
        size = len(used) * self.kinds
        table = np.bincount(codes, self.shares, size).astype(np.float64)
        return _Blocks(side, tuple(parts), count, used, table.reshape(len(used), -1))

    def worth(self, blocks: _Blocks, held: NDArray[np.bool_]) -> float:
        """How well classes are divided, less what the buffer takes."""
        every = np.zeros(blocks.count, bool)
        every[blocks.used[held]] = True
        kept, start = np.zeros(len(self.labelled)), 0
        for area, part in zip(self.areas, blocks.parts, strict=True):
            stop = start + part.size
            labelled = self.labelled[start:stop].reshape(part.shape)
            out = every[part]
            kept[start:stop] = np.where(out, self._left(labelled & ~out, area.side), 0).ravel()
            start = stop
        shares = self.shares * kept[self.cells]
        scored = np.bincount(self.numbers, shares, self.kinds).astype(np.float64)
        learned = 1 - blocks.table[held].sum(axis=0)
        present = blocks.table.any(axis=0)
        return float(_divided(learned, scored)[present].sum())

    def _left(self, learned: NDArray[np.bool_], side: int) -> NDArray[np.float64]:
        """Which part of each cell is farther than the buffer from cells that are learned from."""
        if not learned.any():
            return np.ones(learned.shape)
        distance = distance_transform_cdt(~learned, "chessboard")
        left: NDArray[np.float64] = np.clip((distance * side - self.buffer) / side, 0, 1)
        return left


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Square blocks of cells."""

    side: int  # in cells
    parts: tuple[NDArray[np.int64], ...]  # of each area (down, across): the block of a cell
    count: int
    used: NDArray[np.int64]  # (B,), those with labels
    table: NDArray[np.float64]  # (B, kinds), share of each kind that lies in each

    def assigned(self, random: np.random.Generator) -> NDArray[np.bool_]:
        """Whether each block with labels is held out, `(B,)`: scarce classes first."""
        table = self.table[:, self.table.any(axis=0)]
        held = np.zeros(len(table), bool)
        order = np.argsort(-table.max(axis=1) + 1e-6 * random.random(len(table)), kind="stable")
        learned, scored = np.zeros(table.shape[1]), np.zeros(table.shape[1])
        for block in order:
            share = table[block]
            held[block] = (
                _divided(learned, scored + share).sum() > _divided(learned + share, scored).sum()
            )
            if held[block]:
                scored += share
            else:
                learned += share
        return _swept(table, held, random)

    def halves(self, held: NDArray[np.bool_], cell: int) -> Halves:
        """What is told of them."""
        # Blocks without labels get any number: nothing is asked of them.
        numbers = np.zeros(self.count, np.int64)
        numbers[self.used] = np.arange(len(self.used))
        return Halves(self.side * cell, tuple(numbers[part] for part in self.parts), held)


def _swept(
    table: NDArray[np.float64], held: NDArray[np.bool_], random: np.random.Generator
) -> NDArray[np.bool_]:
    """Blocks that change sides one by one until none improves the division."""
    scored = table[held].sum(axis=0)
    learned = table.sum(axis=0) - scored
    worth = _divided(learned, scored).sum()
    for _ in range(_SWEEPS):
        changed = False
        for block in random.permutation(len(table)):
            change = table[block] if held[block] else -table[block]
            better = _divided(learned + change, scored - change).sum()
            if better > worth + 1e-9:
                learned, scored, worth = learned + change, scored - change, better
                held[block] = not held[block]
                changed = True
        if not changed:
            break
    return held


def _divided(learned: NDArray[np.float64], scored: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well each class is divided: 1 for two halves, next to 0 for all on one side."""
    product = np.maximum(learned, 0) * np.maximum(scored, 0)
    divided: NDArray[np.float64] = 2 * np.sqrt(product) + _LEARNED * learned
    return divided

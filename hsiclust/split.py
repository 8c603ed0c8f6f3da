"""Labels that are learned from, and labels that are held out to score the map on.

A network sees the surroundings of a pixel. Scored next to pixels that it learned from it looks
better than it is, so the two lie on separate ground, with a buffer between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hsiclust.census import (
    Census,
    HeldOut,
    Validity,
    at_pixels,
    cell_side,
    take_census,
)
from hsiclust.errors import InputError, UsageError
from hsiclust.grid import PixelGrid, Window
from hsiclust.marks import Drawing, Marks, Pixels, even_shares, marks_of
from hsiclust.numbering import Numbering
from hsiclust.separation import CellCounts, Halves, halve
from hsiclust.truth import Truth

SplitKind = Literal["separated", "random", "none"]

MOST_DRAWN = 20_000
"""Pixels of a class that are learned from at most: they are kept as coordinates."""

_NAMED = 10  # classes that a note names


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
class Site:
    """One scene with its labels.

    Attributes:
        truth: Classes 1..K on the scene's grid.
        grid: The scene's grid.
        area: What is learned from and scored.
        valid: Which pixels of a window of the scene have data, `(row, col)`.
    """

    truth: Truth
    grid: PixelGrid
    area: Window
    valid: Validity


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
    def not_drawn(self) -> NDArray[np.int64]:
        """Neither learned from nor scored on, though they could have been learned from."""
        return self.labelled - self.invalid - self.training - self.held_out - self.buffer


@dataclass(frozen=True, eq=False)
class Split:
    """Labels divided.

    Attributes:
        training: Of each site, the classes of the pixels to learn from.
        held_out: Of each site, those of the pixels to score on; None when nothing is held out.
        counts: Pixels of each class.
        notes: What has to be said, each one line.
    """

    training: tuple[Marks, ...]
    held_out: tuple[Truth, ...] | None
    counts: SplitCounts
    notes: tuple[str, ...]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Whether each class has pixels to score on, `(K,)`."""
        return self.counts.held_out > 0


def split_labels(sites: Sequence[Site], classes: Numbering, options: SplitOptions) -> Split:
    """Divide the labels of scenes.

    Memory is bounded, whatever the size of the scenes: labels are read in windows, a few times.

    Args:
        sites: Scenes with their labels.
        classes: What the labels' numbers are.
        options: How they are divided.

    Raises:
        InputError: No label, or those of one class alone, lie on pixels with data.
    """
    side = max(cell_side(site.area, options.buffer) for site in sites)
    censuses = [take_census(s.truth, s.area, s.valid, side, len(classes)) for s in sites]
    plan = _plan(censuses, len(classes), options)
    _check(plan.usable, classes)
    training = _drawn(censuses, plan, classes.names, options.seed)
    held_out = _held_out(censuses, plan, training, options)
    counts = _counted(censuses, plan, training, held_out)
    return Split(training, held_out, counts, tuple(_notes(plan, counts, classes, options)))


def _check(usable: NDArray[np.int64], classes: Numbering) -> None:
    """Refuse labels from which no classes can be told apart."""
    found = np.flatnonzero(usable)
    if len(found) == 0:
        raise InputError("no labelled pixel has data; do labels and scene lie on one ground?")
    if len(found) == 1:
        raise InputError(
            f"labels of one class alone ({classes.classes.names[found[0] - 1]}); at least two are "
            "needed (of a vector file, name the field that holds the class)"
        )


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which ground is learned from, and how much of it.

    Attributes:
        halves: Blocks of separate ground; None when all ground is learned from.
        strata: Of each site `(down, across)`, the part of the ground that a cell belongs to.
        learnable: `(strata, K + 1)` pixels that may be learned from.
        quotas: `(strata, K + 1)` pixels that are.
        whole: `(K + 1,)` classes that are learned from on any ground.
        wanted: `(K + 1,)` pixels of each class to learn from, before any limit.
        usable: `(K + 1,)` labelled pixels with data.
    """

    halves: Halves | None
    strata: tuple[NDArray[np.int64], ...]
    learnable: NDArray[np.int64]
    quotas: NDArray[np.int64]
    whole: NDArray[np.bool_]
    wanted: NDArray[np.int64]
    usable: NDArray[np.int64]

    def held_ground(self, site: int) -> NDArray[np.bool_] | None:
        """Cells that are held out, `(down, across)`."""
        return None if self.halves is None else self.halves.held_out[self.strata[site]]


def _plan(censuses: Sequence[Census], classes: int, options: SplitOptions) -> _Plan:
    """Divide the ground, and what is learned from among its parts."""
    counts = [census.counts for census in censuses]
    halves, held = None, np.zeros(1, bool)
    strata = tuple(np.zeros((part.down, part.across), np.int64) for part in counts)
    if options.kind == "separated":
        halves = halve(counts, classes, options.buffer, options.seed)
        strata, held = halves.blocks, halves.held_out
    table = _by_stratum(counts, strata, len(held), classes)
    usable = table.sum(axis=0)
    whole = (usable > 0) & (table[~held].sum(axis=0) == 0)
    learnable = np.where(held[:, None] & ~whole, 0, table)
    wanted = _wanted(learnable.sum(axis=0), options)
    quotas = _quotas(np.minimum(wanted, MOST_DRAWN), learnable, options.seed)
    return _Plan(halves, strata, learnable, quotas, whole, wanted, usable)


def _wanted(learnable: NDArray[np.int64], options: SplitOptions) -> NDArray[np.int64]:
    """Pixels of each class to learn from, `(K + 1,)`."""
    wanted = learnable
    if options.kind == "random":
        # The other half is to score on; a single pixel is learned from.
        wanted = np.where(learnable > 1, learnable // 2, learnable)
    return wanted if options.per_class is None else np.minimum(wanted, options.per_class)


def _by_stratum(
    counts: Sequence[CellCounts], strata: Sequence[NDArray[np.int64]], size: int, classes: int
) -> NDArray[np.int64]:
    """Pixels of each stratum and class, `(size, K + 1)`."""
    table = np.zeros((size, classes + 1), np.int64)
    for part, stratum in zip(counts, strata, strict=True):
        np.add.at(table, (stratum.ravel()[part.cells], part.numbers), part.counts)
    return table


def _quotas(
    wanted: NDArray[np.int64], learnable: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Pixels to draw, `(strata, K + 1)`: of each class as even over the ground as it has them."""
    order = np.random.default_rng(seed).permutation(len(learnable)).tolist()
    columns = zip(wanted.tolist(), learnable.T, strict=True)
    return np.stack([even_shares(total, column, order) for total, column in columns], axis=1)


def _drawn(
    censuses: Sequence[Census], plan: _Plan, names: Mapping[int, str], seed: int
) -> tuple[Marks, ...]:
    """The pixels of each site that are learned from."""
    drawing = Drawing(plan.quotas, seed)
    for site, census in enumerate(censuses):
        labels = census.labels
        for window in census.windows:
            found = labels.read(window)
            stratum = at_pixels(plan.strata[site], labels.area, labels.side, window)
            rows, cols = np.nonzero(found)
            numbers, strata = found[rows, cols].astype(np.int64), stratum[rows, cols]
            # What lies on held-out ground has no quota there.
            here = np.full(len(rows), site, np.int64)
            drawing.offer(Pixels(strata, numbers, here, rows + window.row, cols + window.col))
    pixels = drawing.drawn()
    return tuple(marks_of(pixels, site, names) for site in range(len(censuses)))


def _held_out(
    censuses: Sequence[Census], plan: _Plan, training: Sequence[Marks], options: SplitOptions
) -> tuple[HeldOut, ...] | None:
    """What each site is scored on."""
    if options.kind == "none":
        return None
    buffer = options.buffer if options.kind == "separated" else 0
    return tuple(
        HeldOut(census.labels, marks, buffer, plan.held_ground(site), plan.whole)
        for site, (census, marks) in enumerate(zip(censuses, training, strict=True))
    )


def _counted(
    censuses: Sequence[Census],
    plan: _Plan,
    training: Sequence[Marks],
    held_out: Sequence[HeldOut] | None,
) -> SplitCounts:
    """Count what came of all labels."""
    size = len(plan.usable)
    labelled = sum((census.labelled for census in censuses), np.zeros(size, np.int64))
    learned = sum(
        (np.bincount(m.numbers, minlength=size) for m in training), np.zeros(size, np.int64)
    )
    scored = np.zeros(size, np.int64)
    for census, labels in zip(censuses, held_out or (), strict=held_out is not None):
        for window in census.windows:
            scored += np.bincount(labels.read(window).ravel(), minlength=size)
    near = np.zeros(size, np.int64)
    if plan.halves is not None:
        near = plan.usable - plan.learnable.sum(axis=0) - scored
    columns = (labelled, labelled - plan.usable, learned, scored, near)
    return SplitCounts(*(column[1:] for column in columns))


def _notes(
    plan: _Plan, counts: SplitCounts, classes: Numbering, options: SplitOptions
) -> Iterator[str]:
    """What has to be said."""
    names = np.array(classes.classes.names, object)
    lost = int(counts.invalid.sum())
    if lost:
        yield f"{lost} of {counts.labelled.sum()} labelled pixels have no data and are left out"
    gone = (counts.labelled > 0) & (plan.usable[1:] == 0)
    if gone.any():
        yield f"no label on a pixel with data, not learned: {_listed(names[gone])}"
    yield from _training_notes(plan, counts, names, options)
    if options.kind == "none":
        yield "nothing is held out: a score on these labels would be too good"
        return
    if options.kind == "random":
        yield (
            "random split: optimistic, because pixels that are scored lie next to pixels that "
            "are learned from and share their surroundings"
        )
    if plan.halves is not None:
        side, held = plan.halves.side, plan.halves.held_out
        yield (
            f"{np.count_nonzero(held)} of {len(held)} blocks of {side} x {side} pixels are held "
            f"out; {counts.buffer.sum()} labelled pixels in them lie within {options.buffer} "
            "pixels of one that is learned from and are left out"
        )
    yield from _scoring_notes(plan, counts, names, options)


def _training_notes(
    plan: _Plan, counts: SplitCounts, names: NDArray[np.object_], options: SplitOptions
) -> Iterator[str]:
    capped = plan.wanted[1:] > MOST_DRAWN
    if capped.any():
        yield f"{MOST_DRAWN} pixels of a class are drawn, no more: {_listed(names[capped])}"
    if options.per_class is not None:
        few = (counts.training > 0) & (counts.training < min(options.per_class, MOST_DRAWN))
        if few.any():
            found = zip(names[few], counts.training[few], strict=True)
            fewer = _listed(np.array([f"{name} ({count})" for name, count in found], object))
            yield f"fewer than {options.per_class} pixels to learn from: {fewer}"


def _scoring_notes(
    plan: _Plan, counts: SplitCounts, names: NDArray[np.object_], options: SplitOptions
) -> Iterator[str]:
    """Which classes are not scored, and why."""
    usable = plan.usable[1:]
    unscored = (usable > 0) & (counts.held_out == 0)
    single = unscored & (usable == 1)
    if single.any():
        yield f"one labelled pixel, learned from, not scored: {_listed(names[single])}"
    near = unscored & (counts.buffer > 0)
    if near.any():
        yield (
            f"all held-out pixels within {options.buffer} pixels of one that is learned from, "
            f"not scored: {_listed(names[near])}"
        )
    rest = unscored & ~single & ~near
    if rest.any():
        yield (
            "in one block or one place, not to be divided: learned from whole, not scored: "
            f"{_listed(names[rest])}"
        )


def _listed(names: NDArray[np.object_]) -> str:
    """Names in one line; of many, the first."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")

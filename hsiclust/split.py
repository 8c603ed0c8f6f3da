"""Labels that are learned from, and labels that are held out to score the map on.

A network sees the surroundings of a pixel. Scored next to pixels that it learned from it looks
better than it is, so the two lie on separate ground, with a buffer between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hsiclust.allotment import (
    MOST_DRAWN,
    Allotment,
    SplitCounts,
    SplitKind,
    SplitOptions,
    allot,
    divide_ground,
)
from hsiclust.census import Census, HeldOut, Validity, at_pixels, cell_side, take_census
from hsiclust.errors import InputError
from hsiclust.georef import pixels_elsewhere, same_crs
from hsiclust.grid import PixelGrid, Window
from hsiclust.marks import Drawing, Marks, Pixels, joined, marks_of
from hsiclust.numbering import Numbering
from hsiclust.splitnotes import split_notes
from hsiclust.truth import Truth

__all__ = [
    "MOST_DRAWN",
    "Site",
    "Split",
    "SplitCounts",
    "SplitKind",
    "SplitOptions",
    "split_labels",
]


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
    side = cell_side([site.area for site in sites], options.buffer)
    censuses = [take_census(s.truth, s.area, s.valid, side, len(classes)) for s in sites]
    _check(censuses, classes)
    work = _Work(sites, censuses, classes.names, options)
    counts = [census.counts for census in censuses]
    ground = divide_ground(counts, _first_of_ground(sites), len(classes), options)
    unscored = np.zeros(len(classes) + 1, bool)
    plan = allot(ground, unscored, options)
    split = work.split(plan)
    unscored[1:] = (split.counts.held_out == 0) & (split.counts.buffer > 0)
    if unscored.any():
        # Learned from whole, unless that takes from other classes all that they are scored on.
        other = allot(ground, unscored, options)
        whole = work.split(other)
        if (whole.scored >= split.scored).all():
            plan, split = other, whole
    notes = split_notes(plan, split.counts, classes.classes.names, options)
    return replace(split, notes=tuple(notes))


def _check(censuses: Sequence[Census], classes: Numbering) -> None:
    """Refuse labels from which no classes can be told apart."""
    found = np.unique(np.concatenate([census.counts.numbers for census in censuses]))
    if len(found) == 0:
        raise InputError(
            f"{classes.path}: no labelled pixel has data and lies inside the mask; do labels and "
            "scene lie on one ground?"
        )
    if len(found) == 1:
        raise InputError(
            f"{classes.path}: labels of one class alone ({classes.classes.names[found[0] - 1]}); "
            "at least two are needed (of a vector file, name the field that holds the class)"
        )


def _first_of_ground(sites: Sequence[Site]) -> list[int]:
    """The first of the sites that lies on the very pixels of each, such as of another date."""
    return [
        next(first for first, other in enumerate(sites) if _same_ground(site, other))
        for site in sites
    ]


def _same_ground(one: Site, other: Site) -> bool:
    places = [(s.area, s.grid.rows, s.grid.cols, s.grid.transform) for s in (one, other)]
    return places[0] == places[1] and same_crs(one.grid.crs, other.grid.crs)


@dataclass(frozen=True, eq=False)
class _Work:
    """A split under way."""

    sites: Sequence[Site]
    censuses: Sequence[Census]
    names: Mapping[int, str]
    options: SplitOptions

    def split(self, plan: Allotment) -> Split:
        """Draw what is learned from, and find what is left to score on."""
        training = self._drawn(plan)
        held_out = None if self.options.kind == "none" else self._held_out(plan, training)
        return Split(training, held_out, self._counts(plan, training, held_out), ())

    def _drawn(self, plan: Allotment) -> tuple[Marks, ...]:
        """The pixels of each site that are learned from."""
        drawing = Drawing(plan.quotas, self.options.seed)
        for site, census in enumerate(self.censuses):
            labels, strata = census.labels, plan.ground.strata[site]
            for window in census.windows:
                found = labels.read(window)
                rows, cols = np.nonzero(found)
                stratum = at_pixels(strata, labels.area, labels.side, window)[rows, cols]
                numbers, here = found[rows, cols].astype(np.int64), np.full(len(rows), site)
                # What lies on held-out ground has no quota there.
                drawing.offer(Pixels(stratum, numbers, here, rows + window.row, cols + window.col))
        pixels = drawing.drawn()
        return tuple(marks_of(pixels, site, self.names) for site in range(len(self.sites)))

    def _held_out(self, plan: Allotment, training: Sequence[Marks]) -> tuple[HeldOut, ...]:
        """What each site is scored on."""
        buffer = 0 if plan.ground.halves is None else self.options.buffer
        return tuple(
            HeldOut(
                census.labels,
                self._around(site, training, buffer),
                buffer,
                plan.ground.held_cells(site),
                plan.whole,
            )
            for site, census in enumerate(self.censuses)
        )

    def _around(self, site: int, training: Sequence[Marks], reach: int) -> Marks:
        """What any site learns from, as pixels of this one: scenes may overlap."""
        here, parts = self.sites[site], []
        for other, marks in zip(self.sites, training, strict=True):
            if _same_ground(other, here):
                parts.append(marks)
                continue
            places = pixels_elsewhere(marks.rows, marks.cols, other.grid, here.grid, reach)
            parts.append(Marks.at(*places))
        return joined(parts)

    def _counts(
        self, plan: Allotment, training: Sequence[Marks], held_out: Sequence[HeldOut] | None
    ) -> SplitCounts:
        """Pixels of each class."""
        size = plan.quotas.shape[1]
        labelled, learned, scored, near = np.zeros((4, size), np.int64)
        for census, marks in zip(self.censuses, training, strict=True):
            labelled += census.labelled
            learned += np.bincount(marks.numbers, minlength=size)
        for census, labels in zip(self.censuses, held_out or (), strict=held_out is not None):
            for window in census.windows:
                scored += np.bincount(labels.read(window).ravel(), minlength=size)
        scored[0] = 0
        usable = plan.ground.usable.sum(axis=0)
        if plan.ground.halves is not None:
            near = usable - plan.learnable.sum(axis=0) - scored
        columns = (labelled, labelled - usable, learned, scored, near)
        return SplitCounts(*(column[1:] for column in columns))

"""Overviews of a map, made row by row while the map is: each level halves the one before.

GDAL makes them as well, but only of a whole map, on one thread, when all other work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.uint8]
Shape = tuple[int, int]
Merging = Callable[[Sequence[Values]], Values]
"""Makes one raster of four of the same shape: the corners of each cell."""


@dataclass(frozen=True)
class Level:
    """One overview.

    Attributes:
        file: Its values, row by row, uint8.
        rows: Height.
        cols: Width.
    """

    file: Path
    rows: int
    cols: int


def levels_of(rows: int, cols: int, smallest: int) -> list[Shape]:
    """Shapes of the overviews of a map, those that GDAL's COG driver chooses.

    Args:
        rows: Height of the map.
        cols: Width of the map.
        smallest: The last overview is no higher and no wider.

    Returns:
        Rows and columns of each; none where the map is that small, or too narrow for them.
    """
    shapes = []
    while max(rows, cols) > smallest:
        rows, cols = rows // 2, cols // 2
        shapes.append((rows, cols))
    return shapes if min(rows, cols) > 0 else []


class Pyramid:
    """The overviews of a map that comes row by row.

    Args:
        folder: Where their files are made.
        shape: Rows and columns of the map.
        shapes: Of its overviews, as `levels_of` gives them.
        merging: What becomes of the four corners of a cell.
    """

    def __init__(
        self, folder: Path, shape: Shape, shapes: Sequence[Shape], merging: Merging
    ) -> None:
        self.levels = [
            Level(folder / f"overview{number}.raw", *of) for number, of in enumerate(shapes)
        ]
        self._halves = [_Half(*pair) for pair in pairwise([shape, *shapes])]
        self._merging = merging

    def add(self, values: Values) -> None:
        """Go on with the next rows of the map, `(row, col)`."""
        for level, half in zip(self.levels, self._halves, strict=True):
            values = self._merging(half.corners(values))
            with level.file.open("ab") as file:
                file.write(values.tobytes())


class _Half:
    """Cuts a raster that comes row by row into cells of two by two pixels.

    An odd edge makes some cells three pixels wide, so that the cells end where the raster ends, and
    lie where a program that stretches the overview over the map draws them.

    Args:
        whole: Rows and columns of the raster.
        half: Of the cells.
    """

    def __init__(self, whole: Shape, half: Shape) -> None:
        self._rows, self._cols = (_ends(*each) for each in zip(whole, half, strict=True))
        self._waiting = np.empty((0, whole[1]), np.uint8)
        self._start = 0  # row of the raster that waits first
        self._made = 0

    def corners(self, values: Values) -> list[Values]:
        """The four corners of the cells that are whole with these rows, upper left first."""
        waiting = np.concatenate([self._waiting, values])
        first, last = self._rows
        whole = int(np.searchsorted(last, self._start + len(waiting)))
        rows = [ends[self._made : whole] - self._start for ends in (first, last)]
        found = [waiting[np.ix_(row, col)] for row in rows for col in self._cols]
        used = int(last[whole - 1]) + 1 if whole else 0
        self._waiting = waiting[used - self._start :].copy()
        self._start, self._made = used, whole
        return found


def _ends(length: int, cells: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last pixel of each cell along an axis."""
    edges = np.arange(cells + 1) * length // cells
    return edges[:-1], edges[1:] - 1


def most_frequent(corners: Sequence[Values]) -> Values:
    """The most frequent class of the corners; of several the first; 0 where all are 0.

    Unclassified pixels, 0, do not count.
    """
    chosen = corners[0].copy()
    most = np.zeros(chosen.shape, np.uint8)
    for number, corner in enumerate(corners):
        # What equals one before was counted there.
        count = np.ones(chosen.shape, np.uint8)
        for later in corners[number + 1 :]:
            count += corner == later
        more = (count > most) & (corner > 0)
        np.copyto(chosen, corner, where=more)
        np.copyto(most, count, where=more)
    return chosen


def mean_of_known(corners: Sequence[Values], unknown: int) -> Values:
    """The mean of the corners, rounded; a value that stands for none does not count."""
    total = np.zeros(corners[0].shape, np.uint16)
    count = np.zeros_like(total)
    for corner in corners:
        known = corner != unknown
        np.add(total, corner, out=total, where=known)
        count += known
    divisor = np.maximum(count, 1)
    mean = (total + divisor // 2) // divisor
    return np.where(count > 0, mean, unknown).astype(np.uint8)

"""Overviews of a map, made row by row while the map is: each level halves the one before.

GDAL makes them as well, but only of a whole map, on one thread, when all other work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UNKNOWN = 255

Values = NDArray[np.uint8]
Halving = Callable[[Values], Values]
"""Gives a raster of even height and width at half its size."""


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


def levels_of(rows: int, cols: int, smallest: int) -> list[tuple[int, int]]:
    """Shapes of the overviews of a map, as GDAL's COG driver chooses them: odd edges are left out.

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
        shapes: Of `levels_of`.
        halving: Makes each level of the one before.
    """

    def __init__(self, folder: Path, shapes: list[tuple[int, int]], halving: Halving) -> None:
        self.levels = [
            Level(folder / f"overview{number}.raw", *shape) for number, shape in enumerate(shapes)
        ]
        self._halving = halving
        # A row of each level that waits for the one below it.
        self._odd: list[Values | None] = [None] * len(shapes)

    def add(self, values: Values) -> None:
        """Go on with the next rows of the map, `(row, col)`."""
        for number, level in enumerate(self.levels):
            odd = self._odd[number]
            if odd is not None:
                values = np.concatenate([odd, values])
            even = len(values) // 2 * 2
            self._odd[number] = values[even:].copy() if even < len(values) else None
            values = self._halving(values[:even, : values.shape[1] // 2 * 2])
            with level.file.open("ab") as file:
                file.write(values.tobytes())


def most_frequent(values: Values) -> Values:
    """Of each two by two classes the most frequent; of several the first; 0 where all are 0.

    Unclassified pixels, 0, do not count.
    """
    squares = list(_squares(values))
    chosen = squares[0].copy()
    most = np.zeros(chosen.shape, np.uint8)
    for number, square in enumerate(squares):
        # What equals one before was counted there.
        count = np.ones(chosen.shape, np.uint8)
        for later in squares[number + 1 :]:
            count += square == later
        more = (count > most) & (square > 0)
        np.copyto(chosen, square, where=more)
        np.copyto(most, count, where=more)
    return chosen


def mean_of_known(values: Values) -> Values:
    """Of each two by two values the mean, rounded; 255, unknown, does not count."""
    total = np.zeros((values.shape[0] // 2, values.shape[1] // 2), np.uint16)
    count = np.zeros_like(total)
    for square in _squares(values):
        known = square != _UNKNOWN
        np.add(total, square, out=total, where=known)
        count += known
    known_once = np.maximum(count, 1)
    mean = (total + known_once // 2) // known_once
    return np.where(count > 0, mean, _UNKNOWN).astype(np.uint8)


def _squares(values: Values) -> Iterator[Values]:
    """The four pixels of each square, from its upper left to its lower right."""
    for row in (0, 1):
        for col in (0, 1):
            yield values[row::2, col::2]

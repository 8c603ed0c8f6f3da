"""Cubes in tiles, each of which is a raw cube of its own, pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import InputError
from hsiclust.grid import Piece, Window
from hsiclust.rawcube import RawCube, gathered


@dataclass(frozen=True)
class TiledCube:
    """Where each tile of an uncompressed cube lies in its file.

    Attributes:
        tile: The first tile; all are of its size, also where they reach beyond the scene.
        places: Where tiles begin in the file, row by row.
    """

    tile: RawCube
    places: tuple[tuple[int, ...], ...]

    @property
    def path(self) -> str:
        """The data file."""
        return self.tile.path

    @property
    def nbytes(self) -> int:
        """Bytes that the file must hold."""
        last = max(place for row in self.places for place in row)
        return replace(self.tile, offset=last).nbytes

    def read(self, window: Window, bands: Sequence[int]) -> NDArray[np.generic]:
        """Copy a window into memory; arguments, result and errors are those of `RawCube.read`."""
        shape = (window.rows, window.cols, len(bands))
        block = np.empty(shape, np.dtype(self.tile.dtype).newbyteorder("=")).transpose(2, 0, 1)
        return gathered(self.pieces(window, bands), window, block)

    def pieces(self, window: Window, bands: Sequence[int]) -> Iterator[Piece]:
        """Read a window piece by piece, each from one tile; else as `RawCube.pieces`."""
        for tile, part, origin in self._tiles(window):
            try:
                for low in part.cut(self.rows_at_once(len(bands)), tile.cols):
                    for piece in tile.pieces(low, bands):
                        yield Piece(_moved(piece.window, origin), piece.values)
            except InputError as error:
                place = f"{tile.path}: in the tile at row {origin.row}, column {origin.col}"
                raise InputError(f"{place}: {error}") from error

    def rows_at_once(self, bands: int) -> int:
        """Rows of a piece of so many bands; a tile has a whole number of pieces."""
        rows = min(self.tile.rows, self.tile.rows_at_once(bands))
        while self.tile.rows % rows:
            rows -= 1
        return rows

    def prefetch(self, window: Window) -> None:
        """Ask the system to read a window's tiles ahead."""
        for tile, part, _ in self._tiles(window):
            tile.prefetch(part)

    def release(self, window: Window) -> None:
        """Tell the system that it need not keep a window's tiles."""
        for tile, part, _ in self._tiles(window):
            tile.release(part)

    def _tiles(self, window: Window) -> Iterator[tuple[RawCube, Window, Window]]:
        """The tiles that a window meets: each with its part of the window, and where it lies."""
        rows, cols = self.tile.rows, self.tile.cols
        for part in window.cut(rows, cols):
            down, across = part.row // rows, part.col // cols
            origin = Window(down * rows, across * cols, rows, cols)
            tile = replace(self.tile, offset=self.places[down][across])
            yield tile, part.relative_to(origin), origin


def _moved(window: Window, origin: Window) -> Window:
    return replace(window, row=window.row + origin.row, col=window.col + origin.col)

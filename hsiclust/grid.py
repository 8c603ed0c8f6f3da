"""Where pixels lie: windows of them, and the pixel grid of a raster. No pixel is read here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from hsiclust.errors import UsageError

Bounds = tuple[float, float, float, float]
"""West, south, east, north in map units."""


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels: rows `[row, row + rows)`, columns `[col, col + cols)`."""

    row: int
    col: int
    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise UsageError(f"a window holds at least one pixel, not {self.rows} x {self.cols}")

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row + self.rows

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col + self.cols

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.rows * self.cols

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as an index of a `(row, col)` array."""
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    def relative_to(self, origin: Window) -> Window:
        """The same pixels, counted from the first pixel of `origin`."""
        return replace(self, row=self.row - origin.row, col=self.col - origin.col)

    def cut(self, rows: int, cols: int) -> Iterator[Window]:
        """The parts of the window that lie between multiples of `rows` and `cols`, row by row."""
        for top, bottom in _between_multiples(self.row, self.row_stop, rows):
            for left, right in _between_multiples(self.col, self.col_stop, cols):
                yield Window(top, left, bottom - top, right - left)

    def shared_with(self, other: Window) -> Window | None:
        """The pixels of both; None where there are none."""
        top, left = max(self.row, other.row), max(self.col, other.col)
        rows = min(self.row_stop, other.row_stop) - top
        cols = min(self.col_stop, other.col_stop) - left
        return Window(top, left, rows, cols) if rows > 0 and cols > 0 else None

    def contains(self, other: Window) -> bool:
        """Whether every pixel of `other` lies in this window."""
        return (
            self.row <= other.row
            and self.col <= other.col
            and other.row_stop <= self.row_stop
            and other.col_stop <= self.col_stop
        )


@dataclass(frozen=True, eq=False)
class Piece:
    """Pixels of a part of a window.

    Attributes:
        window: Which pixels of the scene.
        values: `(band, row, col)`, in the file's data type and native byte order.
    """

    window: Window
    values: NDArray[np.generic]


@dataclass(frozen=True)
class PixelGrid:
    """Where the pixels of a raster lie: shape, affine transform and CRS.

    Attributes:
        rows: Number of rows.
        cols: Number of columns.
        transform: Maps `(col, row)` of a pixel's corner to map units `(x, y)`; rotation and
            shear are kept. The identity when the raster has no georeference.
        crs: Well-known text of the coordinate reference system, or None.
    """

    rows: int
    cols: int
    transform: Affine = Affine.identity()
    crs: str | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise UsageError(f"a grid holds at least one pixel, not {self.rows} x {self.cols}")

    @property
    def window(self) -> Window:
        """The window that covers the whole grid."""
        return Window(0, 0, self.rows, self.cols)

    @property
    def georeferenced(self) -> bool:
        """Whether the grid has a place on the ground."""
        return self.crs is not None or self.transform != Affine.identity()

    @property
    def facts(self) -> dict[str, object]:
        """Shape and place as JSON values."""
        return {
            "rows": self.rows,
            "cols": self.cols,
            "georeferenced": self.georeferenced,
            "transform_gdal": list(self.transform.to_gdal()),
            "crs": self.crs,
        }

    def crop(self, window: Window) -> PixelGrid:
        """The grid of a window: the same ground under the same pixels.

        Raises:
            UsageError: The window reaches beyond the grid.
        """
        if not self.window.contains(window):
            raise UsageError(f"{window} reaches beyond the {self.rows} x {self.cols} grid")
        if window == self.window:
            return self
        shifted = self.transform @ Affine.translation(window.col, window.row)
        return PixelGrid(window.rows, window.cols, shifted, self.crs)

    def window_of_bounds(self, west: float, south: float, east: float, north: float) -> Window:
        """The smallest window that covers `bounds`, clipped to the grid.

        Args:
            west: Smallest x in map units (column when there is no georeference).
            south: Smallest y in map units.
            east: Largest x.
            north: Largest y.

        Raises:
            UsageError: The bounds are empty or do not meet the grid.
        """
        if not (west < east and south < north and math.isfinite(east - west + north - south)):
            raise UsageError(f"bounds {west},{south},{east},{north} are not west,south,east,north")
        to_pixel = ~self.transform
        corners = [to_pixel @ (x, y) for x in (west, east) for y in (south, north)]
        # A corner within a millionth of a pixel of a pixel's edge is that edge: bounds that
        # were printed from a grid must give the same grid back.
        cols = np.round([corner[0] for corner in corners], 6)
        rows = np.round([corner[1] for corner in corners], 6)
        top, left = max(0, int(np.floor(rows.min()))), max(0, int(np.floor(cols.min())))
        bottom = min(self.rows, int(np.ceil(rows.max())))
        right = min(self.cols, int(np.ceil(cols.max())))
        if top >= bottom or left >= right:
            raise UsageError(f"bounds {west},{south},{east},{north} do not meet the scene")
        return Window(top, left, bottom - top, right - left)


def _between_multiples(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut `[start, stop)` at the multiples of `step`."""
    while start < stop:
        following = min(stop, (start // step + 1) * step)
        yield start, following
        start = following

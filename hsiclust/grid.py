"""Pixel grids and tiles as immutable integers: no pixel is read here.

A scene is cut into *cores* that partition it. A tile reads its core and a *halo* around it,
clipped at the scene's edge; what the clipping took away is put back by reflection about the
edge pixel (`reflect_indices`), so that a tile sees the very pixels that the whole,
reflect-padded scene has there. That is why labels do not depend on the tile size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from hsiclust.errors import UsageError


class _Indexable(Protocol):
    """An array or a tensor: this module needs to know no more of it."""

    def __getitem__(self, key: Any, /) -> Any: ...


_Block = TypeVar("_Block", bound=_Indexable)

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


@dataclass(frozen=True)
class Padding:
    """Pixels that a tile's read window lacks on each side, to be filled by reflection."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)


@dataclass(frozen=True)
class Tile:
    """One unit of work.

    Attributes:
        index: Position in the row-major order of the tile grid.
        core: The pixels that the tile writes, in scene coordinates.
        read: The pixels that it reads: core and halo, clipped to the scene.
        pad: What the clipping took away.
    """

    index: int
    core: Window
    read: Window
    pad: Padding


@dataclass(frozen=True)
class TileGrid:
    """Cores that partition an area of a scene, each read with a halo.

    Attributes:
        scene: The whole scene, that reading is clipped to.
        area: The pixels to be written; the scene itself, or a part of it. The halo of a tile
            at the area's edge is read from the scene beyond it.
        tile_rows: Height of a core; the last row of tiles may be lower.
        tile_cols: Width of a core; the last column of tiles may be narrower.
        halo: Pixels read around a core on every side.
    """

    scene: Window
    area: Window
    tile_rows: int
    tile_cols: int
    halo: int

    def __post_init__(self) -> None:
        if self.tile_rows < 1 or self.tile_cols < 1:
            raise UsageError(f"a tile of {self.tile_rows} x {self.tile_cols} pixels is empty")
        if self.halo < 0:
            raise UsageError(f"the halo is {self.halo}, it must not be negative")
        if not self.scene.contains(self.area):
            raise UsageError(f"{self.area} reaches beyond the scene {self.scene}")

    @property
    def down(self) -> int:
        """Number of rows of tiles."""
        return -(-self.area.rows // self.tile_rows)

    @property
    def across(self) -> int:
        """Number of columns of tiles."""
        return -(-self.area.cols // self.tile_cols)

    def __len__(self) -> int:
        return self.down * self.across

    def __getitem__(self, index: int) -> Tile:
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        tile_row, tile_col = divmod(index, self.across)
        core = self._core(tile_row, tile_col)
        top, left = core.row - self.halo, core.col - self.halo
        bottom, right = core.row_stop + self.halo, core.col_stop + self.halo
        read_top, read_left = max(top, self.scene.row), max(left, self.scene.col)
        read_bottom = min(bottom, self.scene.row_stop)
        read_right = min(right, self.scene.col_stop)
        return Tile(
            index,
            core,
            Window(read_top, read_left, read_bottom - read_top, read_right - read_left),
            Padding(read_top - top, bottom - read_bottom, read_left - left, right - read_right),
        )

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))

    def holding(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the tiles whose cores hold pixels of the area, `(N,)`."""
        down = (rows - self.area.row) // self.tile_rows
        across = (cols - self.area.col) // self.tile_cols
        return down * self.across + across

    def meeting(self, window: Window) -> Iterator[Tile]:
        """Tiles whose cores hold pixels of a window."""
        shared = self.area.shared_with(window)
        if shared is None:
            return
        rows = np.arange(shared.row, shared.row_stop + self.tile_rows - 1, self.tile_rows)
        cols = np.arange(shared.col, shared.col_stop + self.tile_cols - 1, self.tile_cols)
        corners = np.meshgrid(
            rows.clip(max=shared.row_stop - 1), cols.clip(max=shared.col_stop - 1), indexing="ij"
        )
        for index in np.unique(self.holding(*(corner.ravel() for corner in corners))):
            yield self[int(index)]

    def _core(self, tile_row: int, tile_col: int) -> Window:
        row = self.area.row + tile_row * self.tile_rows
        col = self.area.col + tile_col * self.tile_cols
        return Window(
            row,
            col,
            min(self.tile_rows, self.area.row_stop - row),
            min(self.tile_cols, self.area.col_stop - col),
        )


def _between_multiples(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut `[start, stop)` at the multiples of `step`."""
    while start < stop:
        following = min(stop, (start // step + 1) * step)
        yield start, following
        start = following


def even_tile_size(length: int, largest: int) -> int:
    """Size of a core, at most `largest`, that cuts `length` pixels into nearly equal cores."""
    return -(-length // -(-length // largest))


def reflect_indices(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Source index of each position in `[start, stop)` of an axis reflected about its ends.

    The edge pixel itself is not repeated (`numpy.pad` mode "reflect"), and an axis shorter
    than the padding is reflected again and again; an axis of one pixel repeats it.

    Args:
        start: First position; negative before the axis.
        stop: Position after the last.
        size: Length of the axis.

    Returns:
        Indices in `[0, size)`, shape `(stop - start,)`.
    """
    period = max(2 * (size - 1), 1)
    folded = np.arange(start, stop) % period
    return np.asarray(np.minimum(folded, period - folded) if size > 1 else folded * 0)


def pad_reflect(block: _Block, tile: Tile, scene: Window) -> _Block:
    """Put back by reflection what the scene's edge took from a tile.

    Args:
        block: What was read, an array or a tensor: `(..., tile.read.rows, tile.read.cols)`.
        tile: The tile that was read.
        scene: The window of the whole scene.

    Returns:
        `(..., core rows + 2 halo, core cols + 2 halo)`; `block` itself when nothing is missing.
    """
    pad, read = tile.pad, tile.read
    padded = pad_reflect_rows(block, tile, scene)
    if pad.left or pad.right:
        left = read.col - scene.col
        cols = reflect_indices(left - pad.left, left + read.cols + pad.right, scene.cols)
        padded = padded[..., cols - left]
    return padded


def pad_reflect_rows(block: _Block, tile: Tile, scene: Window) -> _Block:
    """As `pad_reflect`, above and below alone: `(..., core rows + 2 halo, any)`."""
    pad, read = tile.pad, tile.read
    if not (pad.top or pad.bottom):
        return block
    top = read.row - scene.row
    rows = reflect_indices(top - pad.top, top + read.rows + pad.bottom, scene.rows)
    padded: _Block = block[..., rows - top, :]
    return padded

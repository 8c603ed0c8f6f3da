"""How a scene is cut into tiles, as immutable integers: no pixel is read here.

A scene is cut into *cores* that partition it. A tile reads its core and a *halo* around it,
clipped at the scene's edge; what the clipping took away is put back by reflection about the
edge pixel (`reflect_indices`), so that a tile sees the very pixels that the whole,
reflect-padded scene has there. That is why labels do not depend on the tile size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import UsageError
from hsiclust.grid import Window


class _Indexable(Protocol):
    """An array or a tensor: this module needs to know no more of it."""

    def __getitem__(self, key: Any, /) -> Any: ...


_Block = TypeVar("_Block", bound=_Indexable)


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


class RowsDone:
    """How many rows of an area are done without a gap, while its tiles are done in any order.

    Args:
        tiles: How the area is cut.
        missing: Tiles that are not done yet.
    """

    def __init__(self, tiles: TileGrid, missing: Iterable[int]) -> None:
        self._tiles = tiles
        self._missing = set(missing)
        self._first = 0

    def after(self, done: Iterable[int]) -> int:
        """Rows, from the first of the area, when these tiles are done as well."""
        self._missing.difference_update(done)
        while self._first < len(self._tiles) and self._first not in self._missing:
            self._first += 1
        rows = self._first // self._tiles.across * self._tiles.tile_rows
        return min(rows, self._tiles.area.rows)


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

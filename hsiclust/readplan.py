"""What is read at once, and which tiles are cut from it: integers, no pixel is read here.

A scene is read in *steps*, windows that touch but never overlap, in the order of the file. A
*strip* is a row of tiles; it needs the one, two or three steps that its halo reaches into. With
the steps kept until the strips below have used them, each byte is read and decoded once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import UsageError
from hsiclust.grid import Window
from hsiclust.tilegrid import TileGrid


@dataclass(frozen=True)
class ReadPlan:
    """Steps and strips of a tile grid.

    Attributes:
        tiles: How the scene is cut.
        panel: Columns of tiles that are read and labelled together; fewer than there are where
            a step of the whole width would not fit into memory.
        first: A row of the scene at which a step begins.
        height: Rows of a step.
    """

    tiles: TileGrid
    panel: int
    first: int
    height: int

    def __post_init__(self) -> None:
        if not 1 <= self.panel <= self.tiles.across:
            raise UsageError(f"panels of {self.panel} of {self.tiles.across} columns of tiles")
        if self.height < 1:
            raise UsageError(f"steps of {self.height} rows read nothing")

    @classmethod
    def of(cls, tiles: TileGrid, panel: int, block: int) -> ReadPlan:
        """Steps of whole blocks of `block` rows, as high as tiles or somewhat higher.

        They begin below the halo of the first strip: then each strip needs one new step, but
        where blocks are higher than the halo.
        """
        height = -(-tiles.tile_rows // block) * block
        first = -(-(tiles.area.row + tiles.halo) // block) * block
        return cls(tiles, min(panel, tiles.across), first, height)

    @property
    def panels(self) -> int:
        """Number of panels."""
        return -(-self.tiles.across // self.panel)

    def __len__(self) -> int:
        """Number of strips; they are counted down each panel, panel by panel."""
        return self.panels * self.tiles.down

    def tiles_of(self, strip: int) -> range:
        """Numbers of a strip's tiles."""
        panel, row = divmod(strip, self.tiles.down)
        left = row * self.tiles.across + panel * self.panel
        right = (row + 1) * self.tiles.across
        return range(left, min(left + self.panel, right))

    def strips_of(self, tiles: list[int]) -> list[int]:
        """The strips that hold these tiles, each once, in their order."""
        places = (divmod(tile, self.tiles.across) for tile in tiles)
        return sorted({col // self.panel * self.tiles.down + row for row, col in places})

    def steps_of(self, strip: int) -> range:
        """Numbers of the steps that a strip needs."""
        panel = strip // self.tiles.down
        read = self.tiles[self.tiles_of(strip)[0]].read
        top, _ = self._rows
        start = panel * self._steps_down - self._at(top)
        return range(start + self._at(read.row), start + self._at(read.row_stop - 1) + 1)

    def users_of(self, step: int) -> range:
        """Numbers of the strips that need a step."""
        tiles, window = self.tiles, self.step(step)
        first = (window.row - tiles.halo - tiles.area.row) // tiles.tile_rows
        last = (window.row_stop - 1 + tiles.halo - tiles.area.row) // tiles.tile_rows
        top = step // self._steps_down * tiles.down
        return range(top + max(first, 0), top + min(last, tiles.down - 1) + 1)

    def step(self, number: int) -> Window:
        """What a step reads: rows between two steps' edges, and the columns of its panel."""
        panel, place = divmod(number, self._steps_down)
        top, bottom = self._rows
        edge = self.first + (self._at(top) + place) * self.height
        row, row_stop = max(top, edge), min(bottom, edge + self.height)
        last = min((panel + 1) * self.panel, self.tiles.across) - 1
        left, right = self.tiles[panel * self.panel].read, self.tiles[last].read
        return Window(row, left.col, row_stop - row, right.col_stop - left.col)

    @property
    def count(self) -> int:
        """Number of steps."""
        return self.panels * self._steps_down

    @property
    def largest(self) -> tuple[int, int]:
        """Rows of the highest step, and columns of the widest."""
        places = {0, min(1, self._steps_down - 1), self._steps_down - 1}  # others are as the second
        left, right = self._sides
        return max(self.step(place).rows for place in places), int((right - left).max())

    def pixels_read(self, blocks: tuple[int, int] = (1, 1)) -> int:
        """Pixels that all steps read, where blocks of so many rows and columns are read whole."""
        high, wide = blocks
        top, bottom = self._rows
        rows = min(-(-bottom // high) * high, self.tiles.scene.row_stop) - top // high * high
        left, right = self._sides
        stop = np.minimum(-(-right // wide) * wide, self.tiles.scene.col_stop)
        return rows * int((stop - left // wide * wide).sum())

    @property
    def _sides(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first column that is read of each panel, and the one behind the last."""
        scene, area, halo = self.tiles.scene, self.tiles.area, self.tiles.halo
        width = self.panel * self.tiles.tile_cols
        left = area.col + width * np.arange(self.panels)
        right = np.minimum(left + width, area.col_stop)
        return np.maximum(left - halo, scene.col), np.minimum(right + halo, scene.col_stop)

    @property
    def _rows(self) -> tuple[int, int]:
        """Rows that are read: those of the area and its halo, within the scene."""
        scene, area, halo = self.tiles.scene, self.tiles.area, self.tiles.halo
        return max(scene.row, area.row - halo), min(scene.row_stop, area.row_stop + halo)

    @property
    def _steps_down(self) -> int:
        top, bottom = self._rows
        return self._at(bottom - 1) - self._at(top) + 1

    def _at(self, row: int) -> int:
        """Which of the steps from `first` on, or before it, holds a row."""
        return (row - self.first) // self.height

"""How many labels of each class lie in each cell of an area, on pixels with data.

The labels of a scene of any size are counted window by window; what is kept is a number a cell
and class, of at most some 65 000 cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hsiclust.grid import Window
from hsiclust.marks import Marks
from hsiclust.separation import CellCounts
from hsiclust.tilegrid import TileGrid
from hsiclust.truth import Truth

Validity = Callable[[Window], NDArray[np.bool_]]

_Cell = TypeVar("_Cell", bound=np.generic)

_MOST_CELLS = 2**16
# Pixels along a cell's side, where the area is not small and the buffer asks for no more.
_LEAST_SIDE = 2
# Side of the windows that labels are read in: 2 MiB of class numbers.
_WINDOW = 1024
# Largest side of a window whose pixels are asked for validity: they are read with all bands.
_PIECE = 256

# What the census found of the labels of a cell.
_UNKNOWN, _SOUND, _MIXED, _INVALID = range(4)


@dataclass(frozen=True, eq=False)
class UsableLabels:
    """The labels of an area that lie on pixels with data; see `hsiclust.truth.Truth`.

    Attributes:
        truth: Classes 1..K.
        area: Labels outside are left out.
        valid: Which pixels of a window have data.
        side: Pixels along a cell's side; cells begin at the area's corner.
        verdicts: `(down, across)`, what is known of the labels of each cell, so that most pixels
            need not be read again.
    """

    truth: Truth
    area: Window
    valid: Validity
    side: int
    verdicts: NDArray[np.uint8]

    @property
    def names(self) -> Mapping[int, str]:
        """Those of the truth."""
        return self.truth.names

    @property
    def note(self) -> str | None:
        """That of the truth."""
        return self.truth.note

    def read(self, window: Window) -> NDArray[np.uint16]:
        """As `Truth.read`."""
        labels = np.zeros((window.rows, window.cols), np.uint16)
        inside = self.inside(window)
        if inside is not None:
            found = self.truth.read(inside)
            labels[inside.relative_to(window).slices] = np.where(
                self.sound(inside, found), found, 0
            )
        return labels

    def inside(self, window: Window) -> Window | None:
        """The part of a window that lies in the area."""
        return self.area.shared_with(window)

    def sound(self, window: Window, labels: NDArray[np.uint16]) -> NDArray[np.bool_]:
        """Whether the labels of a window inside the area lie on pixels with data.

        Args:
            window: Inside the area.
            labels: What the truth says there.
        """
        if not labels.any():
            return np.zeros(labels.shape, bool)
        verdict = at_pixels(self.verdicts, self.area, self.side, window)
        sound: NDArray[np.bool_] = verdict == _SOUND
        asked = (labels > 0) & ((verdict == _UNKNOWN) | (verdict == _MIXED))
        for piece in window.cut(_PIECE, _PIECE):
            here = piece.relative_to(window).slices
            box = _bounding_box(asked[here], piece)
            if box is not None:
                inner = box.relative_to(window).slices
                sound[inner] |= asked[inner] & self.valid(box)
        return sound


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Labels at a distance from what is learned from; see `hsiclust.truth.Truth`.

    Attributes:
        labels: All labels of the area.
        training: What is learned from.
        buffer: How near to it is too near.
        ground: `(down, across)` cells that are held out; all are when None.
        whole: `(K + 1,)` classes that are learned from on any ground.
    """

    labels: UsableLabels
    training: Marks
    buffer: int
    ground: NDArray[np.bool_] | None
    whole: NDArray[np.bool_]

    @property
    def names(self) -> Mapping[int, str]:
        """Those of the labels."""
        return self.labels.names

    @property
    def note(self) -> str | None:
        """That of the labels."""
        return self.labels.note

    def read(self, window: Window) -> NDArray[np.uint16]:
        """As `Truth.read`."""
        found = self.labels.read(window)
        found[self.whole[found]] = 0
        inside = self.labels.inside(window)
        if inside is not None and self.ground is not None and found.any():
            held = at_pixels(self.ground, self.labels.area, self.labels.side, inside)
            found[inside.relative_to(window).slices][~held] = 0
        if found.any():
            found[self.training.near(window, self.buffer)] = 0
        return found


@dataclass(frozen=True, eq=False)
class Census:
    """The labels of one area.

    Attributes:
        labels: Those on pixels with data.
        counts: How many of each class lie in each cell.
        labelled: `(K + 1,)` labelled pixels of each class, with data or without.
        windows: Windows that hold all labels.
    """

    labels: UsableLabels
    counts: CellCounts
    labelled: NDArray[np.int64]
    windows: tuple[Window, ...]


def cell_side(areas: Sequence[Window], buffer: int) -> int:
    """Pixels along a cell's side: half the buffer, less in small areas, more in large ones.

    Args:
        areas: All areas of a census; their cells together are bounded.
        buffer: Pixels that are to be kept between cells.
    """
    longest = max(max(area.rows, area.cols) for area in areas)
    fine = max(1, min(max(buffer // 2, _LEAST_SIDE), longest // 8))
    pixels = sum(area.pixels for area in areas)
    return max(fine, math.ceil(math.sqrt(pixels / _MOST_CELLS)))


def take_census(truth: Truth, area: Window, valid: Validity, side: int, classes: int) -> Census:
    """Count the labels of an area.

    Args:
        truth: Classes 1..`classes`.
        area: What is counted.
        valid: Which pixels of a window have data; asked only near labels.
        side: Pixels along a cell's side.
        classes: K.
    """
    down, across = -(-area.rows // side), -(-area.cols // side)
    verdicts = np.zeros((down, across), np.uint8)
    labels = UsableLabels(truth, area, valid, side, verdicts.copy())
    labelled = np.zeros(classes + 1, np.int64)
    step = max(1, _WINDOW // side) * side  # a cell lies in one window
    entries, windows = [], []
    for tile in TileGrid(area, area, step, step, 0):
        found = truth.read(tile.core)
        if not found.any():
            continue
        windows.append(tile.core)
        labelled += np.bincount(found[found > 0], minlength=classes + 1)
        table, invalid = _counted(found, labels.sound(tile.core, found), side, classes)
        top, left = (tile.core.row - area.row) // side, (tile.core.col - area.col) // side
        rows, cols, numbers = np.nonzero(table)
        entries.append(((top + rows) * across + left + cols, numbers, table[rows, cols, numbers]))
        verdicts[top : top + len(table), left : left + table.shape[1]] = np.select(
            [invalid == 0, table.any(axis=2)], [_SOUND, _MIXED], _INVALID
        )
    none = (np.empty(0, np.int64),) * 3
    columns = (np.concatenate(column) for column in zip(none, *entries, strict=True))
    usable = UsableLabels(truth, area, valid, side, verdicts)
    return Census(usable, CellCounts(down, across, side, *columns), labelled, tuple(windows))


def _counted(
    found: NDArray[np.uint16], sound: NDArray[np.bool_], side: int, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sound labels of a window by cell and class, `(down, across, K + 1)`; unsound by cell."""
    rows, cols = np.nonzero(found)
    down, across = -(-found.shape[0] // side), -(-found.shape[1] // side)
    cell = rows // side * across + cols // side
    good = sound[rows, cols]
    codes = cell[good] * (classes + 1) + found[rows, cols][good]
    table = np.bincount(codes, minlength=down * across * (classes + 1))
    invalid = np.bincount(cell[~good], minlength=down * across)
    return table.reshape(down, across, classes + 1), invalid.reshape(down, across)


def at_pixels(cells: NDArray[_Cell], area: Window, side: int, window: Window) -> NDArray[_Cell]:
    """What cells hold, for each pixel of a window inside their area; `(row, col)`."""
    rows = (np.arange(window.row, window.row_stop) - area.row) // side
    cols = (np.arange(window.col, window.col_stop) - area.col) // side
    return cells[np.ix_(rows, cols)]


def _bounding_box(marked: NDArray[np.bool_], window: Window) -> Window | None:
    """The smallest window around what is marked in a window; None where nothing is."""
    rows, cols = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    if not len(rows):
        return None
    return Window(
        window.row + int(rows[0]),
        window.col + int(cols[0]),
        int(rows[-1] - rows[0]) + 1,
        int(cols[-1] - cols[0]) + 1,
    )

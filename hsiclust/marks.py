"""Single pixels with a class: drawn by a seed, kept as coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from hsiclust.grid import Window

# Pixels that wait until they are compared with those drawn so far.
_WAITING = 2**20


@dataclass(frozen=True, eq=False)
class Marks:
    """Single pixels with a class; see `hsiclust.truth.Truth`.

    Attributes:
        rows: `(N,)`, rising.
        cols: `(N,)`.
        numbers: `(N,)` their classes.
        names: Names of class numbers.
        note: Nothing.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    numbers: NDArray[np.uint16]
    names: Mapping[int, str] = field(default_factory=dict)
    note: str | None = None

    @classmethod
    def at(cls, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Marks:
        """Pixels in any order, of no class."""
        order = np.argsort(rows, kind="stable")
        return cls(rows[order], cols[order], np.zeros(len(rows), np.uint16))

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, window: Window) -> NDArray[np.uint16]:
        """As `Truth.read`."""
        labels = np.zeros((window.rows, window.cols), np.uint16)
        inside = self._within(window.row, window.row_stop, window.col, window.col_stop)
        labels[self.rows[inside] - window.row, self.cols[inside] - window.col] = self.numbers[
            inside
        ]
        return labels

    def near(self, window: Window, distance: int) -> NDArray[np.bool_]:
        """Whether a mark lies at most `distance` rows and columns away, `(row, col)`."""
        top, left = window.row - distance, window.col - distance
        inside = self._within(top, window.row_stop + distance, left, window.col_stop + distance)
        marked = np.zeros((window.rows + 2 * distance, window.cols + 2 * distance), np.uint8)
        marked[self.rows[inside] - top, self.cols[inside] - left] = 1
        if distance and len(inside):
            marked = maximum_filter(marked, 2 * distance + 1, mode="constant")
        core = Window(distance, distance, window.rows, window.cols)
        near: NDArray[np.bool_] = marked[core.slices] > 0
        return near

    def _within(self, top: int, bottom: int, left: int, right: int) -> NDArray[np.intp]:
        first, last = np.searchsorted(self.rows, (top, bottom))
        cols = self.cols[first:last]
        return np.asarray(first + np.flatnonzero((cols >= left) & (cols < right)))


def joined(parts: Iterable[Marks]) -> Marks:
    """The places of all marks, without their classes."""
    places = [(part.rows, part.cols) for part in parts if len(part)]
    if not places:
        return Marks.at(np.empty(0, np.int64), np.empty(0, np.int64))
    rows, cols = (np.concatenate(column) for column in zip(*places, strict=True))
    return Marks.at(rows, cols)


class Pixels(NamedTuple):
    """Pixels of several scenes, each `(N,)`.

    Attributes:
        stratum: From which part of the ground they are drawn.
        number: Class.
        site: Which scene.
        row: Row in the scene.
        col: Column in the scene.
    """

    stratum: NDArray[np.int64]
    number: NDArray[np.int64]
    site: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]

    def at(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Pixels:
        """Some of them."""
        return Pixels(*(column[chosen] for column in self))


class Drawing:
    """Draws pixels of each stratum and class at random while they stream by.

    Each pixel has a number that follows from its place and the seed; the lowest are drawn. So
    what is drawn does not depend on the order or the windows in which the pixels come.

    Args:
        quotas: `(strata, K + 1)`, how many of each stratum and class are drawn.
        seed: Another seed draws others.
    """

    def __init__(self, quotas: NDArray[np.int64], seed: int) -> None:
        self._quotas = quotas.ravel()
        self._width = quotas.shape[1]
        self._seed = seed
        # What a pixel has to stay below; lower once a stratum's quota is full.
        self._bars = np.full(self._quotas.shape, np.iinfo(np.uint64).max, np.uint64)
        self._kept: list[tuple[NDArray[np.uint64], Pixels]] = []
        self._waiting = 0

    def offer(self, pixels: Pixels) -> None:
        """Let pixels take part, each once."""
        key = pixels.stratum * self._width + pixels.number
        lots = _lots(pixels, self._seed)
        able = (self._quotas[key] > 0) & (lots <= self._bars[key])
        self._kept.append((lots[able], pixels.at(able)))
        self._waiting += int(np.count_nonzero(able))
        if self._waiting > _WAITING:
            self._settle()

    def drawn(self) -> Pixels:
        """What was drawn of all that took part, in order of site, row and column."""
        self._settle()
        if not self._kept:
            return Pixels(*(np.empty(0, np.int64),) * 5)
        ((_, pixels),) = self._kept
        return pixels.at(np.lexsort((pixels.col, pixels.row, pixels.site)))

    def _settle(self) -> None:
        if not self._kept:
            return
        lots = np.concatenate([lots for lots, _ in self._kept])
        pixels = Pixels(
            *(np.concatenate(columns) for columns in zip(*(p for _, p in self._kept), strict=True))
        )
        key = pixels.stratum * self._width + pixels.number
        order = np.lexsort((pixels.col, pixels.row, pixels.site, lots, key))
        key = key[order]
        first = np.searchsorted(key, key)
        rank = np.arange(len(key)) - first
        last = rank == self._quotas[key] - 1
        self._bars[key[last]] = lots[order[last]]
        chosen = order[rank < self._quotas[key]]
        self._kept = [(lots[chosen], pixels.at(chosen))]
        self._waiting = 0


def marks_of(pixels: Pixels, site: int, names: Mapping[int, str]) -> Marks:
    """The drawn pixels of one scene."""
    here = pixels.at(pixels.site == site)
    return Marks(here.row, here.col, here.number.astype(np.uint16), names)


def even_shares(
    total: int, available: NDArray[np.int64], order: Sequence[int]
) -> NDArray[np.int64]:
    """Shares of a total that are as even as what is available lets them be.

    Args:
        total: What is shared out.
        available: `(N,)`, most that each may take.
        order: Who takes what is left over.

    Returns:
        `(N,)`, of sum `total`, or less where less is available.
    """
    shares = np.zeros(len(available), np.int64)
    left = min(total, int(available.sum()))
    while left:
        open_ = np.flatnonzero(shares < available)
        each = left // len(open_)
        if each == 0:
            last = [at for at in order if shares[at] < available[at]][:left]
            shares[last] += 1
            return shares
        more = np.minimum(each, available[open_] - shares[open_])
        shares[open_] += more
        left -= int(more.sum())
    return shares


def _lots(pixels: Pixels, seed: int) -> NDArray[np.uint64]:
    """A number a pixel, evenly distributed: SplitMix64 (Steele et al. 2014) over its place."""
    lots = np.full(len(pixels.row), seed, np.uint64)
    for part in (pixels.site, pixels.row, pixels.col):
        lots = _mixed(lots ^ part.astype(np.uint64))
    return lots


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

"""Raw cubes (BSQ, BIL, BIP), read as they lie on disk.

Whole lines at a time that is several times faster than GDAL, in BIP by two orders of magnitude.
Which files hold one is said by `envi.py` and `rawtiff.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hsiclust import pagecache
from hsiclust.errors import InputError
from hsiclust.grid import Piece, Window
from hsiclust.scratch import Scratch

Interleave = Literal["bsq", "bil", "bip"]
INTERLEAVES: tuple[Interleave, ...] = get_args(Interleave)

# Axis of (band, row, col) within the array as it lies on disk.
_AXES: dict[str, tuple[int, int, int]] = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (2, 0, 1)}
# Bytes that are read at once: they stay in the processor's cache until they are transformed. In BSQ
# each band of a piece is a read of its own; larger ones are worth more there than the cache.
_PIECE_BYTES = {"bsq": 2**23, "bil": 2**22, "bip": 2**22}
# Lines are read whole when a window holds at least this part of them, 1 / _WORTH_A_GAP, and what
# lies between two of its parts is no more than some pages: of long lines half is too much.
_WORTH_A_GAP = 3
_LARGEST_GAP = 2**13
_SCRATCH = Scratch()


_Selection = slice | NDArray[np.intp]
# The shape of what is read, where its equal parts begin in the file, and what of it is wanted.
_Reads = tuple[tuple[int, int, int], list[int], tuple[_Selection, ...]]


@dataclass(frozen=True)
class RawCube:
    """Where each value of an uncompressed cube lies in its file.

    Attributes:
        path: The data file.
        bands: Number of bands.
        rows: Number of lines.
        cols: Number of samples.
        dtype: NumPy type string with byte order, such as ">i2".
        offset: Bytes before the first value.
        interleave: Order of the axes on disk.
        lines: Of a BSQ that begins anew with its first band after so many lines: their number.
    """

    path: str
    bands: int
    rows: int
    cols: int
    dtype: str
    offset: int
    interleave: Interleave
    lines: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the file must hold, those before the first value included."""
        return self.offset + self.rows * self._line * self.bands

    def read(self, window: Window, bands: Sequence[int]) -> NDArray[np.generic]:
        """Copy a window into memory.

        Args:
            window: Rows and columns.
            bands: Bands, counted from 0.

        Returns:
            `(band, row, col)` in native byte order; memory keeps the order of the file.

        Raises:
            InputError: The file cannot be read there.
        """
        axes = _AXES[self.interleave]
        shape = (len(bands), window.rows, window.cols)
        on_disk = [shape[axis] for axis in np.argsort(axes)]
        block = np.empty(on_disk, np.dtype(self.dtype).newbyteorder("=")).transpose(axes)
        return gathered(self.pieces(window, bands), window, block)

    def pieces(self, window: Window, bands: Sequence[int]) -> Iterator[Piece]:
        """Read a window piece by piece, from its top to its bottom, each byte once.

        Plain reads into one buffer that stays in the processor's cache: unlike those of a memory
        map they fail with an error where the disk does, and its pages are nobody's memory.

        Args:
            window: Rows and columns.
            bands: Bands, counted from 0.

        Yields:
            Strips as wide as the window; each overwrites the values of the one before.

        Raises:
            InputError: The file cannot be read there.
        """
        step = min(window.rows, self.rows_at_once(len(bands)))
        with _SCRATCH.lend(step * self._row_bytes(len(bands))) as room, _opened(self.path) as file:
            for part in self._parts(window, step):
                try:
                    values = self._strip(file, part, bands, room)
                except (OSError, EOFError) as error:
                    raise InputError(
                        f"{self.path}: rows {part.row} to {part.row_stop - 1} cannot be read: "
                        f"{error}"
                    ) from error
                if not values.dtype.isnative:
                    values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
                yield Piece(part, values.transpose(_AXES[self.interleave]))

    def rows_at_once(self, bands: int) -> int:
        """Rows of a piece of so many bands."""
        rows = max(1, _PIECE_BYTES[self.interleave] // self._row_bytes(bands))
        return min(rows, self.lines or rows)

    def prefetch(self, window: Window) -> None:
        """Ask the system to read a window's lines ahead, while something else is worked on."""
        with _opened(self.path) as file:
            pagecache.ask_for(file, list(self._stretches(window)))

    def release(self, window: Window) -> None:
        """Tell the system that it need not keep a window's lines, where it has the whole of them.

        The rest of a line is read with another window, and the system reads and keeps it as one.
        """
        if window.cols < self.cols:
            return
        with _opened(self.path) as file:
            pagecache.give_back(file, list(self._stretches(window)))

    def _stretches(self, window: Window) -> Iterator[tuple[int, int]]:
        """Where the lines of a window lie in the file: first byte, and how many."""
        if self.interleave != "bsq":
            yield self._place(window.row), window.rows * self._line * self.bands
            return
        for part in self._parts(window, window.rows):
            size = part.rows * self._line
            if self._is_group(part):  # bands follow each other
                yield self._place(part.row), size * self.bands
            else:
                yield from ((self._place(part.row, band), size) for band in range(self.bands))

    def _parts(self, window: Window, step: int) -> Iterator[Window]:
        """A window in parts of so many rows, each from one group of lines."""
        row = window.row
        while row < window.row_stop:
            stop = min(row + step, window.row_stop)
            if self.interleave == "bsq":
                stop = min(stop, sum(self._group(row)))
            yield Window(row, window.col, stop - row, window.cols)
            row = stop

    def _strip(
        self, file: int, part: Window, bands: Sequence[int], room: NDArray[np.uint8]
    ) -> NDArray[np.generic]:
        """A strip of rows in the order of the file, read into `room`."""
        shape, places, wanted = self._reads(part, bands)
        read = room[: math.prod(shape) * self._value]
        _fill(file, read.data, places)
        return read.view(self.dtype).reshape(shape)[wanted]

    def _reads(self, part: Window, bands: Sequence[int]) -> _Reads:
        """What is read of a strip of rows."""
        # Lines are read whole where that costs less than the gaps between their parts.
        gap = (
            (self.cols - part.cols) * self._value * (self.bands if self.interleave == "bip" else 1)
        )
        whole = part.cols * _WORTH_A_GAP >= self.cols and gap <= _LARGEST_GAP
        width, left = (self.cols, 0) if whole else (part.cols, part.col)
        cols, chosen = slice(part.col - left, part.col_stop - left), _selection(bands)
        every = slice(None)
        last = part.row + 1 if whole else part.row_stop
        starts = [self._place(row, 0, left) for row in range(part.row, last)]
        if self.interleave == "bip":
            return (part.rows, width, self.bands), starts, (every, cols, chosen)
        if whole and self.interleave == "bil":
            return (part.rows, self.bands, width), starts, (every, chosen, cols)
        if whole and self._at_once(len(bands)) and self._is_group(part):
            return (self.bands, part.rows, width), starts, (chosen, every, cols)
        apart = self._group(part.row)[1] * self._line  # from one band's line to the next band's
        if self.interleave == "bil":
            places = [start + band * apart for start in starts for band in bands]
            return (part.rows, len(bands), width), places, (every, every, cols)
        places = [start + band * apart for band in bands for start in starts]
        return (len(bands), part.rows, width), places, (every, every, cols)

    def _place(self, row: int, band: int = 0, col: int = 0) -> int:
        """Where in the file a value lies; of BIP the first band's."""
        if self.interleave == "bip":
            return self.offset + (row * self._line + col * self._value) * self.bands
        first, lines = self._group(row)
        line = first * self.bands + band * lines + row - first
        return self.offset + line * self._line + col * self._value

    def _group(self, row: int) -> tuple[int, int]:
        """The lines around a row after which the next band's follow: the first, and how many."""
        lines = self.lines or (self.rows if self.interleave == "bsq" else 1)
        first = row // lines * lines
        return first, min(lines, self.rows - first)

    def _is_group(self, part: Window) -> bool:
        """Whether a part has all lines of a group."""
        return (part.row, part.rows) == self._group(part.row)

    def _at_once(self, bands: int) -> bool:
        """Whether a group of lines is read with all its bands, for the sake of so many of them."""
        return self.lines is not None and bands * _WORTH_A_GAP >= self.bands

    def _row_bytes(self, bands: int) -> int:
        """Bytes of one row as it is read: of BSQ the chosen bands, else all."""
        alone = self.interleave == "bsq" and not self._at_once(bands)
        return (bands if alone else self.bands) * self._line

    @cached_property
    def _value(self) -> int:
        """Bytes of a value."""
        return np.dtype(self.dtype).itemsize

    @cached_property
    def _line(self) -> int:
        """Bytes of a line of one band."""
        return self.cols * self._value


def gathered(
    pieces: Iterable[Piece], window: Window, block: NDArray[np.generic]
) -> NDArray[np.generic]:
    """Copy the pieces of a window to where they belong in `block`, `(band, row, col)`."""
    for piece in pieces:
        rows, cols = piece.window.relative_to(window).slices
        block[:, rows, cols] = piece.values
    return block


@contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        yield file
    finally:
        os.close(file)


def _fill(file: int, memory: memoryview, places: Sequence[int]) -> None:
    """Read equal parts of memory, each from its place.

    As few steps as can be from one read to the next: threads that read side by side wait for each
    other at the interpreter, ten times as long as the reading takes.

    Raises:
        EOFError: The file ends before.
    """
    size = len(memory) // len(places)
    parts = [(memory[begin : begin + size],) for begin in range(0, len(memory), size)]
    for part, place in zip(parts, places, strict=True):
        done = os.preadv(file, part, place)
        while done < size:
            count = os.preadv(file, (part[0][done:],), place + done)
            if count == 0:
                raise EOFError("the file has become shorter than it was")
            done += count


def _selection(bands: Sequence[int]) -> _Selection:
    """Bands as an index; a run of neighbours as a slice, which copies nothing."""
    first, last = bands[0], bands[-1]
    if list(bands) == list(range(first, last + 1)):
        return slice(first, last + 1)
    return np.asarray(bands)

"""Raw ENVI cubes (BSQ, BIL, BIP), read as they lie on disk.

GDAL parses the header; what it says about the bytes on disk is all that is needed to read them.
Whole lines at a time that is several times faster than GDAL, in BIP by two orders of magnitude.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import InputError
from hsiclust.grid import Piece, Window
from hsiclust.scratch import Scratch

Interleave = Literal["bsq", "bil", "bip"]

# ENVI "data type" numbers; 6 and 9 are complex and mean nothing to a spectral method.
_DATA_TYPES = {
    1: "u1",
    2: "i2",
    3: "i4",
    4: "f4",
    5: "f8",
    12: "u2",
    13: "u4",
    14: "i8",
    15: "u8",
}
# Axis of (band, row, col) within the array as it lies on disk.
_AXES: dict[str, tuple[int, int, int]] = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (2, 0, 1)}
# Bytes that are read at once: they stay in the processor's cache until they are transformed. In BSQ
# each band of a piece is a read of its own; larger ones are worth more there than the cache.
_PIECE_BYTES = {"bsq": 2**25, "bil": 2**22, "bip": 2**22}
# Bytes that the system is asked for at once: of a longer request Linux reads no more than its own
# read-ahead, or the largest request of the disk, and forgets the rest.
_ASKED_BYTES = 2**19
# Lines are read whole when a window holds at least this part of them: 1 / _WORTH_A_GAP.
_WORTH_A_GAP = 3
_SCRATCH = Scratch()
_DATA_SUFFIXES = ("", ".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin", ".cub")


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
    """

    path: str
    bands: int
    rows: int
    cols: int
    dtype: str
    offset: int
    interleave: Interleave

    @property
    def disk_shape(self) -> tuple[int, int, int]:
        """Shape of the array in the order of the file."""
        sizes = {0: self.bands, 1: self.rows, 2: self.cols}
        order = sorted(range(3), key=lambda axis: _AXES[self.interleave][axis])
        first, second, third = (sizes[axis] for axis in order)
        return first, second, third

    @property
    def nbytes(self) -> int:
        """Bytes that the file must hold, header offset included."""
        return self.offset + math.prod(self.disk_shape) * np.dtype(self.dtype).itemsize

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
        for piece in self.pieces(window, bands):
            rows, cols = piece.window.relative_to(window).slices
            block[:, rows, cols] = piece.values
        return block

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
        step = min(
            window.rows, max(1, _PIECE_BYTES[self.interleave] // self._row_bytes(len(bands)))
        )
        with _SCRATCH.lend(step * self._row_bytes(len(bands))) as room, _opened(self.path) as file:
            for row in range(window.row, window.row_stop, step):
                part = Window(row, window.col, min(step, window.row_stop - row), window.cols)
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
        return max(1, _PIECE_BYTES[self.interleave] // self._row_bytes(bands))

    def prefetch(self, window: Window) -> None:
        """Ask the system to read a window's lines ahead, while something else is worked on."""
        if not hasattr(os, "posix_fadvise"):
            return
        size = window.rows * self._row_bytes(1)
        with _opened(self.path) as file:
            for band in range(self.bands if self.interleave == "bsq" else 1):
                (start,) = self._places(window, band, whole=True)
                for at in range(start, start + size, _ASKED_BYTES):
                    asked = min(_ASKED_BYTES, start + size - at)
                    os.posix_fadvise(file, at, asked, os.POSIX_FADV_WILLNEED)

    def _strip(
        self, file: int, part: Window, bands: Sequence[int], room: NDArray[np.uint8]
    ) -> NDArray[np.generic]:
        """A strip of rows in the order of the file, read into `room`."""
        cols = slice(part.col, part.col_stop)
        # Lines are read whole where that costs less than the gaps between their parts.
        whole = part.cols * _WORTH_A_GAP >= self.cols
        width = self.cols if whole else part.cols
        if self.interleave == "bsq":
            block = self._shaped(room, (len(bands), part.rows, width))
            for number, band in enumerate(bands):
                _fill(file, self._runs(block[number], whole), self._places(part, band, whole))
            return block[..., cols] if whole else block
        if self.interleave == "bip":
            block = self._shaped(room, (part.rows, width, self.bands))
            _fill(file, self._runs(block, whole), self._places(part, 0, whole))
            return block[:, cols if whole else slice(None), _selection(bands)]
        if whole:
            block = self._shaped(room, (part.rows, self.bands, self.cols))
            _fill(file, self._runs(block, whole), self._places(part, 0, whole))
            return block[:, _selection(bands), cols]
        block = self._shaped(room, (part.rows, len(bands), width))
        for number, band in enumerate(bands):
            _fill(file, list(block[:, number]), self._places(part, band, whole))
        return block

    def _shaped(self, room: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.generic]:
        """The first bytes of a buffer as an array."""
        dtype = np.dtype(self.dtype)
        return room[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def _runs(self, block: NDArray[np.generic], whole: bool) -> list[NDArray[np.generic]]:
        """The parts of a block that are contiguous in the file."""
        return [block] if whole else list(block)

    def _places(self, part: Window, band: int, whole: bool) -> list[int]:
        """Where in the file those parts start."""
        size = np.dtype(self.dtype).itemsize
        line = self.cols * size * (1 if self.interleave == "bsq" else self.bands)
        first = self.offset + (band * self.rows * line if self.interleave == "bsq" else 0)
        if whole:
            return [first + part.row * line]
        if self.interleave == "bil":
            first += (band * self.cols + part.col) * size
        else:
            first += part.col * size * (self.bands if self.interleave == "bip" else 1)
        return [first + row * line for row in range(part.row, part.row_stop)]

    def _row_bytes(self, bands: int) -> int:
        """Bytes of one row of the scene as it is read: the chosen bands of BSQ, else all."""
        held = bands if self.interleave == "bsq" else self.bands
        return held * self.cols * np.dtype(self.dtype).itemsize


@contextmanager
def _opened(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def _fill(file: int, blocks: Sequence[NDArray[np.generic]], places: Sequence[int]) -> None:
    """Read contiguous blocks, each from its place.

    Raises:
        EOFError: The file ends before.
    """
    for block, place in zip(blocks, places, strict=True):
        memory = block.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(memory):
            count = os.preadv(file, [memory[done:]], place + done)
            if count == 0:
                raise EOFError("the file has become shorter than its header says")
            done += count


def _selection(bands: Sequence[int]) -> slice | NDArray[np.intp]:
    """Bands as an index; a run of neighbours as a slice, which copies nothing."""
    first, last = bands[0], bands[-1]
    if list(bands) == list(range(first, last + 1)):
        return slice(first, last + 1)
    return np.asarray(bands)


def raw_cube(path: str, header: Mapping[str, str], shape: tuple[int, int, int]) -> RawCube | None:
    """Describe a raw ENVI file, or return None when only GDAL can read it.

    Args:
        path: The data file.
        header: Header fields as GDAL gives them (blanks in names are underscores).
        shape: `(band, row, col)` as GDAL understood the header.

    Raises:
        InputError: The file is shorter than its header says.
    """
    interleave = header.get("interleave", "bsq").strip().lower()
    data_type = _DATA_TYPES.get(_integer(header, "data_type", 0))
    file = Path(path)
    if (
        _integer(header, "file_compression", 0) != 0
        or data_type is None
        or interleave not in _AXES
        or not file.is_file()
        or "major_frame_offsets" in header
    ):
        return None
    order = ">" if _integer(header, "byte_order", 0) == 1 else "<"
    offset = max(0, _integer(header, "header_offset", 0))
    cube = RawCube(path, *shape, order + data_type, offset, cast(Interleave, interleave))
    size = file.stat().st_size
    if size < cube.nbytes:
        raise InputError(
            f"{path}: the file holds {size} bytes, its header asks for {cube.nbytes} "
            f"({' x '.join(map(str, shape))} values of {data_type}); "
            "it is cut short, or the header is not its own"
        )
    return cube


def data_file_of_header(header: Path) -> Path:
    """Find the data file that an ENVI header describes, by name.

    Raises:
        InputError: There is none beside the header.
    """
    found = data_files_of_header(header)
    if not found:
        raise InputError(
            f"{header}: no data file beside this ENVI header (looked for {header.stem}.*)"
        )
    return found[0]


def data_files_of_header(header: Path) -> list[Path]:
    """All files that an ENVI header of this name may describe, the likeliest first."""
    stem = header.with_suffix("")
    names = [stem.name + name for suffix in _DATA_SUFFIXES for name in (suffix, suffix.upper())]
    candidates = (stem.with_name(name) for name in dict.fromkeys(names))
    return [candidate for candidate in candidates if candidate.is_file()]


def _integer(header: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(header.get(key, default))
    except ValueError:
        return default

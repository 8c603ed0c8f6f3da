"""Cubes in the arrays of a container file (HDF5, Zarr): their axes, and windows of them.

A container decodes whole chunks, so a window is read in pieces that end where chunks end, each
chunk once, and the bands of a chunk together even where some of them are not asked for.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hsiclust.bands import Bands
from hsiclust.errors import HsiclustError, InputError
from hsiclust.grid import PixelGrid, Window

DECODED_BYTES = 2**25
"""Bytes that are decoded at once, besides the window itself; the chunks of one row at least."""

# A chunk is decoded whole, whatever a file says of its size.
_LARGEST_CHUNK = 2**31


class StoredArray(Protocol):
    """What arrays of h5py and Zarr have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type, of either byte order."""
        ...

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Lengths of a chunk; None where the array lies in one piece."""
        ...

    def __getitem__(self, key: Any) -> Any:
        """Copy a part into memory."""
        ...


@dataclass(frozen=True)
class CubePart:
    """An array that holds bands of a cube.

    Attributes:
        array: Its name in the container.
        axes: Which of its axes are band, row and column.
        bands: Which of its bands the cube has, in the order of the cube.
    """

    array: str
    axes: tuple[int, int, int]
    bands: tuple[int, ...]


@dataclass(frozen=True)
class CubeFacts:
    """What a container says of a cube in it.

    Attributes:
        parts: The arrays that hold its bands, one after the other.
        grid: Shape, transform, CRS.
        bands: What the file says about its bands.
        dtype: NumPy name of the data type, native byte order.
        nodata: Value of pixels without data, or None.
        layout: How the pixels lie in the file, in words.
        blocks: Rows and columns of a chunk.
        zero_margin: Zero means "no data" where a pixel has it in all bands, and is a value
            elsewhere.
    """

    parts: tuple[CubePart, ...]
    grid: PixelGrid
    bands: Bands
    dtype: str
    nodata: float | None
    layout: str
    blocks: tuple[int, int]
    zero_margin: bool = False


Opener = Callable[[str], Mapping[str, StoredArray]]


class CubeReader:
    """Reads the windows of a cube; the container is opened once a process, when first read.

    Args:
        path: The container.
        opener: A module-level function that opens it; gives arrays by name.
        facts: What to read there.
    """

    def __init__(self, path: str, opener: Opener, facts: CubeFacts) -> None:
        self.path = path
        self._opener = opener
        self._facts = facts
        self._opening = threading.Lock()
        self._arrays: Mapping[str, StoredArray] | None = None

    def __reduce__(self) -> tuple[type[CubeReader], tuple[str, Opener, CubeFacts]]:
        return CubeReader, (self.path, self._opener, self._facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CubeReader) and (other.path, other._facts) == (
            self.path,
            self._facts,
        )

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the largest chunk, which is decoded whole; 0 where there is none."""
        arrays = (self._open()[part.array] for part in self._facts.parts)
        return max(math.prod(a.chunks) * a.dtype.itemsize if a.chunks else 0 for a in arrays)

    def read(self, window: Window, bands: Sequence[int]) -> NDArray[np.generic]:
        """Copy a window into memory: `(band, row, col)`, bands counted from 0.

        Raises:
            InputError: The container cannot be read or decoded there.
            StorageError: Remote storage does not answer, or refuses.
        """
        try:
            block = self._read(window, bands)
        except HsiclustError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError) as error:  # what decoders raise
            raise InputError(
                f"{self.path}: rows {window.row} to {window.row_stop - 1}, columns {window.col} "
                f"to {window.col_stop - 1} cannot be read: {' '.join(str(error).split())}"
            ) from error
        if self._facts.zero_margin:
            _raise_zeros(block)
        return block

    def _read(self, window: Window, bands: Sequence[int]) -> NDArray[np.generic]:
        arrays = self._open()
        block = _empty(self._facts, window, len(bands))
        first = 0
        for part in self._facts.parts:
            inside = {
                position: part.bands[band - first]
                for position, band in enumerate(bands)
                if first <= band < first + len(part.bands)
            }
            if inside:
                _read_part(arrays[part.array], part, window, inside, block)
            first += len(part.bands)
        return block

    def _open(self) -> Mapping[str, StoredArray]:
        with self._opening:
            if self._arrays is None:
                self._arrays = self._opener(self.path)
            return self._arrays


def _empty(facts: CubeFacts, window: Window, bands: int) -> NDArray[np.generic]:
    """`(band, row, col)`, in memory in the order of the file, which copies fastest."""
    axes = facts.parts[0].axes
    lengths = (bands, window.rows, window.cols)
    stored = [lengths[axes.index(axis)] for axis in range(3)]
    block: NDArray[np.generic] = np.empty(stored, facts.dtype).transpose(axes)
    return block


def _read_part(
    array: StoredArray,
    part: CubePart,
    window: Window,
    inside: Mapping[int, int],
    block: NDArray[np.generic],
) -> None:
    """Fill the bands of a block that one array holds.

    Args:
        array: The array.
        part: Which of its axes is which.
        window: Rows and columns.
        inside: The array's band for positions in the block.
        block: `(band, row, col)`, filled in place.
    """
    band_axis, row_axis, col_axis = part.axes
    chunk_rows = array.chunks[row_axis] if array.chunks else 1
    index = [slice(0)] * 3
    index[col_axis] = slice(window.col, window.col_stop)
    for bands in _runs(inside, array, part, window):
        low, high = bands[0][1], bands[-1][1] + 1
        index[band_axis] = slice(low, high)
        row_bytes = (high - low) * window.cols * block.dtype.itemsize
        for start, stop in _pieces(window, chunk_rows, row_bytes):
            index[row_axis] = slice(start, stop)
            piece = np.asarray(array[tuple(index)]).transpose(part.axes)  # (band, row, col)
            rows = slice(start - window.row, stop - window.row)
            for to, taken in _stretches(bands, low):
                block[to, rows] = piece[taken]


def _least_gap(array: StoredArray, band_axis: int) -> int:
    """Bands between two that are worth skipping: those of a chunk, or of a pixel, come together."""
    if array.chunks is not None:
        return array.chunks[band_axis]
    return array.shape[band_axis] if band_axis == 2 else 1


def _runs(
    inside: Mapping[int, int], array: StoredArray, part: CubePart, window: Window
) -> Iterator[list[tuple[int, int]]]:
    """Positions and stored bands in groups that are read in one go, whole chunks at a time."""
    band_axis, row_axis, _ = part.axes
    gap = _least_gap(array, band_axis)
    chunk = (array.chunks or array.shape)[band_axis]
    row_bytes = window.cols * array.dtype.itemsize * chunk
    rows = min(window.rows, array.chunks[row_axis] if array.chunks else 1)
    most = max(1, DECODED_BYTES // (row_bytes * rows))  # chunks along the band axis
    run: list[tuple[int, int]] = []
    for position, band in sorted(inside.items(), key=lambda item: item[1]):
        if run and (band - run[-1][1] > gap or band // chunk - run[0][1] // chunk >= most):
            yield run
            run = []
        run.append((position, band))
    yield run


def _stretches(bands: Sequence[tuple[int, int]], low: int) -> Iterator[tuple[slice, slice]]:
    """Positions and stored bands less `low` as slices: lists copy several times slower."""
    start = 0
    while start < len(bands):
        step = bands[start + 1][0] - bands[start][0] if start + 1 < len(bands) else 1
        step = step if abs(step) == 1 else 1
        stop = start + 1
        while stop < len(bands) and (
            bands[stop][0] - bands[stop - 1][0] == step and bands[stop][1] - bands[stop - 1][1] == 1
        ):
            stop += 1
        first, last = bands[start], bands[stop - 1]
        taken = slice(first[1] - low, last[1] - low + 1)
        end = last[0] + step
        yield slice(first[0], end if end >= 0 else None, step), taken
        start = stop


def _pieces(window: Window, chunk_rows: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Rows to read at once: whole rows of chunks, as many as the memory for them allows."""
    step = max(1, DECODED_BYTES // (max(1, row_bytes) * chunk_rows)) * chunk_rows
    start = window.row
    while start < window.row_stop:
        stop = min((start // step + 1) * step, window.row_stop)
        yield start, stop
        start = stop


def _raise_zeros(block: NDArray[Any]) -> None:
    """Make zeros of pixels that have data the smallest value that is not zero."""
    zero = block == 0
    block[zero & ~zero.all(axis=0)] = 1


def check_array(where: str, array: StoredArray) -> None:
    """Check that an array can be part of a cube, before a value of it is read.

    Raises:
        InputError: It is no numeric array, or one of its chunks is empty, or would fill the memory.
    """
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where}: holds {array.dtype} values; a scene holds integers or floats")
    if array.chunks is None:
        return
    if min(array.chunks) < 1:
        raise InputError(
            f"{where}: its chunks are {array.chunks}, which hold nothing; write it again"
        )
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > _LARGEST_CHUNK:
        raise InputError(
            f"{where}: one chunk of it is {size} bytes, and a chunk is only read whole; "
            f"write it again with chunks of at most {_LARGEST_CHUNK} bytes"
        )


def describe_layout(
    kind: str, array: StoredArray, axes: tuple[int, int, int], compression: str
) -> tuple[str, tuple[int, int]]:
    """How an array lies on disk, in words, and the rows and columns of a chunk."""
    place = ("first", "in the middle", "last")[axes[0]]
    if array.chunks is None:
        return f"{kind} in one piece, band {place}, uncompressed", (1, array.shape[axes[2]])
    chunks = " x ".join(str(length) for length in array.chunks)
    rows, cols = (min(array.chunks[axis], array.shape[axis]) for axis in axes[1:])
    return f"{kind} chunks of {chunks}, band {place}, {compression}", (rows, cols)

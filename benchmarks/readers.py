"""Readers that do nothing but bring every pixel of a scene into memory, with all threads.

A reader cuts a scene into pieces; threads take one piece after the other and copy it into a buffer
of their own that they use again.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.scenes import AXES, Layout, Order
from hsiclust.scratch import page_aligned

_PIECE: Final = 2**23  # bytes of a piece, about
_CACHE: Final = 2**28  # of GDAL, as hsiclust itself sets it

Take = Callable[[Any], int]


class Reader(Protocol):
    """A way to read a scene."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def threads(self) -> int:
        """Threads that take pieces."""
        ...

    def pieces(self) -> Sequence[Any]:
        """What there is to be read."""
        ...

    def take(self) -> Take:
        """Called in each thread: gives what reads a piece and returns its bytes in memory."""
        ...


@dataclass(frozen=True)
class Shape:
    """Of a scene: bands, rows, columns, rows and columns of a block, and bytes of a value."""

    bands: int
    rows: int
    cols: int
    block: tuple[int, int]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, path: Path) -> Shape:
        """From the file."""
        with rasterio.open(path) as dataset:
            return cls(
                dataset.count,
                dataset.height,
                dataset.width,
                dataset.block_shapes[0],
                np.dtype(dataset.dtypes[0]),
            )

    @property
    def pixels(self) -> int:
        """Rows times columns."""
        return self.rows * self.cols

    @property
    def nbytes(self) -> int:
        """Of all pixels."""
        return self.pixels * self.bands * self.dtype.itemsize

    @property
    def piece_rows(self) -> int:
        """Full-width rows that make a piece, whole blocks."""
        row = self.nbytes // self.rows
        return math.ceil(_PIECE / (row * self.block[0])) * self.block[0]


@dataclass(frozen=True)
class MappedStrips:
    """A raw scene through a memory map, in full-width strips of all bands."""

    path: Path
    order: Order
    threads: int
    name: str = "memory map, strips"

    def pieces(self) -> list[slice]:
        """Strips."""
        shape = Shape.of(self.path)
        return [slice(at, at + shape.piece_rows) for at in range(0, shape.rows, shape.piece_rows)]

    def take(self) -> Take:
        """Copy a strip in the order of the file."""
        mapped = _mapped(self.path, self.order)
        piece = next(iter(self.pieces()))
        buffer = np.empty_like(mapped[:, piece])

        def copy(strip: slice) -> int:
            part = mapped[:, strip]
            np.copyto(buffer[:, : part.shape[1]], part)
            return part.nbytes

        return copy


@dataclass(frozen=True)
class MappedBytes:
    """An uncompressed file through a memory map, from its beginning to its end."""

    path: Path
    threads: int
    name: str = "memory map, bytes"

    def pieces(self) -> list[int]:
        """Offsets."""
        return list(range(0, self.path.stat().st_size, _PIECE))

    def take(self) -> Take:
        """Copy bytes."""
        mapped = np.memmap(self.path, np.uint8, "r")
        buffer = page_aligned(_PIECE)

        def copy(offset: int) -> int:
            part = mapped[offset : offset + _PIECE]
            np.copyto(buffer[: len(part)], part)
            return len(part)

        return copy


@dataclass(frozen=True)
class PlainBytes:
    """An uncompressed file by `preadv`, from its beginning to its end."""

    path: Path
    threads: int
    name: str = "preadv"

    def pieces(self) -> list[int]:
        """Offsets."""
        return list(range(0, self.path.stat().st_size, _PIECE))

    def take(self) -> Take:
        """Read bytes, all of a piece: `preadv` may give a part at a time."""
        file = self.path.open("rb", buffering=0)
        buffer = page_aligned(_PIECE).data

        def read(offset: int) -> int:
            done = 0
            while got := os.preadv(file.fileno(), [buffer[done:]], offset + done):
                done += got
            return done

        return read


@dataclass(frozen=True)
class Blocks:
    """Any scene through rasterio by its own blocks, all bands of them; a handle a thread.

    With `gdal_threads` GDAL decodes with so many threads what one thread asks for: a whole row of
    blocks.
    """

    path: Path
    threads: int
    gdal_threads: int = 0
    name: str = "rasterio, blocks"

    def pieces(self) -> list[Window]:
        """Windows that hold whole blocks."""
        shape = Shape.of(self.path)
        rows, cols = shape.block
        if cols >= shape.cols or self.gdal_threads:
            rows, cols = max(rows, shape.piece_rows), shape.cols
        return [
            Window(col, row, min(cols, shape.cols - col), min(rows, shape.rows - row))
            for row in range(0, shape.rows, rows)
            for col in range(0, shape.cols, cols)
        ]

    def take(self) -> Take:
        """Read a window."""
        options = {"num_threads": self.gdal_threads} if self.gdal_threads else {}
        dataset = rasterio.open(self.path, **options)

        def read(window: Window) -> int:
            with rasterio.Env(GDAL_CACHEMAX=_CACHE):
                return int(dataset.read(window=window).nbytes)

        return read


def readers(path: Path, layout: Layout, threads: int) -> list[Reader]:
    """Every reader that gives this scene's pixels."""
    found: list[Reader] = [Blocks(path, threads)]
    if layout.raw:
        found.append(MappedStrips(path, layout.order, threads))
    else:
        found.append(Blocks(path, 1, threads, "rasterio, GDAL_NUM_THREADS"))
    if not layout.compressed:
        found += [
            MappedBytes(path, threads),
            PlainBytes(path, threads),
            PlainBytes(path, 1, "preadv, one thread"),
        ]
    return found


def seconds(reader: Reader, nbytes: int, patience: float) -> float:
    """Seconds that a reader takes for a scene of so many bytes.

    One that is not done after `patience` seconds is stopped; what it has read until then tells how
    long it would have taken.
    """
    begin = perf_counter()
    waiting = deque(reader.pieces())
    counts: list[int] = []

    def work() -> None:
        take, done = reader.take(), 0
        while waiting and perf_counter() - begin < patience:
            try:
                piece = waiting.popleft()
            except IndexError:
                break
            done += take(piece)
        counts.append(done)

    _together(threading.Thread(target=work) for _ in range(reader.threads))
    spent = perf_counter() - begin
    if not waiting and sum(counts) < nbytes:
        raise RuntimeError(f"{reader.name}: {sum(counts)} of {nbytes} bytes were read")
    return spent * max(1.0, nbytes / sum(counts))


def first_rows(path: Path, layout: Layout, rows: int) -> NDArray[Any]:
    """The first rows of a scene, `(band, row, col)`."""
    if layout.raw:
        return np.array(_mapped(path, layout.order)[:, :rows])
    shape = Shape.of(path)
    with rasterio.open(path) as dataset:
        block: NDArray[Any] = dataset.read(window=Window(0, 0, shape.cols, min(rows, shape.rows)))
    return block


def _mapped(path: Path, order: Order) -> NDArray[Any]:
    """A raw scene as a map, `(band, row, col)`."""
    shape = Shape.of(path)
    sizes = (shape.bands, shape.rows, shape.cols)
    mapped = np.memmap(path, shape.dtype, "r", shape=tuple(sizes[axis] for axis in AXES[order]))
    return mapped.transpose(np.argsort(AXES[order]))


def _together(threads: Iterable[threading.Thread]) -> None:
    running = list(threads)
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()

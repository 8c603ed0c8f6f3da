"""Scenes on disk: their pixel grid, bands, and windows of their pixels.

`Scene.open` reads metadata only. `Scene.read` touches pixels, from any thread or process:
raw cubes by plain reads, HDF5 and Zarr through h5py and zarr, everything else through rasterio with
one GDAL handle a thread, because a GDAL handle must never be shared between threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from hsiclust import pagecache
from hsiclust.bands import Bands, describe_bands, unread_lists
from hsiclust.conventions import is_of_rows_or_columns
from hsiclust.cube import DECODED_BYTES, CubeFacts, CubeReader
from hsiclust.datafile import data_file, vrt_sources
from hsiclust.envi import raw_envi
from hsiclust.errors import InputError
from hsiclust.geozarr import is_zarr, open_zarr, zarr_cube
from hsiclust.grid import Piece, PixelGrid, Window
from hsiclust.hdf5 import is_hdf5, is_hdf5_name, open_hdf5, split_name
from hsiclust.load import Decoding
from hsiclust.products import hdf5_cube
from hsiclust.productxml import with_metadata
from hsiclust.rasters import (
    GDAL_CACHE_BYTES,
    GdalReader,
    band_names,
    common_type,
    envi_header,
    grid_of,
    has_mask,
    image_structure,
    kept_bytes,
    loose_place,
    mask_file,
    open_raster,
)
from hsiclust.rawcube import RawCube
from hsiclust.rawtiff import raw_tiff
from hsiclust.remote import absolute_name, is_remote, source_stamp
from hsiclust.scratch import Scratch
from hsiclust.tiledcube import TiledCube
from hsiclust.validity import Fills, valid_pixels

# Bytes that are read at once, where a block is not larger.
_PIECE_BYTES = 2**23
_SCRATCH = Scratch()
_NO_TEXT = "its band names are ignored: they are not UTF-8 text"


class Reader(Protocol):
    """Anything that copies windows of a cube into memory, from any thread or process."""

    @property
    def path(self) -> str:
        """What it opens."""
        ...

    def read(self, window: Window, bands: Sequence[int]) -> NDArray[np.generic]:
        """`(band, row, col)` in the file's data type and native byte order."""
        ...


@dataclass(frozen=True)
class Scene:
    """One hyperspectral raster on disk, `(band, row, col)`.

    Attributes:
        path: The data file, or any name that GDAL opens.
        grid: Shape, transform, CRS.
        bands: What the file says about its bands.
        dtype: NumPy name of the data type.
        nodata: Value of pixels without data, or None.
        layout: How the pixels lie in the file, in words.
        blocks: Rows and columns of the smallest window that costs no more to read than any part
            of it: a line, a strip, a tile, a chunk.
        reader: What reads the pixels.
        sources: Other files that hold them, or their mask, where the scene is a VRT or has one.
        masking: What reads the mask, where the file has one of its own.
        loose: What alone says where it lies on the ground, where that is not its grid; in words.
        unread: Lists of its header that cannot be used, and why, in words.
    """

    path: str
    grid: PixelGrid
    bands: Bands
    dtype: str
    nodata: float | None
    layout: str
    blocks: tuple[int, int]
    reader: Reader
    sources: tuple[str, ...] = ()
    masking: GdalReader | None = None
    loose: str | None = None
    unread: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | Path, nodata: float | None = None) -> Scene:
        """Read a scene's metadata.

        Args:
            path: GeoTIFF, ENVI data file or its header, HDF5 or netCDF file or an array in one,
                Zarr group or array, or anything else that GDAL reads; on disk, `s3://` or
                `https://`.
            nodata: Overrides the nodata value of the file.

        Raises:
            InputError: The file is not there, is no raster, is cut short, or holds nothing that
                can be used (complex values, no band, no known band axis).
            StorageError: S3 does not answer, or refuses.
        """
        name = data_file(path)
        if is_zarr(name):
            cube = zarr_cube(name)
            return _of_cube(name, cube, CubeReader(name, open_zarr, cube), nodata)
        if is_remote(name) and is_hdf5_name(name):
            raise InputError(
                f"{name}: HDF5 and netCDF files are read from disk alone; copy it there first"
            )
        if is_hdf5(name) and (found := hdf5_cube(name)) is not None:
            return _of_cube(name, found, CubeReader(split_name(name)[0], open_hdf5, found), nodata)
        with open_raster(name) as dataset:
            return _describe(name, dataset, nodata)

    @property
    def name(self) -> str:
        """File name without folders."""
        return Path(self.path).name

    @property
    def file(self) -> str | None:
        """The file on disk that holds all pixels, or names those that do; None where none does."""
        return self.reader.path if Path(self.reader.path).is_file() else None

    @property
    def identity(self) -> str:
        """Hash of path, size and time of the file and its sources, and of how it is understood.

        Raises:
            StorageError: A server does not answer when asked for size and time.
        """
        stamps = [fact for file in (self.path, *self.sources) for fact in source_stamp(file)]
        facts = (absolute_name(self.path), *stamps, self.grid, self.dtype, self.nodata)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels, uncompressed."""
        return self.grid.window.pixels * self.bands.count * np.dtype(self.dtype).itemsize

    def read(
        self, window: Window | None = None, bands: Sequence[int] | None = None
    ) -> NDArray[np.generic]:
        """Copy pixels into memory.

        Args:
            window: Rows and columns; the whole scene by default.
            bands: Bands counted from 0; all by default.

        Returns:
            `(band, row, col)` in the file's data type, native byte order. The memory order is
            that of the file, so the array may not be contiguous.

        Raises:
            InputError: The file cannot be read there.
        """
        chosen = range(self.bands.count) if bands is None else bands
        return self.reader.read(self.grid.window if window is None else window, chosen)

    def pieces(self, window: Window, bands: Sequence[int]) -> Iterator[Piece]:
        """Read a window piece by piece, so that each byte is read and decoded once.

        Args:
            window: Rows and columns; each of the scene's blocks that it meets is read for itself.
            bands: Bands counted from 0.

        Yields:
            Parts that make up the window; each may overwrite the values of the one before.

        Raises:
            InputError: The file cannot be read there.
        """
        if isinstance(self.reader, RawCube | TiledCube):
            yield from self.reader.pieces(window, bands)
            return
        parts = list(window.cut(*self.piece_shape(len(bands))))
        if not isinstance(self.reader, GdalReader):
            for part in parts:
                yield Piece(part, self.reader.read(part, bands))
            return
        dtype = np.dtype(self.dtype)
        most = len(bands) * max(part.pixels for part in parts)
        with _SCRATCH.lend(most * dtype.itemsize) as room:
            for part in parts:
                yield Piece(part, self.reader.read(part, bands, room.view(dtype)))

    def piece_shape(self, bands: int) -> tuple[int, int]:
        """Rows and columns that are read at once: as many whole blocks as fit."""
        rows, cols = self.blocks
        if isinstance(self.reader, RawCube | TiledCube):
            return self.reader.rows_at_once(bands), cols
        fit = max(1, _PIECE_BYTES // (rows * cols * bands * np.dtype(self.dtype).itemsize))
        if cols >= self.grid.cols:
            return rows * fit, cols
        return rows, cols * fit

    @property
    def decoding(self) -> Decoding | None:
        """What the libraries that read take beside what they give; None where none does."""
        if isinstance(self.reader, CubeReader):
            return Decoding(
                block=self.reader.chunk_bytes, width=self.blocks[1], piece=DECODED_BYTES
            )
        if isinstance(self.reader, GdalReader):
            kept = self.reader.kept
            return Decoding(GDAL_CACHE_BYTES, kept, block=kept // 2, width=self.grid.cols)
        return None if self.masking is None else Decoding(GDAL_CACHE_BYTES)

    def shared_by(self, threads: int) -> Scene:
        """The same scene, to be read by so many threads at once."""
        if not isinstance(self.reader, GdalReader):
            return self
        shared = self.reader.shared_by(threads)
        return replace(self, reader=shared, masking=self.masking and shared)

    def prefetch(self, window: Window) -> None:
        """Ask the system to read a window ahead, where it can."""
        with suppress(OSError, InputError):  # a hint; whoever reads says what is wrong
            if isinstance(self.reader, RawCube | TiledCube):
                self.reader.prefetch(window)

    def release(self, window: Window) -> None:
        """Tell the system that it need not keep what has been read of a window.

        Where only a library knows which bytes those are, it need keep none of the file.
        """
        with suppress(OSError, InputError):  # a hint as well
            if isinstance(self.reader, RawCube | TiledCube):
                self.reader.release(window)
            elif self.file is not None:
                pagecache.give_back_all(self.file)

    def holds_data(self, block: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Pixels of `(band, row, col)`, bad bands already dropped, as `valid_pixels` tells them."""
        return valid_pixels(block, self.nodata)

    def valid(self, block: NDArray[np.generic], window: Window) -> NDArray[np.bool_]:
        """Pixels of a window that hold data and that the file's own mask leaves.

        Args:
            block: What was read of it, `(band, row, col)`, bad bands already dropped.
            window: Rows and columns.

        Returns:
            `(row, col)`.

        Raises:
            InputError: The mask cannot be read there.
        """
        valid = self.holds_data(block)
        return valid if self.masking is None else valid & self.masking.mask(window)


def _check_axes(path: str, dataset: DatasetReader) -> None:
    """Check which axis of a classic netCDF file GDAL takes for that of the bands.

    Raises:
        InputError: By its name it is one of rows or columns.
    """
    others = dataset.tags().get("NETCDF_DIM_EXTRA", "").strip("{}").split(",")
    wrong = next(filter(is_of_rows_or_columns, others), None)
    if wrong is not None:
        raise InputError(
            f"{path}: GDAL takes its dimension {wrong} for the bands; write it as netCDF-4, which "
            "is read in any order, or with the bands first or last"
        )


def _describe(path: str, dataset: DatasetReader, nodata: float | None) -> Scene:
    if dataset.count == 0:
        parts = ", ".join(dataset.subdatasets[:8])
        raise InputError(
            f"{path}: holds no raster of its own"
            + (f"; name one of its subdatasets: {parts}" if parts else "")
        )
    _check_axes(path, dataset)
    dtype = common_type(path, dataset)
    raw = _raw_cube(path, dataset)
    header = envi_header(dataset)  # others keep it as well: the EnMAP-Box in VRTs and GeoTIFFs
    names = band_names(dataset)
    facts = with_metadata(
        path,
        describe_bands(
            names or [""] * dataset.count,
            header,
            [dataset.tags(band, ns="IMAGERY") for band in dataset.indexes],
            [dataset.tags(band) for band in dataset.indexes],
        ),
    )
    if nodata is None:
        said = [facts.nodata if each is None else each for each in dataset.nodatavals]
        fills = Fills.of(said, dtype)
    else:
        fills = Fills(float(nodata))
    reader = GdalReader(path, kept_bytes(dataset), dtype.name, fills)
    return Scene(
        path=path,
        grid=grid_of(dataset),
        bands=facts.bands,
        dtype=dtype.name,
        nodata=fills.common,
        layout=_layout(dataset, raw),
        blocks=_blocks(dataset, raw),
        reader=reader if raw is None else raw,
        sources=_sources(path, dataset) + (mask_file(path) if has_mask(dataset) else ()),
        masking=_masking(reader, raw) if has_mask(dataset) else None,
        loose=loose_place(dataset),
        unread=(
            *unread_lists(header, dataset.count),
            *facts.unread,
            *([_NO_TEXT] if names is None else []),
        ),
    )


def _masking(reader: GdalReader, raw: Reader | None) -> GdalReader:
    """What reads the mask: the reader of the pixels, or one that needs room for masks alone."""
    return reader if raw is None else GdalReader(reader.path, 0, reader.dtype.name, reader.fills)


def _raw_cube(path: str, dataset: DatasetReader) -> RawCube | TiledCube | None:
    """The cube as it lies in the file, where it can be read without GDAL."""
    if dataset.driver == "ENVI":
        shape = (dataset.count, dataset.height, dataset.width)
        return raw_envi(path, envi_header(dataset), shape)
    return raw_tiff(path, dataset)


def _sources(path: str, dataset: DatasetReader) -> tuple[str, ...]:
    return vrt_sources(path) if dataset.driver == "VRT" else ()


def _of_cube(path: str, cube: CubeFacts, reader: Reader, nodata: float | None) -> Scene:
    return Scene(
        path=path,
        grid=cube.grid,
        bands=cube.bands,
        dtype=cube.dtype,
        nodata=cube.nodata if nodata is None else float(nodata),
        layout=cube.layout,
        blocks=cube.blocks,
        reader=reader,
    )


def _layout(dataset: DatasetReader, raw: Reader | None) -> str:
    if isinstance(raw, RawCube) and dataset.driver == "ENVI":
        return f"raw ENVI {raw.interleave.upper()}"
    rows, cols = dataset.block_shapes[0]
    shape = f"strips of {rows}" if cols >= dataset.width else f"blocks of {rows} x {cols}"
    structure = image_structure(dataset)
    interleave = structure.get("INTERLEAVE", "band")
    compress = structure.get("COMPRESSION", "uncompressed").lower()
    if envi_header(dataset).get("file_compression", "0").strip() == "1":
        compress = "gzip"
    return f"{dataset.driver} in {shape}, {interleave}-interleaved, {compress}"


def _blocks(dataset: DatasetReader, raw: Reader | None) -> tuple[int, int]:
    if isinstance(raw, RawCube):
        whole = raw.lines is not None and raw.rows_at_once(raw.bands) == raw.lines
        return (raw.lines or 1) if whole else 1, raw.cols
    rows, cols = dataset.block_shapes[0]
    return min(rows, dataset.height), min(cols, dataset.width)

"""GeoTIFFs that are raw cubes inside: uncompressed, in strips that follow each other, or in tiles.

GDAL reads the tags; where it says that blocks lie is all that is needed to read them. Its own way
is to unpack a block for one band after the other: lines of 200 bands, pixel by pixel, as it
writes them itself, take it thirty times as long as the disk.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from hsiclust.errors import InputError
from hsiclust.grid import Window
from hsiclust.rawcube import RawCube
from hsiclust.tiledcube import TiledCube

# Blocks are asked for their places one by one, which takes one to three microseconds: always where
# they are few, else where they are so large that to read them takes much longer.
_FEW_BLOCKS = 2**18
_MOST_BLOCKS = 2**21
_LARGE_BLOCK = 2**14
# Tiles that are smaller are read faster by GDAL: each is a file opened, and a piece.
_SMALLEST_TILE = 2**16
# Blocks up to this size are read through GDAL as well, to compare a few lines.
_COMPARED_BYTES = 2**26
# What GDAL would change while it reads: bits are unpacked, colours become others.
_CHANGED = ("NBITS", "SOURCE_COLOR_SPACE")


def raw_tiff(path: str, dataset: DatasetReader) -> RawCube | TiledCube | None:
    """Describe an uncompressed GeoTIFF, or return None when only GDAL can read it.

    Args:
        path: The file.
        dataset: The same, open.

    Raises:
        InputError: The file is shorter than its tags say.
    """
    structure = dataset.tags(ns="IMAGE_STRUCTURE") | dataset.tags(1, ns="IMAGE_STRUCTURE")
    if (
        dataset.driver != "GTiff"
        or not structure.keys().isdisjoint(("COMPRESSION", *_CHANGED))
        or not Path(path).is_file()
    ):
        return None
    planes = 1 if structure.get("INTERLEAVE") == "PIXEL" else dataset.count
    lines, cols = dataset.block_shapes[0]
    block = lines * cols * _pixel_bytes(dataset) // planes
    if cols != dataset.width and (planes > 1 or dataset.count == 1 or block < _SMALLEST_TILE):
        return None
    cube = _as_it_lies(path, dataset, planes)
    if cube is None:
        return None
    size = Path(path).stat().st_size
    if size < cube.nbytes:
        raise InputError(
            f"{path}: the file holds {size} bytes, its tags ask for {cube.nbytes}; it is cut short"
        )
    return cube if block > _COMPARED_BYTES or _is_what_gdal_reads(cube, dataset) else None


def _as_it_lies(path: str, dataset: DatasetReader, planes: int) -> RawCube | TiledCube | None:
    """The cube that the places of its blocks make; None where there is no order in them."""
    places = _places(dataset, planes)
    if places is None:
        return None
    with Path(path).open("rb") as file:
        order = ">" if file.read(2) == b"MM" else "<"
    dtype = order + np.dtype(dataset.dtypes[0]).str[1:]
    if dataset.block_shapes[0][1] == dataset.width:
        return _strips(path, dataset, dtype, places[:, :, 0])
    return _tiles(path, dataset, dtype, places[0])


def _tiles(path: str, dataset: DatasetReader, dtype: str, places: NDArray[np.int64]) -> TiledCube:
    """Tiles that begin at these places, `(row, col)`."""
    lines, cols = dataset.block_shapes[0]
    tile = RawCube(path, dataset.count, lines, cols, dtype, int(places[0, 0]), "bip")
    return TiledCube(tile, tuple(tuple(map(int, row)) for row in places))


def _strips(
    path: str, dataset: DatasetReader, dtype: str, places: NDArray[np.int64]
) -> RawCube | None:
    """Strips of each plane that begin at these places, `(plane, strip)`; None of scattered ones."""
    planes, strips = places.shape
    lines, cols = dataset.block_shapes[0]
    heights = np.full(strips, lines)
    heights[-1] = dataset.height - lines * (strips - 1)
    sizes = heights * cols * _pixel_bytes(dataset) // planes
    shape = (dataset.count, dataset.height, dataset.width)
    cube = RawCube(path, *shape, dtype, int(places[0, 0]), "bip")
    if planes == 1 and dataset.count > 1:
        return cube if _follow(places[0], sizes) else None
    if _follow(places.ravel(), np.tile(sizes, planes)):
        return replace(cube, interleave="bsq")
    if not _follow(places.T.ravel(), np.repeat(sizes, planes)):
        return None
    if lines == 1:
        return replace(cube, interleave="bil")
    return replace(cube, interleave="bsq", lines=lines)


def _is_what_gdal_reads(cube: RawCube | TiledCube, dataset: DatasetReader) -> bool:
    """Compare a few lines: bits may lie in another order, which no tag of GDAL's says."""
    rows, cols = dataset.height, min(dataset.width, dataset.block_shapes[0][1])
    bands = sorted({0, dataset.count - 1})
    with rasterio.Env(GDAL_CACHEMAX=_COMPARED_BYTES):  # it would keep all that it unpacks
        for row in sorted({0, rows // 2, rows - 1}):
            found = cube.read(Window(row, 0, 1, cols), bands)
            line = RasterioWindow(0, row, cols, 1)
            expected = dataset.read([band + 1 for band in bands], window=line)
            if found.tobytes() != expected.tobytes():
                return False
    return True


def _places(dataset: DatasetReader, planes: int) -> NDArray[np.int64] | None:
    """Places of all blocks, `(plane, row, col)`; None where one is missing, or of too many."""
    lines, cols = dataset.block_shapes[0]
    shape = (planes, -(-dataset.height // lines), -(-dataset.width // cols))
    if not _worth_asking(math.prod(shape), lines * cols * _pixel_bytes(dataset) // planes):
        return None
    places = np.empty(shape, np.int64)
    for plane, row, col in np.ndindex(places.shape):
        place = dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=plane + 1)
        if place is None:
            return None
        places[plane, row, col] = int(place)
    return places


def _worth_asking(blocks: int, size: int) -> bool:
    """Whether so many blocks of this size, in bytes, are to be asked for their places."""
    return blocks <= _FEW_BLOCKS or (blocks <= _MOST_BLOCKS and size >= _LARGE_BLOCK)


def _pixel_bytes(dataset: DatasetReader) -> int:
    value: int = np.dtype(dataset.dtypes[0]).itemsize
    return value * int(dataset.count)


def _follow(places: NDArray[np.int64], sizes: NDArray[np.int64]) -> bool:
    """Whether each strip begins where the one before ends."""
    return np.array_equal(places[1:], places[:-1] + sizes[:-1])

"""GeoTIFFs that are raw cubes inside: uncompressed, in strips that follow each other.

GDAL reads the tags; where it says that strips lie is all that is needed to read them. Its own way
is to unpack a strip for one band after the other: lines of 200 bands, pixel by pixel, as it
writes them itself, take it thirty times as long as the disk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from hsiclust.errors import InputError
from hsiclust.grid import Window
from hsiclust.rawcube import Interleave, RawCube

# Most strips whose places are asked for: one by one, about a microsecond each.
_MOST_STRIPS = 2**18
# Strips up to this size are read through GDAL as well, to compare a few lines.
_COMPARED_BYTES = 2**27
# What GDAL would change while it reads: bits are unpacked, colours become others.
_CHANGED = ("NBITS", "SOURCE_COLOR_SPACE")


def raw_tiff(path: str, dataset: DatasetReader) -> RawCube | None:
    """Describe an uncompressed GeoTIFF, or return None when only GDAL can read it.

    Args:
        path: The file.
        dataset: The same, open.

    Raises:
        InputError: The file is shorter than its tags say.
    """
    structure = dataset.tags(ns="IMAGE_STRUCTURE") | dataset.tags(1, ns="IMAGE_STRUCTURE")
    lines, cols = dataset.block_shapes[0]
    strips = -(-dataset.height // lines)
    pixelwise = structure.get("INTERLEAVE") == "PIXEL"
    planes = 1 if pixelwise else dataset.count
    if (
        dataset.driver != "GTiff"
        or not structure.keys().isdisjoint(("COMPRESSION", *_CHANGED))
        or cols != dataset.width
        or strips * planes > _MOST_STRIPS
        or not Path(path).is_file()
    ):
        return None
    dtype = np.dtype(dataset.dtypes[0])
    heights = np.full(strips, lines)
    heights[-1] = dataset.height - lines * (strips - 1)
    sizes = heights * cols * dtype.itemsize * (dataset.count if pixelwise else 1)
    places = _places(dataset, planes, strips)
    if places is None:
        return None
    with Path(path).open("rb") as file:
        order = ">" if file.read(2) == b"MM" else "<"
    arrangement = _arrangement(places, sizes, lines, pixelwise)
    if arrangement is None:
        return None
    shape = (dataset.count, dataset.height, dataset.width)
    cube = RawCube(path, *shape, order + dtype.str[1:], int(places[0, 0]), *arrangement)
    size = Path(path).stat().st_size
    if size < cube.nbytes:
        raise InputError(
            f"{path}: the file holds {size} bytes, its tags ask for {cube.nbytes}; it is cut short"
        )
    return cube if sizes[0] > _COMPARED_BYTES or _is_what_gdal_reads(cube, dataset) else None


def _is_what_gdal_reads(cube: RawCube, dataset: DatasetReader) -> bool:
    """Compare a few lines: bits may lie in another order, which no tag of GDAL's says."""
    bands = sorted({0, cube.bands - 1})
    for row in sorted({0, cube.rows // 2, cube.rows - 1}):
        found = cube.read(Window(row, 0, 1, cube.cols), bands)
        line = RasterioWindow(0, row, cube.cols, 1)
        expected = dataset.read([band + 1 for band in bands], window=line)
        if found.tobytes() != expected.tobytes():
            return False
    return True


def _places(dataset: DatasetReader, planes: int, strips: int) -> NDArray[np.int64] | None:
    """Where each plane's strips begin, `(planes, strips)`; None where one is not there."""
    places = np.empty((planes, strips), np.int64)
    for plane, strip in np.ndindex(planes, strips):
        place = dataset.get_tag_item(f"BLOCK_OFFSET_0_{strip}", "TIFF", bidx=plane + 1)
        if place is None:
            return None
        places[plane, strip] = int(place)
    return places


def _arrangement(
    places: NDArray[np.int64], sizes: NDArray[np.int64], lines: int, pixelwise: bool
) -> tuple[Interleave, int | None] | None:
    """Order of the axes, and after how many lines a BSQ begins anew; None of scattered strips."""
    planes = len(places)
    if pixelwise:
        return ("bip", None) if _follow(places[0], sizes) else None
    if _follow(places.ravel(), np.tile(sizes, planes)):
        return "bsq", None
    if _follow(places.T.ravel(), np.repeat(sizes, planes)):
        return ("bil", None) if lines == 1 else ("bsq", lines)
    return None


def _follow(places: NDArray[np.int64], sizes: NDArray[np.int64]) -> bool:
    """Whether each strip begins where the one before ends."""
    return np.array_equal(places[1:], places[:-1] + sizes[:-1])

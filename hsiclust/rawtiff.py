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

from hsiclust.errors import InputError
from hsiclust.rawcube import Interleave, RawCube

# Most strips whose places are asked for: one by one, about a microsecond each.
_MOST_STRIPS = 2**18


def raw_tiff(path: str, dataset: DatasetReader) -> RawCube | None:
    """Describe an uncompressed GeoTIFF, or return None when only GDAL can read it.

    Args:
        path: The file.
        dataset: The same, open.

    Raises:
        InputError: The file is shorter than its tags say.
    """
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    lines, cols = dataset.block_shapes[0]
    strips = -(-dataset.height // lines)
    pixelwise = structure.get("INTERLEAVE") == "PIXEL"
    planes = 1 if pixelwise else dataset.count
    if (
        dataset.driver != "GTiff"
        or "COMPRESSION" in structure
        or cols != dataset.width
        or strips * planes > _MOST_STRIPS
        or not Path(path).is_file()
    ):
        return None
    dtype = np.dtype(dataset.dtypes[0])
    heights = np.full(strips, lines)
    heights[-1] = dataset.height - lines * (strips - 1)
    sizes = heights * cols * dtype.itemsize * (dataset.count if pixelwise else 1)
    places = _places(dataset, planes, sizes)
    if places is None:
        return None
    with Path(path).open("rb") as file:
        order = ">" if file.read(2) == b"MM" else "<"
    found: tuple[Interleave, int | None] | None = None
    if pixelwise and _follow(places[0], sizes):
        found = "bip", None
    elif not pixelwise and _follow(places.ravel(), np.tile(sizes, planes)):
        found = "bsq", None
    elif not pixelwise and _follow(places.T.ravel(), np.repeat(sizes, planes)):
        found = ("bil", None) if lines == 1 else ("bsq", lines)
    if found is None:
        return None
    shape = (dataset.count, dataset.height, dataset.width)
    cube = RawCube(path, *shape, order + dtype.str[1:], int(places[0, 0]), *found)
    size = Path(path).stat().st_size
    if size < cube.nbytes:
        raise InputError(
            f"{path}: the file holds {size} bytes, its tags ask for {cube.nbytes}; it is cut short"
        )
    return cube


def _places(
    dataset: DatasetReader, planes: int, sizes: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Where each plane's strips begin, `(planes, strips)`; None unless all have these sizes."""
    places = np.empty((planes, len(sizes)), np.int64)
    for plane in range(planes):
        for strip, expected in enumerate(sizes):
            name = f"0_{strip}"
            size = dataset.get_tag_item(f"BLOCK_SIZE_{name}", "TIFF", bidx=plane + 1)
            place = dataset.get_tag_item(f"BLOCK_OFFSET_{name}", "TIFF", bidx=plane + 1)
            if size is None or place is None or int(size) != expected:
                return None  # not all there, or fewer bits a value
            places[plane, strip] = int(place)
    return places


def _follow(places: NDArray[np.int64], sizes: NDArray[np.int64]) -> bool:
    """Whether each strip begins where the one before ends."""
    return np.array_equal(places[1:], places[:-1] + sizes[:-1])

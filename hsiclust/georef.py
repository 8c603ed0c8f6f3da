"""A map lies exactly where its scene lies: same transform to the last bit, same CRS.

A GeoTIFF holds any affine transform exactly, but rewrites some CRS; GDAL's sidecar then keeps
the original. An ENVI header holds numbers as text, and a rotation as an angle.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what PROJ's failures become
from rasterio.crs import CRS
from rasterio.warp import transform

from hsiclust.errors import UsageError
from hsiclust.grid import PixelGrid
from hsiclust.mapformat import Driver
from hsiclust.rasters import grid_of, open_raster

# Points that are placed at once.
_POINTS = 2**20

# An ENVI header holds a rotated grid as an angle: this much of a pixel is rounding, no more.
_ENVI_TOLERANCE = 1e-6
_ENVI_DESCRIPTION = re.compile(r"description = \{.*?\}\n(?=samples)", re.DOTALL)
_ENVI_PLACE = re.compile(r"(?<=map info = \{)([^,}]*, 1, 1)(?:, [^,}]*){4}")


def same_crs(one: str | None, other: str | None) -> bool:
    """Whether two well-known texts name the same reference system; None is like None alone."""
    if one is None or other is None:
        return one is other
    return one == other or bool(CRS.from_wkt(one) == CRS.from_wkt(other))


def crs_name(crs: str | None) -> str:
    """A reference system for people: its EPSG code, or the name in its well-known text."""
    if crs is None:
        return "no CRS"
    code = CRS.from_wkt(crs).to_epsg()
    return f"EPSG:{code}" if code else crs.partition('"')[2].partition('"')[0] or crs[:40]


def pixel_hectares(grid: PixelGrid) -> float | None:
    """Area of a pixel on the map plane; None where the map's units are no lengths."""
    crs = None if grid.crs is None else CRS.from_wkt(grid.crs)
    if crs is None or not crs.is_projected:
        return None
    _, metres = crs.linear_units_factor
    return float(abs(grid.transform.determinant) * metres**2 / 1e4)


def pixels_elsewhere(
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    source: PixelGrid,
    target: PixelGrid,
    reach: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which pixels of another grid to keep away from, so as to keep away from some pixels.

    What lies within `reach` rows and columns of those told is what lies so near to the pixels, be
    it counted in pixels of `source` or of `target`, whichever reaches farther.

    Args:
        rows: `(N,)`, of pixels of `source`.
        cols: `(N,)`.
        source: Where they lie.
        target: Whose pixels are sought.
        reach: Pixels around `target` that are told as well; with 0, those on the ground of the
            pixels are told.

    Returns:
        Rows and columns; none where the grids have no common ground, or where nobody can tell.
    """
    none = np.empty(0, np.int64), np.empty(0, np.int64)
    placed = source.georeferenced and target.georeferenced
    if not len(rows) or not placed or (source.crs is None) != (target.crs is None):
        return none
    # The frame first, at some points: most scenes of a list lie far from each other.
    frame = (np.linspace(axis.min(), axis.max() + 1, 9) for axis in (cols, rows))
    across, down = np.stack(np.meshgrid(*frame)).reshape(2, -1)
    around = _seen_on(across, down, source, target)
    size = _size_on(across, down, source, target)
    room = reach + math.ceil(size * (reach + 1))
    if around is None or _far(around, target, room):
        return none
    left, top = cols.astype(np.float64), rows.astype(np.float64)
    centres = _seen_on(left + 0.5, top + 0.5, source, target)
    if centres is None:
        return none
    near = _within(centres, target, room)
    offsets = _offsets(size, reach)
    return _under_points(left[near], top[near], offsets, source, target, reach)


def _under_points(
    left: NDArray[np.float64],
    top: NDArray[np.float64],
    offsets: NDArray[np.float64],
    source: PixelGrid,
    target: PixelGrid,
    reach: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of another grid under a lattice of points around each pixel, each once.

    Points are placed some at a time; what is kept of them is a number a pixel.
    """
    right, below = np.stack(np.meshgrid(offsets, offsets)).reshape(2, -1)
    width = target.cols + 2 * reach
    found = [np.empty(0, np.int64)]
    step = max(1, _POINTS // len(right))
    for part in (slice(start, start + step) for start in range(0, len(left), step)):
        points = (left[part, None] + right).ravel(), (top[part, None] + below).ravel()
        seen = _seen_on(*points, source, target)
        if seen is not None:
            col, row = np.floor(seen[:, _within(seen, target, reach)]).astype(np.int64) + reach
            found.append(_distinct(row * width + col))
    row, col = np.divmod(_distinct(np.concatenate(found)), width)
    return row - reach, col - reach


def _distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers in rising order, each once; `numpy.unique` hashes them, 40 times as slowly."""
    ordered = np.sort(numbers)
    first: NDArray[np.bool_] = np.diff(ordered, prepend=-1 - abs(ordered[:1])) != 0
    return np.asarray(ordered[first], np.int64)


def _offsets(size: float, reach: int) -> NDArray[np.float64]:
    """Where points of a pixel lie along a side, from its corner.

    Squares of `reach` pixels of the other grid around the points cover the pixel and `reach`
    pixels of its own to each side, without a hole.

    Args:
        size: Pixels of the other grid along the pixel's side.
        reach: Pixels.
    """
    beyond = reach * max(0.0, 1 - 1 / size)
    # A little inside: the corner belongs to the neighbours as well.
    inside = 0.01 / max(1.0, size)
    return np.linspace(inside - beyond, 1 - inside + beyond, max(2, math.ceil(size)) + 1)


def _size_on(
    cols: NDArray[np.float64], rows: NDArray[np.float64], source: PixelGrid, target: PixelGrid
) -> float:
    """Rows or columns of another grid that a pixel goes through at most; 1 where nobody knows."""
    corners = ((cols, rows), (cols + 1, rows), (cols, rows + 1))
    here, right, below = (_seen_on(*corner, source, target) for corner in corners)
    if here is None or right is None or below is None:
        return 1.0
    with np.errstate(invalid="ignore"):  # places without a place there are infinite
        sizes = np.abs(right - here) + np.abs(below - here)
    return float(sizes[np.isfinite(sizes)].max(initial=0.0)) or 1.0


def _seen_on(
    cols: NDArray[np.float64], rows: NDArray[np.float64], source: PixelGrid, target: PixelGrid
) -> NDArray[np.float64] | None:
    """Columns and rows on another grid, `(2, N)`; None where its reference system ends."""
    places: Any = (cols, rows)  # the types of Affine know no arrays
    x, y = source.transform @ places
    if source.crs is not None and target.crs is not None and not same_crs(source.crs, target.crs):
        try:
            x, y = transform(CRS.from_wkt(source.crs), CRS.from_wkt(target.crs), x, y)
        except CPLE_BaseError:
            return None
    return np.stack((~target.transform) @ (np.asarray(x), np.asarray(y)))


def _far(around: NDArray[np.float64], target: PixelGrid, reach: int) -> bool:
    """Whether a frame of points lies beyond a grid, with room for what bends between them."""
    low, high = around.min(axis=1), around.max(axis=1)
    room = reach + 0.1 * (high - low)
    return bool(((high + room < 0) | (low - room > (target.cols, target.rows))).any())


def _within(places: NDArray[np.float64], target: PixelGrid, reach: int) -> NDArray[np.bool_]:
    """Which places lie on a grid, or at most some pixels beyond it, `(N,)`."""
    limits = np.array([[target.cols], [target.rows]])
    near: NDArray[np.bool_] = np.all((places >= -reach) & (places < limits + reach), axis=0)
    return near


def make_exact(made: Path, grid: PixelGrid, driver: Driver) -> None:
    """Mend what GDAL's driver rounded or rewrote of a map's georeference, where that can be.

    Args:
        made: The map, as GDAL wrote it.
        grid: What is to be read back from it.
        driver: What it was written by.
    """
    found = _grid_in(made)
    if driver == "ENVI":
        _mend_envi(made, grid, exact=found.transform == grid.transform)
    elif grid.crs is not None and found.crs != grid.crs:
        _keep_crs(made, grid.crs)


def check_grid(made: Path, output: Path, grid: PixelGrid, driver: Driver) -> None:
    """Check that a map reads back on `grid`.

    Args:
        made: The map.
        output: What to call it in a message.
        grid: Where its pixels lie.
        driver: What it was written by.

    Raises:
        UsageError: It lies elsewhere: its format cannot hold the grid, or a creation option
            moved it.
    """
    found = _grid_in(made)
    exact = found.transform == grid.transform
    if driver == "ENVI":
        exact = exact or _displacement(found, grid) < _ENVI_TOLERANCE
    if not exact or (found.rows, found.cols) != (grid.rows, grid.cols):
        raise UsageError(
            f"{output}: {driver} gives the transform {_text(grid)} back as {_text(found)}; "
            + ("write a COG" if driver == "ENVI" else "leave out creation options that warp")
        )
    # GDAL reads an ENVI file that has a place but no CRS as one in "arbitrary" metres.
    arbitrary = grid.crs is None and driver == "ENVI" and "LOCAL_CS" in (found.crs or "")
    if not arbitrary and not same_crs(found.crs, grid.crs):
        raise UsageError(
            f"{output}: {driver} cannot hold the scene's CRS ({(grid.crs or 'none')[:60]}...)"
            + ("; write a COG" if driver == "ENVI" else "")
        )


def _grid_in(file: Path) -> PixelGrid:
    with open_raster(str(file)) as dataset:
        return grid_of(dataset)


def _text(grid: PixelGrid) -> str:
    return f"{grid.cols} x {grid.rows} {tuple(grid.transform)[:6]}"


def _displacement(found: PixelGrid, grid: PixelGrid) -> float:
    """Farthest that a corner of the grid lies from its place, in pixels."""
    shift = ~grid.transform @ found.transform
    corners = [(col, row) for col in (0, grid.cols) for row in (0, grid.rows)]
    moved = [(*corner, *(shift @ corner)) for corner in corners]
    return float(max(max(abs(x - col), abs(y - row)) for col, row, x, y in moved))


def _keep_crs(made: Path, crs: str) -> None:
    """Write the CRS into GDAL's sidecar, which goes before what the file itself says."""
    sidecar = made.with_name(made.name + ".aux.xml")
    root = ElementTree.Element("PAMDataset")
    if sidecar.exists():
        root = ElementTree.parse(sidecar).getroot()  # noqa: S314 - GDAL just wrote it
    for old in root.findall("SRS"):
        root.remove(old)
    ElementTree.SubElement(root, "SRS").text = crs
    ElementTree.ElementTree(root).write(sidecar, encoding="utf-8")


def _mend_envi(made: Path, grid: PixelGrid, exact: bool) -> None:
    """Give a header the file's final name, and its numbers all their digits."""
    header = made.with_suffix(".hdr")
    text = header.read_text("utf-8", "surrogateescape")
    name = made.name.translate(str.maketrans("{}", "()"))
    text = _ENVI_DESCRIPTION.sub(lambda _: f"description = {{{name}}}\n", text, count=1)
    place = grid.transform
    if not exact and place.b == 0 == place.d and place.a > 0 > place.e:
        # GDAL writes 15 digits; 17 hold a double.
        numbers = ", ".join(repr(float(v)) for v in (place.c, place.f, place.a, -place.e))
        text = _ENVI_PLACE.sub(lambda match: f"{match[1]}, {numbers}", text, count=1)
    header.write_text(text, "utf-8", "surrogateescape")
    _drop_envi_copy(made.with_name(made.name + ".aux.xml"))


def _drop_envi_copy(sidecar: Path) -> None:
    """Drop the header's fields from GDAL's sidecar, which holds them as they were too early."""
    if not sidecar.exists():
        return
    tree = ElementTree.parse(sidecar)  # noqa: S314 - GDAL just wrote it
    root = tree.getroot()
    for metadata in root.findall("Metadata[@domain]"):
        root.remove(metadata)
    tree.write(sidecar, encoding="utf-8")

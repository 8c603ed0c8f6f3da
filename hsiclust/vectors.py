"""Polygons, lines and points as class numbers on a pixel grid.

A pixel takes the class that covers the largest part of it, provided that polygons cover at
least half of it; of two that cover the same, the lower number. Lines then label every pixel that
they cross, and points the pixel that they fall in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.warp
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what PROJ's failures become
from rasterio.crs import CRS
from rasterio.features import rasterize

from hsiclust.errors import InputError, NoOverlapError
from hsiclust.features import LARGEST_NUMBER, Features, Geometries, Numbers
from hsiclust.georef import crs_name, same_crs
from hsiclust.grid import PixelGrid, Window
from hsiclust.overlaps import overlap_note
from hsiclust.tilegrid import TileGrid

# Samples along each side of a pixel: coverage is known to 1/64.
_SAMPLES = 8
# Side of the blocks that are sampled at once: 2 MiB of samples.
_BLOCK = 128
# A straight edge in one CRS is a curve in another. Cut into 64, the largest shape's edges miss
# it by 1/4096 of what they would.
_CUTS = 64


@dataclass(frozen=True, eq=False)
class Shapes:
    """Shapes of one dimension, in pixels of the grid: x is the column, y the row.

    Attributes:
        geometries: `(N,)` points, lines or polygons.
        numbers: `(N,)` their classes.
        tree: Finds them by place.
    """

    geometries: Geometries
    numbers: Numbers
    tree: shapely.STRtree

    @classmethod
    def of(cls, geometries: Geometries, numbers: Numbers) -> Shapes:
        """Shapes in an order that draws the lower number of two last."""
        order = np.argsort(-numbers, kind="stable")
        ordered = geometries[order]
        return cls(ordered, numbers[order], shapely.STRtree(ordered))

    def within(self, window: Window) -> tuple[Geometries, Numbers]:
        """Those that may meet a window, in drawing order."""
        box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        found = np.sort(self.tree.query(box))
        return self.geometries[found], self.numbers[found]


@dataclass(frozen=True, eq=False)
class VectorTruth:
    """Class numbers of vectors; see `hsiclust.truth.Truth`.

    Attributes:
        names: Names of class numbers.
        note: What was reprojected or left out.
        points: Shapes of dimension 0.
        lines: Shapes of dimension 1.
        polygons: Shapes of dimension 2.
    """

    names: Mapping[int, str]
    note: str | None
    points: Shapes
    lines: Shapes
    polygons: Shapes

    def read(self, window: Window) -> NDArray[np.uint16]:
        """Class numbers of a window of the grid, `(row, col)`; 0 is unlabelled."""
        labels = np.zeros((window.rows, window.cols), np.uint16)
        for tile in TileGrid(window, window, _BLOCK, _BLOCK, 0):
            here = tile.core.relative_to(window).slices
            labels[here] = self._block(tile.core)
        return labels

    def _block(self, block: Window) -> NDArray[np.uint16]:
        labels = np.zeros((block.rows, block.cols), np.uint16)
        shapes, numbers = self.polygons.within(block)
        if len(shapes):
            labels = majority(_burn(shapes, numbers, block, _SAMPLES), _SAMPLES)
        shapes, numbers = self.lines.within(block)
        if len(shapes):
            drawn = _burn(shapes, numbers, block, 1)
            labels = np.where(drawn > 0, drawn, labels)
        shapes, numbers = self.points.within(block)
        cols, rows = np.floor(shapely.get_coordinates(shapes)).astype(np.int64).T
        cols, rows = cols - block.col, rows - block.row
        inside = (rows >= 0) & (rows < block.rows) & (cols >= 0) & (cols < block.cols)
        labels[rows[inside], cols[inside]] = numbers[inside]
        return labels


def _burn(shapes: Geometries, numbers: Numbers, block: Window, samples: int) -> NDArray[np.uint16]:
    """Draw shapes on `samples` by `samples` points a pixel; on pixels themselves, all touched."""
    drawn: NDArray[np.uint16] = rasterize(
        zip(shapes, numbers.tolist(), strict=True),
        out_shape=(block.rows * samples, block.cols * samples),
        transform=Affine.translation(block.col, block.row) @ Affine.scale(1 / samples),
        all_touched=samples == 1,
        dtype="uint16",
    )
    return drawn


def majority(samples: NDArray[np.uint16], side: int) -> NDArray[np.uint16]:
    """The most frequent number of each cell; 0 where less than half of the cell has one.

    Args:
        samples: `(rows * side, cols * side)`, 0 where there is none.
        side: Samples along a cell's side.

    Returns:
        `(rows, cols)`; of two equally frequent numbers the lower.
    """
    rows, cols = samples.shape[0] // side, samples.shape[1] // side
    cells = samples.reshape(rows, side, cols, side).transpose(0, 2, 1, 3)
    lowest: NDArray[np.uint16] = cells.min(axis=(2, 3))
    mixed = lowest != cells.max(axis=(2, 3))  # few: the pixels along an outline
    lowest[mixed] = _most_frequent(cells[mixed].reshape(-1, side * side))
    return lowest


def _most_frequent(cells: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """`majority` of cells of shape `(N, samples)`; `(N,)`."""
    base = LARGEST_NUMBER + 1
    codes = np.arange(len(cells))[:, None] * base + cells
    distinct, counts = np.unique(codes, return_counts=True)
    cell, number = np.divmod(distinct, base)
    counts = np.where(number > 0, counts, 0)
    covered = np.bincount(cell, counts, len(cells))
    best_first = np.lexsort((number, -counts, cell))
    _, first = np.unique(cell[best_first], return_index=True)
    winner = number[best_first][first]
    return np.where(2 * covered >= cells.shape[1], winner, 0).astype(np.uint16)


def place_vectors(path: str, grid: PixelGrid, features: Features) -> VectorTruth:
    """Place vectors on a grid; see `hsiclust.truth.open_truth`.

    Args:
        path: What to call them in messages.
        grid: The scene's grid.
        features: What the file holds.

    Raises:
        InputError: They have a CRS and the grid has none, or the other way round.
        NoOverlapError: Nothing meets the grid.
    """
    crs, geometries, numbers = features.crs, features.geometries, features.numbers
    if (crs is None) != (grid.crs is None):
        raise InputError(
            f"{path}: {crs_name(crs)}, and the scene has {crs_name(grid.crs)}; "
            "give both a CRS, or none"
        )
    notes = []
    if crs is not None and grid.crs is not None and not same_crs(crs, grid.crs):
        geometries = _reprojected(geometries, crs, grid.crs)
        notes.append(f"reprojected from {crs_name(crs)} to {crs_name(grid.crs)}")
    geometries = _finite(geometries)
    notes += _left_out(features, geometries)
    usable = ~shapely.is_missing(geometries) & (numbers > 0)
    shapes, more = _placed(path, grid, geometries[usable], numbers[usable])
    notes += more
    return VectorTruth(features.names, f"{path}: {'; '.join(notes)}" if notes else None, *shapes)


def _left_out(features: Features, placed: Geometries) -> Iterator[str]:
    """Which features cannot be used, and why."""
    missing = shapely.is_missing(features.geometries)
    empty = shapely.is_empty(features.geometries)
    lost = shapely.is_missing(placed)
    reasons = {
        "no class": ~lost & (features.numbers <= 0),
        "no shape that can be read": missing,
        "empty": empty,
        "cannot be reprojected": lost & ~missing & ~empty,
    }
    counts = {reason: int(np.count_nonzero(which)) for reason, which in reasons.items()}
    if any(counts.values()):
        said = ", ".join(f"{reason}: {count}" for reason, count in counts.items() if count)
        yield f"{sum(counts.values())} of {len(placed)} features left out ({said})"


def _placed(
    path: str, grid: PixelGrid, geometries: Geometries, numbers: Numbers
) -> tuple[list[Shapes], list[str]]:
    """Turn map coordinates into pixels, where no grid is rotated and no coordinate large.

    Returns:
        Points, lines and polygons; and what has to be said.

    Raises:
        NoOverlapError: Nothing meets the grid.
    """
    to_pixel = ~grid.transform

    def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(to_pixel @ (points[:, 0], points[:, 1]))

    parts, owner = shapely.get_parts(shapely.transform(geometries, pixels), return_index=True)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        owner = owner[inner]
    extent = shapely.box(0, 0, grid.cols, grid.rows)
    shapely.prepare(extent)
    meets = shapely.intersects(extent, parts)
    parts, owner = parts[meets], owner[meets]
    inside = len(np.unique(owner))
    if inside == 0:
        raise NoOverlapError(
            f"{path}: none of its {len(geometries)} usable features meets the scene's grid"
        )
    notes = []
    if inside < len(geometries):
        outside = len(geometries) - inside
        notes.append(f"{outside} of {len(geometries)} features lie outside the scene")
    dimension = shapely.get_dimensions(parts)
    areas = dimension == 2
    overlap = overlap_note(parts[areas], numbers[owner[areas]], extent)
    kinds = [Shapes.of(parts[dimension == d], numbers[owner[dimension == d]]) for d in range(3)]
    return kinds, notes + ([overlap] if overlap else [])


def _reprojected(geometries: Geometries, source: str, target: str) -> Geometries:
    """Shapes in another CRS; None for those that it does not reach."""
    west, south, east, north = shapely.bounds(geometries).T
    size = np.fmax(np.fmax(east - west, north - south), 0)
    cut = shapely.segmentize(geometries, np.where(size > 0, size, 1) / _CUTS)
    from_crs, to_crs = CRS.from_wkt(source), CRS.from_wkt(target)

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        xs, ys = rasterio.warp.transform(from_crs, to_crs, points[:, 0], points[:, 1])
        return np.column_stack((xs, ys))

    try:
        return _finite(shapely.transform(cut, moved))
    except CPLE_BaseError:  # one point that PROJ cannot place spoils a whole batch
        return _finite(np.array([_moved_alone(shape, moved) for shape in cut], object))


def _moved_alone(shape: Any, moved: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Any:
    try:
        return shapely.transform(shape, moved)
    except CPLE_BaseError:
        return None


def _finite(geometries: Geometries) -> Geometries:
    """None in place of shapes with a corner at infinity, PROJ's way to say "not on this map"."""
    placed = geometries.copy()
    placed[~np.isfinite(shapely.bounds(geometries)).all(axis=1)] = None
    return placed

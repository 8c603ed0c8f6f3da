"""Class numbers on a scene's pixel grid, from other people's rasters and vectors.

0 is unlabelled. What had to be assumed or left out on the way is said in a note, and logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what a warp raises; rasterio names it nowhere else
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from hsiclust.errors import InputError
from hsiclust.features import LARGEST_NUMBER, read_features
from hsiclust.georef import crs_name, same_crs
from hsiclust.grid import PixelGrid, Window
from hsiclust.legend import category_names
from hsiclust.rasters import grid_of, open_raster
from hsiclust.remote import refuse_no_file
from hsiclust.vectors import place_vectors

log = logging.getLogger(__name__)

# A suffix decides, not a trial: a GeoPackage may hold both, and GDAL is loud when a trial fails.
_VECTOR_SUFFIXES = {
    ".fgb",
    ".geojson",
    ".geojsonl",
    ".gml",
    ".gpkg",
    ".json",
    ".kml",
    ".shp",
    ".sqlite",
}


class Truth(Protocol):
    """Class numbers on a pixel grid."""

    @property
    def names(self) -> Mapping[int, str]:
        """Names of class numbers, as far as the file has them."""
        ...

    @property
    def note(self) -> str | None:
        """What was assumed or left out, for people."""
        ...

    def read(self, window: Window) -> NDArray[np.uint16]:
        """Class numbers of a window of the grid, `(row, col)`; 0 is unlabelled.

        Raises:
            InputError: The file cannot be read there, or holds no class numbers.
        """
        ...


def open_truth(
    path: str | Path, grid: PixelGrid, *, field: str | None = None, layer: str | None = None
) -> Truth:
    """Open class numbers on a scene's grid.

    A raster on the same grid is read as it is; one on another grid is warped to it by nearest
    neighbour. Vectors are reprojected and laid on the pixels (`hsiclust.vectors`).

    Args:
        path: Raster of one band, or vectors: GeoPackage, Shapefile, GeoJSON and such.
        grid: The scene's grid.
        field: Vectors: where the class stands. Whole numbers are kept, as text too; other texts
            are numbered in sorted order.
        layer: Vectors: which layer, when there are several.

    Raises:
        InputError: The file cannot be used, or does not lie on the scene.
    """
    opened: Truth
    refuse_no_file(path)
    if is_vector(path) or field is not None or layer is not None:
        opened = place_vectors(str(path), grid, read_features(str(path), field, layer))
    else:
        opened = RasterTruth.open(str(path), grid)
    return _noted(opened)


def _noted(truth: Truth) -> Truth:
    if truth.note:
        log.info("%s", truth.note)
    return truth


def is_vector(path: str | Path) -> bool:
    """Whether a file holds vectors, by its name."""
    return Path(path).suffix.lower() in _VECTOR_SUFFIXES


@dataclass(frozen=True)
class Unlabelled:
    """A truth that labels nothing."""

    names: Mapping[int, str] = field(default_factory=dict)
    note: str | None = None

    def read(self, window: Window) -> NDArray[np.uint16]:
        """Zeros."""
        return np.zeros((window.rows, window.cols), np.uint16)


@dataclass(frozen=True)
class Mask:
    """Pixels that a truth labels, whatever their class.

    Attributes:
        truth: The class numbers.
    """

    truth: Truth

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Whether the pixels of a window are inside, `(row, col)`."""
        return self.truth.read(window) > 0


def open_mask(path: str | Path, grid: PixelGrid) -> Mask:
    """Open a mask on a scene's grid: pixels above 0 of a raster, or what vectors cover.

    Raises:
        InputError: As `open_truth`.
    """
    refuse_no_file(path)
    if not is_vector(path):
        return Mask(_noted(RasterTruth.open(str(path), grid, inside=True)))
    features = read_features(str(path), None, None, inside=True)
    return Mask(_noted(place_vectors(str(path), grid, features)))


@dataclass(frozen=True)
class RasterTruth:
    """Class numbers of a raster.

    Attributes:
        path: The raster.
        grid: The scene's grid.
        names: Names of class numbers.
        note: How it was laid on the grid, when it lies elsewhere.
        warped: Whether it does.
        inside: Every pixel above 0 is class 1, whatever its value.
    """

    path: str
    grid: PixelGrid
    names: Mapping[int, str]
    note: str | None
    warped: bool
    inside: bool = False

    @classmethod
    def open(cls, path: str, grid: PixelGrid, inside: bool = False) -> RasterTruth:
        """Open a raster of class numbers; raises as `open_truth`."""
        with open_raster(path) as dataset:
            if dataset.count != 1:
                raise InputError(f"{path}: holds {dataset.count} bands; class numbers are one band")
            if np.dtype(dataset.dtypes[0]).kind not in "iuf":
                raise InputError(f"{path}: holds {dataset.dtypes[0]} values, not class numbers")
            own = grid_of(dataset)
        names = {at: name for at, name in enumerate(category_names(path)) if at and name}
        note = _placing(path, own, grid)
        return cls(path, grid, names, note, note is not None, inside)

    def read(self, window: Window) -> NDArray[np.uint16]:
        """As `Truth.read`."""
        # Opened for each read: a GDAL handle must not be shared between threads, and one that a
        # thread kept could not be closed when the thread is gone.
        try:
            with open_raster(self.path) as dataset:
                if not self.warped:
                    return self._numbers(dataset, window)
                with _on_grid(dataset, self.grid) as there:
                    return self._numbers(there, window)
        except CPLE_BaseError as error:
            raise InputError(f"{self.path}: {window} cannot be read: {error}") from error

    def _numbers(self, dataset: DatasetReader, window: Window) -> NDArray[np.uint16]:
        rows, cols = (window.row, window.row_stop), (window.col, window.col_stop)
        values: NDArray[Any] = dataset.read(1, window=(rows, cols), masked=True).filled(0)
        return (values > 0).astype(np.uint16) if self.inside else _class_numbers(values, self.path)


def _on_grid(dataset: DatasetReader, grid: PixelGrid) -> WarpedVRT:
    return WarpedVRT(
        dataset,
        crs=CRS.from_wkt(grid.crs),
        transform=grid.transform,
        width=grid.cols,
        height=grid.rows,
        resampling=Resampling.nearest,
        # GDAL's default may be an eighth of a pixel off, and take a neighbour. rasterio 1.4 fails
        # with 0.
        tolerance=1e-6,
    )


def _placing(path: str, own: PixelGrid, grid: PixelGrid) -> str | None:
    """How a raster gets onto the grid, in words; None when it lies there.

    Raises:
        InputError: Nobody can tell where it lies.
    """
    shape = f"{own.rows} x {own.cols} pixels"
    same = (own.rows, own.cols, own.transform) == (grid.rows, grid.cols, grid.transform)
    if same and same_crs(own.crs, grid.crs):
        return None
    if own.crs is None or grid.crs is None:
        raise InputError(
            f"{path}: its {shape} ({crs_name(own.crs)}) do not match the scene's {grid.rows} x "
            f"{grid.cols} ({crs_name(grid.crs)}); give both the same CRS and transform, or none"
        )
    return (
        f"{path}: {shape} in {crs_name(own.crs)} laid on the scene's {grid.rows} x {grid.cols} "
        f"in {crs_name(grid.crs)} by nearest neighbour"
    )


def _class_numbers(values: NDArray[Any], path: str) -> NDArray[np.uint16]:
    """Values of any type as class numbers; negative ones and NaN are unlabelled.

    Raises:
        InputError: A value is no whole number, or too large.
    """
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=0.0)
        wrong = values[values != np.floor(values)]
        if wrong.size:
            raise InputError(f"{path}: {wrong[0]} is no class number; these are whole numbers")
    largest = values.max(initial=0)
    if largest > LARGEST_NUMBER:
        raise InputError(f"{path}: class number {largest} is above {LARGEST_NUMBER}")
    return np.where(values > 0, values, 0).astype(np.uint16)

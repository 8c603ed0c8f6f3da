"""What CF, GeoZarr and their like say of a cube: its bands, their wavelengths, its place.

Containers name the dimensions of an array, and describe them in other arrays beside it. A cube
whose band axis nothing tells is refused: read along a wrong axis it would still give a map.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from hsiclust.bands import Bands, bands_of_lists, is_wavelength_unit
from hsiclust.cube import CubeFacts, CubePart, StoredArray
from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid
from hsiclust.refsystems import known_crs, wkt_of

_BAND_NAMES = frozenset(
    {
        *("band", "bands", "nbands", "channel", "channels", "spectral"),
        *("wavelength", "wavelengths", "wl", "wvl", "lambda"),
    }
)
_ROW_NAMES = frozenset(
    {
        *("y", "row", "rows", "nrows", "line", "lines", "lat", "latitude", "northing"),
        *("downtrack", "along_track"),
        *("scans", "number_of_scans", "number_of_lines"),  # of OCI
    }
)
_COL_NAMES = frozenset(
    {
        *("x", "col", "cols", "ncols", "column", "columns", "sample", "samples"),
        *("lon", "longitude", "easting", "crosstrack", "across_track"),
        *("pixels", "ccd_pixels", "pixels_per_line"),
    }
)
_WAVELENGTH_NAMES = frozenset(
    {
        *("wavelength", "wavelengths", "wl", "wvl", "lambda"),
        *(f"cent{end}_wavelength{s}" for end in ("er", "re", "ral") for s in ("", "s")),
    }
)
_FWHM_NAMES = frozenset({"fwhm", "full_width_half_max", "full_width_at_half_maximum"})
_GOOD_NAMES = frozenset({"good_wavelengths", "good_bands", "bbl"})
_NODATA_NAMES = ("_FillValue", "missing_value", "nodata", "Data_Ignore_Value")
_GRID_MAPPINGS = ("spatial_ref", "crs")
_CRS_NAMES = ("crs_wkt", "spatial_ref", "proj:code", "epsg_code")
_DEGREES = frozenset({"lat", "latitude", "lon", "longitude"})
# Coordinates in float32 jitter by this much of a step; a real swath bends by more.
_EVEN = 1e-2
_MOST_VALUES = 2**24  # of an array that describes another


@dataclass(frozen=True)
class Variable:
    """An array of a container.

    Attributes:
        path: Its name with its groups.
        array: The array.
        dims: Names of its dimensions, lower case, "" where there is none.
        attributes: What is attached to it; numbers, texts and arrays of them.
    """

    path: str
    array: StoredArray
    dims: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name without groups, lower case."""
        return self.path.rpartition("/")[2].lower()

    @property
    def is_cube(self) -> bool:
        """Whether it may hold the pixels of a scene."""
        shape = self.array.shape
        return len(shape) == 3 and min(shape) > 0 and self.array.dtype.kind in "iuf"

    def values(self) -> NDArray[Any]:
        """All of a small array.

        Raises:
            InputError: It is too large to describe another.
        """
        if math.prod(self.array.shape) > _MOST_VALUES:
            raise InputError(f"{self.path}: {self.array.shape} values are too many to describe")
        return np.asarray(self.array[...])


def cube_facts(
    name: str,
    cube: Variable,
    others: Sequence[Variable],
    axes: tuple[int, int, int],
    layout: tuple[str, tuple[int, int]],
) -> CubeFacts:
    """What a container says of a cube that is one array, by the names of what lies beside it.

    Args:
        name: The container, for warnings.
        cube: The cube.
        others: What lies beside it.
        axes: Its axes of band, row and column.
        layout: How it lies there, in words, and the rows and columns of a chunk.
    """
    bands = find_bands(cube, others, axes[0])
    words, blocks = layout
    return CubeFacts(
        parts=(CubePart(cube.path, axes, tuple(range(bands.count))),),
        grid=find_grid(name, cube, others, axes),
        bands=bands,
        dtype=cube.array.dtype.newbyteorder("=").name,
        nodata=find_nodata(cube.attributes),
        layout=words,
        blocks=blocks,
    )


def find_axes(cube: Variable, others: Sequence[Variable]) -> tuple[int, int, int] | None:
    """Axes of band, row and column; None where nothing tells which one the band axis is."""
    band = _band_axis(cube, others)
    if band is None:
        return None
    row, col = (axis for axis in range(3) if axis != band)
    if cube.dims[row] in _COL_NAMES or cube.dims[col] in _ROW_NAMES:
        row, col = col, row
    return band, row, col


def _band_axis(cube: Variable, others: Sequence[Variable]) -> int | None:
    named = [axis for axis in range(3) if cube.dims[axis] in _BAND_NAMES]
    if not named:
        other = [axis for axis in range(3) if cube.dims[axis] not in _ROW_NAMES | _COL_NAMES]
        named = other if len(other) == 1 else []
    if not named:
        lengths = {each.array.shape[0] for each in _spectral(others, _WAVELENGTH_NAMES)}
        lengths.update(map(len, _own_lists(cube, "wavelength", "wavelengths").values()))
        named = [axis for axis in range(3) if cube.array.shape[axis] in lengths]
    return named[0] if len(named) == 1 else None


def is_of_rows_or_columns(dim: str) -> bool:
    """Whether a dimension is called as those of the ground are, not the one of the bands."""
    return dim.strip().lower() in _ROW_NAMES | _COL_NAMES


def _spectral(others: Sequence[Variable], names: frozenset[str]) -> list[Variable]:
    return [
        each
        for each in others
        if len(each.array.shape) == 1 and each.array.dtype.kind in "iufb" and each.name in names
    ]


def find_bands(cube: Variable, others: Sequence[Variable], axis: int) -> Bands:
    """What arrays and attributes say about a cube's bands."""
    count = cube.array.shape[axis]
    fitting = [each for each in others if each.array.shape == (count,)]
    # What lies along the band axis and has a unit of length holds wavelengths, if it is called like
    # that axis or has them in its name (`red_wavelength` of `red_bands`).
    centres = _spectral(fitting, _WAVELENGTH_NAMES) or [
        each
        for each in fitting
        if is_wavelength_unit(_text(each.attributes.get("units")))
        and cube.dims[axis] in {each.name, *(each.dims if "wavelength" in each.name else ())} - {""}
    ]
    if not centres:
        return _bands_of_attributes(cube, count)
    fwhm, good = _spectral(fitting, _FWHM_NAMES), _spectral(fitting, _GOOD_NAMES)
    return bands_of_lists(
        count,
        centres[0].values().tolist(),
        _text(centres[0].attributes.get("units")),
        fwhm=fwhm[0].values().tolist() if fwhm else None,
        good=good[0].values().tolist() if good else None,
    )


def _bands_of_attributes(cube: Variable, count: int) -> Bands:
    lower = {key.lower(): value for key, value in cube.attributes.items()}
    found = _own_lists(cube, "wavelength", "wavelengths", "fwhm", "bbl", "good_wavelengths")
    lists = {key: values for key, values in found.items() if len(values) == count}
    units = _text(lower.get("wavelength_units") or lower.get("wavelength units"))
    centres = lists.get("wavelength") or lists.get("wavelengths")
    if centres is None:
        return Bands(count, ("",) * count)
    good = lists.get("bbl") or lists.get("good_wavelengths")
    return bands_of_lists(count, centres, units, fwhm=lists.get("fwhm"), good=good)


def _own_lists(cube: Variable, *names: str) -> dict[str, list[Any]]:
    """Attributes of a cube that are lists of numbers, by their names in lower case."""
    lower = {key.lower(): np.asarray(value).ravel() for key, value in cube.attributes.items()}
    return {
        name: lower[name].tolist()
        for name in names
        if name in lower and lower[name].dtype.kind in "iufb"
    }


def find_grid(
    name: str, cube: Variable, others: Sequence[Variable], axes: tuple[int, int, int]
) -> PixelGrid:
    """Where the pixels of a cube lie; without a place where nothing tells it.

    Args:
        name: The container, for warnings.
        cube: The cube.
        others: What lies beside it.
        axes: Its axes of band, row and column.
    """
    rows, cols = (cube.array.shape[axis] for axis in axes[1:])
    mapping = _grid_mapping(cube, others)
    transform = _geotransform(mapping) or _even_coordinates(cube, others, axes)
    crs = known_crs(name, map(_text, (*_said_of_crs(mapping), *_said_of_crs(cube.attributes))))
    if (
        crs is None
        and transform is not None
        and _DEGREES.issuperset(cube.dims[axis] for axis in axes[1:])
    ):
        crs = wkt_of(4326)  # CF: latitude and longitude without a grid mapping
    return PixelGrid(rows, cols, transform or Affine.identity(), crs)


def _said_of_crs(attributes: Mapping[str, Any]) -> Iterator[Any]:
    found = attributes.get("_CRS")  # GDAL's way in Zarr
    if isinstance(found, Mapping):
        yield found.get("wkt")
        return
    yield from (attributes.get(name) for name in _CRS_NAMES)


def _grid_mapping(cube: Variable, others: Sequence[Variable]) -> Mapping[str, Any]:
    """Attributes that say where a cube lies: of the array it names, or its own."""
    asked = _text(cube.attributes.get("grid_mapping")).partition(":")[0].lower()
    for name in (asked, *_GRID_MAPPINGS):
        for each in others:
            if name and each.name == name:
                return each.attributes
    return cube.attributes


def _geotransform(mapping: Mapping[str, Any]) -> Affine | None:
    value = mapping.get("GeoTransform")
    if value is None:
        return None
    parts = value.split() if isinstance(value, str) else np.asarray(value).ravel().tolist()
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        return None
    if len(numbers) != 6 or not np.isfinite(numbers).all():
        return None
    transform = Affine.from_gdal(*numbers)
    return None if transform.is_degenerate else transform


def _even_coordinates(
    cube: Variable, others: Sequence[Variable], axes: tuple[int, int, int]
) -> Affine | None:
    """The transform of coordinate arrays, which hold the centres of the pixels."""
    steps = []
    for axis in axes[1:]:
        found = [
            each
            for each in others
            if each.name == cube.dims[axis]
            and each.array.shape == (cube.array.shape[axis],)
            and each.array.dtype.kind in "iuf"
        ]
        step = even_step(found[0].values()) if found else None
        if step is None:
            return None
        steps.append(step)
    (top, down), (left, right) = steps
    return Affine(right, 0.0, left - right / 2, 0.0, down, top - down / 2)


def even_step(values: NDArray[Any]) -> tuple[float, float] | None:
    """First value and step of coordinates; None unless they are evenly spaced."""
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        return None
    step = float(numbers[-1] - numbers[0]) / (len(numbers) - 1)
    even = numbers[0] + step * np.arange(len(numbers))
    if step == 0 or np.abs(numbers - even).max() > _EVEN * abs(step):
        return None
    return float(numbers[0]), step


def find_nodata(attributes: Mapping[str, Any]) -> float | None:
    """The value of pixels without data, as attributes have it."""
    for name in _NODATA_NAMES:
        value = attributes.get(name)
        if value is None or np.size(value) != 1:
            continue
        number = _number(np.asarray(value).ravel()[0])
        if number is not None:
            return number
    return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    try:  # xarray writes the fill value of a Zarr 3 array as the bytes of a double, in base64
        return float(struct.unpack("<d", base64.b64decode(str(value), validate=True))[0])
    except (binascii.Error, struct.error):
        return None


def _text(value: Any) -> str:
    """An attribute as text: HDF5 has bytes, and arrays of one text."""
    if value is None:
        return ""
    first = np.asarray(value).ravel()
    if len(first) != 1:
        return ""
    return first[0].decode("utf-8", "replace") if isinstance(first[0], bytes) else str(first[0])

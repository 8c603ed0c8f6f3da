"""Hyperspectral products in HDF5 that describe themselves in ways of their own.

EMIT (NASA, netCDF-4), PRISMA (ASI, HDF-EOS5), Tanager (Planet, HDF-EOS5), NEON AOP (HDF5): each is
known by its structure, and the name of the file alone stands for its cube.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine

from hsiclust.bands import Bands, bands_of_lists
from hsiclust.conventions import Variable, cube_facts
from hsiclust.cube import CubeFacts, CubePart, check_array
from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid
from hsiclust.hdf5 import Hdf5File, attributes_of, general_cube, hdf5_layout, split_name
from hsiclust.refsystems import known_crs, wkt_of

log = logging.getLogger(__name__)

_EMIT_CUBES = ("reflectance", "radiance")
_EMIT_SWATH = "its pixels lie as the sensor saw them (EMIT swath), and its map will have no place"
_PRISMA = re.compile(r"PRS_L(?:1|2B|2C|2D)_HCO")
_PRISMA_PIXEL = 30.0  # metres
_TANAGER = "HDFEOS/{}/HYP"
_TANAGER_CUBES = ("surface_reflectance", "toa_radiance")
_NEON_CUBE = "Reflectance_Data"
_NEON_WINDOWS = ("Band_Window_1_Nanometers", "Band_Window_2_Nanometers")


def hdf5_cube(name: str) -> CubeFacts | None:
    """Describe the cube that a name means.

    Args:
        name: An HDF5 file, or an array of one in GDAL's spelling.

    Returns:
        None where it means something that is no cube.

    Raises:
        InputError: The file cannot be read, or the name means no one cube.
    """
    path, array = split_name(name)
    file = Hdf5File(path)
    return (
        _emit(file, array)
        or _prisma(file, array)
        or _tanager(file, array)
        or _neon(file, array)
        or general_cube(file, array)
    )


def _emit(file: Hdf5File, array: str | None) -> CubeFacts | None:
    if any(file.object(name) is None for name in ("sensor_band_parameters", "location")):
        return None
    chosen = array or next((name for name in _EMIT_CUBES if file.object(name) is not None), None)
    facts = general_cube(file, chosen) if chosen is not None else None
    if facts is not None and not facts.grid.georeferenced:
        log.warning(
            "%s: %s; its `location` group says where each pixel is, and emit_tools or GDAL warp "
            "it (or the map) to the ground",
            file.path,
            _EMIT_SWATH,
        )
    return facts


def _prisma(file: Hdf5File, array: str | None) -> CubeFacts | None:
    swaths = file.object("HDFEOS/SWATHS")
    names = [] if swaths is None else [name for name in swaths if _PRISMA.fullmatch(name)]
    root = attributes_of(file.root)
    if not names or "List_Cw_Vnir" not in root:
        return None
    fields = f"HDFEOS/SWATHS/{names[0]}/Data Fields"
    sensors = [
        sensor
        for sensor in ("Vnir", "Swir")
        if file.object(path := f"{fields}/{sensor.upper()}_Cube") is not None
        and array in {None, path, path.replace(" ", "_")}
    ]
    if not sensors:
        return None
    parts, bands = [], []
    for sensor in sensors:
        part, described = _prisma_part(file, f"{fields}/{sensor.upper()}_Cube", root, sensor)
        parts.append(part)
        bands.append(described)
    arrays = [file[part.array] for part in parts]
    if len({(each.shape[0], each.shape[2], each.dtype) for each in arrays}) > 1:
        raise InputError(f"{file.path}: its VNIR and SWIR cubes are not of one size and type")
    layout, blocks = hdf5_layout(arrays[0], parts[0].axes)
    return CubeFacts(
        parts=tuple(parts),
        grid=_prisma_grid(file, root, *arrays[0].shape[::2]),
        bands=_joined(bands),
        dtype=arrays[0].dtype.newbyteorder("=").name,
        nodata=0.0,
        layout=layout,
        blocks=blocks,
        zero_margin=True,
    )


def _prisma_part(
    file: Hdf5File, name: str, root: Mapping[str, Any], sensor: str
) -> tuple[CubePart, Bands]:
    """The bands of one sensor that were measured, from short to long waves."""
    cube = file[name]
    check_array(f"{file.path}: {name}", cube)
    if len(cube.shape) != 3:
        raise InputError(
            f"{file.path}: {name} has the shape {cube.shape}, not rows, bands, columns"
        )
    count = cube.shape[1]
    centres, widths = (
        np.asarray(root.get(f"List_{kind}_{sensor}", ()), np.float64).ravel()
        for kind in ("Cw", "Fwhm")
    )
    flags = np.asarray(root.get(f"List_Cw_{sensor}_Flags", np.ones(count))).ravel()
    if not len(centres) == len(widths) == len(flags) == count:
        raise InputError(f"{file.path}: {name} has {count} bands, List_Cw_{sensor} {len(centres)}")
    measured = np.flatnonzero((centres > 0) & (flags != 0))
    order = measured[np.argsort(centres[measured], kind="stable")]
    described = bands_of_lists(
        len(order), centres[order].tolist(), "nm", fwhm=widths[order].tolist()
    )
    return CubePart(name, (1, 0, 2), tuple(order.tolist())), described


def _prisma_grid(file: Hdf5File, root: Mapping[str, Any], rows: int, cols: int) -> PixelGrid:
    """The UTM grid of an L2D product; the other levels lie as the sensor saw them."""
    try:
        west, east, north, south = (
            float(root[f"Product_{corner}corner_{axis}"])
            for corner, axis in (
                ("UL", "easting"),
                ("LR", "easting"),
                ("UL", "northing"),
                ("LR", "northing"),
            )
        )
        crs = wkt_of(int(root["Epsg_Code"]))
    except (KeyError, TypeError, ValueError):
        crs = None
    if crs is None or not (east > west and north > south):
        log.warning("%s: a PRISMA swath without a map grid; its map will have no place", file.path)
        return PixelGrid(rows, cols)
    # Corners are centres of pixels, but for products that say otherwise by their span.
    left, width = _edge_and_step(west, east, cols)
    top, height = _edge_and_step(-north, -south, rows)
    return PixelGrid(rows, cols, Affine(width, 0.0, left, 0.0, -height, -top), crs)


def _edge_and_step(first: float, last: float, count: int) -> tuple[float, float]:
    """The outer edge of the first pixel, and the size of one, from two corners."""
    outer, centres = (last - first) / count, (last - first) / max(1, count - 1)
    if abs(outer - _PRISMA_PIXEL) < abs(centres - _PRISMA_PIXEL):
        return first, outer
    return first - centres / 2, centres


def _joined(bands: list[Bands]) -> Bands:
    """Bands of several sensors as those of one."""
    return Bands(
        count=sum(each.count for each in bands),
        names=tuple(name for each in bands for name in each.names),
        wavelengths=tuple(value for each in bands for value in each.wavelengths or ()),
        fwhm=tuple(value for each in bands for value in each.fwhm or ()),
        units="nm",
    )


def _tanager(file: Hdf5File, array: str | None) -> CubeFacts | None:
    for kind in ("GRIDS", "SWATHS"):  # ortho, basic
        for cube in _TANAGER_CUBES:
            name = f"{_TANAGER.format(kind)}/Data Fields/{cube}"
            if file.object(name) is not None and array in {None, name, name.replace(" ", "_")}:
                return _tanager_facts(file, name, kind)
    return None


def _tanager_facts(file: Hdf5File, name: str, kind: str) -> CubeFacts:
    """A cube that has its bands first, and wavelengths and the rest as attributes."""
    array, axes = file[name], (0, 1, 2)
    check_array(f"{file.path}: {name}", array)
    if len(array.shape) != 3:
        raise InputError(
            f"{file.path}: {name} has the shape {array.shape}, not bands, rows, columns"
        )
    cube = Variable(name, array, ("band", "y", "x"), attributes_of(array))
    facts = cube_facts(file.path, cube, (), axes, hdf5_layout(array, axes))
    return replace(facts, grid=_tanager_grid(file, kind, *array.shape[1:]))


def _tanager_grid(file: Hdf5File, kind: str, rows: int, cols: int) -> PixelGrid:
    """The grid of an ortho product, by the outer corners of HDF-EOS; a basic one has none."""
    said = _text(file, "HDFEOS INFORMATION/StructMetadata.0").partition('GridName="HYP"')[2]
    said = said if kind == "GRIDS" else ""
    corners = [
        re.search(rf"{corner}=\(([^,)]+),([^,)]+)\)", said)
        for corner in ("UpperLeftPointMtrs", "LowerRightMtrs")
    ]
    try:
        (west, north), (east, south) = (tuple(map(float, at.groups())) for at in corners if at)
    except ValueError:
        west = east = north = south = 0.0
    if not (east > west and north > south):
        log.warning("%s: a Tanager swath without a map grid; its map will have no place", file.path)
        return PixelGrid(rows, cols)
    code = attributes_of(file.root[_TANAGER.format(kind)]).get("epsg_code", "")
    crs = known_crs(file.path, [str(np.asarray(code).ravel()[0])])
    width, height = (east - west) / cols, (north - south) / rows
    return PixelGrid(rows, cols, Affine(width, 0.0, west, 0.0, -height, north), crs)


def _neon(file: Hdf5File, array: str | None) -> CubeFacts | None:
    sites = [
        site for site in file.root if file.object(f"{site}/Reflectance/{_NEON_CUBE}") is not None
    ]
    if len(sites) != 1:
        return None
    base = f"{sites[0]}/Reflectance"
    name = f"{base}/{_NEON_CUBE}"
    if array not in {None, name}:
        return None
    cube = file[name]
    check_array(f"{file.path}: {name}", cube)
    if len(cube.shape) != 3:
        raise InputError(
            f"{file.path}: {name} has the shape {cube.shape}, not rows, columns, bands"
        )
    attributes = attributes_of(cube)
    nodata = attributes.get("Data_Ignore_Value")
    axes = (2, 0, 1)
    layout, blocks = hdf5_layout(cube, axes)
    return CubeFacts(
        parts=(CubePart(name, axes, tuple(range(cube.shape[2]))),),
        grid=_neon_grid(file, f"{base}/Metadata/Coordinate_System", cube.shape[0], cube.shape[1]),
        bands=_neon_bands(file, base, cube.shape[2]),
        dtype=cube.dtype.newbyteorder("=").name,
        nodata=None if nodata is None else float(np.asarray(nodata).ravel()[0]),
        layout=layout,
        blocks=blocks,
    )


def _neon_bands(file: Hdf5File, base: str, count: int) -> Bands:
    """Wavelengths, and the windows of water vapour as bad bands."""
    spectral = f"{base}/Metadata/Spectral_Data"
    centres, widths = (_small(file, f"{spectral}/{name}", count) for name in ("Wavelength", "FWHM"))
    if centres is None:
        return Bands(count, ("",) * count)
    good = np.ones(count)
    windows = attributes_of(file.root[base])
    for name in _NEON_WINDOWS:
        window = np.asarray(windows.get(name, ()), np.float64).ravel()
        if len(window) == 2:
            low, high = window
            good[(centres >= low) & (centres <= high)] = 0
    return bands_of_lists(
        count,
        centres.tolist(),
        "nm",
        fwhm=None if widths is None else widths.tolist(),
        good=good.tolist() if not good.all() else None,
    )


def _small(file: Hdf5File, name: str, count: int) -> np.ndarray[Any, Any] | None:
    array = file.get(name)
    return None if array is None or array.shape != (count,) else np.asarray(array[...], np.float64)


def _neon_grid(file: Hdf5File, base: str, rows: int, cols: int) -> PixelGrid:
    """From the `map info` of an ENVI header, which NEON keeps as text."""
    parts = [part.strip() for part in _text(file, f"{base}/Map_Info").strip("{}").split(",")]
    said = [_text(file, f"{base}/{name}") for name in ("EPSG Code", "Coordinate_System_String")]
    crs = known_crs(file.path, said)
    try:
        col, row, x, y, width, height = (float(part) for part in parts[1:7])
    except ValueError:
        log.warning("%s: its Map_Info cannot be read; its map will have no place", file.path)
        return PixelGrid(rows, cols)
    # ENVI counts from 1, from the outer corner of the first pixel.
    left, top = x - (col - 1) * width, y + (row - 1) * height
    return PixelGrid(rows, cols, Affine(width, 0.0, left, 0.0, -height, top), crs)


def _text(file: Hdf5File, name: str) -> str:
    array = file.get(name)
    if array is None or array.size != 1:
        return ""
    value = np.asarray(array[()]).ravel()[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

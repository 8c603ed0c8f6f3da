"""Cubes in Zarr groups and arrays, of version 2 or 3, on disk or on S3.

What the axes are and where the pixels lie is said in the ways of xarray, rioxarray, GeoZarr and
GDAL: names of dimensions, coordinate arrays, a `spatial_ref`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsiclust.conventions import Variable, cube_facts, find_axes, find_nodata
from hsiclust.cube import CubeFacts, StoredArray, check_array, describe_layout
from hsiclust.errors import InputError
from hsiclust.location import (
    UNREADABLE,
    Location,
    is_there,
    is_virtual,
    location,
    storage_errors,
    zarr_store,
)
from hsiclust.validity import valid_pixels

if TYPE_CHECKING:
    import zarr

_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_NO_CHUNKS = (*_METADATA, ".zattrs")
_DEEPEST = 3
_VIRTUAL = "/vsis3/"


def is_zarr(name: str) -> bool:
    """Whether a name means a Zarr group or array; asks no server.

    On disk by its metadata, on a server by a part of its name that ends in .zarr.
    """
    folder = Path(name)
    if folder.is_dir():
        return any((folder / each).is_file() for each in _METADATA)
    return is_virtual(name) and any(part.endswith(".zarr") for part in name.split("/"))


def zarr_location(name: str) -> Location:
    """Where a Zarr scene lies.

    Raises:
        InputError: On a server that does not speak S3.
    """
    if name.startswith(_VIRTUAL):
        name = f"s3://{name.removeprefix(_VIRTUAL)}"
    where = location(name)
    if isinstance(where, Path) and not where.is_dir():
        raise InputError(f"{name}: Zarr is read from disk and from s3:// alone; copy it there")
    return where


def zarr_cube(name: str) -> CubeFacts:
    """Describe the cube that a name means.

    Args:
        name: A Zarr array, or a group with one cube in it.

    Raises:
        InputError: It cannot be opened, or there is no one cube whose band axis is known.
        StorageError: S3 does not answer, or refuses.
    """
    where = zarr_location(name)
    with storage_errors(where):
        return _describe(name, where)


def open_zarr(name: str) -> Mapping[str, StoredArray]:
    """The array that a name means, or those of the group, by name.

    Raises:
        InputError: It cannot be opened.
        StorageError: S3 does not answer, or refuses.
    """
    where = zarr_location(name)
    with storage_errors(where):
        return {each.path: each.array for each in _node(name, where)[0]}


@dataclass(frozen=True)
class ZarrArray:
    """An array whose failures to read are those of this program.

    Attributes:
        array: The array.
        where: Where it lies.
    """

    array: zarr.Array[Any]
    where: Location

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type, of either byte order."""
        return np.dtype(self.array.dtype)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of a chunk; of the inner ones where the array has shards."""
        return tuple(self.array.chunks)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Copy a part into memory."""
        with storage_errors(self.where):
            return np.asarray(self.array[key])


def _describe(name: str, where: Location) -> CubeFacts:
    cubes, others = _node(name, where)
    if not cubes:
        raise InputError(f"{name}: holds no array of three axes; name an array or a group with one")
    found = [(each, find_axes(each, others)) for each in cubes]
    clear = [(each, axes) for each, axes in found if axes is not None]
    if len(clear) > 1:
        names = ", ".join(f"{name.rstrip('/')}/{each.path}" for each, _ in clear[:8])
        raise InputError(f"{name}: holds {len(clear)} cubes; name one of them: {names}")
    if not clear:
        raise InputError(
            f"{name}: nothing says which axis of {cubes[0].array.shape} is that of the bands: no "
            "dimension is called so, and no array of wavelengths is as long"
        )
    cube, axes = clear[0]
    check_array(name, cube.array)
    _check_stored(cube, others)
    return cube_facts(name, cube, others, axes, _layout(cube, axes))


def _node(name: str, where: Location) -> tuple[list[Variable], list[Variable]]:
    """Cubes that a name can mean, and what lies beside them."""
    import zarr

    try:
        node = zarr.open(zarr_store(where), mode="r")
        if isinstance(node, zarr.Group):
            variables = _variables(node, where)
            return [each for each in variables if each.is_cube], variables
        cube = _variable("", node, where)
        return [cube] if cube.is_cube else [], _beside(where.parent)
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{name}: there is no Zarr group or array of this name") from error
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: cannot be opened as Zarr: {reason}") from error


def _beside(group: Location) -> list[Variable]:
    """What lies in the folder of an array, if that is a group."""
    import zarr

    try:
        return _variables(zarr.open_group(zarr_store(group), mode="r"), group)
    except OSError:
        return []


def _variables(group: zarr.Group, where: Location) -> list[Variable]:
    import zarr

    members = group.members(max_depth=_DEEPEST)
    return [
        _variable(path, member, where / path)
        for path, member in members
        if isinstance(member, zarr.Array)
    ]


def _variable(path: str, array: zarr.Array[Any], where: Location) -> Variable:
    attributes = dict(array.attrs)
    _refuse_pickle(array, where)
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = names or attributes.get("_ARRAY_DIMENSIONS") or ()
    dims = tuple(str(name or "").lower() for name in names)
    if len(dims) != len(array.shape):
        dims = ("",) * len(array.shape)
    if find_nodata(attributes) is None and _is_nodata(array.fill_value):
        attributes["_FillValue"] = array.fill_value
    return Variable(path, ZarrArray(array, where), dims, attributes)


def _is_nodata(fill: Any) -> bool:
    """Whether chunks that were never written say so: every array has 0 if nobody chose."""
    return isinstance(fill, int | float | np.number) and bool(np.isfinite(fill)) and fill != 0


def _refuse_pickle(array: zarr.Array[Any], where: Location) -> None:
    """Version 2 knows a codec that runs whatever a chunk says."""
    codecs = (*array.filters, *array.compressors)
    if any(getattr(codec, "codec_id", None) == "pickle" for codec in codecs):
        raise InputError(f"{where}: its values are pickled, which may run any code; not read")


def _check_stored(cube: Variable, others: list[Variable]) -> None:
    """Check that arrays are there, of which the metadata of their group may be all that is left.

    Raises:
        InputError: One is not, or nothing of the cube; Zarr would give the fill value for it.
    """
    for each in (cube, *others):
        stored = _stored(each)
        # A server is asked for the cube alone: each question takes its time.
        if (each is cube or isinstance(stored.where, Path)) and not is_there(stored.where):
            raise InputError(
                f"{stored.where}: is not there, although the metadata of its group name this "
                "array; copy the scene again, it was cut short"
            )
    stored = _stored(cube)
    if isinstance(stored.where, Path) and not _has_chunks(stored.where):
        fill = np.full((1, 1, 1), stored.array.fill_value or 0, stored.dtype)
        if valid_pixels(fill, find_nodata(cube.attributes)).any():
            raise InputError(
                f"{stored.where}: holds no values, its metadata alone; copy the scene again, "
                "it was cut short"
            )


def _has_chunks(folder: Path) -> bool:
    return any(file.is_file() and file.name not in _NO_CHUNKS for file in folder.rglob("*"))


def _stored(variable: Variable) -> ZarrArray:
    if not isinstance(variable.array, ZarrArray):
        raise TypeError(type(variable.array))
    return variable.array


def _layout(cube: Variable, axes: tuple[int, int, int]) -> tuple[str, tuple[int, int]]:
    stored = _stored(cube)
    codec = next(iter(stored.array.compressors), None)
    name = getattr(codec, "codec_id", None) or type(codec).__name__.removesuffix("Codec").lower()
    version = f"Zarr {stored.array.metadata.zarr_format}"
    return describe_layout(version, stored, axes, "uncompressed" if codec is None else str(name))

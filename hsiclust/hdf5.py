"""Cubes in HDF5 and netCDF-4 files.

GDAL's HDF5 driver takes the last two axes of an array for rows and columns. Most hyperspectral
products store the band axis last or in the middle, and come out of it as rasters of columns and
bands, without wavelengths. So the cubes of these files are read here; what is no cube (a mask, a
netCDF-3 file) stays with GDAL.

Links and storage that lead out of the file are not followed: a file from a stranger must not
choose what else is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hsiclust.conventions import Variable, cube_facts, find_axes
from hsiclust.cube import CubeFacts, StoredArray, check_array, describe_layout
from hsiclust.errors import InputError

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUBDATASET = re.compile(
    r'(?P<driver>NETCDF|HDF5):(?:"(?P<quoted>[^"]+)"|(?P<plain>.+?)):(?P<array>[^:"]+)',
    re.IGNORECASE,
)
_SUFFIXES = (".h5", ".he5", ".hdf5", ".nc", ".nc4")
_MOST_OBJECTS = 10_000
_DEEPEST = 32


def split_name(name: str) -> tuple[str, str | None]:
    """The file and the array of a name in GDAL's spelling, `NETCDF:"file.nc":array`."""
    match = _SUBDATASET.fullmatch(name)
    if match is None:
        return name, None
    return match["quoted"] or match["plain"], match["array"].strip("/")


def is_hdf5_name(name: str) -> bool:
    """Whether a name is one that HDF5 and netCDF files have."""
    return split_name(name)[0].lower().endswith(_SUFFIXES)


def is_hdf5(name: str) -> bool:
    """Whether a name means a local HDF5 file, or an array in one."""
    file = Path(split_name(name)[0])
    if not file.is_file():
        return False
    size = file.stat().st_size
    offset = 0
    with file.open("rb") as stream:
        while offset < size:  # HDF5 may begin after a block of the user's, 512 bytes times 2^n
            stream.seek(offset)
            if stream.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
            offset = max(512, 2 * offset)
    return False


class Hdf5File(Mapping[str, "h5py.Dataset"]):
    """An open HDF5 file: its arrays by name, and nothing that lies outside of it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._h5py = _h5py(path)
        try:
            self.root = self._h5py.File(path, "r")
        except OSError as error:
            raise InputError(f"{path}: cannot be opened as HDF5: {error}") from error

    def __getitem__(self, name: str) -> h5py.Dataset:
        """An array.

        Raises:
            KeyError: There is none of this name in this file.
            InputError: Its values lie in another file.
        """
        found = self.object(name)
        if not isinstance(found, self._h5py.Dataset):
            raise KeyError(name)
        if _lies_elsewhere(found):
            raise InputError(
                f"{self.path}: {name}: its values lie in other files, which are not read"
            )
        return found

    def check_inside(self, array: str | None) -> None:
        """Check where values lie before GDAL has them: it reads those of other files.

        Args:
            array: The array that is meant; None for all.

        Raises:
            InputError: They lie in another file, or there is no such array in this one.
        """
        for name in self if array is None else (array,):
            if isinstance(self.wanted(name), self._h5py.Dataset):
                self.__getitem__(name)
        leading_out = None if array is not None else self.root.visititems_links(self._leads_out)
        if leading_out is not None:
            raise InputError(
                f"{self.path}: {leading_out}: leads into another file, which is not read"
            )

    def wanted(self, array: str) -> h5py.Dataset | h5py.Group:
        """What a name means; raises `InputError` where it is nothing in this file."""
        found = self.object(array)
        if found is None:
            held = _some(self.variables())
            raise InputError(f"{self.path}: holds no array {array}; it holds {held}")
        return found

    def _leads_out(self, name: str, link: object) -> str | None:
        return name if isinstance(link, self._h5py.ExternalLink) else None

    def object(self, name: str) -> h5py.Dataset | h5py.Group | None:
        """An array or a group, by hard links alone; GDAL writes blanks in names as underscores."""
        here: Any = self.root
        for part in name.strip("/").split("/"):
            if not isinstance(here, self._h5py.Group):
                return None
            keys = [part] if part in here else [k for k in here if k.replace(" ", "_") == part]
            if not keys or not self._inside(here, keys[0]):
                return None
            here = here[keys[0]]
        return here

    def _inside(self, group: h5py.Group, name: str) -> bool:
        return isinstance(group.get(name, getlink=True), self._h5py.HardLink)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def _names(self) -> list[str]:
        names: list[str] = []
        self._collect(self.root, "", names, {self.root})
        return names

    def _collect(
        self, group: h5py.Group, prefix: str, names: list[str], seen: set[h5py.Group]
    ) -> None:
        """Names of all arrays; of a group that has several names, by the first."""
        for name in group:
            if len(names) >= _MOST_OBJECTS or prefix.count("/") > _DEEPEST:
                raise InputError(
                    f"{self.path}: more than {_MOST_OBJECTS} arrays, or {_DEEPEST} groups within "
                    "each other; copy the cube into a file of its own"
                )
            if not self._inside(group, name):
                continue
            found = group[name]
            if isinstance(found, self._h5py.Group):
                if found not in seen:
                    seen.add(found)
                    self._collect(found, f"{prefix}{name}/", names, seen)
            elif isinstance(found, self._h5py.Dataset):
                names.append(f"{prefix}{name}")

    def variables(self) -> list[Variable]:
        """All arrays that can be read, described."""
        found = []
        for name in self:
            array = self.object(name)
            if array is not None and array.shape is not None and not _lies_elsewhere(array):
                found.append(_variable(name, array))
        return found


def open_hdf5(path: str) -> Mapping[str, StoredArray]:
    """The arrays of a file, by name.

    Raises:
        InputError: It cannot be opened, or the library is missing.
    """
    return Hdf5File(path)


def check_inside(name: str) -> None:
    """Check that GDAL would read no other file behind an HDF5 file; others pass.

    Raises:
        InputError: It would, or the library that can tell is missing.
    """
    if is_hdf5(name):
        file, array = split_name(name)
        Hdf5File(file).check_inside(array)


def general_cube(file: Hdf5File, array: str | None) -> CubeFacts | None:
    """Describe a cube by the names and lengths of what lies in its file.

    Args:
        file: The file.
        array: The array's name; None where the file has to have one cube only.

    Returns:
        None where there is nothing of three axes, which may be a raster of another kind.

    Raises:
        InputError: There are several cubes, or nothing tells which axis the band axis is.
    """
    variables = file.variables()
    cubes = [each for each in variables if each.is_cube]
    if array is not None:
        wanted = file.wanted(array)
        cubes = [each for each in cubes if each.array == wanted]
    if not cubes:
        return None
    found = [(each, find_axes(each, variables)) for each in cubes]
    clear = [(each, axes) for each, axes in found if axes is not None]
    if len(clear) > 1:
        names = ", ".join(f'HDF5:"{file.path}"://{each.path}' for each, _ in clear[:8])
        raise InputError(f"{file.path}: holds {len(clear)} cubes; name one of them: {names}")
    if not clear:
        raise InputError(
            f"{file.path}: nothing says which axis of {cubes[0].path}, {cubes[0].array.shape}, is "
            "that of the bands: no dimension is called so, and no array of wavelengths is as long"
        )
    cube, axes = clear[0]
    check_array(f"{file.path}: {cube.path}", cube.array)
    return cube_facts(file.path, cube, variables, axes, hdf5_layout(file[cube.path], axes))


def hdf5_layout(array: h5py.Dataset, axes: tuple[int, int, int]) -> tuple[str, tuple[int, int]]:
    """How an array lies in its file, in words, and the rows and columns of a chunk."""
    return describe_layout("HDF5", array, axes, array.compression or "uncompressed")


def attributes_of(item: h5py.Dataset | h5py.Group) -> dict[str, Any]:
    """Attributes as values; those of types that NumPy does not have are left out."""
    found = {}
    for name in item.attrs:
        try:
            value = item.attrs[name]
        except (OSError, TypeError, ValueError):
            continue
        found[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def _lies_elsewhere(array: h5py.Dataset) -> bool:
    return bool(array.external or array.is_virtual)


def _variable(name: str, array: h5py.Dataset) -> Variable:
    dims = tuple(_dimension(array, axis) for axis in range(len(array.shape or ())))
    return Variable(name, array, dims, attributes_of(array))


def _dimension(array: h5py.Dataset, axis: int) -> str:
    """Name of a dimension: that of its scale, as netCDF-4 has it, or its label."""
    dimension = array.dims[axis]
    try:
        name = dimension[0].name if len(dimension) else dimension.label
    except (OSError, RuntimeError, ValueError):  # a reference to what is no longer there
        return ""
    return str(name or "").rpartition("/")[2].lower()


def _some(variables: list[Variable]) -> str:
    names = [each.path for each in variables if len(each.array.shape) > 1][:8]
    return ", ".join(names) or "none of two axes or more"


def _h5py(path: str) -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise InputError(
            f"{path}: HDF5 needs a library that is not installed: pip install 'hsiclust[hdf5]'"
        ) from None
    found: ModuleType = h5py
    return found

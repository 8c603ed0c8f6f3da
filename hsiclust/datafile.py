"""Which file a name means, before it is opened."""

from __future__ import annotations

from pathlib import Path

from rasterio.errors import RasterioError

from hsiclust.envi import data_file_of_header
from hsiclust.errors import InputError
from hsiclust.geozarr import is_zarr
from hsiclust.hdf5 import is_hdf5
from hsiclust.rasters import open_quietly
from hsiclust.remote import data_file_names, is_remote, spelled

# What GDAL calls files within others.
_ARCHIVES = ("/vsizip/", "/vsitar/", "/vsigzip/")
# Files beside a raster, which hold none of its pixels.
_BESIDE = (".aux.xml", ".ovr", ".msk")


def data_file(path: str | Path) -> str:
    """The file that holds the pixels: that of an ENVI header, or the path itself.

    Raises:
        InputError: A header without data file.
    """
    name = spelled(path)
    if is_remote(name):
        return _remote_data_file(name)
    file = Path(path)
    if file.suffix.lower() == ".hdr" and file.is_file():
        return str(data_file_of_header(file))
    return str(path)


def files_of(*names: str | Path | None) -> list[str | Path]:
    """What these names mean, with the files that a VRT among them is made of."""
    given = [name for name in names if name is not None]
    vrts = (str(name) for name in given if _is_vrt(str(name)) and Path(name).is_file())
    return given + [source for vrt in vrts for source in vrt_sources(vrt)]


def vrt_sources(vrt: str) -> tuple[str, ...]:
    """Files on disk that GDAL says a VRT is made of, VRTs among them followed.

    Args:
        vrt: Its name.
    """
    found: list[str] = []
    todo = [vrt]
    while todo:
        try:
            with open_quietly(todo.pop()) as dataset:
                names = dataset.files
        except (RasterioError, UnicodeEncodeError):
            continue  # said by whoever reads it
        for file in filter(None, map(_file_on_disk, names)):
            if file not in (vrt, *found) and not file.endswith(_BESIDE):
                found.append(file)
                todo.extend([file] if _is_vrt(file) else [])
    return tuple(found)


def _is_vrt(name: str) -> bool:
    return name.lower().endswith(".vrt")


def _file_on_disk(name: str) -> str | None:
    """The file that GDAL calls so, or the archive that it lies in; None where it is not on disk."""
    prefix = next((prefix for prefix in _ARCHIVES if name.startswith(prefix)), "")
    path = Path(name.removeprefix(prefix))
    places = (path, *path.parents) if prefix else (path,)
    return next((str(place) for place in places if place.is_file()), None)


def _remote_data_file(url: str) -> str:
    """As `data_file`, by asking the server for each name that a data file may have."""
    if not url.lower().endswith(".hdr"):
        return url
    for candidate in data_file_names(url[: -len(".hdr")]):
        try:
            with open_quietly(candidate):
                return candidate
        except RasterioError:
            continue
    raise InputError(f"{url}: no data file beside this ENVI header that can be opened")


def is_container(name: str) -> bool:
    """Whether a name means arrays in a container (HDF5, Zarr), which may be no raster to GDAL."""
    return is_zarr(name) or is_hdf5(name)

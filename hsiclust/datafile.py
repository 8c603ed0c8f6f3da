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

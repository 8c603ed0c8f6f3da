"""Rasters as GDAL opens them: without its warnings, and with failures that say what failed."""

from __future__ import annotations

import math
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what a copy raises; rasterio names it nowhere else
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from hsiclust.cluster import available_processors
from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid, Window
from hsiclust.hdf5 import check_inside, split_name
from hsiclust.location import is_virtual
from hsiclust.remote import explain, gdal_name, gdal_settings, is_remote, refuse_no_file
from hsiclust.validity import Fills

# Opening a file without georeference warns, and hiding a warning is not safe between threads.
_OPENING = threading.Lock()
# GDAL's block cache. Its default, 5 % of the machine's memory, would be most of what a run uses.
GDAL_CACHE_BYTES = 64 * 2**20


@contextmanager
def open_raster(path: str) -> Iterator[DatasetReader]:
    """Open a raster for reading, with failures as `InputError`.

    Raises:
        InputError: The file is not there or is none, GDAL cannot open it, or its values lie in
            others.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path!a}: a file name that is not UTF-8 text; rename the file") from None
    refuse_no_file(path)
    file = split_name(path)[0]
    there = is_virtual(file) or Path(file).exists()
    if file != path and not there:  # the library behind GDAL would say so in twenty lines
        raise InputError(f"{path}: no such file")
    check_inside(path)
    try:
        with open_quietly(path) as dataset:
            yield dataset
    except (RasterioError, OSError) as error:
        if is_remote(path):
            raise InputError(
                f"{path}: cannot be opened: {explain(innermost_message(error))}"
            ) from error
        if not there:
            raise InputError(f"{path}: no such file") from error
        raise InputError(
            f"{path}: cannot be opened as a raster: {innermost_message(error)}"
        ) from error


def open_quietly(path: str) -> DatasetReader:
    """Open a raster without the warning of one that has no place.

    Raises:
        RasterioError: GDAL cannot open it.
    """
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(**gdal_settings(path)):
            return rasterio.open(gdal_name(path))


def innermost_message(error: BaseException) -> str:
    """The last cause's own words, on one line; rasterio's outer error often has none."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def grid_of(dataset: DatasetReader) -> PixelGrid:
    """The pixel grid of an open dataset.

    Raises:
        InputError: It lies nowhere.
    """
    if not np.isfinite(dataset.transform).all():
        raise InputError(
            f"{dataset.name}: its place is no number: {dataset.transform.to_gdal()}; mend the map "
            "info or geotransform in it, or take it out"
        )
    if dataset.transform.is_degenerate:
        raise InputError(
            f"{dataset.name}: its pixels have no area: {dataset.transform.to_gdal()}; mend the map "
            "info or geotransform in it, or take it out"
        )
    crs = dataset.crs.to_wkt() if dataset.crs else None
    return PixelGrid(dataset.height, dataset.width, dataset.transform, crs)


def common_type(path: str, dataset: DatasetReader) -> np.dtype[Any]:
    """The type of all bands, or the smallest that holds those of all.

    Raises:
        InputError: One holds neither integers nor floating numbers.
    """
    names = list(dict.fromkeys(dataset.dtypes))
    for name in names:  # complex integers have a name that NumPy does not know
        if name.startswith("complex") or np.dtype(name).kind not in "iuf":
            raise InputError(f"{path}: holds {name} values; a scene holds integers or floats")
    return np.result_type(*names)


def envi_header(dataset: DatasetReader) -> dict[str, str]:
    """Fields of an ENVI header by their names in lower case: GDAL takes them in any.

    Blanks in them are underscores. Those that are not UTF-8 text are left out.
    """
    fields: dict[str, str] = dataset.tags(ns="ENVI")
    return {key.lower().replace(" ", "_"): value for key, value in fields.items()}


def as_vrt(dataset: DatasetReader) -> bytes:
    """All that GDAL knows of a raster but its values, as XML; of a VRT that is a copy of it.

    Class names are among it, for which rasterio has no word. Empty where GDAL cannot copy it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.vrt"
        with suppress(RasterioError, CPLE_BaseError, SystemError):
            rasterio.shutil.copy(dataset, copy, driver="VRT")
        return copy.read_bytes() if copy.exists() else b""


def image_structure(dataset: DatasetReader) -> dict[str, str]:
    """How a file is stored, in GDAL's words; rasterio's own lack what only some formats have."""
    found: dict[str, str] = dataset.tags(ns="IMAGE_STRUCTURE")
    return found


def band_names(dataset: DatasetReader) -> list[str] | None:
    """What a file calls its bands, "" where it has no name; None where that is no UTF-8 text."""
    try:
        return [name or "" for name in dataset.descriptions]
    except UnicodeDecodeError:
        return None


def loose_place(dataset: DatasetReader) -> str | None:
    """What alone says where a raster lies on the ground, where that is not its grid; in words."""
    if dataset.transform != Affine.identity():
        return None
    if dataset.gcps[0]:
        return "control points (GCPs)"
    return "rational polynomials (RPCs)" if dataset.rpcs is not None else None


def has_mask(dataset: DatasetReader) -> bool:
    """Whether a mask says for all bands which pixels are valid; an alpha band is a band."""
    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def mask_file(path: str) -> tuple[str, ...]:
    """The file beside a raster that holds its mask; none where it lies within."""
    file = f"{path}.msk"
    return (file,) if Path(file).is_file() else ()


class GdalReader:
    """Reads through rasterio, one open dataset a thread.

    Args:
        path: What GDAL opens.
        kept: Bytes that GDAL has to keep for each thread; see `kept_bytes`.
        dtype: What all bands are read as: their own type, or one that holds those of all.
        fills: What stands for no data in each band; all are read as the scene's.
        threads: How many read at once; one a processor when None.
    """

    def __init__(
        self, path: str, kept: int, dtype: str, fills: Fills, threads: int | None = None
    ) -> None:
        self.path = path
        self.kept = kept
        self.dtype = np.dtype(dtype)
        self.fills = fills
        self.threads = threads
        self._handles = threading.local()

    def __reduce__(self) -> tuple[type[GdalReader], tuple[str, int, str, Fills, int | None]]:
        return GdalReader, (self.path, self.kept, self.dtype.name, self.fills, self.threads)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GdalReader) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def shared_by(self, threads: int) -> GdalReader:
        """The same, for so many threads."""
        return GdalReader(self.path, self.kept, self.dtype.name, self.fills, threads)

    def read(
        self,
        window: Window,
        bands: Sequence[int],
        room: NDArray[np.generic] | None = None,
    ) -> NDArray[np.generic]:
        """Copy a window into memory: `(band, row, col)`, bands counted from 0.

        Args:
            window: Rows and columns.
            bands: Bands, counted from 0.
            room: One-dimensional memory to use, in the reader's data type; new when None.

        Raises:
            InputError: GDAL cannot read or decode the file.
        """
        shape = (len(bands), window.rows, window.cols)
        if room is None:
            block: NDArray[np.generic] = np.empty(shape, self.dtype)
        else:
            block = room[: math.prod(shape)].reshape(shape)
        with self._reading(window) as (dataset, there):
            kinds = [dataset.dtypes[band] for band in bands]
            if len(set(kinds)) == 1:
                dataset.read([band + 1 for band in bands], out=block, window=there)
            else:
                for kind in set(kinds):  # rasterio reads bands of one type at a time
                    places = [place for place, own in enumerate(kinds) if own == kind]
                    block[places] = dataset.read([bands[at] + 1 for at in places], window=there)
        self.fills.unify(block, bands)
        return block

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """Pixels of a window that the file's own mask says are valid, `(row, col)`.

        Raises:
            InputError: GDAL cannot read or decode the mask.
        """
        with self._reading(window) as (dataset, there):
            found: NDArray[np.bool_] = dataset.read_masks(1, window=there) != 0
            return found

    @contextmanager
    def _reading(self, window: Window) -> Iterator[tuple[DatasetReader, RasterioWindow]]:
        """This thread's dataset, and the window in rasterio's words; failures are `InputError`."""
        there = RasterioWindow(window.col, window.row, window.cols, window.rows)
        try:
            with rasterio.Env(GDAL_CACHEMAX=self._cache, **gdal_settings(self.path)):
                yield self._dataset(), there
        except (RasterioError, OSError) as error:
            # GDAL says once that a source of a VRT is gone; asked again it gives zeros for it.
            vars(self._handles).pop("dataset", None)
            raise InputError(
                f"{self.path}: rows {window.row} to {window.row_stop - 1}, columns {window.col} "
                f"to {window.col_stop - 1} cannot be read: {innermost_message(error)}"
            ) from error

    @property
    def _cache(self) -> int:
        """Bytes of GDAL's cache of blocks, which all threads share."""
        return max(GDAL_CACHE_BYTES, self.kept * (self.threads or available_processors()))

    def _dataset(self) -> DatasetReader:
        if not hasattr(self._handles, "dataset"):
            self._handles.dataset = open_quietly(self.path)
        dataset: DatasetReader = self._handles.dataset
        return dataset


def block_bytes(dataset: DatasetReader) -> int:
    """Bytes that GDAL unpacks at once: of a block one band, or all where they lie together."""
    rows, cols = dataset.block_shapes[0]
    together = image_structure(dataset).get("INTERLEAVE", "").lower() == "pixel"
    largest = max(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    return int(rows * cols * largest * (dataset.count if together else 1))


def kept_bytes(dataset: DatasetReader) -> int:
    """Blocks are read whole, once: GDAL need not keep them, but those of many bands in one piece.

    Where the values of a pixel lie together GDAL unpacks a block for all bands at once; without
    room for that, for each thread, it would do so again for every band.
    """
    return 2 * block_bytes(dataset)

"""The map that people open: COG, GeoTIFF or ENVI, with colours, class names and provenance.

Labels are streamed to a raw file in a hidden folder beside the output, a VRT says what they
are, and one of GDAL's own drivers makes the map from it: only GDAL knows how each format spells
colours and names. The map is read back before it is moved to its name.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what GDAL's copy raises; rasterio names it nowhere else
from rasterio.errors import RasterioError

from hsiclust.errors import HsiclustError, UsageError
from hsiclust.georef import check_grid, make_exact
from hsiclust.grid import PixelGrid, Window
from hsiclust.mapformat import Driver, MapFormat, refuse_header_of_another
from hsiclust.output import remove
from hsiclust.palette import UNCLASSIFIED, Classes
from hsiclust.rasters import innermost_message, open_raster

_UNSURE = 255  # confidence of pixels that have no class
_GDAL_CACHE_BYTES = 64 * 2**20


class LabelSource(Protocol):
    """Anything that gives the class numbers of a window of the map."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Labels 0..K, `(row, col)`."""
        ...


def write_map(
    source: LabelSource, grid: PixelGrid, output: Path, classes: Classes, form: MapFormat
) -> None:
    """Write a label map, replacing what `output` names.

    Args:
        source: Gives the labels, window by window; 0 is unclassified, and nodata.
        grid: Shape, transform and CRS of the map; exactly what is read back from it.
        output: File to write.
        classes: Names and colours of labels 1..K.
        form: Driver, block, creation options, tags.

    Raises:
        UsageError: A creation option is not understood, or an ENVI header cannot hold the grid.
        HsiclustError: The map cannot be written; nothing is left behind.
    """
    _write(source, grid, output, form, _Layer("MODE", 0, len(classes), classes))


def write_confidence(source: LabelSource, grid: PixelGrid, output: Path, form: MapFormat) -> None:
    """Write a confidence map: 0 to 100 per cent, nodata 255; else as `write_map`."""
    _write(source, grid, output, form, _Layer("AVERAGE", _UNSURE, 100, None))


def rehearse_map(grid: PixelGrid, output: Path, classes: Classes, form: MapFormat) -> None:
    """Write a map of one pixel elsewhere, to learn now what would fail after all the work.

    Raises:
        UsageError: As `write_map`.
    """
    corner = PixelGrid(1, 1, grid.transform, grid.crs)
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Path(folder) / output.name
        try:
            write_map(_Blank(), corner, rehearsal, classes, form)
        except UsageError as error:
            raise UsageError(str(error).replace(str(rehearsal), str(output))) from None


@dataclass(frozen=True)
class _Blank:
    """Labels of a map without a class."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        return np.zeros((window.rows, window.cols), np.uint8)


@dataclass(frozen=True)
class _Layer:
    """What the values mean: overview resampling, nodata, largest value, classes."""

    resampling: str
    nodata: int
    largest: int
    classes: Classes | None


def _write(
    source: LabelSource, grid: PixelGrid, output: Path, form: MapFormat, layer: _Layer
) -> None:
    folder = output.with_name(f".{output.name}.partial")
    made = folder / "map" / output.name  # under its own name: drivers derive others from it
    if form.driver == "ENVI":
        refuse_header_of_another(output)
    try:
        remove(folder)
        folder.mkdir()
        made.parent.mkdir()
        checksum = _stage(source, grid, folder / "labels.raw", form.block, layer)
        _describe(folder / "labels.vrt", grid, form, layer)
        with _creation_complaints(output), rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES):
            options = form.options(layer.resampling)
            rasterio.shutil.copy(folder / "labels.vrt", made, driver=form.driver, **options)
        make_exact(made, grid, form.driver)
        check_grid(made, output, grid, form.driver)
        _check_values(made, grid, form.block, checksum)
        _publish(made, output)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        if isinstance(error, HsiclustError):
            raise
        raise HsiclustError(f"{output}: cannot be written: {innermost_message(error)}") from error
    finally:
        remove(folder)


def _stage(source: LabelSource, grid: PixelGrid, raw: Path, block: int, layer: _Layer) -> int:
    """Write the values row by row; returns their checksum."""
    checksum = 0
    with raw.open("wb") as file:
        for window in _strips(grid, block):
            values = source.read(window)
            if values.shape != (window.rows, window.cols) or values.dtype != np.uint8:
                raise UsageError(f"{values.dtype} labels {values.shape} given for {window}")
            wrong = values[(values > layer.largest) & (values != layer.nodata)]
            if wrong.size:
                raise UsageError(f"label {wrong[0]} in {window}, the largest is {layer.largest}")
            data = values.tobytes()
            checksum = zlib.crc32(data, checksum)
            file.write(data)
    return checksum


def _strips(grid: PixelGrid, rows: int) -> Iterator[Window]:
    for row in range(0, grid.rows, rows):
        yield Window(row, 0, min(rows, grid.rows - row), grid.cols)


def _describe(vrt: Path, grid: PixelGrid, form: MapFormat, layer: _Layer) -> None:
    """Write the VRT that says all that GDAL is to know of the staged values."""
    root = ElementTree.Element("VRTDataset", rasterXSize=str(grid.cols), rasterYSize=str(grid.rows))
    if grid.crs is not None:
        _add(root, "SRS", grid.crs)
    if grid.georeferenced:
        _add(root, "GeoTransform", ", ".join(repr(float(v)) for v in grid.transform.to_gdal()))
    metadata = _add(root, "Metadata")
    for key, value in sorted(form.tags.items()):
        _add(metadata, "MDI", value, key=key)
    band = _add(root, "VRTRasterBand", dataType="Byte", band="1", subClass="VRTRawRasterBand")
    _add(band, "NoDataValue", str(layer.nodata))
    if layer.classes is not None:
        _add_classes(band, layer.classes, form.driver)
    _add(band, "SourceFilename", "labels.raw", relativetoVRT="1")
    layout = {"ImageOffset": 0, "PixelOffset": 1, "LineOffset": grid.cols}
    for name, number in layout.items():
        _add(band, name, str(number))
    ElementTree.ElementTree(root).write(vrt, encoding="utf-8")


def _add_classes(band: ElementTree.Element, classes: Classes, driver: Driver) -> None:
    _add(band, "ColorInterp", "Palette")
    colours = _add(band, "ColorTable")
    _add(colours, "Entry", c1="0", c2="0", c3="0", c4="0")
    for red, green, blue in classes.colours:
        _add(colours, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")
    # An ENVI header has no way to quote what separates its lists.
    envi = str.maketrans(",{}", ";()")
    categories = _add(band, "CategoryNames")
    for name in (UNCLASSIFIED, *classes.names):
        _add(categories, "Category", name.translate(envi) if driver == "ENVI" else name)


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text
    return child


@contextmanager
def _creation_complaints(output: Path) -> Iterator[None]:
    """Make an error of a creation option that GDAL did not understand and only warned about.

    A misspelt `COMPRESS` would otherwise give an uncompressed map.
    """
    complaints = _Complaints()
    logger = logging.getLogger("rasterio._env")
    level = logger.level
    if not logger.isEnabledFor(logging.WARNING):
        logger.setLevel(logging.WARNING)
    logger.addHandler(complaints)
    failure = None
    try:
        yield
    except CPLE_BaseError as error:
        failure = error
    finally:
        logger.removeHandler(complaints)
        logger.setLevel(level)
    if complaints.heard:
        raise UsageError(f"{output}: {complaints.heard[0]}") from failure
    if failure is not None:
        raise failure


class _Complaints(logging.Handler):
    """What GDAL says about creation options, in the thread that made this."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.get_ident()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        about_options = "creation option" in message or "not recognised" in message
        if record.thread == self.thread and about_options:
            self.heard.append(message.partition(" in ")[2])


def _check_values(made: Path, grid: PixelGrid, block: int, expected: int) -> None:
    """Read the map back: GDAL does not report every write that failed."""
    checksum = 0
    with open_raster(str(made)) as dataset:
        for window in _strips(grid, block):
            values: NDArray[np.uint8] = dataset.read(
                1, window=((window.row, window.row_stop), (window.col, window.col_stop))
            )
            checksum = zlib.crc32(values.tobytes(), checksum)
    if checksum != expected:
        raise HsiclustError(
            f"{made.name}: what was written reads back differently; is the disk full?"
        )


def _publish(made: Path, output: Path) -> None:
    """Move the map and what belongs to it to their names, the map itself last.

    The old map goes first: killed at any moment, there is a whole map or none, and never one
    with another's class names.
    """
    parts = sorted(made.parent.iterdir(), key=lambda part: part == made)
    for part in parts:
        _flush(part)
    for suffix in ("", ".aux.xml", ".ovr", ".msk"):
        output.with_name(output.name + suffix).unlink(missing_ok=True)
    for part in parts:
        part.replace(output.with_name(part.name))


def _flush(file: Path) -> None:
    """Wait until a file is on disk, so that a power cut cannot leave its name without it."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The map that people open: COG, GeoTIFF or ENVI, with colours, class names and provenance.

Labels are streamed to a raw file in a hidden folder beside the output as they are done, a VRT says
what they are, and one of GDAL's own drivers makes the map from it: only GDAL knows how each format
spells colours and names. The map is read back before it is moved to its name.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what GDAL's copy raises; rasterio names it nowhere else
from rasterio.errors import DriverRegistrationError, RasterioError

from hsiclust.errors import HsiclustError, OutputBusyError, UsageError
from hsiclust.georef import check_grid, make_exact
from hsiclust.grid import PixelGrid, Window
from hsiclust.mapformat import MapFormat, refuse_header_of_another
from hsiclust.mapvrt import Layer, write_vrt
from hsiclust.output import remove
from hsiclust.palette import UNSURE, Classes
from hsiclust.pyramid import Merging, Pyramid, levels_of, mean_of_known, most_frequent
from hsiclust.rasters import innermost_message, open_raster

_GDAL_CACHE_BYTES = 64 * 2**20
# Pixels that are taken at once, of a wide map.
_TAKEN_PIXELS = 2**23
# A creation option that a map of one pixel cannot have, although a larger one can.
_OF_SIZE = "OVERVIEW_COUNT"
# What GDAL's copy raises; a `SystemError` where it fails and does not say why. A build of GDAL may
# lack a driver, and `GDAL_SKIP` takes one away.
_COPY_ERRORS = (CPLE_BaseError, DriverRegistrationError, SystemError)
# How we make overviews where GDAL is told to resample.
_MERGING: dict[str, Merging] = {
    "MODE": most_frequent,
    "AVERAGE": partial(mean_of_known, unknown=UNSURE),
}


class LabelSource(Protocol):
    """Anything that gives the class numbers of a window of the map."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Labels 0..K, `(row, col)`."""
        ...


def label_draft(
    source: LabelSource, grid: PixelGrid, output: Path, classes: Classes, form: MapFormat
) -> MapDraft:
    """Begin a label map, which is to replace what `output` names.

    Args:
        source: Gives the labels, window by window; 0 is unclassified, and nodata.
        grid: Shape, transform and CRS of the map; exactly what is read back from it.
        output: File to write.
        classes: Names and colours of labels 1..K.
        form: Driver, block, creation options, tags.

    Raises:
        HsiclustError: Nothing can be written there, once it is entered.
    """
    return MapDraft(source, grid, output, form, Layer("MODE", 0, len(classes), classes))


def confidence_draft(
    source: LabelSource, grid: PixelGrid, output: Path, form: MapFormat
) -> MapDraft:
    """Begin a confidence map: 0 to 100 per cent, nodata 255; else as `label_draft`."""
    return MapDraft(source, grid, output, form, Layer("AVERAGE", UNSURE, 100, None))


def write_map(
    source: LabelSource, grid: PixelGrid, output: Path, classes: Classes, form: MapFormat
) -> None:
    """Write a label map; arguments and errors are those of `label_draft` and `MapDraft`."""
    with label_draft(source, grid, output, classes, form) as draft:
        draft.publish()


def write_confidence(source: LabelSource, grid: PixelGrid, output: Path, form: MapFormat) -> None:
    """Write a confidence map; arguments and errors are those of `confidence_draft`."""
    with confidence_draft(source, grid, output, form) as draft:
        draft.publish()


def rehearse_map(
    grid: PixelGrid, output: Path, classes: Classes, form: MapFormat, *, confidence: bool = False
) -> None:
    """Write maps of one pixel elsewhere, to learn now what would fail after all the work.

    Args:
        grid: Where the map is to lie.
        output: Its name.
        classes: Its classes.
        form: How it is stored.
        confidence: Whether a confidence map is to be stored so as well.

    Raises:
        UsageError: As `write_map`; or GDAL cannot do what the creation options ask for.
        HsiclustError: A map cannot be written even without such options.
    """
    corner = PixelGrid(1, 1, grid.transform, grid.crs)
    creation = {key: value for key, value in form.creation.items() if key.upper() != _OF_SIZE}
    form = replace(form, creation=creation)
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Path(folder) / output.name
        try:
            write_map(_Constant(len(classes)), corner, rehearsal, classes, form)
            if confidence:
                write_confidence(_Constant(UNSURE), corner, rehearsal, form)
        except HsiclustError as error:
            message = str(error).replace(str(rehearsal), str(output))
            asked = isinstance(error, UsageError) or creation
            raise (UsageError if asked else HsiclustError)(message) from None


@dataclass(frozen=True)
class _Constant:
    """Labels of a map that has the largest one everywhere, which takes the most bits."""

    value: int

    def read(self, window: Window) -> NDArray[np.uint8]:
        return np.full((window.rows, window.cols), self.value, np.uint8)


class MapDraft:
    """A map that is being made: its rows are taken as they come, then it gets its name.

    Until then all of it lies in a hidden folder, which is gone at the end in any case.
    """

    def __init__(
        self, source: LabelSource, grid: PixelGrid, output: Path, form: MapFormat, layer: Layer
    ) -> None:
        self._source = source
        self._grid = grid
        self._output = output
        self._form = form
        self._layer = layer
        self._folder = output.with_name(f".{output.name}.partial")
        self._raw = self._folder / "labels.raw"
        self._rows = 0
        self._checksum = 0
        shapes = levels_of(grid.rows, grid.cols, form.side) if form.plain_overviews else []
        merging = _MERGING[layer.resampling]
        self._pyramid = Pyramid(self._folder, (grid.rows, grid.cols), shapes, merging)

    def __enter__(self) -> MapDraft:
        with self._failures():
            remove(self._folder)
            self._folder.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        remove(self._folder)

    def advance(self, rows: int) -> None:
        """Take what can be taken in whole blocks.

        Args:
            rows: So many rows of the map are known by now.

        Raises:
            UsageError: What the source gives are no labels of this map.
            HsiclustError: They cannot be written.
        """
        for window in _strips(self._grid, self._form.block, self._rows):
            if window.row_stop > rows:
                return
            with self._failures():
                self._take(window)
            self._rows = window.row_stop

    def publish(self) -> None:
        """Take the rest, make the map and move it to its name, in place of what is there.

        Raises:
            UsageError: A creation option is not understood, or an ENVI header cannot hold the
                grid; or as `advance`.
            HsiclustError: The map cannot be written; nothing is left behind.
        """
        self.advance(self._grid.rows)
        output, form, grid = self._output, self._form, self._grid
        made = self._folder / "map" / output.name  # under its own name: drivers derive others
        if form.driver == "ENVI":
            refuse_header_of_another(output)
        with self._failures():
            made.parent.mkdir()
            vrt = self._folder / "labels.vrt"
            write_vrt(vrt, self._raw, grid, form, self._layer, self._pyramid.levels)
            # GDAL would keep a twentieth of the machine's memory of what is written and read back.
            with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES):
                with _creation_complaints(output):
                    options = form.options(self._layer.resampling)
                    rasterio.shutil.copy(vrt, made, driver=form.driver, **options)
                make_exact(made, grid, form.driver)
                check_grid(made, output, grid, form.driver)
                _check_values(made, grid, form.block, self._layer.nodata, self._checksum)
            _publish(made, output)
            remove(self._folder)

    def _take(self, window: Window) -> None:
        values = self._source.read(window)
        if values.shape != (window.rows, window.cols) or values.dtype != np.uint8:
            raise UsageError(f"{values.dtype} labels {values.shape} given for {window}")
        wrong = values[(values > self._layer.largest) & (values != self._layer.nodata)]
        if wrong.size:
            raise UsageError(f"label {wrong[0]} in {window}, the largest is {self._layer.largest}")
        data = values.tobytes()
        self._checksum = zlib.crc32(data, self._checksum)
        with self._raw.open("ab") as file:
            if file.tell() != window.row * window.cols:
                raise OutputBusyError(f"{self._output}: another run is writing it")
            file.write(data)
        self._pyramid.add(values)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (RasterioError, *_COPY_ERRORS, OSError) as error:
            if isinstance(error, HsiclustError):
                raise
            reason = innermost_message(error).replace(f"{self._folder}{os.sep}", "")
            raise HsiclustError(f"{self._output}: cannot be written: {reason}") from error


def _strips(grid: PixelGrid, block: int, start: int = 0) -> Iterator[Window]:
    """Rows of blocks from a row on; of a wide map fewer rows at once."""
    rows = max(1, min(block, _TAKEN_PIXELS // grid.cols))
    for row in range(start, grid.rows, rows):
        yield Window(row, 0, min(rows, grid.rows - row), grid.cols)


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
    failure: Exception | None = None
    try:
        yield
    except _COPY_ERRORS as error:
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


def _check_values(made: Path, grid: PixelGrid, block: int, nodata: int, expected: int) -> None:
    """Read the map back: GDAL does not report every write that failed."""
    checksum = 0
    with open_raster(str(made)) as dataset:
        if (dataset.dtypes[0], dataset.nodata) != ("uint8", nodata):
            raise UsageError(
                f"{made.name}: reads back as {dataset.dtypes[0]} with nodata {dataset.nodata}, not "
                f"uint8 with {nodata}; leave out creation options that change values"
            )
        for window in _strips(grid, block):
            values: NDArray[np.uint8] = dataset.read(
                1, window=((window.row, window.row_stop), (window.col, window.col_stop))
            )
            checksum = zlib.crc32(values.tobytes(), checksum)
    if checksum != expected:
        raise HsiclustError(
            f"{made.name}: what was written reads back differently; is the disk full, or does a "
            "creation option change values?"
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

"""The label store: class numbers while a scene is being labelled, one Zarr chunk a tile.

One writer a chunk, and a flag a tile that is set after its labels: a run that was killed goes on
with the tiles whose flag is missing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from errno import ENOENT, ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from hsiclust.errors import HsiclustError, OutputExistsError
from hsiclust.grid import Window
from hsiclust.location import (
    STORE_RECORD,
    UNREADABLE,
    Location,
    is_there,
    names_in,
    open_array,
    open_group,
    put,
    remove_store,
    stamp,
    storage_errors,
    store_location,
    take_away,
    writing,
)
from hsiclust.output import remove
from hsiclust.palette import UNSURE
from hsiclust.readplan import ReadPlan
from hsiclust.records import tiles_from_json
from hsiclust.tilegrid import Tile, TileGrid

if TYPE_CHECKING:
    import zarr

_FORMAT = "hsiclust-labels"
_ARRAYS = ("labels", "confidence", "done")
# With a checksum: a chunk that was damaged is noticed, and labelled again.
_COMPRESSION = Zstd(level=0, checksum=True)
_DONE = np.ones(1, np.uint8)
# Of an error that says that there is no store; those of Zarr itself have no number.
_NOT_THERE = (None, ENOENT, ENOTDIR)


@dataclass(frozen=True)
class Record:
    """What a run keeps when it goes on.

    Attributes:
        reading: How the area is cut and read.
        precision: What the network computes in.
    """

    reading: ReadPlan
    precision: str


@dataclass(frozen=True)
class LabelStore:
    """Labels of an area of a scene.

    Attributes:
        path: The Zarr group, on disk or on S3 (`s3://bucket/x.zarr`).
        reading: How the area is cut and read; chunks are cores.
        precision: What the network computes in.
    """

    path: Location
    reading: ReadPlan
    precision: str = "float32"

    @property
    def tiles(self) -> TileGrid:
        """How the area is cut."""
        return self.reading.tiles

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", store_location(self.path))

    def open_or_create(self, run: str, overwrite: bool) -> None:
        """Go on with the store of the same run, or make an empty one; under the output's lock.

        A store of another run without one tile that is done is replaced: nothing is lost with it,
        and a model that was refused at its first tile is not in the way of the right one.

        Args:
            run: Hash of scene, grid and model; a store of another run is never gone on with.
            overwrite: Replace a store of another run, whatever it holds.

        Raises:
            OutputExistsError: There is a store of another run, or anything else.
            HsiclustError: It cannot be written.
        """
        if self._is_of(run):
            return
        if _attributes(self.path) and not overwrite and self._may_hold_labels():
            raise OutputExistsError(
                f"{self.path}: holds an unfinished run with another scene, model or tile size; "
                "--overwrite discards it"
            )
        if not _attributes(self.path) and not self._is_hidden and is_there(self.path):
            raise OutputExistsError(
                f"{self.path}: is there and is no label store; remove it, or name another --store"
            )
        remove_store(self.path)
        with writing(self.path, "labels"):
            self._create_whole(run)

    def _may_hold_labels(self) -> bool:
        """Whether a tile of the store that is there is done, whoever began it, or may be soon."""
        if not isinstance(self.path, Path):  # no lock keeps others from one on S3
            return True
        try:
            open_array(self.path, "done", "r")
            return bool(self._done())
        except UNREADABLE:
            return True

    @property
    def _is_hidden(self) -> bool:
        """Whether the store has the name that no one but a run gives, whatever is left of it."""
        return self.path.name.startswith(".") and self.path.name.endswith(".labels.zarr")

    def remove(self) -> None:
        """Remove the store, if it is there."""
        remove_store(self.path)

    @staticmethod
    def record_of_run(path: str | Path, run: str) -> Record | None:
        """How an unfinished run of this hash at `path` works, if there is one.

        A run that goes on keeps its tiles, whatever memory the machine has now.
        """
        attributes = _attributes(store_location(path))
        if attributes.get("run") != run:
            return None
        try:
            return Record(_reading_from_json(attributes["reading"]), str(attributes["precision"]))
        except (KeyError, TypeError, ValueError):
            return None

    def refuse_other(self, run: str) -> None:
        """Check, before a tile is written, that the store still is that of a run.

        A worker of a standing cluster ends its strip when the run was stopped; another run may
        have the store's place by then.

        Raises:
            HsiclustError: It is gone, or that of another run.
        """
        try:
            same = _run_of(self.path, stamp(self.path / STORE_RECORD)) == run
        except LookupError:
            same = False
        if not same:
            raise HsiclustError(f"{self.path}: is gone, or the store of another run by now")

    def missing(self) -> list[int]:
        """Tiles that are not labelled yet."""
        done = self._done()
        return [index for index in range(len(self.tiles)) if index not in done]

    def missing_of(self, tiles: range) -> list[int]:
        """Those of neighbouring tiles that are not labelled yet."""
        if isinstance(self.path, Path):
            return [index for index in tiles if not self._is_done(index)]
        done = self._array("done")[tiles.start : tiles.stop]  # asks for all at the same time
        return [tiles[int(place)] for place in np.flatnonzero(done == 0)]

    def _done(self) -> set[int]:
        """Tiles whose flag is there; one that is taken back is gone."""
        return {int(name) for name in names_in(self.path / "done" / "c") if name.isdecimal()}

    def _is_done(self, index: int) -> bool:
        return is_there(self._chunk("done", (index,)))

    def _chunk(self, name: str, place: tuple[int, ...]) -> Location:
        """Where a chunk of an array lies."""
        key: str = self._array(name).metadata.encode_chunk_key(place)
        return self.path / name / key

    def write(
        self, tile: Tile, labels: NDArray[np.uint8], confidence: NDArray[np.uint8] | None
    ) -> None:
        """Write one tile's core, `(row, col)`, then its flag.

        Raises:
            HsiclustError: It cannot be written; its flag is not set.
        """
        place = divmod(tile.index, self.tiles.across)
        with writing(self.path, "labels"):
            self._put("labels", place, labels)
            if confidence is not None:
                self._put("confidence", place, confidence)
            self._put("done", (tile.index,), _DONE)

    def _put(self, name: str, place: tuple[int, ...], values: NDArray[np.uint8]) -> None:
        """Write a whole chunk as Zarr would, in the thread that asks for it.

        Zarr hands a chunk to its event loop, and that to two more threads. Each waits for the
        interpreter, which the threads that label hold: 3 % of a labelling.
        """
        array = self._array(name)
        if values.shape != array.chunks:  # at the edge of the area
            whole = np.full(array.chunks, array.fill_value, np.uint8)
            whole[tuple(map(slice, values.shape))] = values
            values = whole
        data = _COMPRESSION.encode(np.ascontiguousarray(values, np.uint8))
        put(self._chunk(name, place), data)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Labels of a window of the area, `(row, col)`; 0 where there are none yet.

        Raises:
            HsiclustError: Labels that were written are damaged, or gone.
        """
        return self._read("labels", window, written=True)

    def read_confidence(self, window: Window, written: bool) -> NDArray[np.uint8]:
        """Confidence of a window of the area in per cent, `(row, col)`; 255 where there is none.

        Args:
            window: Rows and columns.
            written: Whether it came with the labels: then it has to be there.

        Raises:
            HsiclustError: What was written is damaged, or gone.
        """
        return self._read("confidence", window, written)

    def _read(self, name: str, window: Window, written: bool) -> NDArray[np.uint8]:
        try:
            with storage_errors(self.path):
                values = np.asarray(self._array(name)[window.slices], np.uint8)
                if written:
                    self._check_there(name, window, values)
        except (RuntimeError, ValueError) as error:  # what Zarr's codecs raise
            self._forget(window)
            raise HsiclustError(
                f"{self.path}: labels of rows {window.row} to {window.row_stop - 1} are damaged "
                f"({error}); the same command labels them again"
            ) from error
        return values

    def _check_there(self, name: str, window: Window, values: NDArray[np.uint8]) -> None:
        """Check that the chunks of a window were read: for one that is gone Zarr gives its fill.

        Raises:
            ValueError: One is gone whose flag is set.
        """
        fill = self._array(name).fill_value
        for part in window.cut(self.tiles.tile_rows, self.tiles.tile_cols):
            if (values[part.relative_to(window).slices] != fill).any():
                continue
            row, col = place = self._place(part)
            if is_there(self._chunk(name, place)):
                continue
            if self._is_done(row * self.tiles.across + col):
                raise ValueError("a chunk is gone")

    def _forget(self, window: Window) -> None:
        """Take back the flags of all tiles that meet a window of the area."""
        for part in window.cut(self.tiles.tile_rows, self.tiles.tile_cols):
            row, col = self._place(part)
            take_away(self._chunk("done", (row * self.tiles.across + col,)))

    def _place(self, part: Window) -> tuple[int, int]:
        """The chunk in which a part of the area begins."""
        return part.row // self.tiles.tile_rows, part.col // self.tiles.tile_cols

    def _create_whole(self, run: str) -> None:
        """Make a store that appears at once, however many make it at the same moment."""
        if not isinstance(self.path, Path):
            self._create(run)
            return
        beside = self.path.with_name(f"{self.path.name}.{os.urandom(8).hex()}")
        try:
            replace(self, path=beside)._create(run)
            beside.rename(self.path)
        except BaseException as error:
            remove(beside)
            another_was_first = self.record_of_run(self.path, run) is not None
            if not (isinstance(error, OSError) and another_was_first):
                raise

    def _create(self, run: str) -> None:
        group = open_group(self.path, "w")
        shape = (self.tiles.area.rows, self.tiles.area.cols)
        chunks = (min(self.tiles.tile_rows, shape[0]), min(self.tiles.tile_cols, shape[1]))
        for name, fill in (("labels", 0), ("confidence", UNSURE)):
            _create_array(group, name, shape, chunks, fill)
        _create_array(group, "done", (len(self.tiles),), (1,), 0)
        # Written last: a store without it was never finished and belongs to no run.
        record = asdict(Record(self.reading, self.precision))
        group.attrs.update({"format": _FORMAT, "run": run, **record})

    def _is_of(self, run: str) -> bool:
        attributes = _attributes(self.path)
        same = attributes.get("run") == run and attributes.get("reading") == asdict(self.reading)
        return same and all(is_there(self.path / name / STORE_RECORD) for name in _ARRAYS)

    def _array(self, name: str) -> Any:
        return _opened(self, name)


def _create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], fill: int
) -> None:
    """An array whose chunks are compressed as `LabelStore.write` does."""
    compressor = ZstdCodec(level=_COMPRESSION.level, checksum=_COMPRESSION.checksum)
    group.create_array(
        name, shape=shape, chunks=chunks, dtype="uint8", fill_value=fill, compressors=compressor
    )


@functools.lru_cache(maxsize=12)
def _opened(store: LabelStore, name: str) -> Any:
    """An array of a store; one opened earlier knows no more than what the store itself says."""
    return open_array(store.path, name, "r+")


@functools.lru_cache(maxsize=4)
def _run_of(path: Location, stamped: tuple[object, ...]) -> str:
    """The run of a store whose record is in this state: it is asked before each tile.

    Raises:
        LookupError: There is none, or it could not be read: that is not remembered.
    """
    run = _attributes(path).get("run") if stamped else None
    if run is None:
        raise LookupError
    return str(run)


def _reading_from_json(value: Mapping[str, Any]) -> ReadPlan:
    """The plan that `dataclasses.asdict` turned into JSON."""
    rest = {key: value[key] for key in ("panel", "first", "height")}
    return ReadPlan(tiles_from_json(value["tiles"]), **rest)


def _attributes(path: Location) -> dict[str, Any]:
    """What a store says of itself; nothing where there is none, or one that was never finished.

    Raises:
        HsiclustError: The system does not let it be read, so nobody knows whose labels it holds.
    """
    try:
        attributes = dict(open_group(path, "r").attrs)
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno not in _NOT_THERE:
            raise HsiclustError(
                f"{path}: cannot be read: {error.strerror}; it may hold labels of a run, so see to "
                "its permissions, or remove it"
            ) from error
        return {}
    return attributes if attributes.get("format") == _FORMAT else {}

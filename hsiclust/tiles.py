"""The tile store: overlapping tiles of a transformed scene, one Zarr chunk a tile.

Training reads its crops from here for many epochs; `predict` can label from here. A chunk holds
one whole tile with its halo, so that two writers never share a chunk, and a flag of its own says
that the tile was written. Every chunk of it is written then, also one that holds nothing but the
fill value, which Zarr gives for a chunk that is gone as well.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from hsiclust.bands import Bands
from hsiclust.components import Components
from hsiclust.errors import InputError, UsageError
from hsiclust.grid import PixelGrid, Window
from hsiclust.location import (
    UNREADABLE,
    Location,
    S3Url,
    is_there,
    location,
    may_be_store,
    open_array,
    open_group,
    remove_store,
    storage_errors,
    writing,
)
from hsiclust.records import bands_from_json, grid_from_json, grid_to_json, tiles_from_json
from hsiclust.spectra import SpectralTransform
from hsiclust.tilegrid import Tile, TileGrid

if TYPE_CHECKING:
    from zarr.core.array_spec import ArrayConfigLike

_FORMAT = "hsiclust-tiles"
_VERSION = 2
_DTYPE = np.dtype(np.float16)
_LARGEST_HALF = 65504.0
_LARGEST_TRANSFORM = 2**24
_LARGEST_TILE = 2**31 - 1  # bytes of its components: more are not compressed
# Each has a flag in a file of its own; scenes have a hundredth of it.
_MOST_TILES = 2**20
_FLAGS_AT_ONCE = 2**14  # Zarr takes kilobytes for each
_TRANSFORM_ARRAYS = ("mean", "scale", "matrix", "eigenvalues", "weights")


@dataclass(frozen=True)
class TileStore:
    """Tiles of one scene on disk.

    Attributes:
        path: The Zarr group, on disk or on S3 (`s3://bucket/x.zarr`).
        scene: Name of the scene that was tiled.
        grid: Its pixel grid.
        tiles: How it was cut.
        transform: How its bands became components.
        sensor: What the scene said about its bands.
        source: Hash of the scene's file: path, size, time.
        fitted: How the transform was fitted to this scene, where it was; "" else.
        created: Given to each store on disk when it is made; "" until then.
    """

    path: Location
    scene: str
    grid: PixelGrid
    tiles: TileGrid
    transform: SpectralTransform
    sensor: Bands
    source: str = ""
    fitted: str = ""
    created: str = ""

    def __post_init__(self) -> None:
        if self.tiles.scene != self.grid.window:
            raise UsageError(f"tiles of {self.tiles.scene} are not of its grid")
        count = self.tiles.down * self.tiles.across
        if count > _MOST_TILES:
            raise UsageError(
                f"{count} tiles of {self.tiles.tile_rows} x {self.tiles.tile_cols} "
                f"pixels, where a store has {_MOST_TILES} at most; make larger ones"
            )
        if self.chunk_bytes > _LARGEST_TILE:
            raise UsageError(
                f"a tile of {self.chunk_bytes} bytes, where {_LARGEST_TILE} are the most; "
                "make smaller ones"
            )

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the components of a tile with its halo."""
        return math.prod(self._tile_shape()) * self.transform.components * _DTYPE.itemsize

    @property
    def identity(self) -> str:
        """What decides the pixels; two stores never share it, even of the same scene."""
        return f"{self.content} {self.created}"

    @property
    def content(self) -> str:
        """Hash of everything that decides what the tiles hold."""
        text = json.dumps(self._attributes(), sort_keys=True)
        digest = hashlib.sha256(text.encode())
        for name in _TRANSFORM_ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self.transform, name)).tobytes())
        return digest.hexdigest()

    def open_or_create(self) -> bool:
        """Go on with the same store, or make an empty one; returns whether it was there."""
        if self._is_on_disk():
            return True
        remove_store(self.path)
        self.create()
        return False

    def is_unfinished(self) -> bool:
        """Whether this very store is on disk and lacks tiles."""
        return self._is_on_disk() and bool(self.missing())

    def _is_on_disk(self) -> bool:
        if not is_tile_store(self.path):
            return False
        try:
            return TileStore.open(self.path).content == self.content
        except InputError:  # damaged, or of another version
            return False

    def create(self) -> None:
        """Make the store, with no tile in it; replaces whatever is there.

        Raises:
            HsiclustError: It cannot be written.
        """
        with writing(self.path, "tiles"):
            self._create()

    def _create(self) -> None:
        group = open_group(self.path, "w")
        for name, (shape, dtype) in self._arrays().items():
            codec: BloscCodec | Literal["auto"] = "auto"
            if name == "components":
                codec = BloscCodec(cname="lz4", shuffle="bitshuffle")
            chunks = (1, *shape[1:])
            group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, compressors=codec)
        fitted = group.create_group("transform")
        for name in _TRANSFORM_ARRAYS:
            fitted.create_array(name, data=np.asarray(getattr(self.transform, name)))
        # Written last: a store without them was never finished and does not open.
        group.attrs.update({**self._attributes(), "created": secrets.token_hex(8)})

    @classmethod
    def open(cls, path: str | Path | S3Url) -> TileStore:
        """Open a store.

        Raises:
            InputError: There is no store, or it is not one of this program's.
            StorageError: S3 does not answer, or refuses.
        """
        where = location(path)
        try:
            with storage_errors(where):
                return cls._opened(where)
        except UNREADABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: cannot be opened as a tile store: {error}") from error

    @classmethod
    def _opened(cls, path: Location) -> TileStore:
        group = open_group(path, "r")
        attributes = dict(group.attrs)
        if attributes.get("format") != _FORMAT:
            raise InputError(f"{path}: is no tile store")
        if attributes.get("version") != _VERSION:
            raise InputError(
                f"{path}: a tile store of another version than {_VERSION}, which this hsiclust "
                "reads; make it again with `tile --overwrite`"
            )
        store = cls._from_attributes(path, group, attributes)
        store._check_arrays(group)
        return store

    def missing(self) -> list[int]:
        """Tiles that are not written yet."""
        return [int(index) for index in np.flatnonzero(self._flags() == 0)]

    def written(self) -> list[int]:
        """Tiles that are written."""
        return [int(index) for index in np.flatnonzero(self._flags())]

    def _flags(self) -> NDArray[np.uint8]:
        found = np.empty(len(self.tiles), np.uint8)
        with storage_errors(self.path):
            array = self._array("done")
            for start in range(0, len(found), _FLAGS_AT_ONCE):
                part = slice(start, start + _FLAGS_AT_ONCE)
                found[part] = array[part]
        return found

    def write(self, tile: Tile, components: Components) -> None:
        """Write one tile, then its flag.

        A core at the area's edge may be smaller than the others; the rest of its chunk stays
        zero and not valid.

        Raises:
            HsiclustError: It cannot be written; its flag is not set.
        """
        values = components.values.clamp(-_LARGEST_HALF, _LARGEST_HALF).to(torch.float16)
        rows, cols = components.valid.shape
        with writing(self.path, "tiles"):
            self._array("components")[tile.index, :, :rows, :cols] = values.cpu().numpy()
            self._array("valid")[tile.index, :rows, :cols] = components.valid.cpu().numpy()
            self._array("done")[tile.index] = 1

    def read(self, tile: Tile) -> Components:
        """Read one tile: `(C, core + 2 halo)`, float32.

        Raises:
            InputError: The tile was never written.
        """
        values, valid = self.read_chunk(tile.index)
        rows = tile.core.rows + 2 * self.tiles.halo
        cols = tile.core.cols + 2 * self.tiles.halo
        return Components(
            torch.from_numpy(values[:, :rows, :cols].astype(np.float32)),
            torch.from_numpy(valid[:rows, :cols]),
        )

    def valid_pixels(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of a window of the grid are valid, `(row, col)`; none that is not written.

        Raises:
            InputError: A tile is damaged.
        """
        found = np.zeros((window.rows, window.cols), bool)
        halo, written = self.tiles.halo, self._flags()
        for tile in self.tiles.meeting(window):
            if not written[tile.index]:
                continue
            shared = tile.core.shared_with(window) or tile.core
            valid = self.read_chunk(tile.index)[1]
            inner = valid[halo : halo + tile.core.rows, halo : halo + tile.core.cols]
            found[shared.relative_to(window).slices] = inner[shared.relative_to(tile.core).slices]
        return found

    def read_chunk(self, index: int) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """A whole chunk: components `(C, rows, cols)`, and valid pixels `(rows, cols)`.

        Raises:
            InputError: The tile was never written, or is damaged.
        """
        try:
            with storage_errors(self.path):
                written = bool(self._array("done")[index])
                values, valid = (self._array(name)[index] for name in ("components", "valid"))
                if written:
                    self._check_there("components", index, values)
                    self._check_there("valid", index, valid)
        except (RuntimeError, ValueError) as error:  # what Zarr's codecs raise
            raise InputError(
                f"{self.path}: tile {index} is damaged ({error}); make the store again"
            ) from error
        if not written:
            raise InputError(f"{self.path}: tile {index} was never written; run `tile` again")
        return values, valid

    def _check_there(self, name: str, index: int, values: NDArray[Any]) -> None:
        """Check that a tile's chunk was read: for one that is gone Zarr gives its fill.

        Raises:
            ValueError: It is gone.
        """
        if values.view(f"u{values.itemsize}").any():  # as integers: halves take 15 times as long
            return
        array = self._array(name)
        place = (index, *(0 for _ in values.shape))
        if not is_there(self.path / name / array.metadata.encode_chunk_key(place)):
            raise ValueError(f"its chunk of {name} is gone")

    def _array(self, name: str) -> Any:
        if not self.created:
            return _open_array(self.path, name)
        return _kept_array(self.path, name, self.created)

    def _check_arrays(self, group: zarr.Group) -> None:
        """Compare the arrays on disk with what the attributes say, before one is read."""
        for name, (shape, dtype) in self._arrays().items():
            found = group[name]
            if not isinstance(found, zarr.Array) or found.shape != shape:
                raise InputError(f"{self.path}: damaged: array {name} is not of shape {shape}")
            if found.dtype != dtype or found.fill_value != 0:
                raise InputError(f"{self.path}: damaged: array {name} is not of {dtype} and zeros")
            if found.chunks != (1, *shape[1:]) or found.shards is not None:
                raise InputError(f"{self.path}: damaged: array {name} has not a chunk a tile")

    def _arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shapes and types of the arrays; a chunk of each is that of one tile."""
        tile, count = self._tile_shape(), len(self.tiles)
        return {
            "components": ((count, self.transform.components, *tile), _DTYPE),
            "valid": ((count, *tile), np.dtype(bool)),
            "done": ((count,), np.dtype(np.uint8)),
        }

    def _tile_shape(self) -> tuple[int, int]:
        halo = 2 * self.tiles.halo
        return self.tiles.tile_rows + halo, self.tiles.tile_cols + halo

    def _attributes(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "scene": self.scene,
            "source": self.source,
            "grid": grid_to_json(self.grid),
            "tiles": asdict(self.tiles),
            "kind": self.transform.kind,
            "bands": list(self.transform.bands),
            "sensor": asdict(self.sensor),
            "fitted": self.fitted,
        }

    @classmethod
    def _from_attributes(
        cls, path: Location, group: zarr.Group, attributes: Mapping[str, Any]
    ) -> TileStore:
        arrays = {name: _floats(group[f"transform/{name}"]) for name in _TRANSFORM_ARRAYS}
        transform = SpectralTransform(
            kind="pca" if attributes["kind"] == "pca" else "mnf",
            bands=tuple(int(band) for band in attributes["bands"]),
            **arrays,
        )
        return cls(
            path=path,
            scene=str(attributes["scene"]),
            source=str(attributes["source"]),
            created=str(attributes["created"]),
            grid=grid_from_json(attributes["grid"]),
            tiles=tiles_from_json(attributes["tiles"]),
            transform=transform,
            sensor=bands_from_json(attributes["sensor"]),
            fitted=str(attributes.get("fitted", "")),
        )


def is_tile_store(path: str | Path | S3Url) -> bool:
    """Whether a path or an S3 URL is a Zarr group of this format.

    Raises:
        StorageError: S3 does not answer, or refuses.
    """
    where = location(path)
    if not may_be_store(where):
        return False
    try:
        return dict(open_group(where, "r").attrs).get("format") == _FORMAT
    except UNREADABLE:
        return False


@functools.lru_cache(maxsize=64)
def _kept_array(path: Location, name: str, created: str) -> Any:
    """An array of one store, opened once a process: on S3 opening takes as long as reading."""
    del created  # of a store that took another's place the arrays are others
    return _open_array(path, name)


def _open_array(path: Location, name: str) -> Any:
    """An array that writes every chunk, also one of nothing but the fill value."""
    found = open_array(path, name, "r+")
    config: ArrayConfigLike = {"write_empty_chunks": True}
    return zarr.Array(zarr.AsyncArray(found.metadata, found.store_path, config))


def _floats(array: Any) -> NDArray[np.float64]:
    if array.size > _LARGEST_TRANSFORM:
        raise InputError(f"damaged: a transform of {array.size} numbers")
    return np.asarray(array[:], np.float64)

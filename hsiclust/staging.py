"""Staging: a scene's tiles, transformed, into a tile store, on all workers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hsiclust.bands import Bands, match_bands
from hsiclust.components import SceneComponents
from hsiclust.engine import EngineOptions, run_tiles
from hsiclust.errors import InputError, UsageError
from hsiclust.grid import Window
from hsiclust.location import Location, remove_store
from hsiclust.remote import absolute_name
from hsiclust.scene import Scene
from hsiclust.spectra import SpectralTransform
from hsiclust.tilegrid import TileGrid, even_tile_size
from hsiclust.tiles import TileStore

_OPENING = threading.Lock()


@dataclass(frozen=True)
class TileShape:
    """Largest side of a core, and the halo around it, in pixels."""

    side: int = 128
    halo: int = 16

    def __post_init__(self) -> None:
        if self.side < 1 or self.halo < 0:
            raise UsageError(f"tiles of {self.side} pixels with a halo of {self.halo}: not tiles")


@dataclass(frozen=True)
class StagingJob:
    """What a worker needs to stage tiles; small, and equal only for the same work.

    Attributes:
        scene: The scene's path.
        nodata: Its nodata value.
        store: The tile store's path; holds grid and transform.
        identity: The tile store's hash.
    """

    scene: str
    nodata: float | None
    store: str
    identity: str


def plan_store(
    scene: Scene,
    area: Window,
    transform: SpectralTransform,
    sensor: Bands,
    path: Location,
    shape: TileShape,
) -> TileStore:
    """Describe the store of a scene's tiles; nothing is written yet.

    Tiles of nearly equal size: a thin last row of tiles would be mostly halo.

    Raises:
        ModelError: The scene's bands are not those of the transform.
    """
    match_bands(transform.bands, sensor, scene.bands, scene.path)
    window = scene.grid.window
    rows, cols = (even_tile_size(length, shape.side) for length in (area.rows, area.cols))
    tiles = TileGrid(window, area, rows, cols, shape.halo)
    return TileStore(path, scene.name, scene.grid, tiles, transform, sensor, source=scene.identity)


def stage_tiles(
    scene: Scene, store: TileStore, indices: Sequence[int], engine: EngineOptions
) -> Iterator[int]:
    """Write tiles of a scene to a store; yields each tile's number when it is written.

    Raises:
        HsiclustError: A tile failed for good.
        InputError: The scene became another meanwhile; the store is gone then.
    """
    names = scene.path, str(store.path)
    if engine.standing:  # its workers have folders of their own
        names = absolute_name(scene.path), absolute_name(str(store.path))
    job = StagingJob(names[0], scene.nodata, names[1], store.identity)
    for index, _ in run_tiles(stage_tile, job, indices, engine):
        yield index
    if scene.identity != store.source:
        remove_store(store.path)
        raise InputError(f"{scene.path}: is not what it was when its tiles were begun; start again")


def stage_tile(job: StagingJob, index: int) -> int:
    """Read, transform and write one tile; returns its number of valid pixels."""
    with _OPENING:  # threads that come first wait for each other
        source, store = _opened(job)
    tile = store.tiles[index]
    components = source.read(tile)
    store.write(tile, components)
    return int(components.valid.sum())


@functools.lru_cache(maxsize=2)
def _opened(job: StagingJob) -> tuple[SceneComponents, TileStore]:
    """Scene and store, opened once a process for each job."""
    store = TileStore.open(job.store)
    scene = Scene.open(job.scene, job.nodata)
    cpu = torch.device("cpu")
    return SceneComponents.of(scene, store.transform, store.sensor, cpu), store

"""What a training learns from: a bounded, spread choice of tiles of each source."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hsiclust.crops import StoredTiles
from hsiclust.engine import EngineOptions
from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid
from hsiclust.modelfile import FittedModel
from hsiclust.recipe import area_of, mask_of
from hsiclust.scene import Scene
from hsiclust.staging import TileShape, plan_store, spread_tiles, stage_tiles
from hsiclust.tiles import TileStore, is_tile_store
from hsiclust.trainoptions import TrainOptions
from hsiclust.truth import open_truth

log = logging.getLogger(__name__)


def staged_path(output: Path, number: int) -> Path:
    """Where a training of this model stages its scene of this number."""
    return output.with_name(f".{output.name}.{number}.tiles.zarr")


def lesson_tiles(
    sources: Sequence[str], model: FittedModel, output: Path, options: TrainOptions
) -> list[StoredTiles]:
    """Tiles to learn from: of the stores as they are, of the scenes through staging.

    Args:
        sources: Scenes and tile stores.
        model: Whose transform they need, and whose method says how much context.
        output: The model file to be; scenes are staged beside it.
        options: Budget, mask, bounds, seed.

    Raises:
        InputError: A source, the mask or the map to match cannot be used.
    """
    budget = options.most_pixels(model.method) // len(sources)
    context = model.method.crop_shape.context
    tiles = []
    for number, source in enumerate(sources):
        if is_tile_store(source):
            store = TileStore.open(source)
            _check_store(store, model, context)
            mask = mask_of(store.grid, options)
            chosen = spread_tiles(store.tiles, store.written(), budget, mask, options.seed)
        else:
            scene = Scene.open(source, options.nodata)
            area = area_of(scene.grid, options.bounds)
            path = staged_path(output, number)
            store = plan_store(
                scene, area, model.transform, model.sensor, path, TileShape(halo=context)
            )
            mask = mask_of(scene.grid, options)
            chosen = spread_tiles(store.tiles, range(len(store.tiles)), budget, mask, options.seed)
            _check_match(options, scene.grid)
            _stage_scene(scene, store, chosen, options.engine)
        tiles.append(StoredTiles(store, chosen, mask))
    return tiles


def _check_match(options: TrainOptions, grid: PixelGrid) -> None:
    """Open the map to match now, not after the training."""
    if options.match_to is not None:
        open_truth(options.match_to, grid)


def _stage_scene(
    scene: Scene, store: TileStore, chosen: Sequence[int], engine: EngineOptions
) -> None:
    """Stage the chosen tiles, less those that an earlier, killed run of the same staged."""
    if store.open_or_create():
        log.info("%s: using tiles that an earlier run staged", scene.path)
    missing = set(store.missing())
    log.info("%s: staging %d tiles", scene.path, len(missing.intersection(chosen)))
    for _ in stage_tiles(scene, store, [index for index in chosen if index in missing], engine):
        pass


def _check_store(store: TileStore, model: FittedModel, context: int) -> None:
    if not store.transform.equals(model.transform):
        raise InputError(
            f"{store.path}: made with another spectral transform than the model or the first store"
        )
    if store.tiles.halo < context:
        raise InputError(
            f"{store.path}: its tiles have a halo of {store.tiles.halo} pixels and this training "
            f"needs {context}; tile again with --halo {context}"
        )

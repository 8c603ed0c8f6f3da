"""The verb `tile`: a whole scene into a tile store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hsiclust.caveats import warn_of_header
from hsiclust.datafile import files_of
from hsiclust.engine import EngineOptions
from hsiclust.errors import InputError, OutputExistsError, UsageError
from hsiclust.grid import Bounds, Window
from hsiclust.location import Location, is_there, locked_location, remove_store, store_location
from hsiclust.modelfile import load_model
from hsiclust.output import refuse_inputs, refuse_long_name, refuse_missing_folder
from hsiclust.recipe import area_of
from hsiclust.sample import Region, TransformOptions, fit_to_scenes
from hsiclust.scene import Scene
from hsiclust.spectra import SpectralTransform
from hsiclust.staging import TileShape, plan_store, stage_tiles
from hsiclust.tiles import TileStore, is_tile_store


@dataclass(frozen=True)
class TileOptions:
    """How a scene is tiled.

    Attributes:
        shape: Largest side of a core, and the halo around it.
        transform: How the spectral transform is fitted.
        model: Model whose transform is taken instead.
        bounds: West, south, east, north; the whole scene when None.
        nodata: Overrides the scene's nodata value.
        seed: Of the sample that the transform is fitted to.
        overwrite: Replace an existing store.
        engine: Where tiles are worked on.
    """

    shape: TileShape = field(default_factory=TileShape)
    transform: TransformOptions = field(default_factory=TransformOptions)
    model: str | Path | None = None
    bounds: Bounds | None = None
    nodata: float | None = None
    seed: int = 0
    overwrite: bool = False
    engine: EngineOptions = EngineOptions()


def tile(
    path: str,
    output: str | Path,
    options: TileOptions,
    progress: Callable[[int, int], None] | None = None,
) -> TileStore:
    """Write a scene's tiles, transformed, to a Zarr store.

    A run that was killed goes on when it is started again with the same arguments.

    Args:
        path: The scene.
        output: The store; a folder or `s3://bucket/x.zarr`.
        options: How.
        progress: Called with tiles done and tiles in all.

    Raises:
        InputError: The scene cannot be used.
        OutputExistsError: A finished store is there.
        UsageError: Anything else is, the store's folder is not, or an option is out of range.
        StorageError: S3 does not answer, or refuses.
    """
    where = store_location(output)
    if isinstance(where, Path):
        refuse_long_name(where)
        refuse_inputs(where, *files_of(path, options.model))
        refuse_missing_folder(where)
    if is_there(where) and not is_tile_store(where):
        raise UsageError(f"{output}: is there and is no tile store; name another output")
    scene = Scene.open(path, options.nodata)
    warn_of_header(scene)
    area = area_of(scene, options.bounds)
    fitted = ""
    if options.model is not None:
        model = load_model(Path(options.model))
        transform, sensor = model.transform, model.sensor
    else:
        fitted = json.dumps([asdict(options.transform), options.seed])
        sensor = scene.bands
        transform = _transform_there(where, scene, area, fitted) or fit_to_scenes(
            [Region(scene, area)], options.transform, options.seed
        )
    store = plan_store(scene, area, transform, sensor, where, options.shape)
    store = replace(store, fitted=fitted)
    with locked_location(where):
        if is_there(where) and not (options.overwrite or store.is_unfinished()):
            raise OutputExistsError(f"{output}: is there already; --overwrite replaces it")
        if not store.is_unfinished():
            remove_store(where)
        store.open_or_create()
        todo = store.missing()
        done = len(store.tiles) - len(todo)
        for _ in stage_tiles(scene, store, todo, options.engine):
            done += 1
            if progress is not None:
                progress(done, len(store.tiles))
    return TileStore.open(where)


def _transform_there(
    where: Location, scene: Scene, area: Window, fitted: str
) -> SpectralTransform | None:
    """The transform of an unfinished store of the same scene that was fitted in the same way.

    Fitted again on other processors it would differ in its last digits.
    """
    if not is_tile_store(where):
        return None
    try:
        store = TileStore.open(where)
    except InputError:  # damaged, or of another version
        return None
    same = (store.source, store.tiles.area, store.fitted) == (scene.identity, area, fitted)
    return store.transform if same and store.missing() else None

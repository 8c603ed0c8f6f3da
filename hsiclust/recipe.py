"""What a training starts from: the transform, and a method that has learned nothing yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hsiclust.bands import Bands
from hsiclust.errors import NoOverlapError, UsageError
from hsiclust.grid import Bounds, PixelGrid, Window
from hsiclust.modelfile import FittedModel, load_model
from hsiclust.newmethod import new_method, succeeded
from hsiclust.numbering import Numbering
from hsiclust.palette import Classes
from hsiclust.sample import Region, fit_to_scenes
from hsiclust.scene import Scene
from hsiclust.spectra import SpectralTransform
from hsiclust.tiles import TileStore, is_tile_store
from hsiclust.trainoptions import TrainOptions
from hsiclust.truth import Mask, Unlabelled, open_mask

log = logging.getLogger(__name__)

_CLASSES = 16


def initial_model(
    sources: Sequence[str], options: TrainOptions, numbering: Numbering | None = None
) -> FittedModel:
    """The model that a training starts from: a fresh one, or `options.init`.

    Args:
        sources: Scenes and tile stores.
        options: What is asked for.
        numbering: The classes of the labels, if there are any.

    Raises:
        InputError: A scene or store cannot be used.
        ModelError: `options.init` cannot be used.
        UsageError: Options that contradict the store or the model to go on from.
    """
    unlabelled = options.chosen_method == "contrastdm" and numbering is None
    classes = Classes.numbered(options.classes or (1 if unlabelled else _CLASSES))
    if numbering is not None:
        classes = numbering.classes
    if options.init is not None:
        return succeeded(load_model(Path(options.init)), classes, options)
    transform, sensor, nodata = _transform(sources, options)
    method = new_method(transform.components, len(classes), options)
    return FittedModel(method, transform, sensor, nodata, classes)


def mask_of(grid: PixelGrid, options: TrainOptions) -> Mask | None:
    """The mask on a scene's grid; of several scenes one that it does not meet is all outside."""
    if options.mask is None:
        return None
    try:
        return open_mask(options.mask, grid)
    except NoOverlapError as error:
        log.warning("%s", error)
        return Mask(Unlabelled())


def area_of(scene: Scene, bounds: Bounds | None) -> Window:
    """The window of bounds in map units, or the whole scene.

    Raises:
        UsageError: The bounds are none, or do not meet the scene.
    """
    if bounds is None:
        return scene.grid.window
    try:
        return scene.grid.window_of_bounds(*bounds)
    except UsageError as error:  # of several scenes, which?
        raise UsageError(f"{scene.path}: {error}") from None


def _transform(
    sources: Sequence[str], options: TrainOptions
) -> tuple[SpectralTransform, Bands, float | None]:
    """Transform, sensor and nodata: of the first store if there is one, else fitted."""
    stores = [source for source in sources if is_tile_store(source)]
    if stores:
        if options.kind or options.components or options.bands:
            raise UsageError(
                f"{stores[0]}: a tile store has its transform already; "
                "--transform, --components and --bidx belong to `tile`"
            )
        store = TileStore.open(stores[0])
        return store.transform, store.sensor, None
    scenes = [Scene.open(source, options.nodata) for source in sources]
    regions = [
        Region(scene, area_of(scene, options.bounds), mask_of(scene.grid, options))
        for scene in scenes
    ]
    transform = fit_to_scenes(regions, options.transform, options.seed)
    return transform, scenes[0].bands, scenes[0].nodata

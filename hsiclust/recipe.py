"""What a training starts from: the transform, and a method that has learned nothing yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from hsiclust.bands import Bands
from hsiclust.errors import NoOverlapError, UsageError
from hsiclust.grid import PixelGrid, Window
from hsiclust.modelfile import FittedModel, load_model
from hsiclust.models.base import Method
from hsiclust.models.contrastdm import ContrastDm
from hsiclust.models.forest import Forest
from hsiclust.models.kmeans import KMeans
from hsiclust.models.sscc import Sscc
from hsiclust.models.svm import Svm
from hsiclust.numbering import Numbering
from hsiclust.palette import Classes
from hsiclust.sample import Region, fit_to_scenes
from hsiclust.scene import Scene
from hsiclust.spectra import SpectralTransform
from hsiclust.tiles import TileStore, is_tile_store
from hsiclust.trainoptions import Bounds, TrainOptions
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
    if options.init is not None:
        model = load_model(options.init)
        _check_init(model, options)
        return model
    transform, sensor, nodata = _transform(sources, options)
    classes = Classes.numbered(options.classes or _CLASSES)
    if numbering is not None:
        classes = numbering.classes
    method = new_method(transform.components, len(classes), options)
    return FittedModel(method, transform, sensor, nodata, classes)


def new_method(components: int, classes: int, options: TrainOptions) -> Method:
    """An unfitted method; its weights are drawn from the seed."""
    chosen = options.chosen_method
    if chosen == "kmeans":
        smoothing = {} if options.smoothing is None else {"smoothing": options.smoothing}
        return KMeans(components, classes, **smoothing)
    if chosen == "svm":
        return Svm(components, classes)
    if chosen == "forest":
        return Forest(components, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if chosen == "contrastdm":
            return ContrastDm(components, classes, options.contrastdm_settings)
        return Sscc(components, classes, options.settings)


def _check_init(model: FittedModel, options: TrainOptions) -> None:
    """Refuse settings that differ from those of the model to go on from."""
    config = model.method.config()
    settled = {
        "method": (options.method, model.method.name),
        "classes": (options.classes, model.method.classes),
        "recipe": (options.recipe, None),
        "smoothing": (options.smoothing, config.get("smoothing")),
        "transform": (options.kind, model.transform.kind),
        "components": (options.components, model.transform.components),
        "bidx": (options.bands, None),
        "teacher": (options.teacher, None),
        "contrast": (options.contrast, None),
    }
    for name, (asked, has) in settled.items():
        if asked is not None and asked != has:
            raise UsageError(
                f"--{name} {asked} does not go with --init {options.init}, which settles it"
                + ("" if has is None else f" as {has}")
            )


def mask_of(grid: PixelGrid, options: TrainOptions) -> Mask | None:
    """The mask on a scene's grid; of several scenes one that it does not meet is all outside."""
    if options.mask is None:
        return None
    try:
        return open_mask(options.mask, grid)
    except NoOverlapError as error:
        log.warning("%s", error)
        return Mask(Unlabelled())


def area_of(grid: PixelGrid, bounds: Bounds | None) -> Window:
    """The window of bounds in map units, or the whole grid."""
    return grid.window if bounds is None else grid.window_of_bounds(*bounds)


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
        Region(scene, area_of(scene.grid, options.bounds), mask_of(scene.grid, options))
        for scene in scenes
    ]
    transform = fit_to_scenes(regions, options.transform, options.seed)
    return transform, scenes[0].bands, scenes[0].nodata

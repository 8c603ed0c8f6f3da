"""What a training starts from: options, the defaults of each method, the transform."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hsiclust.bands import Bands
from hsiclust.engine import EngineOptions
from hsiclust.errors import NoOverlapError, UsageError
from hsiclust.grid import PixelGrid, Window
from hsiclust.modelfile import FittedModel, load_model
from hsiclust.models.base import LARGEST_CLASSES, Method
from hsiclust.models.kmeans import LARGEST_SMOOTHING, KMeans
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc
from hsiclust.palette import Classes
from hsiclust.sample import Region, TransformOptions, fit_to_scenes
from hsiclust.scene import Scene
from hsiclust.spectra import Kind, SpectralTransform
from hsiclust.tiles import TileStore, is_tile_store
from hsiclust.truth import Mask, Unlabelled, open_mask

log = logging.getLogger(__name__)

Bounds = tuple[float, float, float, float]

_METHOD = "sscc"
_CLASSES = 16
# Components that each method learns from, unless the user asks for another number.
_COMPONENTS = {"kmeans": 20, "default": 30, "contrast": 12, "paper": 8}
# Most pixels that each method learns from: SSCC's teacher looks at every one of them, closely.
_BUDGETS = {"kmeans": 2**22, "sscc": 2**18}


@dataclass(frozen=True)
class TrainOptions:
    """How a model is fitted.

    Attributes:
        method: "sscc" (when None) or "kmeans".
        classes: Number of clusters K; 16 when None.
        recipe: Of SSCC: "default" (when None), or "paper": objective, encoder and schedule as
            published, patch by patch.
        teacher: Of SSCC: whether a consensus teacher takes part; it does when None.
        contrast: Of SSCC: whether the twin contrast takes part; it does when None.
        smoothing: Of k-means: deviation of the Gaussian in pixels; its default when None.
        steps: Training steps; the method's own number when None.
        epochs: Passes over the pixels instead.
        kind: Spectral transform; "mnf", or "pca" for the paper's recipe, when None.
        components: Components to keep; the method's own number when None.
        bands: Bands to use, such as "1,3..50", counted from 1.
        mask: Raster or vector file; only pixels > 0 or inside are learned from.
        bounds: West, south, east, north; only this part is learned from.
        nodata: Overrides the scenes' nodata value.
        init: Model to go on from.
        match_to: Map whose class numbers the clusters are to take over.
        budget: Most pixels that are learned from; the method's own number when None.
        seed: Of everything random.
        device: Where the network learns.
        overwrite: Replace an existing model.
        engine: Where tiles are staged.
    """

    method: str | None = None
    classes: int | None = None
    recipe: str | None = None
    teacher: bool | None = None
    contrast: bool | None = None
    smoothing: float | None = None
    steps: int | None = None
    epochs: float | None = None
    kind: Kind | None = None
    components: int | None = None
    bands: str | None = None
    mask: Path | None = None
    bounds: Bounds | None = None
    nodata: float | None = None
    init: Path | None = None
    match_to: Path | None = None
    budget: int | None = None
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    engine: EngineOptions = EngineOptions()

    def __post_init__(self) -> None:
        if self.method not in (None, "sscc", "kmeans"):
            raise UsageError(f"method {self.method!r} is unknown: sscc or kmeans")
        if self.recipe not in (None, "default", "paper"):
            raise UsageError(f"recipe {self.recipe!r} is unknown: default or paper")
        if self.classes is not None and not 2 <= self.classes <= LARGEST_CLASSES:
            raise UsageError(f"{self.classes} classes: 2 to {LARGEST_CLASSES} can be told apart")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("give steps or epochs, not both")
        if min(1 if value is None else value for value in (self.steps, self.budget)) < 1:
            raise UsageError("steps and budget must be positive")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise UsageError(f"{self.epochs} epochs: give a positive number")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed {self.seed} is not within 0..{2**32 - 1}")
        if self.smoothing is not None and not 0 <= self.smoothing <= LARGEST_SMOOTHING:
            raise UsageError(
                f"smoothing of {self.smoothing} pixels is not within 0..{LARGEST_SMOOTHING:g}"
            )
        if self.init is None:
            self._check_method()

    def _check_method(self) -> None:
        """Refuse what belongs to another method, or leaves nothing to learn."""
        ours = (self.recipe, self.teacher, self.contrast)
        if self.method == "kmeans" and ours != (None, None, None):
            raise UsageError("recipe, teacher and contrast belong to SSCC; k-means has none")
        if self.teacher is False and self.contrast is False:
            raise UsageError("without teacher and without contrast nothing can be learned")
        if self.recipe == "paper" and ours != ("paper", None, None):
            raise UsageError("the paper's recipe has no teacher and is all contrast")
        if self.method != "kmeans" and self.smoothing is not None:
            raise UsageError("smoothing belongs to k-means; SSCC has none")

    @property
    def transform(self) -> TransformOptions:
        """The spectral transform that the method wants, with what the user asked for."""
        paper = self.recipe == "paper"
        recipe = "paper" if paper else "contrast" if self.teacher is False else "default"
        recipe = "kmeans" if self.method == "kmeans" else recipe
        return TransformOptions(
            kind=self.kind or ("pca" if paper else "mnf"),
            components=self.components,
            most_components=_COMPONENTS[recipe],
            bands=self.bands,
            whiten=paper,
        )

    @property
    def settings(self) -> SsccConfig:
        """SSCC as it was asked for."""
        if self.recipe == "paper":
            return SsccConfig.paper()
        if self.teacher is False:
            return SsccConfig.contrast_only()
        if self.contrast is False:
            return SsccConfig(instance_weight=0.0, cluster_weight=0.0)
        return SsccConfig()

    def most_pixels(self, method: Method) -> int:
        """Most pixels that a method is to learn from."""
        return self.budget or _BUDGETS[method.name]


def initial_model(sources: Sequence[str], options: TrainOptions) -> FittedModel:
    """The model that a training starts from: a fresh one, or `options.init`.

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
    method = new_method(transform.components, options)
    return FittedModel(method, transform, sensor, nodata, Classes.numbered(method.classes))


def new_method(components: int, options: TrainOptions) -> Method:
    """An unfitted method; its weights are drawn from the seed."""
    classes = options.classes or _CLASSES
    if options.method == "kmeans":
        smoothing = {} if options.smoothing is None else {"smoothing": options.smoothing}
        return KMeans(components, classes, **smoothing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
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

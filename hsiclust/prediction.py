"""Labelling a scene: tiles through a model into the label store, then the map.

A run that was killed goes on where it was when it is started again, and gives the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hsiclust import __version__
from hsiclust.components import ComponentSource, SceneComponents
from hsiclust.devices import resolve_device
from hsiclust.engine import EngineOptions, run_tiles
from hsiclust.errors import UsageError
from hsiclust.grid import PixelGrid, TileGrid, Window
from hsiclust.labeller import Labeller
from hsiclust.labelmap import rehearse_map, write_confidence, write_map
from hsiclust.labels import LabelStore
from hsiclust.mapformat import MapFormat, driver_for
from hsiclust.modelfile import FittedModel, file_digest, load_model
from hsiclust.output import locked, refuse_existing, refuse_inputs, remove
from hsiclust.plan import RunPlan, TileLoad, plan_run
from hsiclust.sources import open_source
from hsiclust.tiles import TileStore

log = logging.getLogger(__name__)

Bounds = tuple[float, float, float, float]
_OPENING = threading.Lock()


@dataclass(frozen=True)
class PredictOptions:
    """How a scene is labelled.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        bounds: West, south, east, north in map units; the whole scene when None.
        nodata: Overrides the scene's nodata value.
        tile: Side of a tile's core; from the memory plan when None.
        memory: Bytes that the run may take.
        confidence: Also write the confidence map.
        driver: "COG", "GTiff" or "ENVI"; by the output's suffix when None.
        creation: GDAL creation options of the map.
        overwrite: Replace an existing map, and discard an unfinished run of another model.
        engine: Where tiles are worked on.
    """

    device: str = "auto"
    bounds: Bounds | None = None
    nodata: float | None = None
    tile: int | None = None
    memory: int | None = None
    confidence: bool = False
    driver: str | None = None
    creation: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    engine: EngineOptions = EngineOptions()


@dataclass(frozen=True)
class Prediction:
    """What a run did.

    Attributes:
        map: The label map.
        confidence: The confidence map, if it was asked for.
        pixels: Pixels of the map.
        labelled: Pixels that this run gave a class; resumed tiles are not counted again.
        tiles: Tiles in all.
        resumed: Tiles that an earlier run had done.
        seconds: Time of this run.
    """

    map: Path
    confidence: Path | None
    pixels: int
    labelled: int
    tiles: int
    resumed: int
    seconds: float


@dataclass(frozen=True)
class LabelJob:
    """What a worker needs to label tiles; equal only for the same work.

    Attributes:
        source: Path of the scene or tile store.
        nodata: Nodata value of the scene.
        model: Path of the model file.
        labels: Path of the label store.
        tiles: How the scene is cut.
        run: Hash of all that decides the labels.
        device: Where to compute.
        confidence: Whether the confidence is kept.
    """

    source: str
    nodata: float | None
    model: str
    labels: str
    tiles: TileGrid
    run: str
    device: str
    confidence: bool


@dataclass(frozen=True)
class PredictPlan:
    """A run before any pixel is read.

    Attributes:
        job: What workers will be told.
        model: The model.
        source: The scene or store.
        run: Tile size, tiles in flight, memory.
        output: The map to be written.
    """

    job: LabelJob
    model: FittedModel
    source: ComponentSource
    run: RunPlan
    output: Path

    @property
    def grid(self) -> PixelGrid:
        """Pixel grid of the map."""
        return self.source.grid.crop(self.job.tiles.area)

    def facts(self) -> dict[str, object]:
        """The plan as JSON values, for `--dry-run`."""
        tiles, scene = self.job.tiles, self.source
        read = sum(tile.read.pixels for tile in tiles)
        facts: dict[str, object] = {
            "source": self.job.source,
            "output": str(self.output),
            "method": self.model.method.name,
            "device": self.job.device,
            "pixels": tiles.area.pixels,
            "tiles": len(tiles),
            "tile": [tiles.tile_rows, tiles.tile_cols],
            "halo": tiles.halo,
            "tiles_in_flight": self.run.in_flight,
            "bytes_per_tile": self.run.tile_bytes,
            "bytes_peak": self.run.peak_bytes,
        }
        if isinstance(scene, SceneComponents):
            pixel = len(scene.bands) * np.dtype(scene.scene.dtype).itemsize
            facts |= {"layout": scene.scene.layout, "bytes_read": read * pixel}
        return facts


def plan_prediction(
    scene: str, model_path: Path, output: Path, options: PredictOptions
) -> PredictPlan:
    """Open everything, check that it fits together, and plan the run.

    Raises:
        InputError: The scene cannot be used.
        ModelError: The model cannot be used, or not with this scene.
        UsageError: The output exists, or an option is out of range.
    """
    driver = driver_for(output, options.driver)
    refuse_inputs(output, scene, model_path)
    device = resolve_device(options.device)
    model = load_model(model_path)
    source = open_source(scene, options.nodata, model, device)
    _warn_of_nodata(source, model)
    area = source.grid.window
    if options.bounds is not None:
        area = source.grid.window_of_bounds(*options.bounds)
    labels = output.with_name(f".{output.name}.labels.zarr")
    run = _run_hash(source, model_path, area, options.confidence)
    earlier = LabelStore.tile_of_run(labels, run)
    # A run that goes on may find maps that it wrote itself before it was killed.
    for path in (output, confidence_path(output)) if options.confidence else (output,):
        refuse_existing(path, options.overwrite or earlier is not None)
    form = MapFormat(driver, 512, options.creation)
    rehearse_map(source.grid.crop(area), output, model.classes, form)
    tile = options.tile or earlier
    plan = _plan(source, model, area, options, tile)
    tiles = TileGrid(source.grid.window, area, plan.tile_rows, plan.tile_cols, model.method.halo)
    if isinstance(source, TileStore):
        if area != source.grid.window:
            raise UsageError(f"{scene}: a tile store is labelled whole, without --bounds")
        tiles = source.tiles
    job = LabelJob(
        source=scene,
        nodata=options.nodata,
        model=str(model_path),
        labels=str(labels),
        tiles=tiles,
        run=run,
        device=str(device),
        confidence=options.confidence,
    )
    return PredictPlan(job, model, source, plan, output)


def predict(
    plan: PredictPlan,
    options: PredictOptions,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Label a scene and write its map.

    Args:
        plan: From `plan_prediction`.
        options: The same as there.
        progress: Called with tiles done and tiles in all.

    Raises:
        OutputExistsError: An unfinished run of something else is in the way.
        HsiclustError: A tile failed for good; finished tiles stay for the next start.
    """
    start = perf_counter()
    job, output = plan.job, plan.output
    store = LabelStore(Path(job.labels), job.tiles)
    with locked(output):
        store.open_or_create(job.run, options.overwrite)
        todo = store.missing()
        resumed = len(job.tiles) - len(todo)
        if resumed:
            log.info("going on with an earlier run: %d of %d tiles done", resumed, len(job.tiles))
        done, labelled = resumed, 0
        engine = options.engine.limited_to(plan.run.in_flight)
        for _, pixels in run_tiles(label_tile, job, todo, engine):
            done, labelled = done + 1, labelled + pixels
            if progress is not None:
                progress(done, len(job.tiles))
        confidence = _write(plan, store, options)
        remove(store.path)
    if labelled == 0 and not resumed:
        log.warning(
            "%s: not one pixel got a class: each is nodata or not finite in a band that the model "
            "needs",
            output,
        )
    return Prediction(
        map=output,
        confidence=confidence,
        pixels=job.tiles.area.pixels,
        labelled=labelled,
        tiles=len(job.tiles),
        resumed=resumed,
        seconds=perf_counter() - start,
    )


def label_tile(job: LabelJob, index: int) -> int:
    """Read, label and write one tile; returns its number of labelled pixels."""
    source, labeller, store = _workbench(job)
    tile = job.tiles[index]
    labels = labeller(source.read(tile), job.tiles.halo)
    store.write(tile, labels.classes, labels.confidence if job.confidence else None)
    return int((labels.classes > 0).sum())


def _workbench(job: LabelJob) -> tuple[ComponentSource, Labeller, LabelStore]:
    """What a job needs, opened once a process; threads that come first wait for each other."""
    with _OPENING:
        return _opened(job)


@functools.lru_cache(maxsize=2)
def _opened(job: LabelJob) -> tuple[ComponentSource, Labeller, LabelStore]:
    device = resolve_device(job.device)
    model = load_model(Path(job.model))
    source = open_source(job.source, job.nodata, model, device)
    return source, Labeller(model.method, device), LabelStore(Path(job.labels), job.tiles)


def _warn_of_nodata(source: ComponentSource, model: FittedModel) -> None:
    if not isinstance(source, SceneComponents) or model.nodata is None:
        return
    if source.scene.nodata is None:
        log.warning(
            "%s: declares no nodata value (the model's scene had %g); every pixel is labelled "
            "unless --nodata names one",
            source.scene.path,
            model.nodata,
        )


def confidence_path(output: Path) -> Path:
    """Where the confidence map of a label map goes."""
    return output.with_name(f"{output.stem}_confidence{output.suffix}")


def _plan(
    source: ComponentSource,
    model: FittedModel,
    area: Window,
    options: PredictOptions,
    tile: int | None,
) -> RunPlan:
    scene = source.scene if isinstance(source, SceneComponents) else None
    load = TileLoad(
        bands=len(model.transform.bands),
        dtype=scene.dtype if scene is not None else "float16",
        components=model.transform.components,
        floats=model.method.floats_per_pixel,
        halo=model.method.halo,
        fixed=model.method.fixed_bytes,
    )
    grid = source.grid.crop(area)
    return plan_run(grid, load, options.engine, options.memory, tile)


def _run_hash(source: ComponentSource, model: Path, area: Window, confidence: bool) -> str:
    """What decides the labels; a resume into a store of anything else is refused."""
    text = json.dumps([source.identity, file_digest(model), str(area), confidence, __version__])
    return hashlib.sha256(text.encode()).hexdigest()


def _write(plan: PredictPlan, store: LabelStore, options: PredictOptions) -> Path | None:
    """Write the maps from the finished store; returns the confidence map."""
    tags = {
        "TIFFTAG_SOFTWARE": f"hsiclust {__version__}",
        "HSICLUST_VERSION": __version__,
        "HSICLUST_METHOD": plan.model.method.name,
        "HSICLUST_CLASSES": str(plan.model.method.classes),
        "HSICLUST_MODEL_SHA256": file_digest(Path(plan.job.model)),
        "HSICLUST_SCENE": Path(plan.job.source).name,
    }
    driver = driver_for(plan.output, options.driver)
    form = MapFormat(driver, store.tiles.tile_rows, options.creation, tags)
    confidence = None
    if options.confidence:
        confidence = confidence_path(plan.output)
        write_confidence(_ConfidenceOf(store), plan.grid, confidence, form)
    write_map(store, plan.grid, plan.output, plan.model.classes, form)
    return confidence


@dataclass(frozen=True)
class _ConfidenceOf:
    """The confidence of a label store, read like labels."""

    store: LabelStore

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Confidence of a window, `(row, col)`."""
        return self.store.read_confidence(window)

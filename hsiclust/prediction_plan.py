"""What a labelling is going to do, before any pixel is read: opened, checked, planned."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hsiclust import __version__
from hsiclust.components import ComponentSource, SceneComponents
from hsiclust.devices import resolve_device
from hsiclust.engine import EngineOptions
from hsiclust.errors import UsageError
from hsiclust.grid import PixelGrid, TileGrid, Window
from hsiclust.labelmap import rehearse_map
from hsiclust.labels import LabelStore
from hsiclust.mapformat import MapFormat, driver_for
from hsiclust.modelfile import FittedModel, file_digest, load_model
from hsiclust.output import refuse_existing, refuse_inputs
from hsiclust.plan import RunPlan, TileLoad, plan_run
from hsiclust.sources import open_source
from hsiclust.tiles import TileStore

log = logging.getLogger(__name__)

Bounds = tuple[float, float, float, float]


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

"""What a labelling is going to do, before any pixel is read: opened, checked, planned."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from hsiclust import __version__
from hsiclust.caveats import warn_of_panels, warn_of_scene
from hsiclust.components import SceneComponents
from hsiclust.cutting import block_side, cut_source
from hsiclust.devices import resolve_device
from hsiclust.engine import EngineOptions
from hsiclust.errors import UsageError
from hsiclust.grid import PixelGrid, Window
from hsiclust.labeljob import LabelJob
from hsiclust.labelmap import rehearse_map
from hsiclust.labelmodel import LabelModel, open_model
from hsiclust.labels import LabelStore
from hsiclust.legend import is_map_of
from hsiclust.location import store_location
from hsiclust.mapformat import MapFormat, driver_for
from hsiclust.modelfile import file_digest
from hsiclust.models.base import Precision
from hsiclust.output import refuse_existing, refuse_inputs, refuse_long_name, refuse_missing_folder
from hsiclust.plan import RunPlan
from hsiclust.predictoptions import PredictOptions, placed
from hsiclust.remote import absolute_name
from hsiclust.sources import open_source
from hsiclust.tiles import TileStore

log = logging.getLogger(__name__)

_HALF = 2  # bytes of a float16, which tile stores hold
# Pixels from which on a trial, of a third of a second, takes less time than it may save.
_WORTH_A_TRIAL = 2**26


@dataclass(frozen=True)
class PredictPlan:
    """A run before any pixel is read.

    Attributes:
        job: What workers will be told.
        model: The model.
        source: The scene or store.
        run: Tile size, tiles in flight, memory.
        output: The map to be written.
        trial: Whether a trial on the scene is to say in which precision the network computes.
        engine: Where strips are worked on.
    """

    job: LabelJob
    model: LabelModel
    source: SceneComponents | TileStore
    run: RunPlan
    output: Path
    trial: bool
    engine: EngineOptions

    @property
    def maps(self) -> list[Path]:
        """The files that are to be written."""
        return map_paths(self.output, self.job.confidence)

    @property
    def written(self) -> list[Path]:
        """What this run alone may write: its maps, and a store that has a name of its own."""
        store, hidden = store_location(self.job.labels), _hidden_labels(self.output)
        if not isinstance(store, Path) or store.absolute() == hidden.absolute():
            return self.maps
        return [*self.maps, store]

    def refuse_maps(self, overwrite: bool) -> None:
        """Check again, when no other run may write them, that the maps may be written.

        Raises:
            OutputExistsError: One is there by now.
        """
        earlier = LabelStore.record_of_run(self.job.labels, self.job.run)
        _refuse_maps(self.maps, self.job, overwrite, earlier is not None)

    @property
    def marks(self) -> Path:
        """Folder in which shards say that they were started."""
        return self.output.with_name(f".{self.output.name}.shards")

    @property
    def grid(self) -> PixelGrid:
        """Pixel grid of the map."""
        return self.source.grid.crop(self.job.tiles.area)

    @property
    def bytes_read(self) -> int:
        """Bytes of pixels that are read, uncompressed; of blocks that are decoded, all."""
        if isinstance(self.source, TileStore):
            return self.job.tiles.area.pixels * _HALF * self.source.transform.components
        scene = self.source.scene
        decodes = scene.decoding is not None and scene.decoding.block > 0
        pixels = self.job.reading.pixels_read(scene.blocks if decodes else (1, 1))
        return pixels * len(self.source.bands) * np.dtype(scene.dtype).itemsize

    def facts(self) -> dict[str, object]:
        """The plan as JSON values, for `--dry-run`."""
        tiles, reading = self.job.tiles, self.job.reading
        facts: dict[str, object] = {
            "source": self.job.source,
            "output": str(self.output),
            "method": self.model.method,
            "device": self.job.device,
            "pixels": tiles.area.pixels,
            "tiles": len(tiles),
            "tile": [tiles.tile_rows, tiles.tile_cols],
            "halo": tiles.halo,
            "strips": len(reading),
            "strips_in_flight": self.run.in_flight,
            "threads": self.job.threads,
            "processes": self.run.workers,
            "bytes_per_strip": self.run.host.step + self.run.host.strip,
            "bytes_peak": self.run.peak_bytes,
            "bytes_peak_of_device": self.run.device_bytes,
        }
        if isinstance(self.source, SceneComponents):
            facts |= {
                "layout": self.source.scene.layout,
                "reads": reading.count,
                "read": list(reading.largest),
                "bytes_read": self.bytes_read,
            }
        return facts


def plan_prediction(
    scene: str, model_path: str | Path, output: str | Path, options: PredictOptions
) -> PredictPlan:
    """Open everything, check that it fits together, and plan the run.

    Raises:
        InputError: The scene cannot be used.
        ModelError: The model cannot be used, or not with this scene.
        UsageError: The output exists, or an option is out of range.
    """
    model_path, output = Path(model_path), Path(output)
    driver = driver_for(output, options.driver)
    options = placed(options)
    # Each worker of a standing cluster finds its own device.
    device = resolve_device("cpu" if options.engine.standing else options.device)
    if options.engine.standing:  # its workers have folders of their own
        scene, model_path = absolute_name(scene), model_path.absolute()
    model = open_model(model_path)
    precision = _precision(model, model_path, options.precision)
    source = open_source(scene, options.nodata, model, device)
    outputs = map_paths(output, options.confidence)
    for path in outputs:
        refuse_long_name(path)
    _refuse_inputs(outputs, options.store, source, scene, model_path)
    if isinstance(source, SceneComponents):
        warn_of_scene(source.scene, model)
    area = source.grid.window
    if options.bounds is not None:
        area = source.grid.window_of_bounds(*options.bounds)
    labels = options.store or str(_hidden_labels(output))
    if options.engine.standing:
        labels = absolute_name(labels)
    identity, digest = source.identity, file_digest(model_path)
    run_hash = _run_hash(identity, digest, area, options)
    earlier = LabelStore.record_of_run(labels, run_hash)
    form = MapFormat(driver, 512, options.creation)
    kept = None
    if earlier is not None and options.tile in (None, earlier.reading.tiles.tile_rows):
        kept, precision = earlier.reading, cast(Precision, earlier.precision)
    run, reading = cut_source(source, model, area, device, options, kept)
    if isinstance(source, SceneComponents):
        warn_of_panels(source.scene, reading)
    job = LabelJob(
        source=scene,
        nodata=options.nodata,
        model=str(model_path),
        labels=labels,
        reading=reading,
        run=run_hash,
        device=options.device if options.engine.standing else str(device),
        confidence=options.confidence,
        threads=run.threads,
        block=block_side("cuda" if options.device.startswith("cuda") else device.type),
        precision=precision,
        identity=identity,
        digest=digest,
    )
    _refuse_maps(outputs, job, options.overwrite, earlier is not None)
    rehearse_map(source.grid.crop(area), output, model.classes, form, confidence=options.confidence)
    asked = options.precision == "auto" and len(model.precisions) > 1
    tried = asked and earlier is None and not options.engine.standing
    trial = tried and area.pixels >= _WORTH_A_TRIAL
    return PredictPlan(job, model, source, run, output, trial, options.engine)


def _refuse_inputs(
    outputs: Sequence[Path],
    store: str | None,
    source: SceneComponents | TileStore,
    scene: str,
    model: Path,
) -> None:
    """Check that neither maps nor labels would replace what they are made from, or each other."""
    read = source.scene if isinstance(source, SceneComponents) else None
    data = (read.path, *read.sources) if read is not None else ()
    written = list(outputs)
    if store is not None and isinstance(place := store_location(store), Path):
        if place in outputs:
            raise UsageError(f"--store {store}: is the map itself; name another store")
        refuse_missing_folder(place)
        written.append(place)
    for path in written:
        refuse_inputs(path, scene, *data, model)


def _refuse_maps(outputs: Sequence[Path], job: LabelJob, overwrite: bool, goes_on: bool) -> None:
    """Check that maps may be written; one that goes on may find those that it wrote itself."""
    for path in outputs:
        own = goes_on and is_map_of(path, job.source, job.digest)
        refuse_existing(path, overwrite or own)


def _precision(model: LabelModel, path: Path, asked: str) -> Precision:
    """What the network computes in, until a trial says better."""
    if asked == "auto":
        return model.precisions[0]
    for precision in model.precisions:
        if precision == asked:
            return precision
    raise UsageError(f"{path}: this model computes in {' or '.join(model.precisions)}, not {asked}")


def _hidden_labels(output: Path) -> Path:
    """Where the labels of a map are kept until it is written, unless the user says where."""
    return output.with_name(f".{output.name}.labels.zarr")


def map_paths(output: Path, confidence: bool) -> list[Path]:
    """Where the maps of a scene go."""
    return [output, confidence_path(output)] if confidence else [output]


def confidence_path(output: Path) -> Path:
    """Where the confidence map of a label map goes."""
    return output.with_name(f"{output.stem}_confidence{output.suffix}")


def _run_hash(identity: str, digest: str, area: Window, options: PredictOptions) -> str:
    """What decides the labels; a resume into a store of anything else is refused."""
    facts = [identity, digest, str(area), options.confidence, __version__]
    return hashlib.sha256(json.dumps([*facts, options.precision]).encode()).hexdigest()
